/** Records of the TPI and IPI streams: types, and ids of functions and strings. */
import { LF_LONG, LF_NUMERIC, LF_SHORT, LF_USHORT, NUMERIC_LEAF_SIZES } from '../formats/codeview.ts';
import { TypesHeader } from '../formats/pdb.ts';
import { readRecord } from './module.ts';
import { type MsfStream, StreamWindow } from './msf.ts';

/** A record where it lies in its stream. */
export interface TypeRecord {
  window: StreamWindow;
  /** Offsets of its beginning and end. */
  at: number;
  end: number;
  kind: number;
}

/** Places kept of a stream's records: every so many. */
const STEP = 256;

/** Records by their index. The stream is walked once, as far as is asked for: its own index is not believed. */
export class TypeRecords {
  readonly #window: StreamWindow;
  readonly #first: number;
  readonly #end: number;
  /** Offset of every STEP-th record. */
  readonly #places: number[];

  constructor(stream: MsfStream) {
    const header = TypesHeader.read(stream.read(0, TypesHeader.size));
    const end = header.HeaderSize + header.RecordsSize;
    if (header.HeaderSize < TypesHeader.size || end > stream.size) {
      throw stream.damaged(0, `records within ${stream.size} bytes`, `${end}`);
    }
    this.#window = new StreamWindow(stream, end);
    this.#first = header.FirstIndex;
    this.#end = header.EndIndex;
    this.#places = [header.HeaderSize];
  }

  /** undefined: there is no such record. */
  find(index: number): TypeRecord | undefined {
    if (index < this.#first || index >= this.#end) return undefined;
    const number = index - this.#first;
    let known = Math.min(this.#places.length - 1, Math.floor(number / STEP));
    let at = this.#places[known]!;
    for (let i = known * STEP; ; i++) {
      if (i === (known + 1) * STEP) {
        known++;
        this.#places[known] ??= at;
      }
      if (at >= this.#window.end) return undefined;
      const { kind, end } = readRecord(this.#window, at);
      if (i === number) return { window: this.#window, at, kind, end };
      at = end;
    }
  }

  /** All records, in their order. Each is valid until the next is asked for. */
  *all(): Generator<TypeRecord> {
    const window = this.#window;
    for (let at = this.#places[0]!; at < window.end; ) {
      const { kind, end } = readRecord(window, at);
      yield { window, at, kind, end };
      at = end;
    }
  }
}

/** Bytes of a numeric leaf that ends before `end`; undefined: there is none. */
export function numericSize(window: StreamWindow, at: number, end: number): number | undefined {
  if (at + 2 > end) return undefined;
  const leaf = window.u16(at);
  const more = leaf < LF_NUMERIC ? 0 : NUMERIC_LEAF_SIZES.get(leaf);
  return more === undefined || at + 2 + more > end ? undefined : 2 + more;
}

/** Its value: sizes and offsets are not negative, and fit 32 bits. undefined: it is none of these. */
export function numericValue(window: StreamWindow, at: number, end: number): number | undefined {
  const size = numericSize(window, at, end);
  const leaf = size === undefined ? undefined : window.u16(at);
  if (leaf === undefined || size === 2) return leaf;
  if (leaf === LF_SHORT || leaf === LF_USHORT) {
    const value = window.u16(at + 2);
    return leaf === LF_SHORT && value > 0x7fff ? undefined : value;
  }
  if (size !== 6 && size !== 10) return undefined;
  const value = window.u32(at + 2);
  if (leaf === LF_LONG && value > 0x7fff_ffff) return undefined;
  return size === 6 || window.u32(at + 6) === 0 ? value : undefined;
}
