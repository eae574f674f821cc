/** The page map of bitmap dumps: bit n, least significant first, is PFN n. */
import { alignUp } from '../core/bits.ts';
import { PAGE_SIZE } from '../core/units.ts';
import { BITMAP_SIGNATURE_KERNEL, BITMAP_VALID, BitmapDumpHeader } from '../formats/win-dump.ts';
import type { Extent } from '../memory/runs.ts';

/**
 * The map has whole words, its bits beyond the last page clear: LeechCore reads `Pages & ~63` bits of it, kdmp-parser
 * `Pages / 8` bytes, and Volatility 3 words of 32 bits, also of what follows (docs/readers.md).
 */
const WORD_BITS = 64;

/** Bits of the map for memory that ends at `end`. */
const bitsFor = (end: number): number => alignUp(end / PAGE_SIZE, WORD_BITS);

/** Bytes that the bitmap header and map take for memory that ends at `end`. */
export const bitmapSize = (end: number): number => BitmapDumpHeader.size + bitsFor(end) / 8;

/** Bitmap header and map; pages begin at file offset `firstPage`. */
export function encodeBitmap(extents: readonly Extent[], pages: number, firstPage: number): Buffer {
  const last = extents.at(-1);
  const end = last ? last.start + last.size : 0;
  const buffer = Buffer.alloc(bitmapSize(end));
  BitmapDumpHeader.write(buffer, 0, {
    // radare2 refuses the other one; WinDbg goes by the header's type and attributes alone.
    Signature: BITMAP_SIGNATURE_KERNEL,
    ValidDump: BITMAP_VALID,
    FirstPage: BigInt(firstPage),
    TotalPresentPages: BigInt(pages),
    Pages: BigInt(bitsFor(end)),
  });
  const map = buffer.subarray(BitmapDumpHeader.size);
  for (const { start, size } of extents) setBits(map, start / PAGE_SIZE, (start + size) / PAGE_SIZE);
  return buffer;
}

/** Sets the bits [from, to). */
function setBits(map: Buffer, from: number, to: number): void {
  const firstByte = Math.floor(from / 8);
  const lastByte = Math.floor((to - 1) / 8);
  const head = (0xff << (from % 8)) & 0xff;
  const tail = 0xff >>> (7 - ((to - 1) % 8));
  if (firstByte === lastByte) {
    map[firstByte]! |= head & tail;
    return;
  }
  map[firstByte]! |= head;
  map.fill(0xff, firstByte + 1, lastByte);
  map[lastByte]! |= tail;
}
