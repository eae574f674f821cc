import { type PhysicalAddress, pa } from '../core/units.ts';

/** A physically contiguous range of whole pages. */
export interface Extent {
  start: PhysicalAddress;
  /** Bytes, a multiple of the page size. */
  size: number;
}

/** What of `a` is not in `b`. Both are sorted and disjoint. */
export function without(a: readonly Extent[], b: readonly Extent[]): Extent[] {
  const result: Extent[] = [];
  let j = 0;
  for (const { start, size } of a) {
    const end = start + size;
    let at: number = start;
    while (j < b.length && b[j]!.start + b[j]!.size <= at) j++;
    for (let i = j; i < b.length && b[i]!.start < end; i++) {
      const other = b[i]!;
      if (other.start > at) result.push({ start: pa(at), size: other.start - at });
      at = Math.max(at, other.start + other.size);
    }
    if (at < end) result.push({ start: pa(at), size: end - at });
  }
  return result;
}
export const sum = (extents: readonly { size: number }[]): number => extents.reduce((total, e) => total + e.size, 0);
