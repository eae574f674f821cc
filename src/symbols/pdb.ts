/**
 * A PDB's skeleton: identity, sections, modules, what each module contributed, address maps. Everything else is read
 * where a lookup needs it.
 */
import { alignUp } from '../core/bits.ts';
import {
  DBI_SIGNATURE,
  DbiHeader,
  DEBUG_OMAP_FROM_SOURCE,
  DEBUG_OMAP_TO_SOURCE,
  DEBUG_ORIGINAL_SECTIONS,
  DEBUG_SECTIONS,
  InfoHeader,
  ModuleInfo,
  NAMES_SIGNATURE,
  NamesHeader,
  OmapEntry,
  SECTION_CONTRIBUTION_2_SIZE,
  SECTION_CONTRIBUTIONS_2,
  SECTION_CONTRIBUTIONS_60,
  SectionContribution,
  STREAM_DBI,
  STREAM_INFO,
} from '../formats/pdb.ts';
import { SectionHeader } from '../formats/pe.ts';
import type { ByteSource } from '../source/source.ts';
import { unsupportedPdb } from './damage.ts';
import { guidText } from './identity.ts';
import { MsfFile, type MsfStream, StreamWindow } from './msf.ts';
import { lastAtOrBelow, RangeCollector, type Ranges } from './ranges.ts';

/** Images are smaller: see windows/pe-image.ts. */
export const MAX_RVA = 0x7fff_ffff;
const MAX_SECTIONS = 0x1000;
const MAX_MODULES = 0x1_0000;
/** The largest kernels have some 100,000. */
const MAX_CONTRIBUTIONS = 0x40_0000;
const MAX_OMAP = 0x40_0000;
/** Bytes of module names in the DBI stream. */
const MAX_PATH = 0x8000;
/** Named streams: real PDBs have some ten. */
const MAX_NAMED_STREAMS = 0x1000;
const MAX_NAMED_STREAM_BYTES = 0x10_0000;

const SECTION_AT = SectionContribution.offsetOf('Section');
const OFFSET_AT = SectionContribution.offsetOf('Offset');
const SIZE_AT = SectionContribution.offsetOf('Size');
const MODULE_AT = SectionContribution.offsetOf('Module');

/** A module's debug information: one stream with its symbols and then its lines. */
export interface PdbModule {
  /** Where its name is in the DBI stream. */
  nameAt: number;
  stream: number;
  /** Bytes of symbols, at the stream's start. */
  symbolsSize: number;
  /** Bytes of C13 lines, and where they begin. */
  linesSize: number;
  linesAt: number;
}

interface Omap {
  from: Uint32Array;
  to: Uint32Array;
}

type Dbi = ReturnType<typeof DbiHeader.read>;

/** An open PDB. */
export class PdbFile {
  readonly msf: MsfFile;
  /** 32 upper-case hex digits. */
  readonly guid: string;
  /** The DBI stream's, which is the one that images name. */
  readonly age: number;
  readonly publicsStream: number;
  readonly symbolRecordsStream: number;
  readonly #info: MsfStream;
  readonly #dbi: MsfStream;
  readonly #header: Dbi;
  #debugStreams: Buffer | undefined;
  #sections: readonly { rva: number; size: number }[] | undefined;
  #modules: readonly PdbModule[] | undefined;
  /** In RVAs of the image as it was linked; values are modules. */
  #contributions: Ranges | undefined;
  #modulesByName: ReadonlyMap<string, number> | undefined;
  #omaps: { toSource: Omap; fromSource: Omap } | 'none' | undefined;
  #names: { stream: MsfStream; at: number; size: number } | 'none' | undefined;

  private constructor(msf: MsfFile, info: MsfStream, dbi: MsfStream) {
    this.msf = msf;
    this.#info = info;
    this.#dbi = dbi;
    const { Guid } = InfoHeader.read(info.read(0, InfoHeader.size));
    this.guid = guidText(Guid);
    const header = DbiHeader.read(dbi.read(0, DbiHeader.size));
    if (header.Signature !== DBI_SIGNATURE) {
      throw dbi.damaged(0, 'signature 0xffffffff', `0x${header.Signature.toString(16)}`);
    }
    this.#header = header;
    this.age = header.Age;
    this.publicsStream = header.PublicsStream;
    this.symbolRecordsStream = header.SymbolRecordsStream;
    const end = this.#partAt('end');
    if (end > dbi.size) throw dbi.damaged(0, `parts within ${dbi.size} bytes`, `${end} bytes of them`);
  }

