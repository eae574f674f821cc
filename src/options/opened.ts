/** What a caller may give instead of a path. */

/** A whole input in memory, or as it comes: a `Readable`, a web stream, an async generator. */
export type InputBytes = Uint8Array | AsyncIterable<Uint8Array>;

/** Whether a caller gave the bytes themselves. */
export const isInputBytes = (value: unknown): value is InputBytes =>
  value instanceof Uint8Array || (typeof value === 'object' && value !== null && Symbol.asyncIterator in value);

/** What messages call an input that has no path. */
export const nameOfBytes = (input: InputBytes): string => (input instanceof Uint8Array ? 'a buffer' : 'a stream');

/** Whether something can be written to as Node's streams are. */
export const isWritable = (value: unknown): boolean =>
  typeof value === 'object' &&
  value !== null &&
  ['write', 'end', 'on'].every((name) => typeof (value as Record<string, unknown>)[name] === 'function');

/** An input that was opened, and that stays open after a call. `openGuest` makes them. */
export abstract class OpenedInput {
  /** Its name, as it was given: a path, or `-` for standard input. */
  abstract readonly input: string;
}
