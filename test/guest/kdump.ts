/** Writes memory as QEMU's dump-guest-memory -z, -l and -s do, without QEMU: by literal offsets. */
import { deflateSync } from 'node:zlib';
import { cpuNote, prstatus } from './elf.ts';
import type { Guest } from './guest.ts';
import { PAGE } from './memory.ts';
import type { Guest32 } from './x86/guest.ts';

/** Compresses a page; undefined where that does not make it smaller. */
export type Compress = (page: Buffer) => Buffer;

export interface KdumpRecipe {
  /** Page number → bytes of one block. */
  pages: ReadonlyMap<number, Buffer>;
  notes?: Buffer;
  blockSize?: number;
  /** page_desc.flags of compressed pages. Default 1 (zlib). */
  flags?: number;
  compress?: Compress;
  /** Page numbers end here. Default: behind the last page. */
  maxPage?: number;
}

/** Where things are in a file that was made. */
export interface KdumpPlaces {
  bitmap: number;
  bitmapSize: number;
  descriptors: number;
  data: number;
}

export interface KdumpFile {
  file: Buffer;
  places: KdumpPlaces;
}

/** The raw form (-R). */
export function kdumpFile(recipe: KdumpRecipe): KdumpFile {
  const {
    notes = Buffer.alloc(0),
    blockSize = PAGE,
    flags = 1,
    compress = (page) => deflateSync(page, { level: 1 }),
  } = recipe;
  const numbers = [...recipe.pages.keys()].sort((a, b) => a - b);
  const maxPage = recipe.maxPage ?? (numbers.at(-1) ?? 0) + 1;
  const blocks = (size: number) => Math.ceil(size / blockSize);
  const subBlocks = blocks(104 + notes.length);
  const bitmapBlocks = blocks(Math.ceil(maxPage / 8));
  const places: KdumpPlaces = {
    bitmap: (1 + subBlocks) * blockSize,
    bitmapSize: bitmapBlocks * blockSize,
    descriptors: (1 + subBlocks + 2 * bitmapBlocks) * blockSize,
    data: (1 + subBlocks + 2 * bitmapBlocks) * blockSize + 24 * numbers.length,
  };
  const head = Buffer.alloc(places.data);
  head.write('KDUMP   ', 0, 'latin1');
  head.writeUInt32LE(6, 0x8);
  head.write('Unknown', 0xc + 4 * 65, 'latin1');
  head.writeUInt32LE(flags, 0x1a8);
  head.writeUInt32LE(blockSize, 0x1ac);
  head.writeUInt32LE(subBlocks, 0x1b0);
  head.writeUInt32LE(2 * bitmapBlocks, 0x1b4);
  head.writeUInt32LE(Math.min(maxPage, 0xffffffff), 0x1b8);
  const sub = head.subarray(blockSize);
  sub.writeUInt32LE(1, 0x8);
  sub.writeBigUInt64LE(BigInt(blockSize + 104), 0x30);
  sub.writeBigUInt64LE(BigInt(notes.length), 0x38);
  sub.writeBigUInt64LE(BigInt(maxPage), 0x60);
  notes.copy(sub, 104);
  const data: Buffer[] = [Buffer.alloc(blockSize)];
  let at = places.data + blockSize;
  numbers.forEach((number, i) => {
    for (const copy of [0, 1]) head[places.bitmap + copy * places.bitmapSize + (number >> 3)]! |= 1 << (number & 7);
    const page = recipe.pages.get(number)!;
    const descriptor = places.descriptors + 24 * i;
    const describe = (offset: number, size: number, how: number) => {
      head.writeBigUInt64LE(BigInt(offset), descriptor);
      head.writeUInt32LE(size, descriptor + 8);
      head.writeUInt32LE(how, descriptor + 12);
    };
    if (page.equals(data[0]!)) {
      describe(places.data, blockSize, 0);
      return;
    }
    const compressed = compress(page);
    const smaller = compressed.length < blockSize;
    const stored = smaller ? compressed : page;
    describe(at, stored.length, smaller ? flags : 0);
    data.push(stored);
    at += stored.length;
  });
  return { file: Buffer.concat([head, ...data]), places };
}

/** The notes of a guest, as in the ELF form. */
export function guestNotes(guest: Guest | Guest32): Buffer {
  if ('pae' in guest) return Buffer.concat([...guest.cpus.map(guest.elf.status), ...guest.cpus.map(guest.elf.state)]);
  return Buffer.concat([...guest.cpus.map(prstatus), ...guest.cpus.map((cpu) => cpuNote(cpu))]);
}

/** A guest's RAM, around the VGA hole. */
export function kdumpOf(guest: Guest | Guest32, recipe: Partial<KdumpRecipe> = {}): KdumpFile {
  const pages = new Map<number, Buffer>();
  const memory = guest.memory.flat(0, guest.ramBytes);
  for (let at = 0; at < guest.ramBytes; at += PAGE) {
    if (at < 0xa0000 || at >= 0x100000) pages.set(at / PAGE, memory.subarray(at, at + PAGE));
  }
  return kdumpFile({ pages, notes: guestNotes(guest), ...recipe });
}

export interface FlatRecord {
  offset: number | bigint;
  bytes: Buffer;
  /** Default: the length of `bytes`. */
  size?: bigint;
}

/** The flattened form of records, in the order given. */
export function flattened(records: readonly FlatRecord[], endMark = true): Buffer {
  const head = Buffer.alloc(4096);
  head.write('makedumpfile', 0, 'latin1');
  head.writeBigInt64BE(1n, 0x10);
  head.writeBigInt64BE(1n, 0x18);
  const parts = records.flatMap(({ offset, bytes, size }) => {
    const header = Buffer.alloc(16);
    header.writeBigInt64BE(BigInt(offset), 0);
    header.writeBigInt64BE(size ?? BigInt(bytes.length), 8);
    return [header, bytes];
  });
  return Buffer.concat([head, ...parts, ...(endMark ? [Buffer.alloc(16, 0xff)] : [])]);
}

/** Cuts a raw file as QEMU does: headers, bitmaps in turns, then descriptors and data in turns. */
export function qemuRecords({ file, places }: KdumpFile, chunk = 4 * PAGE): FlatRecord[] {
  const records: FlatRecord[] = [];
  const cut = (from: number, to: number, size = chunk) => {
    const list: FlatRecord[] = [];
    for (let at = from; at < to; at += size)
      list.push({ offset: at, bytes: file.subarray(at, Math.min(to, at + size)) });
    return list;
  };
  const alternate = (one: FlatRecord[], other: FlatRecord[], perOne: number) => {
    while (one.length + other.length > 0) records.push(...one.splice(0, perOne), ...other.splice(0, 1));
  };
  records.push(...cut(0, places.bitmap));
  const half = places.bitmap + places.bitmapSize;
  alternate(cut(places.bitmap, half), cut(half, places.descriptors), 1);
  alternate(cut(places.data, file.length), cut(places.descriptors, places.data, 24 * Math.floor(chunk / 24)), 7);
  return records;
}

export const flatten = (made: KdumpFile, chunk?: number): Buffer => flattened(qemuRecords(made, chunk));
