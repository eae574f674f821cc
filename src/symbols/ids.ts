/** Names of inlined functions, in the IPI stream; those of their classes are in the TPI stream. */
import {
  ClassRecord,
  CROSS_MODULE_INLINEE,
  FunctionId,
  LF_CLASS,
  LF_FUNC_ID,
  LF_INTERFACE,
  LF_MFUNC_ID,
  LF_STRING_ID,
  LF_STRUCTURE,
  LF_UNION,
  StringId,
  UnionRecord,
} from '../formats/codeview.ts';
import { STREAM_IPI, STREAM_TPI } from '../formats/pdb.ts';
import type { PdbFile } from './pdb.ts';
import { numericSize, TypeRecords } from './type-records.ts';

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
    const bytes = numericSize(window, size, end);
    return bytes === undefined ? undefined : window.text(size + bytes, end);
  }

  #records(number: number): TypeRecords | undefined {
    if (!this.#streams.has(number)) {
      const stream = this.#pdb.msf.stream(number);
      this.#streams.set(number, stream?.size ? new TypeRecords(stream) : undefined);
    }
    return this.#streams.get(number);
  }
}
