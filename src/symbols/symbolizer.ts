/** From an RVA to function, source line and inlined calls, by one PDB. */
import { CROSS_MODULE_INLINEE } from '../formats/codeview.ts';
import { FunctionIds } from './ids.ts';
import { type FunctionRecord, ModuleSymbols, type SourceLine } from './module.ts';
import type { PdbFile } from './pdb.ts';
import { type PublicSymbol, Publics } from './publics.ts';
import { undecorated } from './undecorate.ts';

/** Entries of the tables of modules that are kept; some 12 bytes each. */
const MAX_WEIGHT = 0x8_0000;
const MAX_MODULES = 256;

/** A function whose code was inlined into the one that runs. */
export interface InlinedCall {
  /** `class::name`; undefined where the PDB does not say. */
  name: string | undefined;
  /** From where its code begins to the address, bytes. */
  offset: number;
  file: string | undefined;
  line: number | undefined;
}

/** What a PDB says of an address. */
export interface CodeSymbol {
  name: string;
  /** From the function's start to the address, bytes. */
  offset: number;
  /** Further names of the same code, where the linker folded equal functions. */
  aliases: readonly string[];
  /** The compiler's path. With inlined calls, the place in the function itself. */
  file: string | undefined;
  line: number | undefined;
  /** Innermost first: the last one was called by the function itself. */
  inlined: readonly InlinedCall[];
  /**
   * Whether the address lies in the function. false: it is the nearest symbol below, as the debugger shows it, and the
   * function that runs may be another one.
   */
  certain: boolean;
}

/** What is known of an address. */
export interface LookUpOptions {
  /** The address is one that a call returns to: the function, line and inlined calls are those of the call before it. */
  returnAddress?: boolean;
  /**
   * Where the image's exception directory has the function, RVA. A public symbol has no size: with this, the nearest one
   * is certain if it is not before the function.
   */
  functionBegin?: number | undefined;
}

/** Names the code of one image by its PDB. */
export class Symbolizer {
  readonly pdb: PdbFile;
  readonly #ids: FunctionIds;
  readonly #modules = new Map<number, ModuleSymbols>();
  #publics: Publics | undefined;

  constructor(pdb: PdbFile) {
    this.pdb = pdb;
    this.#ids = new FunctionIds(pdb);
  }

  /** What is at an RVA; undefined: no symbol is at or below. Throws `Elf2dmpError` where the PDB is damaged. */
  lookUp(rva: number, options: LookUpOptions = {}): CodeSymbol | undefined {
    const back = options.returnAddress ? 1 : 0;
    const source = this.pdb.toSource(rva - back);
    if (source === undefined) return undefined;
    const module = this.#moduleOf(this.pdb.moduleAt(source));
    const [func, ...folded] = module?.functionsAt(source) ?? [];
    if (!module || !func || func.thunk) return this.#nearest(source, options);
    return {
      name: module.nameOf(func),
      offset: source + back - func.start,
      aliases: folded.map((f) => module.nameOf(f)),
      ...this.#place(module, module.lineAt(source)),
      inlined: this.#inlined(module, func, { rva: source, back }),
      certain: true,
    };
  }

  #inlined(module: ModuleSymbols, func: FunctionRecord, at: { rva: number; back: number }): InlinedCall[] {
    const { rva, back } = at;
    const sites = module.inlineSitesAt(func, rva);
    return sites.reverse().map(({ inlinee, offset, source }) => ({
      name: this.#inlineeName(module, inlinee),
      offset: offset + back,
      ...this.#place(module, source),
    }));
  }

  #inlineeName(module: ModuleSymbols, inlinee: number): string | undefined {
    if (inlinee < CROSS_MODULE_INLINEE) return this.#ids.nameOf(inlinee);
    const imported = module.importedInlinee(inlinee);
    const other = imported && this.#moduleOf(this.pdb.moduleNamed(imported.module));
    const id = other?.exportedInlinee(imported!.local);
    return id === undefined ? undefined : this.#ids.nameOf(id);
  }

  #place(
    module: ModuleSymbols,
    source: SourceLine | undefined,
  ): { file: string | undefined; line: number | undefined } {
    const file = source && module.fileName(source);
    return { file, line: file === undefined ? undefined : source?.line };
  }

  /**
   * In no procedure: the nearest start below, of procedures and public symbols, in the same section. A thunk's own name
   * counts for less than a public one, as in the debugger.
   */
  #nearest(source: number, { functionBegin, returnAddress }: LookUpOptions): CodeSymbol | undefined {
    const below = this.#moduleOf(this.pdb.moduleBelow(source));
    const func = below?.functionBelow(source);
    this.#publics ??= new Publics(this.pdb);
    const publics = this.#publics.below(source);
    const start = Math.max(func?.start ?? -1, publics[0]?.start ?? -1);
    const section = this.pdb.sectionAt(source);
    if (start < 0 || section === undefined || this.pdb.sectionAt(start) !== section) return undefined;
    const here = this.#moduleOf(this.pdb.moduleAt(source));
    const [name, ...aliases] = this.#namesFrom(start, { publics, module: below });
    if (name === undefined) return undefined;
    const begin = functionBegin === undefined ? undefined : this.pdb.toSource(functionBegin);
    const inThunk = here?.functionsAt(source).some((f) => f.start <= start) ?? false;
    return {
      name,
      offset: source + (returnAddress ? 1 : 0) - start,
      aliases,
      ...(here ? this.#place(here, here.lineAt(source)) : { file: undefined, line: undefined }),
      inlined: [],
      // A procedure that ends before the address is not the one; of a public symbol only the image knows the end.
      certain: inThunk || (func?.start !== start && begin !== undefined && begin <= start),
    };
  }

  /** Names of what begins at an RVA: those of procedures, which are not decorated, else of public symbols, else of thunks. */
  #namesFrom(
    start: number,
    { publics, module }: { publics: readonly PublicSymbol[]; module: ModuleSymbols | undefined },
  ): string[] {
    const owner = this.#moduleOf(this.pdb.moduleAt(start)) ?? module;
    const functions = owner?.functionsFrom(start) ?? [];
    const procedures = functions.filter((f) => !f.thunk);
    const names = procedures.map((f) => owner!.nameOf(f));
    if (names.length === 0 && publics[0]?.start === start) names.push(...publics.map((p) => undecorated(p.name)));
    if (names.length === 0) names.push(...functions.map((f) => owner!.nameOf(f)));
    return [...new Set(names)];
  }

  #moduleOf(index: number | undefined): ModuleSymbols | undefined {
    return index === undefined ? undefined : this.#module(index);
  }

  #module(index: number): ModuleSymbols | undefined {
    const known = this.#modules.get(index);
    if (known) {
      // The last one used is the last in the map.
      this.#modules.delete(index);
      this.#modules.set(index, known);
      return known;
    }
    const info = this.pdb.module(index);
    if (!info) return undefined;
    const module = new ModuleSymbols(this.pdb, info);
    this.#modules.set(index, module);
    this.#forget();
    return module;
  }

  /** Lets go of the modules that were not used for longest. */
  #forget(): void {
    let weight = [...this.#modules.values()].reduce((sum, m) => sum + m.weight, 0);
    for (const [index, module] of this.#modules) {
      if (this.#modules.size <= 1 || (weight <= MAX_WEIGHT && this.#modules.size <= MAX_MODULES)) return;
      weight -= module.weight;
      this.#modules.delete(index);
    }
  }
}
