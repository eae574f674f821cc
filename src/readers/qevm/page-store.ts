/**
 * Where in a stream each page of a RAM block is. Two MiB of memory share a chunk: pages that follow each other in the
 * stream, as in its first pass, take 72 bytes a chunk; others, as in a live guest's later passes, 3 KiB.
 */
import { popcount } from '../../core/bits.ts';
import { firstIndex } from '../../core/sorted.ts';
import { PAGE_SIZE } from '../../core/units.ts';

/** How a page is kept: what to do with the bytes at its offset. */
export type PagePlace =
  | { kind: 'absent' }
  | { kind: 'fill'; byte: number }
  | { kind: 'raw'; offset: number }
  /** A 32-bit length, then zlib. */
  | { kind: 'compressed'; offset: number }
  /** Index of the last of its differences. */
  | { kind: 'delta'; delta: number };

const CHUNK_PAGES = 512;
/** Bytes from one record to the next when the block's name isn't repeated. */
const RAW_RECORD = 8 + PAGE_SIZE;
const FILL_RECORD = 8 + 1;

const KINDS = ['absent', 'fill', 'raw', 'compressed', 'delta'] as const;
/** Of a 48-bit word the upper 4 bits are the kind, the lower 44 its number: 16 TiB of stream. */
const KIND_SHIFT = 12;
export const MAX_STREAM = 2 ** 44;

interface Table {
  low: Uint32Array;
  high: Uint16Array;
}

/** All pages raw or zero, their records one after another. */
interface Sequence {
  /** Offset of the first page's record. */
  base: number;
  /** A bit for each raw page. */
  raw: Uint32Array;
}

type Chunk = Table | Sequence | 'zeros';

export class PageStore {
  readonly pages: number;
  /** By index; only those that have pages: a damaged stream can claim any size. */
  readonly #chunks = new Map<number, Chunk>();
  /** Their indexes in order, once they are asked for. */
  #sorted: number[] | undefined;
  /** The one that is being filled. */
  #open = -1;

  constructor(pages: number) {
    this.pages = pages;
  }

  /** Says where a page is; the last word counts. */
  set(page: number, kind: Exclude<PagePlace['kind'], 'absent'>, value: number): void {
    const index = Math.floor(page / CHUNK_PAGES);
    if (index !== this.#open) {
      this.close();
      this.#open = index;
    }
    const table = this.#table(index);
    table.low[page % CHUNK_PAGES] = value % 2 ** 32;
    table.high[page % CHUNK_PAGES] = Math.floor(value / 2 ** 32) | (KINDS.indexOf(kind) << KIND_SHIFT);
  }

  /** Packs the chunk that was filled last. */
  close(): void {
    const chunk = this.#chunks.get(this.#open);
    if (chunk !== undefined && chunk !== 'zeros' && 'low' in chunk) this.#chunks.set(this.#open, packed(chunk));
    this.#open = -1;
  }

  get(page: number): PagePlace {
    const chunk = this.#chunks.get(Math.floor(page / CHUNK_PAGES));
    const i = page % CHUNK_PAGES;
    if (chunk === undefined) return { kind: 'absent' };
    if (chunk === 'zeros') return { kind: 'fill', byte: 0 };
    if ('low' in chunk) return placeIn(chunk, i);
    if (!hasBit(chunk.raw, i)) return { kind: 'fill', byte: 0 };
    return { kind: 'raw', offset: recordAt(chunk, i) + 8 };
  }

  /** Pages from `page` on that are absent, or that are not, as `page` itself. */
  run(page: number): { absent: boolean; pages: number } {
    const absent = this.get(page).kind === 'absent';
    let next = page + 1;
    while (next < this.pages) {
      const index = Math.floor(next / CHUNK_PAGES);
      const chunk = this.#chunks.get(index);
      // Packed chunks lack nothing.
      if (next % CHUNK_PAGES === 0 && (chunk === undefined || chunk === 'zeros' || 'raw' in chunk)) {
        if ((chunk === undefined) !== absent) break;
        next = chunk === undefined ? this.#chunkAfter(index) * CHUNK_PAGES : next + CHUNK_PAGES;
      } else if ((this.get(next).kind === 'absent') === absent) next++;
      else break;
    }
    return { absent, pages: Math.min(next, this.pages) - page };
  }

  /** The first chunk behind an index that has pages; beyond all pages where none has. */
  #chunkAfter(index: number): number {
    this.#sorted ??= [...this.#chunks.keys()].sort((a, b) => a - b);
    const sorted = this.#sorted;
    return sorted[firstIndex(sorted.length, (i) => sorted[i]! > index)] ?? Number.POSITIVE_INFINITY;
  }

  #table(index: number): Table {
    const chunk = this.#chunks.get(index);
    if (chunk !== undefined && chunk !== 'zeros' && 'low' in chunk) return chunk;
    const table: Table = { low: new Uint32Array(CHUNK_PAGES), high: new Uint16Array(CHUNK_PAGES) };
    if (chunk !== undefined) {
      for (let i = 0; i < CHUNK_PAGES; i++) {
        const place = this.get(index * CHUNK_PAGES + i);
        const value = place.kind === 'raw' ? place.offset : 0;
        table.low[i] = value % 2 ** 32;
        table.high[i] = Math.floor(value / 2 ** 32) | (KINDS.indexOf(place.kind) << KIND_SHIFT);
      }
    }
    this.#chunks.set(index, table);
    if (chunk === undefined) this.#sorted = undefined;
    return table;
  }
}

function placeIn({ low, high }: Table, i: number): PagePlace {
  const word = high[i]!;
  const value = (word & ((1 << KIND_SHIFT) - 1)) * 2 ** 32 + low[i]!;
  const kind = KINDS[word >>> KIND_SHIFT]!;
  if (kind === 'absent') return { kind };
  if (kind === 'fill') return { kind, byte: value };
  if (kind === 'delta') return { kind, delta: value };
  return { kind, offset: value };
}

const hasBit = (bits: Uint32Array, i: number) => ((bits[i >>> 5]! >>> (i & 31)) & 1) === 1;

function recordAt({ base, raw }: Sequence, i: number): number {
  let before = 0;
  for (let word = 0; word < i >>> 5; word++) before += popcount(raw[word]!);
  before += popcount(raw[i >>> 5]! & ((1 << (i & 31)) - 1));
  return base + before * RAW_RECORD + (i - before) * FILL_RECORD;
}

/** The same in less space, where all its pages are zero, or raw or zero and one after another. */
function packed(table: Table): Chunk {
  const sequence: Sequence = { base: 0, raw: new Uint32Array(CHUNK_PAGES / 32) };
  let any = false;
  for (let i = 0; i < CHUNK_PAGES; i++) {
    const place = placeIn(table, i);
    if (place.kind === 'raw') {
      if (!any) sequence.base = place.offset - 8 - i * FILL_RECORD;
      any = true;
      sequence.raw[i >>> 5]! |= 1 << (i & 31);
      if (recordAt(sequence, i) + 8 !== place.offset) return table;
    } else if (place.kind !== 'fill' || place.byte !== 0) return table;
  }
  return any ? sequence : 'zeros';
}
