/** Pages that hold nothing but zeros. */
import { MIB, PAGE_SIZE, pa } from '../core/units.ts';
import type { MemoryImage } from '../memory/image.ts';
import { append, type Extent } from '../memory/runs.ts';
import type { Patch } from './patches.ts';

const CHUNK = MIB;
const ZEROS = Buffer.alloc(PAGE_SIZE);

/** The extents without their pages of zeros; pages that are patched stay. */
export async function withoutZeroPages(
  image: MemoryImage,
  extents: readonly Extent[],
  patches: readonly Patch[],
  signal: AbortSignal | undefined,
): Promise<{ extents: Extent[]; dropped: number }> {
  const patched = new Set<number>();
  for (const { physical, bytes } of patches) {
    for (let at = physical - (physical % PAGE_SIZE); at < physical + bytes.length; at += PAGE_SIZE) patched.add(at);
  }
  const kept: Extent[] = [];
  let dropped = 0;
  const buffer = Buffer.allocUnsafeSlow(CHUNK);
  for (const { start, size } of extents) {
    for (let from = 0; from < size; from += CHUNK) {
      signal?.throwIfAborted();
      const piece = buffer.subarray(0, Math.min(CHUNK, size - from));
      await image.read(start + from, piece);
      for (let at = 0; at < piece.length; at += PAGE_SIZE) {
        const address = start + from + at;
        // Most pages that are not zeros show it at once.
        const zero = piece[at] === 0 && piece.subarray(at, at + PAGE_SIZE).equals(ZEROS);
        if (zero && !patched.has(address)) {
          dropped++;
          continue;
        }
        append(kept, { start: pa(address), size: PAGE_SIZE });
      }
    }
  }
  return { extents: kept, dropped };
}
