/**
 * Ranges of physical memory and what is computed with them. Lists of ranges are sorted by address and
 * disjoint, unless a function says otherwise.
 */
import { firstIndex } from '../core/sorted.ts';
import { type PhysicalAddress, pa } from '../core/units.ts';

/** Addresses from `start` on. */
export interface Range {
  readonly start: number;
  /** Bytes, more than 0. */
  readonly size: number;
}

/** Physically contiguous bytes; need not be whole pages. */
export interface PhysicalRun {
  start: PhysicalAddress;
  /** Bytes. */
  size: number;
}

/** A run whose bytes lie in the input's file as they are. */
export interface FileRun extends PhysicalRun {
  fileOffset: number;
}

/** A physically contiguous range of whole pages: the size is a multiple of theirs. */
export type Extent = PhysicalRun;

/** Where a range ends: the first address after it. */
export const endOf = ({ start, size }: Range): number => start + size;

/** Bytes of all ranges together. */
export const sum = (ranges: readonly Pick<Range, 'size'>[]): number =>
  ranges.reduce((total, { size }) => total + size, 0);

/** Index of the first range that ends after `address`; the number of ranges where none does. */
export const firstEndingAfter = (ranges: readonly Range[], address: number): number =>
  firstIndex(ranges.length, (i) => endOf(ranges[i]!) > address);

/** The parts of `a` that are in `b`. */
export function intersect(a: readonly Range[], b: readonly Range[]): PhysicalRun[] {
  const result: PhysicalRun[] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const [x, y] = [a[i]!, b[j]!];
    const start = Math.max(x.start, y.start);
    const end = Math.min(endOf(x), endOf(y));
    if (start < end) result.push({ start: pa(start), size: end - start });
    if (endOf(x) < endOf(y)) i++;
    else j++;
  }
  return result;
}

/** The parts of `a` that are not in `b`. */
export function without(a: readonly Range[], b: readonly Range[]): PhysicalRun[] {
  const result: PhysicalRun[] = [];
  let j = 0;
  for (const range of a) {
    const end = endOf(range);
    let at = range.start;
    while (j < b.length && endOf(b[j]!) <= at) j++;
    for (let i = j; i < b.length && b[i]!.start < end; i++) {
      const other = b[i]!;
      if (other.start > at) result.push({ start: pa(at), size: other.start - at });
      at = Math.max(at, endOf(other));
    }
    if (at < end) result.push({ start: pa(at), size: end - at });
  }
  return result;
}

/** Adds a run, or lengthens the last one where the new one continues it in memory and, if it lies in a file, there. */
export function append<R extends PhysicalRun & { fileOffset?: number }>(runs: R[], run: R): void {
  const last = runs.at(-1);
  const continues =
    last !== undefined &&
    endOf(last) === run.start &&
    (last.fileOffset === undefined ? undefined : last.fileOffset + last.size) === run.fileOffset;
  if (continues) last.size += run.size;
  else runs.push(run);
}

/**
 * Makes runs disjoint: where two overlap, the one that comes first keeps the bytes.
 *
 * @param runs sorted by address; may overlap
 * @param onOverlap called with the last run kept, the run that loses bytes to earlier ones, and how many
 */
export function firstWins<R extends FileRun>(
  runs: Iterable<R>,
  onOverlap: (kept: FileRun, run: R, bytes: number) => void,
): FileRun[] {
  const result: FileRun[] = [];
  for (const run of runs) {
    const { start, size, fileOffset } = run;
    const last = result.at(-1);
    const taken = last ? Math.min(size, Math.max(0, endOf(last) - start)) : 0;
    if (last && taken > 0) onOverlap(last, run, taken);
    if (taken < size) append(result, { start: pa(start + taken), size: size - taken, fileOffset: fileOffset + taken });
  }
  return result;
}

/** The first of sorted ranges that overlaps the one before it. */
export const firstOverlap = <R extends Range>(ranges: readonly R[]): { before: R; range: R } | undefined => {
  const at = ranges.findIndex((range, i) => i > 0 && endOf(ranges[i - 1]!) > range.start);
  return at < 0 ? undefined : { before: ranges[at - 1]!, range: ranges[at]! };
};
