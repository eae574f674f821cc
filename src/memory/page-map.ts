/** A few bits for each whole page that an image holds, whatever its addresses are. */
import type { Pulse } from '../core/pulse.ts';
import { PAGE_SIZE, pa } from '../core/units.ts';
import type { MemoryImage } from './image.ts';
import { append, type Extent, endOf, firstEndingAfter } from './runs.ts';

/** Pages that are looked at in some milliseconds. */
const BEAT_PAGES = 1 << 14;

/** Bits for each whole page of an image, found by physical address. */
export class PageMap {
  readonly extents: readonly Extent[];
  /** Whole pages in the image. */
  readonly pages: number;
  /** By index of page. */
  readonly bits: Uint16Array;
  /** Index of each extent's first page. */
  readonly #first: number[] = [];

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
    const at = firstEndingAfter(this.extents, address);
    const extent = this.extents[at];
    if (!extent || address < extent.start) return -1;
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

  /** Every page in ascending order. */
  *[Symbol.iterator](): Generator<{ index: number; address: number }> {
    let index = 0;
    for (const { start, size } of this.extents) {
      for (let at = 0; at < size; at += PAGE_SIZE) yield { index: index++, address: start + at };
    }
  }

  /** The pages for which `keep` says true, as sorted maximal extents. */
  async select(keep: (index: number, address: number) => boolean, pulse: Pick<Pulse, 'beat'>): Promise<Extent[]> {
    const kept: Extent[] = [];
    let index = 0;
    for (const { start, size } of this.extents) {
      for (let at = 0; at < size; at += PAGE_SIZE, index++) {
        if (index % BEAT_PAGES === 0) await pulse.beat();
        if (keep(index, start + at)) append(kept, { start: pa(start + at), size: PAGE_SIZE });
      }
    }
    return kept;
  }
}
