/** What one module of a PDB knows: its functions, the calls inlined in them, and the lines of both. */
import { alignUp } from '../core/bits.ts';
import {
  CROSS_MODULE_IMPORT_MASK,
  CROSS_MODULE_IMPORT_SHIFT,
  CROSS_MODULE_REFERENCE_MASK,
  CrossScopeExport,
  CrossScopeImport,
  CV_SIGNATURE_C13,
  HIDDEN_LINES,
  INLINE_SITE_2_SIZE,
  INLINEES_PLAIN,
  INLINEES_WITH_FILES,
  InlineeLine,
  InlineSiteSym,
  LINE_MASK,
  LINES_HAVE_COLUMNS,
  LineEntry,
  LinesBlock,
  LinesHeader,
  ProcSym,
  RecordHeader,
  S_BLOCK32,
  S_END,
  S_GPROC32,
  S_GPROC32_ID,
  S_INLINESITE,
  S_INLINESITE_END,
  S_INLINESITE2,
  S_LPROC32,
  S_LPROC32_DPC,
  S_LPROC32_DPC_ID,
  S_LPROC32_ID,
  S_PROC_ID_END,
  S_SEPCODE,
  S_THUNK32,
  S_WITH32,
  SUBSECTION_CHECKSUMS,
  SUBSECTION_EXPORTS,
  SUBSECTION_IMPORTS,
  SUBSECTION_INLINEES,
  SUBSECTION_LINES,
  SubsectionHeader,
  ThunkSym,
} from '../formats/codeview.ts';
import { FileChecksum } from '../formats/pdb.ts';
import { type InlineRow, inlineRowAt } from './annotations.ts';
import { type MsfStream, StreamWindow } from './msf.ts';
import type { PdbFile, PdbModule } from './pdb.ts';
import { firstAt, lastAtOrBelow, RangeCollector, type Ranges } from './ranges.ts';

const PROCEDURES = new Set([S_LPROC32, S_GPROC32, S_LPROC32_ID, S_GPROC32_ID, S_LPROC32_DPC, S_LPROC32_DPC_ID]);
const SCOPES = new Set([S_BLOCK32, S_WITH32, S_THUNK32, S_SEPCODE, ...PROCEDURES]);
const ENDS = new Set([S_END, S_PROC_ID_END, S_INLINESITE_END]);
/** Bytes of a line's columns. */
const COLUMNS_SIZE = 4;
/** Calls inlined into inlined calls; compilers stop far earlier. */
const MAX_DEPTH = 256;

/** Names of one piece of code that are reported. */
export const MAX_FOLDED = 64;

/** A procedure or thunk. */
export interface FunctionRecord {
  /** RVA of the image as it was linked. */
  start: number;
  /** Bytes. */
  size: number;
  /** Offset of its record in the module's stream. */
  record: number;
  thunk: boolean;
}

/** A line of a file. */
export interface SourceLine {
  /** Offset in the module's checksums subsection. */
  file: number;
  line: number;
}

/** A call that was inlined at an address, and the line of the inlined function that the address stands for. */
export interface InlineSite {
  /** Index of the function's name in the IPI stream. */
  inlinee: number;
  /** From where the call's code begins to the address, bytes. */
  offset: number;
  source: SourceLine | undefined;
}

interface FunctionIndex extends Ranges {
  /** The highest end of a function and of all before it. */
  ends: Float64Array;
}

interface LinesIndex {
  /** What each subsection of lines covers; values are offsets of the subsections in the stream. */
  parts: Ranges;
  checksums: Stretch | undefined;
  inlinees: readonly Stretch[];
  imports: readonly Stretch[];
  exports: readonly Stretch[];
}

/** Part of the module's stream. */
interface Stretch {
  at: number;
  end: number;
}

interface LineEntryAt extends SourceLine {
  /** From the start of the part. */
  offset: number;
}

/** One module's symbols and lines; its tables are made when they are first asked. */
export class ModuleSymbols {
  readonly #pdb: PdbFile;
  readonly #module: PdbModule;
  readonly #stream: MsfStream | undefined;
  #functions: FunctionIndex | undefined;
  #lines: LinesIndex | undefined;

  /** Throws `Elf2dmpError` where the module's stream is too short. */
  constructor(pdb: PdbFile, module: PdbModule) {
    this.#pdb = pdb;
    this.#module = module;
    const stream = pdb.msf.stream(module.stream);
    this.#stream = stream;
    if (stream && module.linesAt + module.linesSize > stream.size) {
      throw stream.damaged(0, `${module.linesAt + module.linesSize} bytes of symbols and lines`, `${stream.size}`);
    }
  }

