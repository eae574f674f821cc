/** Compressed files in independent frames, made by hand: they share no layout code with the product. */
import { crc32, deflateRawSync } from 'node:zlib';
import { xxhash64 } from 'hash-wasm';

const partsOf = (bytes: Buffer, size: number): Buffer[] =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));

/** A gzip member with the subfield BC. */
export function bgzfMember(contents: Buffer): Buffer {
  const deflated = deflateRawSync(contents);
  const header = Buffer.from('1f8b08040000000000ff060042430200ffff', 'hex');
  header.writeUInt16LE(header.length + deflated.length + 8 - 1, 16);
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(crc32(contents), 0);
  trailer.writeUInt32LE(contents.length, 4);
  return Buffer.concat([header, deflated, trailer]);
}

/** A BGZF file, with its end-of-file marker. */
export const bgzfOf = (bytes: Buffer, each = 0xff00): Buffer =>
  Buffer.concat([...partsOf(bytes, each), Buffer.alloc(0)].map(bgzfMember));

/** A zstd frame of raw blocks, or of one repeated byte, with content size and checksum. */
export async function zstdFrame(contents: Buffer): Promise<Buffer> {
  const header = Buffer.alloc(9);
  header.writeUInt32LE(0xfd2fb528);
  // Four bytes of content size, single segment, checksum.
  header[4] = 0xa4;
  header.writeUInt32LE(contents.length, 5);
  const blocks = partsOf(contents, 0x20000);
  const stored = blocks.map((block, i) => {
    const isRun = block.every((byte) => byte === block[0]);
    const start = Buffer.alloc(3);
    start.writeUIntLE((block.length << 3) | (isRun ? 2 : 0) | (i === blocks.length - 1 ? 1 : 0), 0, 3);
    return Buffer.concat([start, isRun ? block.subarray(0, 1) : block]);
  });
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32LE(Number(BigInt(`0x${await xxhash64(contents)}`) & 0xffffffffn));
  return Buffer.concat([header, ...stored, checksum]);
}

/** What a seek table says; tests make it lie. */
export interface SeekTable {
  entries: { compressed: number; contents: number }[];
  count: number;
  descriptor: number;
  magic: number;
  skippable: number;
  size: number;
}

/** A zstd file with a seek table. */
export async function seekableZstd(
  bytes: Buffer,
  each = 2 ** 18,
  change: (table: SeekTable) => void = () => undefined,
  frame: (contents: Buffer) => Buffer | Promise<Buffer> = zstdFrame,
): Promise<Buffer> {
  const parts = partsOf(bytes, each);
  const frames = await Promise.all(parts.map(frame));
  const table: SeekTable = {
    entries: frames.map((frame, i) => ({ compressed: frame.length, contents: parts[i]!.length })),
    count: frames.length,
    descriptor: 0,
    magic: 0x8f92eab1,
    skippable: 0x184d2a5e,
    size: 8 * frames.length + 9,
  };
  change(table);
  const tail = Buffer.alloc(8 + 8 * table.entries.length + 9);
  tail.writeUInt32LE(table.skippable, 0);
  tail.writeUInt32LE(table.size, 4);
  table.entries.forEach(({ compressed, contents }, i) => {
    tail.writeUInt32LE(compressed, 8 + 8 * i);
    tail.writeUInt32LE(contents, 12 + 8 * i);
  });
  tail.writeUInt32LE(table.count, tail.length - 9);
  tail[tail.length - 5] = table.descriptor;
  tail.writeUInt32LE(table.magic, tail.length - 4);
  return Buffer.concat([...frames, tail]);
}
