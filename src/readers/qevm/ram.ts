/** The `ram` sections of a stream: which blocks there are, and where each of their pages is. */
import { hex, PAGE_SIZE } from '../../core/units.ts';
import { MAPPED_RAM_VERSION, RamFlag } from '../../formats/qevm.ts';
import type { ByteSource } from '../../source/source.ts';
import { Busy, type Cursor } from './cursor.ts';
import { type PagePlace, PageStore } from './page-store.ts';

/** A RAM block as QEMU's memory backends make them: `pc.ram`, `vga.vram`, `/rom@etc/acpi/tables`. */
export interface RamBlock {
  name: string;
  /** Bytes. */
  size: number;
  pages: PageStore | PlacedPages | MappedPages | FilePages;
  /** With x-ignore-shared: its address, and its pages may be in the backing file alone. */
  shared: number | undefined;
}

/** Pages at fixed places in the file (mapped-ram). A page whose bit is clear is zero, whatever lies there. */
export interface MappedPages {
  bitmapOffset: number;
  pagesOffset: number;
}

/** All of the block's pages, in a file of their own (x-ignore-shared). */
export interface FilePages {
  file: ByteSource;
}

/** Something in the stream is not as it can be: a clause for a message. */
export class StreamFault extends Error {
  readonly offset: number;

  constructor(what: string, offset: number) {
    super(what);
    this.offset = offset;
  }
}

/** Where a page that came is. */
export type PresentPlace = Exclude<PagePlace, { kind: 'absent' }>;

/** Differences to pages (xbzrle), each with the one before it of the same page. */
export class DeltaList {
  #offsets = new Float64Array(256);
  #lengths = new Uint16Array(256);
  /** The place of what the page held before. */
  readonly #before: PresentPlace[] = [];

  get length(): number {
    return this.#before.length;
  }