  /** Functions whose code an RVA lies in: more than one where the linker folded equal ones. */
  functionsAt(rva: number): FunctionRecord[] {
    const { starts, sizes, ends } = this.#functionIndex();
    const found: FunctionRecord[] = [];
    for (let i = lastAtOrBelow(starts, rva); i >= 0 && ends[i]! > rva; i--) {
      if (rva - starts[i]! >= sizes[i]!) continue;
      // The innermost, and those at the same place.
      if (found[0] && (starts[i] !== found[0].start || found.length >= MAX_FOLDED)) break;
      found.unshift(this.#function(i));
    }
    return found;
  }

  /** The function that begins at or last before an RVA. */
  functionBelow(rva: number): FunctionRecord | undefined {
    const { starts } = this.#functionIndex();
    const i = lastAtOrBelow(starts, rva);
    return i < 0 ? undefined : this.#function(i);
  }

  /** The functions that begin at an RVA. */
  functionsFrom(start: number): FunctionRecord[] {
    const { starts } = this.#functionIndex();
    const last = lastAtOrBelow(starts, start);
    const found: FunctionRecord[] = [];
    for (let i = last; i >= 0 && starts[i] === start && found.length < MAX_FOLDED; i--) {
      found.unshift(this.#function(i));
    }
    return found;
  }

  nameOf({ record }: FunctionRecord): string {
    const window = this.#window(this.#module.symbolsSize);
    const { kind, end } = readRecord(window, record);
    return window.text(record + (kind === S_THUNK32 ? ThunkSym.size : ProcSym.size), end);
  }

  /** The calls inlined at an RVA of the function, outermost first. */
  inlineSitesAt(func: FunctionRecord, rva: number): InlineSite[] {
    const window = this.#window(this.#module.symbolsSize);
    const found: InlineSite[] = [];
    /** Scopes from the function's own; for inline sites whether they are in `found`. */
    const scopes: ('scope' | 'here' | 'elsewhere')[] = [];
    let at = func.record;
    do {
      const { kind, end } = readRecord(window, at);
      if (kind === S_INLINESITE || kind === S_INLINESITE2) {
        // What is not below the sites found already is another call.
        const below = scopes.filter((s) => s === 'here').length === found.length;
        const site = below ? this.#siteAt(window, { at, kind, end }, rva - func.start) : undefined;
        if (site) found.push(site);
        scopes.push(site ? 'here' : 'elsewhere');
      } else if (SCOPES.has(kind)) {
        scopes.push('scope');
      } else if (ENDS.has(kind)) {
        scopes.pop();
      }
      if (scopes.length > MAX_DEPTH) throw this.#damaged(at, `at most ${MAX_DEPTH} scopes in one another`, 'more');
      at = end;
    } while (scopes.length > 0 && at < this.#module.symbolsSize);
    return found;
  }

  /** The line of the code at an RVA, in the function itself. */
  lineAt(rva: number): SourceLine | undefined {
    const { starts, sizes, values } = this.#linesIndex().parts;
    const last = lastAtOrBelow(starts, rva);
    if (last < 0) return undefined;
    // Several at one place are those of folded functions, in the functions' order: the first is the first one's.
    for (let i = firstAt(starts, last); i <= last; i++) {
      const offset = rva - starts[i]!;
      const found = offset < sizes[i]! ? this.#lineIn(values[i]!, offset) : undefined;
      if (found) return HIDDEN_LINES.includes(found.line) ? undefined : { file: found.file, line: found.line };
    }
    return undefined;
  }

  /** Entries of the tables kept in memory: a measure of their size. */
  get weight(): number {
    return (this.#functions?.starts.length ?? 0) + (this.#lines?.parts.starts.length ?? 0);
  }

  /** What an inlinee of another module stands for: that module's name, and its id there; undefined if there is none. */
  importedInlinee(inlinee: number): { module: string; local: number } | undefined {
    const wanted = (inlinee >>> CROSS_MODULE_IMPORT_SHIFT) & CROSS_MODULE_IMPORT_MASK;
    const reference = inlinee & CROSS_MODULE_REFERENCE_MASK;
    let number = 0;
    for (const { at: start, end } of this.#linesIndex().imports) {
      const window = this.#window(end);
      for (let at = start; at + CrossScopeImport.size <= end; number++) {
        const { Module, Count } = window.read(CrossScopeImport, at);
        at += CrossScopeImport.size;
        if (number === wanted) {
          const module = reference < Count ? this.#pdb.nameAt(Module) : undefined;
          return module === undefined ? undefined : { module, local: window.u32(at + 4 * reference) };
        }
        at += 4 * Count;
      }
    }
    return undefined;
  }

  /** The index in the IPI stream of an id that other modules use. */
  exportedInlinee(local: number): number | undefined {
    for (const { at: start, end } of this.#linesIndex().exports) {
      const window = this.#window(end);
      for (let at = start; at + CrossScopeExport.size <= end; at += CrossScopeExport.size) {
        const { Local, Global } = window.read(CrossScopeExport, at);
        if (Local === local) return Global;
      }
    }
    return undefined;
  }

  /** The path that the compiler wrote for a file. */
  fileName({ file }: SourceLine): string | undefined {
    const { checksums } = this.#linesIndex();
    if (!checksums || checksums.at + file + FileChecksum.size > checksums.end) return undefined;
    const window = this.#window(checksums.end);
    const { Name } = window.read(FileChecksum, checksums.at + file);
    return this.#pdb.nameAt(Name);
  }

  #siteAt(
    window: StreamWindow,
    { at, kind, end }: { at: number; kind: number; end: number },
    offset: number,
  ): InlineSite | undefined {
    const header = kind === S_INLINESITE2 ? INLINE_SITE_2_SIZE : InlineSiteSym.size;
    if (at + header > end) throw this.#damaged(at, `an inline site of ${header} bytes`, `${end - at}`);
    const { Inlinee } = window.read(InlineSiteSym, at);
    const found = inlineRowAt(window.bytes(at + header, end - at - header), offset);
    if (!found) return undefined;
    return { inlinee: Inlinee, offset: offset - found.begin, source: this.#inlineLine(Inlinee, found.row) };
  }

  #inlineLine(inlinee: number, row: InlineRow): SourceLine | undefined {
    const base = this.#findInlinee(inlinee);
    return base && { file: row.file ?? base.file, line: base.line + row.line };
  }

  #function(i: number): FunctionRecord {
    const { starts, sizes, values } = this.#functionIndex();
    const record = values[i]!;
    const { kind } = readRecord(this.#window(this.#module.symbolsSize), record);
    return { start: starts[i]!, size: sizes[i]!, record, thunk: kind === S_THUNK32 };
  }

  #functionIndex(): FunctionIndex {
    this.#functions ??= this.#readFunctions();
    return this.#functions;
  }

  #readFunctions(): FunctionIndex {
    const found = new RangeCollector();
    const { symbolsSize } = this.#module;
    if (this.#stream && symbolsSize > 4) {
      const window = this.#window(symbolsSize);
      const signature = window.u32(0);
      if (signature !== CV_SIGNATURE_C13) throw this.#damaged(0, `signature ${CV_SIGNATURE_C13}`, `${signature}`);
      for (let at = 4; at < symbolsSize; ) {
        const { kind, end } = readRecord(window, at);
        const place = this.#placeOf(window, { at, kind, end });
        if (place) found.add(place.start, place.size, at);
        at = end;
      }
    }
    const ranges = found.finish();
    const ends = new Float64Array(ranges.starts.length);
    let highest = 0;
    for (let i = 0; i < ends.length; i++) {
      highest = Math.max(highest, ranges.starts[i]! + ranges.sizes[i]!);
      ends[i] = highest;
    }
    return { ...ranges, ends };
  }

  #placeOf(
    window: StreamWindow,
    { at, kind, end }: { at: number; kind: number; end: number },
  ): { start: number; size: number } | undefined {
    const thunk = kind === S_THUNK32;
    if (!thunk && !PROCEDURES.has(kind)) return undefined;
    const layout = thunk ? ThunkSym : ProcSym;
    if (at + layout.size > end) throw this.#damaged(at, `a ${layout.name} of ${layout.size} bytes`, `${end - at}`);
    const { Section, Offset, Size } = window.read(layout, at);
    // Functions that the linker left out have no section.
    const start = this.#pdb.rvaOf(Section, Offset);
    return start === undefined ? undefined : { start, size: Size };
  }

