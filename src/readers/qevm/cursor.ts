/** Reads a stream's big-endian numbers one after another, in blocks of a MiB. */
import { MIB } from '../../core/units.ts';
import type { ByteSource } from '../../source/source.ts';

/** The stream ends before what is being read. */
export class StreamEnd extends Error {
  readonly offset: number;

  constructor(offset: number) {
    super(`the stream ends at ${offset}`);
    this.offset = offset;
  }
}

export class Cursor {
  readonly #source: ByteSource;
  readonly #end: number;
  readonly #buffer = Buffer.allocUnsafeSlow(MIB);
  #bufferAt = 0;
  #filled = 0;
  /** Offset of the next byte in the source. */
  at: number;

  /** @param end bytes of the source that may be read */
  constructor(source: ByteSource, at: number, end = source.size) {
    this.#source = source;
    this.at = at;
    this.#end = end;
  }

  get left(): number {
    return this.#end - this.at;
  }

  u8(): number {
    return this.#bytes(1).readUInt8();
  }

  u16(): number {
    return this.#bytes(2).readUInt16BE();
  }

  u32(): number {
    return this.#bytes(4).readUInt32BE();
  }

  u64(): bigint {
    return this.#bytes(8).readBigUInt64BE();
  }

  /** A 64-bit word as its page-aligned part, which fits a number, and its low 12 bits. Throws RangeError beyond 2^52. */
  pageWord(): { offset: number; flags: number } {
    const bytes = this.#bytes(8);
    const high = bytes.readUInt32BE();
    const low = bytes.readUInt32BE(4);
    if (high >= 0x10_0000) throw new RangeError(`a page at ${high.toString(16)}…`);
    return { offset: high * 2 ** 32 + (low - (low & 0xfff)), flags: low & 0xfff };
  }

  /** Text of at most 255 bytes, its length in front. */
  name(): string {
    return this.bytes(this.u8()).toString('latin1');
  }

  /** A copy. At most a MiB. */
  bytes(length: number): Buffer {
    return Buffer.from(this.#bytes(length));
  }

  /** Throws `StreamEnd` where fewer bytes are left. */
  skip(length: number): void {
    if (length > this.left) throw new StreamEnd(this.#end);
    this.at += length;
  }

  /** Valid until the next call. */
  #bytes(length: number): Buffer {
    if (length > this.left) throw new StreamEnd(this.#end);
    let from = this.at - this.#bufferAt;
    if (from < 0 || from + length > this.#filled) {
      this.#bufferAt = this.at;
      this.#filled = Math.min(this.#buffer.length, this.left);
      this.#source.readSync(this.at, this.#buffer.subarray(0, this.#filled));
      from = 0;
    }
    this.at += length;
    return this.#buffer.subarray(from, from + length);
  }
}
