/** What decoders of compressed blocks have in common: copying, after the caller has checked every bound. */

/** Runs that are longer are copied by the engine, which is not worth its start for shorter ones. */
const LONG_RUN = 32;

/** Bytes of a compressed block that stand for themselves. */
export interface Literals {
  source: Uint8Array;
  from: number;
  count: number;
}

/** Copies literals to `target` at `to`. */
export function copyLiterals({ source, from, count }: Literals, target: Uint8Array, to: number): void {
  if (count > LONG_RUN) target.set(source.subarray(from, from + count), to);
  else for (let i = 0; i < count; i++) target[to + i] = source[from + i]!;
}

/** Copies what lies `distance` before `to`, byte by byte: it may overlap what is written. */
export function copyMatch(target: Uint8Array, to: number, distance: number, length: number): void {
  for (let from = to - distance, at = to, end = to + length; at < end; ) target[at++] = target[from++]!;
}
