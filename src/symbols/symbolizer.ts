/** From an RVA to function, source line and inlined calls, by one PDB. */
import { FunctionIds } from './ids.ts';
import { type FunctionRecord, ModuleSymbols, type SourceLine } from './module.ts';
import type { PdbFile } from './pdb.ts';
import { Publics } from './publics.ts';
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

export interface LookUpOptions {
  /** The address is one that a call returns to: the function, line and inlined calls are those of the call before it. */
  returnAddress?: boolean;
  /**
   * Where the image's exception directory has the function, RVA. A public symbol has no size: with this, the nearest one
   * is certain if it is not before the function.
   */
  functionBegin?: number | undefined;
}

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
    const index = this.pdb.moduleAt(source);
    const module = index === undefined ? undefined : this.#module(index);
    const [func, ...folded] = module?.functionsAt(source) ?? [];
    if (!module || !func) return this.#nearest(source, options);
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
      name: this.#ids.nameOf(inlinee),
      offset: offset + back,
      ...this.#place(module, source),
    }));
  }

  #place(
    module: ModuleSymbols,
    source: SourceLine | undefined,
  ): { file: string | undefined; line: number | undefined } {
    const file = source && module.fileName(source);
    return { file, line: file === undefined ? undefined : source?.line };
  }

  /** In no function: the nearest start below, of functions and public symbols, in the same section. */
  #nearest(source: number, options: LookUpOptions): CodeSymbol | undefined {
    const back = options.returnAddress ? 1 : 0;
    const section = this.pdb.sectionAt(source);
    const index = this.pdb.moduleBelow(source);
    const module = index === undefined ? undefined : this.#module(index);
    const func = module?.functionBelow(source);
    this.#publics ??= new Publics(this.pdb);
    const publics = this.#publics.below(source);
    const start = Math.max(func?.start ?? -1, publics[0]?.start ?? -1);
    if (start < 0 || section === undefined || this.pdb.sectionAt(start) !== section) return undefined;
    // A procedure's name needs no undecorating.
    const names =
      module && func?.start === start
        ? module.functionsFrom(start).map((f) => module.nameOf(f))
        : publics.map((p) => undecorated(p.name));
    const begin = options.functionBegin === undefined ? undefined : this.pdb.toSource(options.functionBegin);
    const [name, ...aliases] = [...new Set(names)];
    return {
      name: name!,
      offset: source + back - start,
      aliases,
      file: undefined,
      line: undefined,
      inlined: [],
      // A function with a size that ends before the address is not the one.
      certain: func?.start !== start && begin !== undefined && begin <= start,
    };
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