  /** Reads headers only. Throws `Elf2dmpError`: not a PDB, one of another format, without a DBI stream, damaged. */
  static open(source: ByteSource): PdbFile {
    const msf = MsfFile.open(source);
    const info = msf.stream(STREAM_INFO);
    if (!info) throw msf.damaged('stream 1', 'the PDB info stream', 'nothing');
    const dbi = msf.stream(STREAM_DBI);
    if (!dbi || dbi.size === 0) {
      throw unsupportedPdb(source.name, {
        code: 'pdb-without-symbols',
        message: 'a PDB of types only (no DBI stream)',
        hint: "name the linker's PDB, not the compiler's vc*.pdb",
      });
    }
    return new PdbFile(msf, info, dbi);
  }

  get name(): string {
    return this.msf.source.name;
  }

  close(): void {
    this.msf.source.close();
  }

  /** By section number, from 1. Those of the image as it was linked. */
  get sections(): readonly { rva: number; size: number }[] {
    this.#sections ??= this.#readSections();
    return this.#sections;
  }

  /** RVA, as linked, of an offset in a section; undefined: there is no such section, or it ends before. */
  rvaOf(section: number, offset: number): number | undefined {
    const header = this.sections[section - 1];
    return header && offset < header.size ? header.rva + offset : undefined;
  }

  /** Number, from 1, of the section that an RVA as linked lies in. */
  sectionAt(rva: number): number | undefined {
    const index = this.sections.findIndex((s) => rva >= s.rva && rva < s.rva + s.size);
    return index < 0 ? undefined : index + 1;
  }

  /** The module that contributed what is at an RVA as linked. */
  moduleAt(rva: number): number | undefined {
    this.#contributions ??= this.#readContributions();
    const { starts, sizes, values } = this.#contributions;
    const index = lastAtOrBelow(starts, rva);
    return index >= 0 && rva - starts[index]! < sizes[index]! ? values[index] : undefined;
  }

  /** The module whose contribution begins at or last before an RVA as linked. */
  moduleBelow(rva: number): number | undefined {
    this.#contributions ??= this.#readContributions();
    return this.#contributions.values[lastAtOrBelow(this.#contributions.starts, rva)];
  }

  module(index: number): PdbModule | undefined {
    this.#modules ??= this.#readModules();
    return this.#modules[index];
  }

  /** Number of the module of a name: an object file's path, or what the linker calls it. Case does not matter. */
  moduleNamed(name: string): number | undefined {
    if (!this.#modulesByName) {
      this.#modules ??= this.#readModules();
      const end = this.#partAt('contributions');
      const window = new StreamWindow(this.#dbi, end);
      this.#modulesByName = new Map(
        this.#modules.map(({ nameAt }, i) => [window.text(nameAt, Math.min(end, nameAt + MAX_PATH)).toLowerCase(), i]),
      );
    }
    return this.#modulesByName.get(name.toLowerCase());
  }

  /** The RVA as linked of one in the image, which a tool reordered after linking; undefined: the tool made it. */
  toSource(rva: number): number | undefined {
    const omaps = this.#readOmaps();
    return omaps === 'none' ? rva : mapped(omaps.toSource, rva);
  }

  /** The other way; undefined: the tool left it out. */
  fromSource(rva: number): number | undefined {
    const omaps = this.#readOmaps();
    return omaps === 'none' ? rva : mapped(omaps.fromSource, rva);
  }