  /** @returns the index of the new entry */
  add(offset: number, length: number, before: PresentPlace): number {
    const at = this.#before.length;
    if (at === this.#offsets.length) {
      const [offsets, lengths] = [new Float64Array(2 * at), new Uint16Array(2 * at)];
      offsets.set(this.#offsets);
      lengths.set(this.#lengths);
      this.#offsets = offsets;
      this.#lengths = lengths;
    }
    this.#offsets[at] = offset;
    this.#lengths[at] = length;
    this.#before.push(before);
    return at;
  }

  at(index: number) {
    return { offset: this.#offsets[index]!, length: this.#lengths[index]!, before: this.#before[index]! };
  }
}

/** Physical addresses have 52 bits. */
const MAX_BLOCK = 2 ** 52;

/** No machine has nearly as many. */
const MAX_BLOCKS = 4096;

/** Takes a block's pages as they come. What it is given is valid only for the call. */
export interface PlacedPages {
  readonly pages: number;
  has(page: number): boolean;
  /** As `PageStore.run`. */
  run(page: number): { absent: boolean; pages: number };
  fill(page: number, byte: number): void;
  raw(page: number, bytes: Buffer): void;
  /** Pages of zeros that follow each other. Returns how many of them were taken: at least one. Throws `Busy`. */
  zeroRun(page: number, count: number): number;
  /** As `zeroRun`, of pages in records of `RAW_RECORD` bytes, the first at `from`. */
  rawRun(page: number, records: Buffer, place: { from: number; count: number }): number;
  /** By zlib. */
  compressed(page: number, bytes: Buffer): void;
  /** Changes a page that came. */
  delta(page: number, bytes: Buffer): void;
}

export interface RamState {
  blocks: Map<string, RamBlock>;
  deltas: DeltaList;
  mappedRam: boolean;
  ignoreShared: boolean;
  /** The block of the last page, which records of later sections can refer to. */
  block: RamBlock | undefined;
  /** Records with pages, for figures: a live guest's stream has some pages several times. */
  records: number;
  /** Where a block's pages go while they come; undefined: they stay in the stream. */
  placed: ((name: string, size: number) => PlacedPages) | undefined;
}

/** A section's next record. Says whether it was the end mark. */
export function readRamRecord(cursor: Cursor, state: RamState): boolean {
  const at = cursor.at;
  const { offset, flags } = cursor.pageWord();
  if (flags & RamFlag.endOfSection) return true;
  if (flags & RamFlag.blockSizes) {
    readBlockSizes(cursor, state, offset);
    return false;
  }
  if (flags & RamFlag.multifdFlush) return false;
  if (flags & RamFlag.hook) throw new StreamFault('a record of RDMA migration', at);
  let { block } = state;
  if ((flags & RamFlag.sameBlock) === 0) {
    const name = cursor.name();
    block = state.blocks.get(name);
    if (!block) throw new StreamFault(`a page of a RAM block ${JSON.stringify(name)} that was not announced`, at);
  }
  if (!block) throw new StreamFault('a page of no RAM block', at);
  if (offset + PAGE_SIZE > block.size) {
    throw new StreamFault(`a page at ${hex(offset)} of the RAM block ${JSON.stringify(block.name)}`, at);
  }
  const { pages } = block;
  const record = { page: offset / PAGE_SIZE, flags: flags & ~RamFlag.sameBlock, at };
  if (pages instanceof PageStore) readPage(cursor, state, { store: pages, ...record });
  else if ('raw' in pages) placePage(cursor, { placed: pages, ...record });
  else throw new StreamFault('a page in between, although pages are mapped', at);
  state.block = block;
  state.records++;
  return false;
}

/** A page's word, and the page. */
export const RAW_RECORD = 8 + PAGE_SIZE;
/** A page's word, and the byte that it is filled with. */
const FILL_RECORD = 8 + 1;

/**
 * Takes records of pages that follow each other in the block and in memory, all whole or all zeros: most of a stream.
 * False where the next record is none of them. Throws `Busy`.
 */
export function placeRun(cursor: Cursor, state: RamState): boolean {
  const { block } = state;
  if (!block || !('rawRun' in block.pages)) return false;
  const hand = cursor.atHand;
  if (!hand || hand.from + FILL_RECORD > hand.bytes.length) return false;
  const { pages } = block;
  const { bytes, from } = hand;
  const low = bytes.readUInt32BE(from + 4);
  const flags = low & 0xfff;
  const isRaw = flags === (RamFlag.page | RamFlag.sameBlock);
  if (!isRaw && (flags !== (RamFlag.zero | RamFlag.sameBlock) || bytes[from + 8] !== 0)) return false;
  const size = isRaw ? RAW_RECORD : FILL_RECORD;
  const first = (bytes.readUInt32BE(from) * 2 ** 32 + (low - flags)) / PAGE_SIZE;
  const count = Math.min(runLength(bytes, { from, size }), block.size / PAGE_SIZE - first);
  if (count < 1) return false;
  let taken = 0;
  try {
    while (taken < count) {
      const left = { from: from + taken * size, count: count - taken };
      taken += isRaw ? pages.rawRun(first + taken, bytes, left) : pages.zeroRun(first + taken, left.count);
    }
  } catch (error) {
    if (!(error instanceof Busy) || taken === 0) throw error;
  }
  cursor.skip(taken * size);
  state.records += taken;
  return true;
}

/** Records from `from` on that are whole and of the following page each, with the same flags; zeros if they are short. */
function runLength(bytes: Buffer, { from, size }: { from: number; size: number }): number {
  let high = bytes.readUInt32BE(from);
  let low = bytes.readUInt32BE(from + 4);
  let count = 0;
  for (let at = from; at + size <= bytes.length; at += size) {
    if (bytes.readUInt32BE(at + 4) !== low || bytes.readUInt32BE(at) !== high) break;
    if (size === FILL_RECORD && bytes[at + 8] !== 0) break;
    count++;
    low += PAGE_SIZE;
    if (low >= 2 ** 32) {
      low -= 2 ** 32;
      high++;
    }
  }
  return count;
}

interface PageRecord {
  page: number;
  flags: number;
  at: number;
}

function readPage(
  cursor: Cursor,
  { deltas }: RamState,
  { store, page, flags, at }: PageRecord & { store: PageStore },
): void {
  switch (flags) {
    case RamFlag.zero:
      store.set(page, 'fill', cursor.u8());
      return;
    case RamFlag.page:
      // Only whole pages are kept: a stream may end in one.
      cursor.skip(PAGE_SIZE);
      store.set(page, 'raw', cursor.at - PAGE_SIZE);
      return;
    case RamFlag.compressed: {
      const from = cursor.at;
      cursor.skip(compressedLength(cursor, at));
      store.set(page, 'compressed', from);
      return;
    }
    case RamFlag.xbzrle: {
      const length = deltaLength(cursor, at);
      const before = store.get(page);
      if (before.kind === 'absent') throw deltaToNothing(at);
      cursor.skip(length);
      store.set(page, 'delta', deltas.add(cursor.at - length, length, before));
      return;
    }
    default:
      throw unknownRecord(flags, at);
  }
}

function placePage(cursor: Cursor, { placed, page, flags, at }: PageRecord & { placed: PlacedPages }): void {
  switch (flags) {
    case RamFlag.zero:
      placed.fill(page, cursor.u8());
      return;
    case RamFlag.page:
      placed.raw(page, cursor.view(PAGE_SIZE));
      return;
    case RamFlag.compressed:
      placed.compressed(page, cursor.view(compressedLength(cursor, at)));
      return;
    case RamFlag.xbzrle: {
      const length = deltaLength(cursor, at);
      if (!placed.has(page)) throw deltaToNothing(at);
      placed.delta(page, cursor.view(length));
      return;
    }
    default:
      throw unknownRecord(flags, at);
  }
}

function compressedLength(cursor: Cursor, at: number): number {
  const length = cursor.u32();
  if (length > 2 * PAGE_SIZE) throw new StreamFault(`a compressed page of ${length} bytes`, at);
  return length;
}

function deltaLength(cursor: Cursor, at: number): number {
  const encoding = cursor.u8();
  const length = cursor.u16();
  if (encoding !== 1 || length > PAGE_SIZE) throw new StreamFault(`a difference of ${length} bytes`, at);
  return length;
}

const deltaToNothing = (at: number) => new StreamFault('a difference to a page that never came', at);
const unknownRecord = (flags: number, at: number) => new StreamFault(`a RAM record with flags ${hex(flags)}`, at);

function readBlockSizes(cursor: Cursor, state: RamState, total: number): void {
  const added = new Map<string, RamBlock>();
  for (let sum = 0; sum < total; ) {
    const at = cursor.at;
    const name = cursor.name();
    const size = Number(cursor.u64());
    if (name === '' || size === 0 || size % PAGE_SIZE !== 0 || size > MAX_BLOCK || sum + size > total) {
      throw new StreamFault(`a RAM block ${JSON.stringify(name)} of ${hex(size)} bytes, of ${hex(total)} in all`, at);
    }
    if (state.blocks.has(name) || added.has(name) || state.blocks.size + added.size >= MAX_BLOCKS) {
      throw new StreamFault(`the RAM block ${JSON.stringify(name)} twice, or too many of them`, at);
    }
    sum += size;
    const shared = state.ignoreShared ? Number(cursor.u64()) : undefined;
    added.set(name, { name, size, pages: pagesFor(cursor, state, { name, size }), shared });
  }
  for (const [name, block] of added) state.blocks.set(name, block);
}

function pagesFor(cursor: Cursor, state: RamState, { name, size }: { name: string; size: number }): RamBlock['pages'] {
  if (state.mappedRam) return readMappedHeader(cursor, size);
  return state.placed?.(name, size) ?? new PageStore(size / PAGE_SIZE);
}

function readMappedHeader(cursor: Cursor, size: number): MappedPages {
  const at = cursor.at;
  const version = cursor.u32();
  const pageSize = cursor.u64();
  const [bitmapOffset, pagesOffset] = [Number(cursor.u64()), Number(cursor.u64())];
  if (version !== MAPPED_RAM_VERSION || pageSize !== BigInt(PAGE_SIZE)) {
    throw new StreamFault(`mapped RAM of version ${version} with pages of ${pageSize} bytes`, at);
  }
  if (bitmapOffset < cursor.at || pagesOffset < bitmapOffset + Math.ceil(size / PAGE_SIZE / 8)) {
    throw new StreamFault(
      `mapped RAM with its bitmap at ${hex(bitmapOffset)} and its pages at ${hex(pagesOffset)}`,
      at,
    );
  }
  // The next block's entry follows its pages.
  cursor.skip(pagesOffset + size - cursor.at);
  return { bitmapOffset, pagesOffset };
}

/** Applies a difference (xbzrle.c): lengths of what stays and of what is new, in turn, as ULEB128. False: it is damaged. */
export function applyDelta(page: Buffer, delta: Buffer): boolean {
  let from = 0;
  let to = 0;
  const length = (): number | undefined => {
    const first = delta[from++];
    if (first === undefined) return undefined;
    if (first < 0x80) return first;
    const second = delta[from++];
    return second === undefined || second >= 0x80 ? undefined : (first & 0x7f) | (second << 7);
  };
  while (from < delta.length) {
    const same = length();
    if (same === undefined) return false;
    to += same;
    // The last one may be of what stays alone.
    if (from === delta.length) return to <= page.length;
    const changed = length();
    if (changed === undefined || from + changed > delta.length || to + changed > page.length) return false;
    delta.copy(page, to, from, from + changed);
    from += changed;
    to += changed;
  }
  return to <= page.length;
}
