/** The page map of bitmap dumps: bit n, least significant first, is PFN n. */
import { PAGE_SIZE } from '../core/units.ts';
import { BITMAP_SIGNATURE_FULL, BITMAP_SIGNATURE_KERNEL, BITMAP_VALID, BitmapDumpHeader } from '../formats/win-dump.ts';
import type { Extent } from '../memory/runs.ts';

/** Bytes that the bitmap header and map take for memory that ends at `end`. */
export const bitmapSize = (end: number): number => BitmapDumpHeader.size + Math.ceil(end / PAGE_SIZE / 8);

/** Bitmap header and map; pages begin at file offset `firstPage`. `full`: nothing was left out on purpose. */
export function encodeBitmap(extents: readonly Extent[], pages: number, firstPage: number, full = true): Buffer {
  const last = extents.at(-1);
  const bits = last ? (last.start + last.size) / PAGE_SIZE : 0;
  const buffer = Buffer.alloc(bitmapSize(bits * PAGE_SIZE));
  BitmapDumpHeader.write(buffer, 0, {
    Signature: full ? BITMAP_SIGNATURE_FULL : BITMAP_SIGNATURE_KERNEL,
    ValidDump: BITMAP_VALID,
    FirstPage: BigInt(firstPage),
    TotalPresentPages: BigInt(pages),
    Pages: BigInt(bits),
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
