/**
 * Decoder for raw LZO1X blocks, by Linux' Documentation/staging/lzo.rst. npm's packages for LZO do not
 * load in Node or need a bundler. Nothing is believed: every read and write is checked.
 */
import { copyLiterals, copyMatch } from './blocks.ts';

/** Decodes all of `source` into `target`. Returns the bytes written, -1 if the block is damaged or too large. */
export const decodeLzo1x = (source: Uint8Array, target: Uint8Array): number => new Lzo1x(source, target).decode();

/** Literals after the last instruction were a run of four or more. */
const LONG_LITERALS = 4;

class Lzo1x {
  readonly #source: Uint8Array;
  readonly #target: Uint8Array;
  #ip = 0;
  #op = 0;
  /** Literals after the last instruction: 0 to 3, and 4 for a long run of them. */
  #state = 0;
  // The match of the instruction that was read last, and the literals after it.
  #length = 0;
  #distance = 0;
  #literals = 0;

  constructor(source: Uint8Array, target: Uint8Array) {
    this.#source = source;
    this.#target = target;
  }

  decode(): number {
    const first = this.#source[0] ?? 0;
    if (first > 17) {
      this.#ip = 1;
      if (!this.#copyLiterals(first - 17)) return -1;
      this.#state = Math.min(first - 17, LONG_LITERALS);
    }
    while (this.#ip < this.#source.length) {
      const code = this.#source[this.#ip++]!;
      if (code < 16 && this.#state === 0) {
        if (!this.#copyLiterals(3 + (code || this.#longer(15)))) return -1;
        this.#state = LONG_LITERALS;
        continue;
      }
      const read = code < 16 || code >= 64 ? this.#readShort(code) : this.#readLong(code);
      if (read === 'end') return this.#op;
      if (read === 'damaged' || !this.#copy()) return -1;
    }
    return -1; // no end mark
  }

  /** A match whose length is in its code. */
  #readShort(code: number): 'match' | 'damaged' {
    if (this.#ip >= this.#source.length) return 'damaged';
    const next = this.#source[this.#ip++]!;
    this.#literals = code & 3;
    if (code >= 64) {
      this.#distance = (next << 3) + ((code >> 2) & 7) + 1;
      this.#length = (code >> 5) + 1;
    } else {
      const afterLong = this.#state === LONG_LITERALS;
      this.#distance = (next << 2) + (code >> 2) + (afterLong ? 2049 : 1);
      this.#length = afterLong ? 3 : 2;
    }
    return 'match';
  }

  /** A match whose distance takes two bytes, or the end mark. */
  #readLong(code: number): 'match' | 'end' | 'damaged' {
    const mask = code >= 32 ? 31 : 7;
    this.#length = 2 + (code & mask || this.#longer(mask));
    const ip = this.#ip;
    if (ip + 2 > this.#source.length) return 'damaged';
    const word = this.#source[ip]! | (this.#source[ip + 1]! << 8);
    this.#ip = ip + 2;
    this.#literals = word & 3;
    if (code >= 32) {
      this.#distance = (word >> 2) + 1;
      return 'match';
    }
    const distance = ((code & 8) << 11) + (word >> 2);
    if (distance === 0) return this.#ip === this.#source.length && this.#length === 3 ? 'end' : 'damaged';
    this.#distance = distance + 16384;
    return 'match';
  }

  /** A length that goes on in the next bytes; more than there is room for where they do not end. */
  #longer(base: number): number {
    const room = this.#target.length;
    let length = base;
    while (this.#ip < this.#source.length && this.#source[this.#ip] === 0) {
      length += 255;
      this.#ip++;
      if (length > room) return length;
    }
    return this.#ip < this.#source.length ? length + this.#source[this.#ip++]! : room + 1;
  }

  /** False where the source has fewer bytes, or the target no room. */
  #copyLiterals(count: number): boolean {
    if (this.#ip + count > this.#source.length || this.#op + count > this.#target.length) return false;
    copyLiterals({ source: this.#source, from: this.#ip, count }, this.#target, this.#op);
    this.#ip += count;
    this.#op += count;
    return true;
  }

  /** Copies the match and the few literals after it. */
  #copy(): boolean {
    const [source, target, literals] = [this.#source, this.#target, this.#literals];
    const [ip, op] = [this.#ip, this.#op + this.#length];
    if (this.#distance > this.#op || op + literals > target.length || ip + literals > source.length) return false;
    copyMatch(target, this.#op, this.#distance, this.#length);
    for (let i = 0; i < literals; i++) target[op + i] = source[ip + i]!;
    this.#ip = ip + literals;
    this.#op = op + literals;
    this.#state = literals;
    return true;
  }
}
