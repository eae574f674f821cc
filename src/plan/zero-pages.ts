/** Pages that hold nothing but zeros. */
import { isKernelAddress, widened } from '../core/bits.ts';
import { MIB, PAGE_SIZE, pa } from '../core/units.ts';
import { append, type Extent } from '../memory/runs.ts';
import type { Windows } from '../windows/windows.ts';
import type { Patch } from './patches.ts';

const CHUNK = MIB;
const ZEROS = Buffer.alloc(PAGE_SIZE);

/**
 * The extents without their pages of zeros. Patched pages stay, and so do pages with variables that the KDBG names and
 * with processors: there a zero says something, such as that the guest did not crash.
 */
export async function withoutZeroPages(
  windows: Windows,
  extents: readonly Extent[],
  patches: readonly Patch[],
  signal?: AbortSignal,
): Promise<{ extents: Extent[]; dropped: number }> {
  const { image } = windows;
  const needed = neededPages(windows, patches);
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
        if (zero && !needed.has(address)) {
          dropped++;
          continue;
        }
        append(kept, { start: pa(address), size: PAGE_SIZE });
      }
    }
  }
  return { extents: kept, dropped };
}

/** Bytes from a variable's address on that a reader may want: KiBugCheckData has 40. */
const VARIABLE_BYTES = 0x40;

function neededPages({ space, kdbg, processors }: Windows, patches: readonly Patch[]): Set<number> {
  const pages = new Set<number>();
  const addPhysical = (start: number, size: number) => {
    for (let at = start - (start % PAGE_SIZE); at < start + size; at += PAGE_SIZE) pages.add(at);
  };
  const addVirtual = (start: bigint, size: number) => {
    for (const { physical, length } of space.pieces(start, size)) {
      if (physical !== undefined) addPhysical(physical, length);
    }
  };
  for (const { physical, bytes } of patches) addPhysical(physical, bytes.length);
  for (let at = 0; at + 8 <= kdbg.block.length; at += 8) {
    const word = widened(kdbg.block.readBigUInt64LE(at), space.image.machine.pointerSize);
    if (isKernelAddress(word)) addVirtual(word, VARIABLE_BYTES);
  }
  for (const { kpcr } of processors) addVirtual(kpcr, space.image.machine.kpcr.size + (kdbg.fields.SizePrcb ?? 0));
  return pages;
}
