/** Public symbols: all that a stripped PDB has. */
import { PublicSym, S_PUB32 } from '../formats/codeview.ts';
import { MAX_FOLDED, readRecord } from './module.ts';
import { StreamWindow } from './msf.ts';
import type { PdbFile } from './pdb.ts';
import { lastAtOrBelow, RangeCollector, type Ranges } from './ranges.ts';

/** Of one PDB: browsers have some 500,000. */
const MAX_PUBLICS = 0x40_0000;

/** What the linker knows by name. */
export interface PublicSymbol {
  /** RVA of the image as it was linked. */
  start: number;
  /** As the linker has it, decorated. */
  name: string;
}

/** The public symbols of a PDB, sorted by address. */
export class Publics {
  readonly #window: StreamWindow | undefined;
  /** Values are offsets of records. */
  readonly #symbols: Ranges;

  /** Reads all records once. Throws `Elf2dmpError` where they are damaged. */
  constructor(pdb: PdbFile) {
    const stream = pdb.msf.stream(pdb.symbolRecordsStream);
    this.#window = stream && new StreamWindow(stream, stream.size);
    const found = new RangeCollector();
    for (let at = 0; this.#window && at < this.#window.end; ) {
      const { kind, end } = readRecord(this.#window, at);
      const start = kind === S_PUB32 && end - at > PublicSym.size ? placeOf(pdb, this.#window, at) : undefined;
      if (start !== undefined) {
        if (found.length >= MAX_PUBLICS)
          throw this.#window.stream.damaged(at, `at most ${MAX_PUBLICS} publics`, 'more');
        found.add(start, 0, at);
      }
      at = end;
    }
    this.#symbols = found.finish();
  }

  /** The public symbols at the nearest address at or below an RVA as linked; more than one where code was folded. */
  below(rva: number): PublicSymbol[] {
    const { starts, values } = this.#symbols;
    const last = lastAtOrBelow(starts, rva);
    const found: PublicSymbol[] = [];
    for (let i = last; i >= 0 && starts[i] === starts[last] && found.length < MAX_FOLDED; i--) {
      found.unshift({ start: starts[i]!, name: this.#nameAt(values[i]!) });
    }
    return found;
  }

  #nameAt(record: number): string {
    const { end } = readRecord(this.#window!, record);
    return this.#window!.text(record + PublicSym.size, end);
  }
}

function placeOf(pdb: PdbFile, window: StreamWindow, at: number): number | undefined {
  const { Section, Offset } = window.read(PublicSym, at);
  return pdb.rvaOf(Section, Offset);
}
