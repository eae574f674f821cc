/** Boyer-Moore-Horspool search for byte strings: the skip table lets it pass over most bytes unseen. */

/** Finds one pattern in any number of buffers. */
export class SkipSearch {
  readonly #pattern: Buffer;
  readonly #skip = new Uint32Array(256);

  constructor(pattern: Buffer) {
    if (pattern.length === 0) throw new RangeError('an empty pattern');
    this.#pattern = Buffer.from(pattern);
    const last = pattern.length - 1;
    this.#skip.fill(pattern.length);
    for (let i = 0; i < last; i++) this.#skip[pattern[i]!] = last - i;
  }

  /** Offset of the first occurrence at or after `from`, or -1. */
  find(buffer: Buffer, from = 0): number {
    const pattern = this.#pattern;
    const skip = this.#skip;
    const last = pattern.length - 1;
    const lastByte = pattern[last]!;
    for (let end = from + last; end < buffer.length; ) {
      const byte = buffer[end]!;
      if (byte === lastByte) {
        let i = last - 1;
        while (i >= 0 && buffer[end - last + i] === pattern[i]) i--;
        if (i < 0) return end - last;
      }
      end += skip[byte]!;
    }
    return -1;
  }

  /** Offsets of all occurrences, overlapping ones too. */
  *all(buffer: Buffer): Generator<number> {
    for (let at = this.find(buffer); at >= 0; at = this.find(buffer, at + 1)) yield at;
  }
}
