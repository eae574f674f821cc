/**
 * zstd (RFC 8878) with fzstd, which checks neither that the file is complete nor its checksums: frames are
 * followed and checksums compared here.
 */
import { Decompress } from 'fzstd';
import { createXXHash64 } from 'hash-wasm';
import { ChunkReader, ContainerDamage } from './chunks.ts';

const FRAME_MAGIC = 0xfd2fb528;

/** Magic of a skippable frame, whose low four bits are free. */
const SKIPPABLE_MAGIC = 0x184d2a50;

/** A block's bytes in the file (RFC 8878 3.1.1.2.4). */
const MAX_BLOCK = 128 * 1024;

/** Bytes of Frame_Content_Size and Dictionary_ID, by their flags in the descriptor. */
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;
const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const;
const RLE_BLOCK = 1;
const RESERVED_BLOCK = 3;

/** Yields what can be decompressed, then throws `ContainerDamage`. */
export async function* unzstd(compressed: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const input = new ChunkReader(compressed);
  for (let frames = 0; ; frames++) {
    const start = await input.upTo(4);
    if (start.length === 0 && frames > 0) return;
    if (start.length < 4) throw new ContainerDamage('truncated', 'it ends within the start of a frame');
    const magic = start.readUInt32LE();
    if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE_MAGIC) {
      await input.skip((await input.exactly(4)).readUInt32LE());
    } else if (magic === FRAME_MAGIC) {
      yield* frame(input, start);
    } else {
      throw new ContainerDamage('damaged', `0x${magic.toString(16)} where a frame should begin`);
    }
  }
}

async function* frame(input: ChunkReader, magic: Buffer): AsyncGenerator<Buffer> {
  const output: Buffer[] = [];
  const decoder = new Decompress((chunk) => output.push(Buffer.from(chunk)));
  const push = (bytes: Buffer, last: boolean): void => {
    try {
      decoder.push(bytes, last);
    } catch (error) {
      throw new ContainerDamage('damaged', error instanceof Error ? error.message : String(error));
    }
  };
  const hash = await createXXHash64();
  const descriptor = await input.exactly(1);
  const flags = descriptor.readUInt8();
  const singleSegment = (flags & 0x20) !== 0;
  const hasChecksum = (flags & 0x04) !== 0;
  // A single segment has no window descriptor, and a content size of at least one byte.
  const sizeBytes = CONTENT_SIZE_BYTES[(flags >> 6) as 0 | 1 | 2 | 3] || (singleSegment ? 1 : 0);
  const rest = (singleSegment ? 0 : 1) + DICTIONARY_ID_BYTES[(flags & 3) as 0 | 1 | 2 | 3] + sizeBytes;
  push(Buffer.concat([magic, descriptor, await input.exactly(rest)]), false);
  for (let last = false; !last; ) {
    const header = await input.exactly(3);
    const word = header.readUIntLE(0, 3);
    last = (word & 1) !== 0;
    const type = (word >> 1) & 3;
    const size = type === RLE_BLOCK ? 1 : word >> 3;
    if (type === RESERVED_BLOCK || size > MAX_BLOCK) {
      throw new ContainerDamage('damaged', `a block of type ${type} with ${size} bytes`);
    }
    const block = await input.exactly(size);
    const checksum = last && hasChecksum ? await input.exactly(4) : undefined;
    push(Buffer.concat(checksum ? [header, block, checksum] : [header, block]), last);
    for (const bytes of output.splice(0)) {
      hash.update(bytes);
      yield bytes;
    }
    // The low half of XXH64, as the frame has it: little-endian.
    if (checksum && Buffer.from(hash.digest('binary')).readUInt32BE(4) !== checksum.readUInt32LE()) {
      throw new ContainerDamage('damaged', 'its contents do not match its checksum');
    }
  }
}