  /** A string of `/names`; undefined: there is none there. */
  nameAt(offset: number): string | undefined {
    this.#names ??= this.#findNames() ?? 'none';
    if (this.#names === 'none' || offset >= this.#names.size) return undefined;
    const { stream, at, size } = this.#names;
    const length = Math.min(size - offset, MAX_PATH);
    // Most names are short.
    const short = Math.min(length, 0x200);
    const bytes = stream.read(at + offset, short);
    const zero = bytes.indexOf(0);
    if (zero >= 0) return bytes.toString('utf8', 0, zero);
    const all = stream.read(at + offset, length);
    const end = all.indexOf(0);
    return end < 0 ? undefined : all.toString('utf8', 0, end);
  }

  /** Offset of a part in the DBI stream. */
  #partAt(part: 'modules' | 'contributions' | 'debug header' | 'end'): number {
    const h = this.#header;
    if (part === 'modules') return DbiHeader.size;
    if (part === 'contributions') return DbiHeader.size + h.ModulesSize;
    const debug =
      DbiHeader.size +
      h.ModulesSize +
      h.SectionContributionsSize +
      h.SectionMapSize +
      h.SourceFilesSize +
      h.TypeServerMapSize +
      h.EditAndContinueSize;
    return part === 'debug header' ? debug : debug + h.DebugHeaderSize;
  }

