/** Names of inlined functions, in the IPI stream; those of their classes are in the TPI stream. */
import {
  ClassRecord,
  CROSS_MODULE_INLINEE,
  FunctionId,
  LF_CLASS,
  LF_FUNC_ID,
  LF_INTERFACE,
  LF_MFUNC_ID,
  LF_NUMERIC,
  LF_STRING_ID,
  LF_STRUCTURE,
  LF_UNION,
  NUMERIC_LEAF_SIZES,
  StringId,
  UnionRecord,
} from '../formats/codeview.ts';
import { STREAM_IPI, STREAM_TPI, TypesHeader } from '../formats/pdb.ts';
import { readRecord } from './module.ts';
import { type MsfStream, StreamWindow } from './msf.ts';
import type { PdbFile } from './pdb.ts';

/** Places kept of a stream's records: every so many. */
const STEP = 256;

/** Records by their index. The stream is walked once, as far as is asked for: its own index is not believed. */
class TypeRecords {
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
  find(index: number): { window: StreamWindow; at: number; kind: number; end: number } | undefined {
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
}

/** Names of inlined functions by their index in the IPI stream. */
export class FunctionIds {
  readonly #pdb: PdbFile;
  readonly #streams = new Map<number, TypeRecords | undefined>();

  constructor(pdb: PdbFile) {
    this.#pdb = pdb;
  }

  /** `class::function` or `namespace::function`; undefined: it is not known. */
  nameOf(id: number): string | undefined {
    if (id >= CROSS_MODULE_INLINEE) return undefined;
    const found = this.#records(STREAM_IPI)?.find(id);
    if (!found) return undefined;
    const { window, at, kind, end } = found;
    if ((kind !== LF_FUNC_ID && kind !== LF_MFUNC_ID) || at + FunctionId.size > end) return undefined;
    const { Scope } = window.read(FunctionId, at);
    const name = window.text(at + FunctionId.size, end);
    const scope = kind === LF_MFUNC_ID ? this.#className(Scope) : this.#string(Scope);
    return scope ? `${scope}::${name}` : name;
  }

  #string(id: number): string | undefined {
    const found = id === 0 ? undefined : this.#records(STREAM_IPI)?.find(id);
    return found?.kind === LF_STRING_ID ? found.window.text(found.at + StringId.size, found.end) : undefined;
  }

  #className(type: number): string | undefined {
    const found = this.#records(STREAM_TPI)?.find(type);
    if (!found) return undefined;
    const { window, at, kind, end } = found;
    const isClass = kind === LF_CLASS || kind === LF_STRUCTURE || kind === LF_INTERFACE;
    if (!isClass && kind !== LF_UNION) return undefined;
    const size = at + (isClass ? ClassRecord.size : UnionRecord.size);
    if (size + 2 > end) return undefined;
    const leaf = window.u16(size);
    const more = leaf < LF_NUMERIC ? 0 : NUMERIC_LEAF_SIZES.get(leaf);
    return more === undefined ? undefined : window.text(size + 2 + more, end);
  }

  #records(number: number): TypeRecords | undefined {
    if (!this.#streams.has(number)) {
      const stream = this.#pdb.msf.stream(number);
      this.#streams.set(number, stream?.size ? new TypeRecords(stream) : undefined);
    }
    return this.#streams.get(number);
  }
}
