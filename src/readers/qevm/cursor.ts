/** Reads a stream's big-endian numbers one after another: from a source, or from what has come of a pipe. */
import { MIB } from '../../core/units.ts';
import { type ByteSource, readUpTo } from '../../source/source.ts';

/** The stream ends before what is being read. */
export class StreamEnd extends Error {
  readonly offset: number;

  constructor(offset: number) {
    super(`the stream ends at ${offset}`);
    this.offset = offset;
  }
}

/** What is being read has not come yet: to be read again when more has. */
export class NotYet extends Error {}

/** What is to be done has to wait for the disk: to be done again after that. */
export class Busy extends Error {}

/** A place in a stream. */
export abstract class Cursor {
  /** Offset of the next byte in the source. */
  at: number;

  constructor(at: number) {
    this.at = at;
  }

  /** The next bytes, at most a MiB, which are passed over; valid until the next call. Throws `StreamEnd`, `NotYet`. */
  abstract view(length: number): Buffer;

  /** As `view`, of fewer bytes where the stream ends, which are not passed over. */
  abstract peek(length: number): Buffer;

  /** Memory that holds the bytes from here on, where it is at hand without a copy; valid until the next call. */
  get atHand(): { bytes: Buffer; from: number } | undefined {
    return undefined;
  }

  /** Passes over bytes. Throws `StreamEnd`, `NotYet`. */
  abstract skip(length: number): void;

  /** Where bytes are next, if they are within `limit` bytes from `from` on. Throws `NotYet`. */
  abstract find(mark: Buffer, from: number, limit: number): number | undefined;

  u8(): number {
    return this.view(1).readUInt8();
  }

  u16(): number {
    return this.view(2).readUInt16BE();
  }

  u32(): number {
    return this.view(4).readUInt32BE();
  }

  u64(): bigint {
    return this.view(8).readBigUInt64BE();
  }

  /** A 64-bit word as its page-aligned part, which fits a number, and its low 12 bits. Throws RangeError beyond 2^52. */
  pageWord(): { offset: number; flags: number } {
    return pageWordAt(this.view(8), 0);
  }

  /** Text of at most 255 bytes, its length in front. */
  name(): string {
    return this.bytes(this.u8()).toString('latin1');
  }

  /** A copy. At most a MiB. */
  bytes(length: number): Buffer {
    return Buffer.from(this.view(length));
  }
}

function pageWordAt(bytes: Buffer, at: number): { offset: number; flags: number } {
  const high = bytes.readUInt32BE(at);
  const low = bytes.readUInt32BE(at + 4);
  if (high >= 0x10_0000) throw new RangeError(`a page at ${high.toString(16)}…`);
  return { offset: high * 2 ** 32 + (low - (low & 0xfff)), flags: low & 0xfff };
}

/** In a source, read in blocks of a MiB. */
export class SourceCursor extends Cursor {
  readonly #source: ByteSource;
  readonly #end: number;
  readonly #buffer = Buffer.allocUnsafeSlow(MIB);
  #bufferAt = 0;
  #filled = 0;

  /** @param end bytes of the source that may be read */
  constructor(source: ByteSource, at: number, end = source.size) {
    super(at);
    this.#source = source;
    this.#end = end;
  }

  view(length: number): Buffer {
    const left = this.#end - this.at;
    if (length > left) throw new StreamEnd(this.#end);
    let from = this.at - this.#bufferAt;
    if (from < 0 || from + length > this.#filled) {
      this.#bufferAt = this.at;
      this.#filled = Math.min(this.#buffer.length, left);
      this.#source.readSync(this.at, this.#buffer.subarray(0, this.#filled));
      from = 0;
    }
    this.at += length;
    return this.#buffer.subarray(from, from + length);
  }

  peek(length: number): Buffer {
    const there = Math.min(length, this.#end - this.at);
    if (there <= 0) return Buffer.alloc(0);
    const bytes = this.view(there);
    this.at -= there;
    return bytes;
  }

  skip(length: number): void {
    if (length > this.#end - this.at) throw new StreamEnd(this.#end);
    this.at += length;
  }

  find(mark: Buffer, from: number, limit: number): number | undefined {
    for (let at = from; at < from + limit; at += MIB) {
      const piece = readUpTo(this.#source, at, MIB + mark.length - 1);
      const found = piece.indexOf(mark);
      if (found >= 0) return at + found;
      if (piece.length < MIB) return undefined;
    }
    return undefined;
  }
}

/** In a stream of which only what was not passed over is at hand. */
export class ArrivingCursor extends Cursor {
  /** What was left when the last bytes came, and those. */
  #left: Buffer = Buffer.alloc(0);
  #last: Buffer = Buffer.alloc(0);
  /** Of the last bytes, in the stream. */
  #start = 0;
  #ended = false;

  /** Bytes that have come, from the stream's start on. */
  get arrived(): number {
    return this.#start + this.#last.length;
  }

  /** What has come and was not passed over. */
  get rest(): Buffer {
    return this.#upTo(this.arrived);
  }

  /** Takes the stream's next bytes, which have to stay as they are until `settle`. */
  add(bytes: Buffer): void {
    this.settle();
    this.#last = bytes;
  }

  /** Keeps what was not passed over. */
  settle(): void {
    const [left, arrived] = [Buffer.from(this.rest), this.arrived];
    this.#left = left;
    this.#last = Buffer.alloc(0);
    this.#start = arrived;
  }

  /** The stream has no more. */
  end(): void {
    this.#ended = true;
  }

  override get atHand(): { bytes: Buffer; from: number } | undefined {
    const from = this.at - this.#start;
    return from >= 0 && from < this.#last.length ? { bytes: this.#last, from } : undefined;
  }

  view(length: number): Buffer {
    const end = this.at + length;
    if (end > this.arrived) throw this.#missing();
    const bytes = this.#upTo(end);
    this.at = end;
    return bytes;
  }

  /** As always, without an object for its bytes: there is one for each page. */
  override pageWord(): { offset: number; flags: number } {
    const at = this.at - this.#start;
    if (at < 0 || at + 8 > this.#last.length) return super.pageWord();
    this.at += 8;
    return pageWordAt(this.#last, at);
  }

  peek(length: number): Buffer {
    const end = Math.min(this.at + length, this.arrived);
    if (end < this.at + length && !this.#ended) throw new NotYet();
    return this.#upTo(end);
  }

  skip(length: number): void {
    if (this.at + length > this.arrived) throw this.#missing();
    this.at += length;
  }

  find(mark: Buffer, from: number, limit: number): number | undefined {
    const { rest } = this;
    const found = rest.indexOf(mark, from - this.at);
    if (found >= 0 && found + this.at < from + limit) return found + this.at;
    if (!this.#ended && this.arrived < from + limit) throw new NotYet();
    return undefined;
  }

  /** The bytes from here to an offset that has come; none where that is further back. */
  #upTo(end: number): Buffer {
    const { at } = this;
    const start = this.#start;
    if (at >= start) return this.#last.subarray(Math.min(at - start, this.#last.length), Math.max(0, end - start));
    const left = this.#left.subarray(this.#left.length - (start - at), this.#left.length - Math.max(0, start - end));
    return end <= start ? left : Buffer.concat([left, this.#last.subarray(0, end - start)]);
  }

  #missing(): Error {
    return this.#ended ? new StreamEnd(this.arrived) : new NotYet();
  }
}
