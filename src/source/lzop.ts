/** lzop's files (lzop 1.04, src/lzop.h and header.h): blocks of LZO1X, each with its sizes and checksums in front. */
import * as zlib from 'node:zlib';
import { MIB } from '../core/units.ts';
import { ChunkReader, ContainerDamage } from './chunks.ts';
import { decodeLzo1x } from './lzo.ts';

export const LZOP_MAGIC = Buffer.from('894c5a4f000d0a1a0a', 'hex');

/** Flags of the header. */
const ADLER32_OF_CONTENTS = 0x1;
const ADLER32_OF_BLOCK = 0x2;
const EXTRA_FIELD = 0x40;
const CRC32_OF_CONTENTS = 0x100;
const CRC32_OF_BLOCK = 0x200;
const FILTER = 0x800;

/** Versions since then have more in their header. */
const VERSION_940 = 0x0940;
/** LZO1X-1, 1-15 and 999: one decoder for all. */
const METHODS = [1, 2, 3];
/** MAX_BLOCK_SIZE in lzop. */
const MAX_BLOCK = 64 * MIB;

/** Yields what can be decompressed, then throws `ContainerDamage`. */
export async function* unlzop(compressed: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const input = new ChunkReader(compressed);
  for (let files = 0; ; files++) {
    const magic = await input.upTo(LZOP_MAGIC.length);
    if (files > 0 && magic.length === 0) return;
    if (!magic.equals(LZOP_MAGIC)) {
      throw new ContainerDamage('damaged', 'other bytes follow its end; what comes before them has the right checksum');
    }
    const flags = await readHeader(input);
    yield* blocksOf(input, flags);
  }
}

/** @returns its flags */
async function readHeader(input: ChunkReader): Promise<number> {
  const version = (await input.exactly(2)).readUInt16BE();
  const recent = version >= VERSION_940;
  await input.skip(recent ? 4 : 2); // the library's version, and the one that is needed
  const method = (await input.exactly(1)).readUInt8();
  if (!METHODS.includes(method)) throw new ContainerDamage('damaged', `its method has number ${method}`);
  if (recent) await input.skip(1); // level
  const flags = (await input.exactly(4)).readUInt32BE();
  if (flags & FILTER) throw new ContainerDamage('damaged', 'it uses a filter, which elf2dmp does not have');
  await input.skip(recent ? 12 : 8); // mode and time
  await input.skip((await input.exactly(1)).readUInt8()); // name
  await input.skip(4); // checksum
  if (flags & EXTRA_FIELD) await input.skip((await input.exactly(4)).readUInt32BE() + 4);
  return flags;
}

async function* blocksOf(input: ChunkReader, flags: number): AsyncGenerator<Buffer> {
  for (;;) {
    const size = (await input.exactly(4)).readUInt32BE();
    if (size === 0) return;
    const stored = (await input.exactly(4)).readUInt32BE();
    if (size > MAX_BLOCK || stored > size)
      throw new ContainerDamage('damaged', 'a block has a size that it can not have');
    const adler = flags & ADLER32_OF_CONTENTS ? (await input.exactly(4)).readUInt32BE() : undefined;
    const crc = flags & CRC32_OF_CONTENTS ? (await input.exactly(4)).readUInt32BE() : undefined;
    // Those of the block as it is stored say nothing more.
    if (stored < size) await input.skip((flags & ADLER32_OF_BLOCK ? 4 : 0) + (flags & CRC32_OF_BLOCK ? 4 : 0));
    const contents = unpacked(await input.exactly(stored), size);
    if (!contents || !matches(contents, { adler, crc })) {
      throw new ContainerDamage('damaged', 'its contents do not match its checksums');
    }
    yield contents;
  }
}

/** undefined: it is damaged. */
function unpacked(block: Buffer, size: number): Buffer | undefined {
  if (block.length === size) return block;
  const contents = Buffer.allocUnsafe(size);
  return decodeLzo1x(block, contents) === size ? contents : undefined;
}

function matches(contents: Buffer, { adler, crc }: { adler: number | undefined; crc: number | undefined }): boolean {
  return (adler === undefined || adler32(contents) === adler) && (crc === undefined || zlib.crc32(contents) === crc);
}

/** RFC 1950. */
function adler32(bytes: Buffer): number {
  let low = 1;
  let high = 0;
  for (let at = 0; at < bytes.length; ) {
    // So many fit 32 bits before the remainder has to be taken.
    const end = Math.min(at + 5552, bytes.length);
    for (; at < end; at++) {
      low += bytes[at]!;
      high += low;
    }
    low %= 65_521;
    high %= 65_521;
  }
  return high * 65_536 + low;
}