  #debugStream(slot: number): MsfStream | undefined {
    this.#debugStreams ??= this.#dbi.read(this.#partAt('debug header'), Math.min(this.#header.DebugHeaderSize, 64));
    if (2 * slot + 2 > this.#debugStreams.length) return undefined;
    return this.msf.stream(this.#debugStreams.readUInt16LE(2 * slot));
  }

  #readSections(): { rva: number; size: number }[] {
    // With address maps the symbols' sections are those from before the image was reordered.
    const reordered = this.#readOmaps() !== 'none';
    const stream =
      (reordered ? this.#debugStream(DEBUG_ORIGINAL_SECTIONS) : undefined) ?? this.#debugStream(DEBUG_SECTIONS);
    const dbi = this.#dbi;
    if (!stream) throw dbi.damaged(this.#partAt('debug header'), 'a stream of section headers', 'none');
    const count = Math.floor(stream.size / SectionHeader.size);
    if (count > MAX_SECTIONS) throw stream.damaged(0, `at most ${MAX_SECTIONS} sections`, `${count}`);
    const bytes = stream.read(0, count * SectionHeader.size);
    return Array.from({ length: count }, (_, i) => {
      const { VirtualSize, VirtualAddress: rva } = SectionHeader.read(bytes, i * SectionHeader.size);
      if (rva + VirtualSize > MAX_RVA) {
        throw stream.damaged(i * SectionHeader.size, 'a section of an image', `one at 0x${rva.toString(16)}`);
      }
      return { rva, size: VirtualSize };
    });
  }

  #readModules(): PdbModule[] {
    const start = this.#partAt('modules');
    const end = start + this.#header.ModulesSize;
    const window = new StreamWindow(this.#dbi, end);
    const modules: PdbModule[] = [];
    for (let at = start; at < end; ) {
      if (modules.length >= MAX_MODULES) throw this.#dbi.damaged(at, `at most ${MAX_MODULES} modules`, 'more');
      const info = window.read(ModuleInfo, at);
      modules.push({
        nameAt: at + ModuleInfo.size,
        stream: info.Stream,
        symbolsSize: info.SymbolsSize,
        linesSize: info.C13LinesSize,
        linesAt: info.SymbolsSize + info.C11LinesSize,
      });
      at += ModuleInfo.size;
      for (let names = 0; names < 2; names++) at += this.#terminated(window, at, end);
      at = alignUp(at, 4);
    }
    return modules;
  }

  /** Bytes of a zero-terminated string, the zero included. */
  #terminated(window: StreamWindow, at: number, end: number): number {
    const limit = Math.min(MAX_PATH, end - at);
    for (const length of [Math.min(limit, 0x200), limit]) {
      const zero = window.bytes(at, length).indexOf(0);
      if (zero >= 0) return zero + 1;
    }
    throw this.#dbi.damaged(at, 'a zero-terminated name', 'one without end');
  }

  #readContributions(): Ranges {
    const start = this.#partAt('contributions');
    const bytes = this.#header.SectionContributionsSize;
    if (bytes < 4) return new RangeCollector().finish();
    const window = new StreamWindow(this.#dbi, start + bytes);
    const version = window.u32(start);
    if (version !== SECTION_CONTRIBUTIONS_60 && version !== SECTION_CONTRIBUTIONS_2) {
      throw this.#dbi.damaged(start, 'section contributions of version 6.0 or 2', `0x${version.toString(16)}`);
    }
    const step = version === SECTION_CONTRIBUTIONS_2 ? SECTION_CONTRIBUTION_2_SIZE : SectionContribution.size;
    const count = Math.floor((bytes - 4) / step);
    if (count > MAX_CONTRIBUTIONS) throw this.#dbi.damaged(start, `at most ${MAX_CONTRIBUTIONS} entries`, `${count}`);
    const found = new RangeCollector(count);
    for (let i = 0; i < count; i++) {
      // By field: there may be hundreds of thousands.
      const at = start + 4 + i * step;
      const rva = this.rvaOf(window.u16(at + SECTION_AT), window.u32(at + OFFSET_AT));
      const size = window.u32(at + SIZE_AT);
      // Empty ones would hide what they lie in.
      if (rva !== undefined && size > 0) found.add(rva, size, window.u16(at + MODULE_AT));
    }
    return found.finish();
  }

  #readOmaps(): { toSource: Omap; fromSource: Omap } | 'none' {
    if (this.#omaps) return this.#omaps;
    const [to, from] = [this.#debugStream(DEBUG_OMAP_TO_SOURCE), this.#debugStream(DEBUG_OMAP_FROM_SOURCE)];
    this.#omaps = to?.size && from?.size ? { toSource: readOmap(to), fromSource: readOmap(from) } : 'none';
    return this.#omaps;
  }

  /** The info stream's map of named streams: strings, then a hash table from their offsets to stream numbers. */
  #findNames(): { stream: MsfStream; at: number; size: number } | undefined {
    const info = this.#info;
    const length = Math.min(info.size - InfoHeader.size, MAX_NAMED_STREAM_BYTES);
    const map = new StreamWindow(info, InfoHeader.size + length);
    let at = InfoHeader.size;
    const u32 = () => {
      const value = map.u32(at);
      at += 4;
      return value;
    };
    const stringsSize = u32();
    const strings = at;
    at += stringsSize;
    const count = u32();
    at += 4; // capacity
    if (count > MAX_NAMED_STREAMS) throw info.damaged(at, `at most ${MAX_NAMED_STREAMS} named streams`, `${count}`);
    // Bit sets of the buckets in use, and of those deleted.
    for (let sets = 0; sets < 2; sets++) {
      const words = u32();
      at += 4 * words;
    }
    for (let i = 0; i < count; i++) {
      const [key, number] = [u32(), u32()];
      if (key >= stringsSize || map.text(strings + key, strings + stringsSize) !== '/names') continue;
      const stream = this.msf.stream(number);
      if (!stream) return undefined;
      const header = NamesHeader.read(stream.read(0, NamesHeader.size));
      if (header.Signature !== NAMES_SIGNATURE) {
        throw stream.damaged(0, 'the signature of /names', `0x${header.Signature.toString(16)}`);
      }
      return { stream, at: NamesHeader.size, size: Math.min(header.Size, stream.size - NamesHeader.size) };
    }
    return undefined;
  }
}

function readOmap(stream: MsfStream): Omap {
  const count = Math.floor(stream.size / OmapEntry.size);
  if (count > MAX_OMAP) throw stream.damaged(0, `at most ${MAX_OMAP} entries`, `${count}`);
  const [from, to] = [new Uint32Array(count), new Uint32Array(count)];
  const window = new StreamWindow(stream, count * OmapEntry.size);
  for (let i = 0; i < count; i++) {
    const entry = window.read(OmapEntry, i * OmapEntry.size);
    from[i] = entry.From;
    to[i] = entry.To;
    if (i > 0 && from[i]! < from[i - 1]!) {
      throw stream.damaged(i * OmapEntry.size, 'ascending addresses', `0x${from[i]!.toString(16)}`);
    }
  }
  return { from, to };
}

function mapped({ from, to }: Omap, rva: number): number | undefined {
  const index = lastAtOrBelow(from, rva);
  const target = index < 0 ? 0 : to[index]!;
  return target === 0 ? undefined : target + rva - from[index]!;
}
