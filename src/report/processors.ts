/** Windows' processors as plain data, with the registers that each shows. */
import { isKernelAddress } from '../core/bits.ts';
import { hex, hex64, type VirtualAddress } from '../core/units.ts';
import type { Registers } from '../machines/machine.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { ContextSource, Contexts, ShownContext } from '../plan/contexts.ts';
import type { CodeSymbol } from '../symbols/symbolizer.ts';
import type { Symbols } from '../symbols/symbols.ts';
import { symbolAt } from '../windows/code-symbols.ts';
import { tablesOf } from '../windows/current-process.ts';
import { ImageSpaces, type LoadedImage } from '../windows/image-spaces.ts';
import { moduleOf } from '../windows/modules.ts';
import { type ExportTable, nearestExport, readExports } from '../windows/pe-image.ts';
import type { Windows } from '../windows/windows.ts';

export type CpuMode = 'kernel' | 'user' | 'user, 32-bit code';

/** Where an address lies. */
export interface CodePlace {
  /** null for an image that no list names. */
  module: string | null;
  base: string;
  /** From the module's base. */
  offset: string;
  /** The nearest export at or below; null where the module has none, or they are not present. */
  nearestExport: { name: string; offset: string } | null;
  /** By the module's PDB; null without one. */
  symbol: SymbolReport | null;
}

/** A line of source, as the compiler named its file. */
export interface SourceReport {
  file: string | null;
  line: number | null;
}

/** What a PDB says of an address. */
export interface SymbolReport extends SourceReport {
  name: string;
  /** From the function's start. */
  offset: string;
  /** Whether the address lies in the function; false: it is the nearest symbol below. */
  certain: boolean;
  /** Other names of the same code, where the linker folded equal functions. */
  aliases: readonly string[];
  /** Calls that were inlined there, innermost first. `offset` counts from where the call's code begins. */
  inlined: readonly (SourceReport & { name: string | null; offset: string })[];
}

export interface ProcessorReport {
  number: number;
  /** Index among the input's CPUs of the one that runs it; null if none does. */
  cpu: number | null;
  kpcr: string;
  prcb: string;
  /** Whose registers follow. */
  registers: ContextSource;
  mode: CpuMode | null;
  instructionPointer: string | null;
  stackPointer: string | null;
  /** Physical address, by the CPU's control registers; null where they are unknown or paging is off. */
  pageTableRoot: string | null;
  /** null where the instruction pointer lies in no module. */
  at: CodePlace | null;
  /** In a crashed guest, the frame that Windows captured. */
  captured: CapturedReport | null;
}

export interface CapturedReport {
  instructionPointer: string;
  stackPointer: string;
  /** It was captured in KeBugCheckEx. */
  atBugCheck: boolean;
  /** Why it is not believed; null if it is. */
  doubt: string | null;
}

/** Image headers and export tables of modules, each read once. */
export class Images {
  readonly #spaces: ImageSpaces;
  readonly symbols: Symbols | undefined;
  readonly #images = new Map<bigint, LoadedImage | undefined>();
  readonly #exports = new Map<LoadedImage, ExportTable | undefined>();
  #count = 0;

  constructor(windows: Windows, symbols?: Symbols) {
    this.#spaces = new ImageSpaces(windows);
    this.symbols = symbols;
  }

  /** What the image's PDB says of an address in it. */
  symbol(image: LoadedImage, address: bigint): CodeSymbol | undefined {
    return this.symbols && symbolAt(this.symbols, image, address);
  }

  at(base: bigint): LoadedImage | undefined {
    if (!this.#images.has(base)) this.#images.set(base, this.#spaces.find(base));
    return this.#images.get(base);
  }

  exports(loaded: LoadedImage): ExportTable | undefined {
    if (!this.#exports.has(loaded)) {
      const table = this.#count < MAX_EXPORTS ? readExports(loaded.space, loaded.image) : undefined;
      this.#count += table?.entries.length ?? 0;
      this.#exports.set(loaded, table);
    }
    return this.#exports.get(loaded);
  }
}

/** Limit for the exports of all modules together; a kernel has some 3,000. */
const MAX_EXPORTS = 1 << 18;

export const reportProcessors = (w: Windows, { shown }: Contexts, images: Images): ProcessorReport[] =>
  shown.map((context) => reportProcessor(w, context, images));

function reportProcessor(w: Windows, shown: ShownContext, images: Images): ProcessorReport {
  const { machine } = w.image;
  const { processor, source } = shown;
  const tables = tablesOf(w, processor);
  const known = source === 'unknown' ? undefined : machine.viewContext(shown.frame);
  const captured = w.crash?.captured.get(processor);
  return {
    number: processor.number,
    cpu: w.image.dumpHeader ? null : (processor.cpu?.index ?? null),
    kpcr: hex64(processor.kpcr),
    prcb: hex64(processor.prcb),
    registers: source,
    mode: known ? modeOfShown(w.image, shown, known.instructionPointer) : null,
    instructionPointer: known ? hex64(known.instructionPointer) : null,
    stackPointer: known ? hex64(known.stackPointer) : null,
    pageTableRoot: tables ? hex(tables.root) : null,
    at: known ? codePlace(w, known.instructionPointer, images) : null,
    captured: captured
      ? {
          instructionPointer: hex64(captured.view.instructionPointer),
          stackPointer: hex64(captured.view.stackPointer),
          atBugCheck: captured.atBugCheck,
          doubt: captured.doubt ?? null,
        }
      : null,
  };
}

function modeOfShown(image: MemoryImage, { source, processor }: ShownContext, at: VirtualAddress): CpuMode {
  const registers = processor.cpu?.registers;
  if (registers && source !== 'captured') return modeOf(image, registers);
  return isKernelAddress(at) ? 'kernel' : 'user';
}

/** The mode that a CPU runs in. */
export function modeOf({ machine }: MemoryImage, registers: Registers): CpuMode {
  if (!machine.isUserMode(registers)) return 'kernel';
  return machine.runsNativeCode(registers) ? 'user' : 'user, 32-bit code';
}

/** Where code lies in the kernel's modules; null outside all of them. */
export function codePlace({ modules }: Windows, address: bigint, images: Images): CodePlace | null {
  const module = moduleOf(modules, address);
  if (!module) return null;
  const image = images.at(module.base);
  const table = image && images.exports(image);
  const nearest = table && nearestExport(image.space, table, address);
  return {
    module: module.name || null,
    base: hex64(module.base),
    offset: hex(address - module.base),
    nearestExport: nearest ? { name: nearest.name, offset: hex(nearest.offset) } : null,
    symbol: reportSymbol(image && images.symbol(image, address)),
  };
}

/** A symbol as plain data. */
export const reportSymbol = (symbol: CodeSymbol | undefined): SymbolReport | null =>
  symbol
    ? {
        name: symbol.name,
        offset: hex(symbol.offset),
        certain: symbol.certain,
        aliases: symbol.aliases,
        file: symbol.file ?? null,
        line: symbol.line ?? null,
        inlined: symbol.inlined.map(({ name, offset, file, line }) => ({
          name: name ?? null,
          offset: hex(offset),
          file: file ?? null,
          line: line ?? null,
        })),
      }
    : null;
