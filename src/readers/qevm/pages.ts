/** Reads pages where a stream has them. */
import type { Diagnostics } from '../../core/errors.ts';
import { hex, MIB, PAGE_SIZE } from '../../core/units.ts';
import type { RunReader } from '../../memory/image.ts';
import type { PhysicalRun } from '../../memory/runs.ts';
import { type ByteSource, readUpTo } from '../../source/source.ts';
import type { Piece } from './layout.ts';
import { type PagePlace, PageStore } from './page-store.ts';
import { inflatedPage } from './placing.ts';
import { applyDelta, type DeltaList, type MappedPages, type RamBlock } from './ram.ts';

/** Bytes of the stream that are read together for pages that follow each other. */
const MAX_SPAN = MIB;
/** Differences to one page that are followed: each of a live migration's rounds adds one at most. */
const MAX_DELTAS = 100_000;

/** Pages to fill, which one read brings. */
interface Span {
  from: number;
  length: number;
  /** Offsets in the span and in the target, and bytes. */
  copies: { from: number; to: number; length: number }[];
}

export class StreamPages implements RunReader {
  readonly #source: ByteSource;
  readonly #deltas: DeltaList;
  readonly #pieces: ReadonlyMap<PhysicalRun, Piece>;
  readonly #diagnostics: Diagnostics;
  readonly #bitmaps = new Map<MappedPages, Buffer>();
  /** Used again: as many as there are reads at once. */
  readonly #free: Buffer[] = [];

  constructor(
    source: ByteSource,
    deltas: DeltaList,
    pieces: ReadonlyMap<PhysicalRun, Piece>,
    diagnostics: Diagnostics,
  ) {
    this.#source = source;
    this.#deltas = deltas;
    this.#pieces = pieces;
    this.#diagnostics = diagnostics;
  }

  readSync(run: PhysicalRun, offset: number, target: Buffer): boolean {
    const { block, from } = this.#locate(run, offset);
    if ('file' in block.pages) {
      block.pages.file.readSync(from, target);
      return true;
    }
    const spans: Span[] = [];
    const sound = this.#plan(block, from, target, spans);
    for (const { from: at, length, copies } of spans) {
      const buffer = this.#take();
      this.#source.readSync(at, buffer.subarray(0, length));
      copyOut(buffer, copies, target);
      this.#free.push(buffer);
    }
    return sound;
  }

  async read(run: PhysicalRun, offset: number, target: Buffer): Promise<void> {
    const { block, from } = this.#locate(run, offset);
    if ('file' in block.pages) return block.pages.file.read(from, target);
    const spans: Span[] = [];
    this.#plan(block, from, target, spans);
    for (const { from: at, length, copies } of spans) {
      const buffer = this.#take();
      await this.#source.read(at, buffer.subarray(0, length));
      copyOut(buffer, copies, target);
      this.#free.push(buffer);
    }
  }

  #take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(MAX_SPAN);
  }

  #locate(run: PhysicalRun, offset: number): { block: RamBlock; from: number } {
    const piece = this.#pieces.get(run)!;
    return { block: piece.block, from: piece.offset + (run.start - piece.start) + offset };
  }

  /** Fills what needs no large read, and says what to read for the rest. False where a page is damaged: it is zeros. */
  #plan(block: RamBlock, from: number, target: Buffer, spans: Span[]): boolean {
    let sound = true;
    for (let to = 0; to < target.length; ) {
      const at = from + to;
      const inPage = at % PAGE_SIZE;
      const length = Math.min(PAGE_SIZE - inPage, target.length - to);
      const place = this.#place(block, Math.floor(at / PAGE_SIZE));
      if (place.kind === 'fill') target.fill(place.byte, to, to + length);
      else if (place.kind === 'raw') addCopy(spans, place.offset + inPage, { to, length });
      else {
        const page = this.#whole(place);
        if (page) page.copy(target, to, inPage, inPage + length);
        else {
          target.fill(0, to, to + length);
          sound = false;
          this.#damaged(block, at - inPage);
        }
      }
      to += length;
    }
    return sound;
  }

  #place({ pages, size }: RamBlock, page: number): PagePlace {
    if (pages instanceof PageStore) return pages.get(page);
    if (!('bitmapOffset' in pages)) throw new Error('its pages are in a file');
    const bitmap = this.#bitmap(pages, size);
    const set = (bitmap[page >>> 3]! >>> (page & 7)) & 1;
    return set === 1 ? { kind: 'raw', offset: pages.pagesOffset + page * PAGE_SIZE } : { kind: 'fill', byte: 0 };
  }

  #bitmap(pages: MappedPages, size: number): Buffer {
    let bitmap = this.#bitmaps.get(pages);
    if (!bitmap) {
      bitmap = readBitmap(this.#source, pages, size);
      this.#bitmaps.set(pages, bitmap);
    }
    return bitmap;
  }

  /** A page that has to be made; undefined where it can't be. */
  #whole(place: PagePlace): Buffer | undefined {
    const page = Buffer.alloc(PAGE_SIZE);
    const deltas: Buffer[] = [];
    let base = place;
    while (base.kind === 'delta' && deltas.length < MAX_DELTAS) {
      const { offset, length, before } = this.#deltas.at(base.delta);
      deltas.push(readUpTo(this.#source, offset, length));
      base = before;
    }
    if (base.kind === 'fill') page.fill(base.byte);
    else if (base.kind === 'raw') this.#source.readSync(base.offset, page);
    else if (base.kind !== 'compressed' || !this.#inflate(base.offset, page)) return undefined;
    return deltas.reverse().every((delta) => applyDelta(page, delta)) ? page : undefined;
  }

  #inflate(offset: number, page: Buffer): boolean {
    const length = readUpTo(this.#source, offset, 4).readUInt32BE();
    return inflatedPage(readUpTo(this.#source, offset + 4, length))?.copy(page) === PAGE_SIZE;
  }

  #damaged(block: RamBlock, at: number): void {
    reportDamagedPage(this.#diagnostics, block, at);
  }
}

/** A bit for each page of a block of `size` bytes: clear, and the page is zero. */
export const readBitmap = (source: ByteSource, { bitmapOffset }: MappedPages, size: number): Buffer =>
  readUpTo(source, bitmapOffset, Math.ceil(size / PAGE_SIZE / 8));

/** @param at byte offset of a page that can't be made in its block */
export function reportDamagedPage(diagnostics: Diagnostics, { name }: RamBlock, at: number): void {
  diagnostics.add(
    'loss',
    'page-damaged',
    `the page at ${hex(at)} of the RAM block ${name} is damaged: it is zeros in the dump`,
    { page: hex(at) },
  );
}

/** Between pages that follow each other are the records of some pages of zeros. */
const MAX_GAP = 8192;

function addCopy(spans: Span[], offset: number, { to, length }: { to: number; length: number }): void {
  const last = spans.at(-1);
  const gap = last ? offset - last.from - last.length : -1;
  if (last && gap >= 0 && gap <= MAX_GAP && offset + length - last.from <= MAX_SPAN) {
    last.copies.push({ from: offset - last.from, to, length });
    last.length = offset + length - last.from;
  } else spans.push({ from: offset, length, copies: [{ from: 0, to, length }] });
}

function copyOut(bytes: Buffer, copies: Span['copies'], target: Buffer): void {
  for (const { from, to, length } of copies) bytes.copy(target, to, from, from + length);
}