  #linesIndex(): LinesIndex {
    this.#lines ??= this.#readLines();
    return this.#lines;
  }

  #readLines(): LinesIndex {
    const { linesAt, linesSize } = this.#module;
    const parts = new RangeCollector();
    const inlinees: Stretch[] = [];
    const imports: Stretch[] = [];
    const exports: Stretch[] = [];
    let checksums: Stretch | undefined;
    const end = linesAt + linesSize;
    const window = linesSize > 0 && this.#stream ? this.#window(end) : undefined;
    for (let at = linesAt; window && at + SubsectionHeader.size <= end; ) {
      const { Kind, Size } = window.read(SubsectionHeader, at);
      at += SubsectionHeader.size;
      if (at + Size > end) throw this.#damaged(at, `a subsection of at most ${end - at} bytes`, `${Size}`);
      if (Kind === SUBSECTION_CHECKSUMS) checksums ??= { at, end: at + Size };
      else if (Kind === SUBSECTION_INLINEES) inlinees.push({ at, end: at + Size });
      else if (Kind === SUBSECTION_IMPORTS) imports.push({ at, end: at + Size });
      else if (Kind === SUBSECTION_EXPORTS) exports.push({ at, end: at + Size });
      else if (Kind === SUBSECTION_LINES) {
        const { Section, Offset, Size: covered } = window.read(LinesHeader, at);
        const start = this.#pdb.rvaOf(Section, Offset);
        if (start !== undefined) parts.add(start, covered, at);
      }
      at += alignUp(Size, 4);
    }
    return { parts: parts.finish(), checksums, inlinees, imports, exports };
  }

  /**
   * The nearest entry at or below an offset of a part. Of several at one offset, as the debugger has it, the first
   * counts for that offset itself and the last for those that follow.
   */
  #lineIn(part: number, offset: number): LineEntryAt | undefined {
    const { linesAt, linesSize } = this.#module;
    const window = this.#window(linesAt + linesSize);
    const header = part - SubsectionHeader.size;
    const end = part + window.read(SubsectionHeader, header).Size;
    const { Flags } = window.read(LinesHeader, part);
    const entrySize = LineEntry.size + (Flags & LINES_HAVE_COLUMNS ? COLUMNS_SIZE : 0);
    let best: LineEntryAt | undefined;
    for (let at = part + LinesHeader.size; at + LinesBlock.size <= end; ) {
      const { File, Count, Size } = window.read(LinesBlock, at);
      const needed = LinesBlock.size + Count * entrySize;
      if (Size < needed || at + Size > end) {
        throw this.#damaged(at, `a block of lines, ${needed} to ${end - at} bytes`, `${Size}`);
      }
      for (let i = 0; i < Count; i++) {
        const entry = at + LinesBlock.size + i * LineEntry.size;
        const from = window.u32(entry);
        if (from > offset || (best && (from < best.offset || (from === best.offset && from === offset)))) continue;
        best = { offset: from, file: File, line: window.u32(entry + LineEntry.offsetOf('Line')) & LINE_MASK };
      }
      at += Size;
    }
    return best;
  }

  /** File and first line of an inlined function. */
  #findInlinee(inlinee: number): SourceLine | undefined {
    for (const { at: start, end } of this.#linesIndex().inlinees) {
      if (start + 4 > end) continue;
      const window = this.#window(end);
      const signature = window.u32(start);
      if (signature !== INLINEES_PLAIN && signature !== INLINEES_WITH_FILES) {
        throw this.#damaged(start, 'lines of inlined functions', `signature ${signature}`);
      }
      for (let at = start + 4; at + InlineeLine.size <= end; ) {
        const { Inlinee, File, Line } = window.read(InlineeLine, at);
        if (Inlinee === inlinee) return { file: File, line: Line };
        at += InlineeLine.size;
        if (signature === INLINEES_WITH_FILES) at += 4 + 4 * window.u32(at);
      }
    }
    return undefined;
  }

  #window(end: number): StreamWindow {
    if (!this.#stream) throw new Error('a module without a stream has nothing to read');
    return new StreamWindow(this.#stream, end);
  }

  #damaged(at: number, expected: string, actual: string): Error {
    return this.#stream!.damaged(at, expected, actual);
  }
}

/** Kind of the record at `at`, and where it ends. */
export function readRecord(window: StreamWindow, at: number): { kind: number; end: number } {
  const length = window.u16(at);
  const end = at + 2 + length;
  if (length < 2 || end > window.end) {
    throw window.stream.damaged(at, `a record of 2 to ${window.end - at - 2} bytes`, `${length}`);
  }
  return { kind: window.u16(at + RecordHeader.offsetOf('Kind')), end };
}
