/** A few bits for each whole page that an image holds, whatever its addresses are. */
import { PAGE_SIZE } from '../core/units.ts';
import type { MemoryImage } from './image.ts';
import { type Extent, endOf, firstEndingAfter } from './runs.ts';

/** Longer runs are split: whoever goes through them has to look up now and then. */
const MAX_RUN = 1 << 20;

/** Bits for each whole page of an image, found by physical address. */
export class PageMap {
  readonly extents: readonly Extent[];
  /** Whole pages in the image. */
  readonly pages: number;
  /** By index of page. */
  readonly bits: Uint16Array;
  /** Index of each extent's first page. */
  readonly #first: number[] = [];
  /** The extent that was found last: neighbours are asked for one after the other. */
  #last = { start: 0, end: 0, first: 0 };

  constructor(image: MemoryImage) {
    this.extents = image.pageExtents().extents;
    let pages = 0;
    for (const { size } of this.extents) {
      this.#first.push(pages);
      pages += size / PAGE_SIZE;
    }
    this.pages = pages;
    this.bits = new Uint16Array(pages);
  }

  /** The page's index; -1 where it is not, or not as a whole, in the image. */
  indexOf(address: number): number {
    const { start, end, first } = this.#last;
    if (address >= start && address < end) return first + Math.floor((address - start) / PAGE_SIZE);
    const at = firstEndingAfter(this.extents, address);
    const extent = this.extents[at];
    if (!extent || address < extent.start) return -1;
    this.#last = { start: extent.start, end: endOf(extent), first: this.#first[at]! };
    return this.#first[at]! + Math.floor((address - extent.start) / PAGE_SIZE);
  }

  /** Sets `bits` in the pages of [address, address + size) that are present. Returns false where none is. */
  mark(address: number, size: number, bits: number): boolean {
    const end = address + size;
    let any = false;
    for (let at = firstEndingAfter(this.extents, address); at < this.extents.length; at++) {
      const extent = this.extents[at]!;
      if (extent.start >= end) break;
      const from = Math.max(0, Math.floor((address - extent.start) / PAGE_SIZE));
      const to = Math.ceil((Math.min(end, endOf(extent)) - extent.start) / PAGE_SIZE);
      const first = this.#first[at]!;
      for (let i = first + from; i < first + to; i++) this.bits[i]! |= bits;
      any = true;
    }
    return any;
  }

  /** All pages, in ascending order, as runs of adjacent ones with the same bits: of at most `MAX_RUN` pages. */
  *runs(): Generator<PageRun> {
    const { bits } = this;
    let index = 0;
    for (const { start, size } of this.extents) {
      const first = index;
      const end = first + size / PAGE_SIZE;
      while (index < end) {
        const from = index;
        const same = bits[index]!;
        const limit = Math.min(end, from + MAX_RUN);
        do index++;
        while (index < limit && bits[index] === same);
        yield { start: start + (from - first) * PAGE_SIZE, pages: index - from, bits: same };
      }
    }
  }
}

/** Adjacent pages with the same bits. */
export interface PageRun {
  /** Physical address. */
  start: number;
  pages: number;
  bits: number;
}
