/** Names of code by PDBs on this machine: the one door to this room for those above it. */
import { Elf2dmpError } from '../core/errors.ts';
import { unattended } from '../files/unattended.ts';
import { type PdbIdentity, symbolPath } from './identity.ts';
import type { RefusedPdb, SymbolStore } from './store.ts';
import { findStructures, type Structure, type WantedMembers } from './structures.ts';
import { type CodeSymbol, type LookUpOptions, Symbolizer } from './symbolizer.ts';

/** A PDB that was found, and is not used. */
export interface SymbolProblem {
  /** Of the PDB that was wanted: `name.pdb/GUIDAGE/name.pdb`. */
  wanted: string;
  path: string;
  code: RefusedPdb['code'];
  /** A clause without final stop. */
  reason: string;
}

/** Names the code of images by the PDBs of a store. */
export class Symbols {
  readonly #store: SymbolStore;
  readonly #symbolizers = new Map<string, Symbolizer | undefined>();
  readonly #problems: SymbolProblem[] = [];

  constructor(store: SymbolStore) {
    this.#store = store;
  }

  /** What is at an RVA of an image; undefined: its PDB was not found, or has nothing there. */
  lookUp(image: PdbIdentity, rva: number, options?: LookUpOptions): CodeSymbol | undefined {
    return this.#ask(image, (symbolizer) => symbolizer.lookUp(rva, options));
  }

  /** Structures by their names, of the image's own types; undefined: its PDB was not found. Stripped PDBs have none. */
  structures(image: PdbIdentity, wanted: WantedMembers): ReadonlyMap<string, Structure> | undefined {
    return this.#ask(image, ({ pdb }) => findStructures(pdb, wanted));
  }

  /** Whether the PDB of an image was found. */
  has(image: PdbIdentity): boolean {
    return this.#symbolizer(image) !== undefined;
  }

  /** Files that have the name of a PDB that was wanted, and are not it or cannot be used. */
  get problems(): readonly SymbolProblem[] {
    return this.#problems;
  }

  close(): void {
    for (const symbolizer of this.#symbolizers.values()) symbolizer?.pdb.close();
    this.#symbolizers.clear();
  }

  /** undefined without the PDB, and where it is damaged: no further name is taken from it then. */
  #ask<T>(image: PdbIdentity, question: (symbolizer: Symbolizer) => T): T | undefined {
    const symbolizer = this.#symbolizer(image);
    try {
      return symbolizer && unattended(() => question(symbolizer));
    } catch (error) {
      if (!(error instanceof Elf2dmpError) || !symbolizer) throw error;
      symbolizer.pdb.close();
      this.#symbolizers.set(symbolPath(image), undefined);
      this.#refuse(image, { path: symbolizer.pdb.name, code: 'unusable', reason: error.message });
      return undefined;
    }
  }

  #symbolizer(image: PdbIdentity): Symbolizer | undefined {
    const key = symbolPath(image);
    if (!this.#symbolizers.has(key)) {
      const { pdb, refused } = unattended(() => this.#store.find(image));
      // What was found in the end makes the others irrelevant.
      if (!pdb) for (const each of refused) this.#refuse(image, { ...each, reason: each.reason.text });
      this.#symbolizers.set(key, pdb && new Symbolizer(pdb));
    }
    return this.#symbolizers.get(key);
  }

  #refuse(image: PdbIdentity, problem: Omit<SymbolProblem, 'wanted'>): void {
    this.#problems.push({ wanted: symbolPath(image), ...problem });
  }
}
