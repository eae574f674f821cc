/** Which bytes of a dump are worth writing: what is left out reads as zeros. */
import type { Patch } from '../plan/patches.ts';

/** Shorter holes cost more in extents than they save. A multiple of every block size in use. */
export const MIN_HOLE = 65_536;
const ZEROS = Buffer.alloc(MIN_HOLE);

/** A range of physical addresses: [from, to). */
export interface Span {
  from: number;
  to: number;
}

/**
 * [from, to) without the holes of at least `MIN_HOLE` that nothing is patched into.
 *
 * @param holes sorted and disjoint
 */
export function withoutHoles(from: number, to: number, holes: Iterable<Span>, patches: readonly Patch[]): Span[] {
  const spans: Span[] = [];
  let next = from;
  for (const hole of joined(holes)) {
    const patched = patches.some(({ physical, bytes }) => physical < hole.to && hole.from < physical + bytes.length);
    if (hole.to - hole.from < MIN_HOLE || patched) continue;
    if (hole.from > next) spans.push({ from: next, to: hole.from });
    next = hole.to;
  }
  if (next < to) spans.push({ from: next, to });
  return spans;
}

function* joined(holes: Iterable<Span>): Generator<Span> {
  let last: Span | undefined;
  for (const { from, to } of holes) {
    if (last?.to === from) last.to = to;
    else {
      if (last) yield last;
      last = { from, to };
    }
  }
  if (last) yield last;
}

/**
 * The parts of a buffer that are not zeros, by blocks of `MIN_HOLE` in the file.
 *
 * @param position file offset of the buffer
 */
export function* withoutZeros(bytes: Buffer, position: number): Generator<{ at: number; bytes: Buffer }> {
  let start = 0;
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + MIN_HOLE - ((position + at) % MIN_HOLE));
    const block = bytes.subarray(at, end);
    // Most blocks that are not zeros show it at once.
    const zero = block[0] === 0 && block[block.length >> 1] === 0 && block.equals(ZEROS.subarray(0, block.length));
    if (zero) {
      if (at > start) yield { at: start, bytes: bytes.subarray(start, at) };
      start = end;
    }
    at = end;
  }
  if (start < bytes.length) yield { at: start, bytes: bytes.subarray(start) };
}
