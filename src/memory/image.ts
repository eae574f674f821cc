/** Guest physical memory: sorted runs over whatever a reader opened, read on demand. */
import type { Diagnostics, Elf2dmpError } from '../core/errors.ts';
import { hex, PAGE_SIZE, type PhysicalAddress, pa } from '../core/units.ts';
import type { DumpHeader } from '../formats/dump-header.ts';
import type { CpuState, Machine } from '../machines/machine.ts';
import type { ByteSource, DamagedPages } from '../source/source.ts';
import type { HostWitness } from './host-witness.ts';
import type { MissingPart } from './input-diagnostics.ts';
import type { ListFault } from './list-fault.ts';
import { append, endOf, type FileRun, firstEndingAfter, firstOverlap, type PhysicalRun, sum } from './runs.ts';
import type { TriageContents } from './triage-contents.ts';

/**
 * How to get at the bytes of runs that do not lie in the file as they are. Pages that turn out to be damaged only now become
 * zeros, and the reader says so in the image's diagnostics, as a loss.
 */
export interface RunReader {
  /** False where a page was damaged. */
  readSync(run: PhysicalRun, offset: number, target: Buffer): boolean;
  read(run: PhysicalRun, offset: number, target: Buffer): Promise<void>;
}

/** A note that the image keeps for later rooms, such as VMCOREINFO. */
export interface ImageNote {
  name: string;
  type: number;
  /** Length of the whole descriptor in bytes. */
  size: number;
  /** Its first bytes, at most 8 KiB. */
  head: Buffer;
}

/**
 * The memory that an input holds, in sorted, disjoint runs, and how to read it: the runs lie in a source as they
 * are, or a reader makes them.
 */
export type Contents =
  | {
      kind: 'stored';
      runs: readonly FileRun[];
      source: ByteSource;
      /** Source offsets of pages that are zeros because they are damaged. Default: none. */
      damaged?: ReadonlySet<number>;
    }
  | { kind: 'decoded'; runs: readonly PhysicalRun[]; reader: RunReader; close(): void }
  /** No physical memory: blocks of virtual memory. */
  | { kind: 'blocks'; triage: TriageContents; close(): void };

/** What a reader finds in an input. */
export interface MemoryImageSpec {
  /** Path or name of the input. */
  file: string;
  /** `elf-core`, … */
  format: string;
  machine: Machine;
  contents: Contents;
  cpus: readonly CpuState[];
  notes: readonly ImageNote[];
  diagnostics: Diagnostics;
  /** Parts that the file lists but does not hold. Default: none. */
  missing?: readonly MissingPart[] | undefined;
  /** Of a crash dump: what its header says, none of it believed yet. */
  dumpHeader?: DumpHeader | undefined;
  /**
   * Other readings of the same bytes, by layout and machine, where the input doesn't say which is right: all
   * layouts of a machine follow each other. They are closed with this one.
   */
  alternatives?: readonly MemoryImage[] | undefined;
  /** Of a crash dump: what is wrong in its list of pages, which was read as it has to be. Default: none. */
  listFaults?: readonly ListFault[] | undefined;
  /** Of a crash dump whose list of pages can't be right: only what memory says of itself can save it from this error. */
  unlisted?: Elf2dmpError | undefined;
  /** What the hypervisor recorded besides; migration streams have it. */
  host?: HostWitness | undefined;
  /** Tells alternatives with the same runs apart: `node0, node1`. */
  arrangement?: string | undefined;
  /** Where pages lie in the input's file, although not all as they are. */
  mapped?: MappedRuns | undefined;
  /** Makes the image of another layout of the same bytes, where the input says nothing of its layout, or may be wrong. */
  arrange?: ((runs: readonly FileRun[]) => MemoryImage) | undefined;
}

/** Pages kept in each of two generations: together at most 32 MiB, whatever the guest's size. */
const CACHE_PAGES = 4096;

/** Runs that lie in an open file as they are. */
export interface StoredRuns {
  fd: number;
  runs: readonly FileRun[];
}

/** Runs that lie in an open file as they are, but for some pages. */
export interface MappedRuns extends StoredRuns {
  /** Parts of a run, as file offsets, that are zeros whatever lies there; in order. */
  zeros(run: FileRun): Iterable<{ from: number; to: number }>;
}

/** The physical memory of a guest, as far as the input holds it. */
export class MemoryImage {
  readonly file: string;
  readonly format: string;
  readonly machine: Machine;
  readonly runs: readonly PhysicalRun[];
  readonly cpus: readonly CpuState[];
  readonly notes: readonly ImageNote[];
  readonly diagnostics: Diagnostics;
  /** Parts that the file lists but does not hold. */
  readonly missing: readonly MissingPart[];
  readonly dumpHeader: DumpHeader | undefined;
  /** As in `MemoryImageSpec`, here and below. */
  readonly listFaults: readonly ListFault[];
  readonly unlisted: Elf2dmpError | undefined;
  readonly close: () => void;
  /** The input's file, where the memory lies in it as it is; undefined where it has to be decoded. */
  readonly stored: StoredRuns | undefined;
  /** Whether a copy leaves out long runs of zeros as holes, although no file says where they are. */
  readonly zerosAreCheap: boolean;
  readonly alternatives: readonly MemoryImage[];
  /** Throws `Elf2dmpError`, or reports a loss, if the input has changed since it was opened. */
  checkUnchanged: () => Promise<void> = async () => undefined;
  /** As in `MemoryImageSpec`. */
  readonly host: HostWitness | undefined;
  /** As in `MemoryImageSpec`. */
  readonly arrangement: string | undefined;
  /** As in `MemoryImageSpec`. */
  readonly mapped: MappedRuns | undefined;
  /** As in `MemoryImageSpec`. */
  readonly arrange: ((runs: readonly FileRun[]) => MemoryImage) | undefined;
  /** What a triage dump holds in place of physical memory. */
  readonly triage: TriageContents | undefined;
  /** Bytes of guest memory that the input holds. */
  readonly size: number;
  readonly #contents: Contents;
  #young = new Map<number, Buffer | null>();
  #old = new Map<number, Buffer | null>();
  #bytesRead = 0;

  constructor(spec: MemoryImageSpec) {
    this.file = spec.file;
    this.format = spec.format;
    this.machine = spec.machine;
    const { contents } = spec;
    this.runs = contents.kind === 'blocks' ? [] : contents.runs;
    this.triage = contents.kind === 'blocks' ? contents.triage : undefined;
    this.cpus = spec.cpus;
    this.notes = spec.notes;
    this.diagnostics = spec.diagnostics;
    this.missing = spec.missing ?? [];
    this.dumpHeader = spec.dumpHeader;
    this.listFaults = spec.listFaults ?? [];
    this.unlisted = spec.unlisted;
    this.alternatives = spec.alternatives ?? [];
    this.host = spec.host;
    this.arrangement = spec.arrangement;
    this.arrange = spec.arrange;
    this.mapped = spec.mapped;
    this.#contents = contents;
    if (contents.kind === 'stored') {
      const { source, runs } = contents;
      this.stored = source.fd === undefined ? undefined : { fd: source.fd, runs };
      this.zerosAreCheap = source.zerosAreCheap ?? false;
      this.close = () => source.close();
    } else {
      this.stored = undefined;
      this.zerosAreCheap = false;
      this.close = () => contents.close();
    }
    const wrong = this.runs.find(({ size }) => size <= 0) ?? firstOverlap(this.runs)?.range;
    if (wrong) throw new Error(`the run at ${hex(wrong.start)} is empty or overlaps the one before it`);
    this.size = this.triage ? this.triage.runs.reduce((total, { size }) => total + size, 0) : sum(this.runs);
  }

  /** The runs, where they lie in the input as they are, be it a file or not. */
  get sourceRuns(): readonly FileRun[] | undefined {
    return this.#contents.kind === 'stored' ? this.#contents.runs : undefined;
  }

  /** Bytes read through this image so far, for figures on how much of a file locating needs. */
  get bytesRead(): number {
    return this.#bytesRead;
  }

  /** The pieces of [address, address + length) that are present, in order. */
  *#pieces(address: number, length: number) {
    const end = address + length;
    for (let i = firstEndingAfter(this.runs, address); i < this.runs.length; i++) {
      const run = this.runs[i]!;
      if (run.start >= end) return;
      yield { run, index: i, from: Math.max(address, run.start), to: Math.min(end, endOf(run)) };
    }
  }

  /** False where a page was damaged. */
  #readRunSync(index: number, offset: number, target: Buffer): boolean {
    if (this.#contents.kind === 'decoded') {
      const { reader, runs } = this.#contents;
      return reader.readSync(runs[index]!, offset, target);
    }
    if (this.#contents.kind === 'blocks') return false;
    const { source, runs, damaged } = this.#contents;
    const from = runs[index]!.fileOffset + offset;
    source.readSync(from, target);
    const end = from + target.length;
    return !anyPageOf(damaged, from, end) && !anyPageOf(source.damagedPages, from, end);
  }

  #readRun(index: number, offset: number, target: Buffer): Promise<void> {
    if (this.#contents.kind === 'decoded') {
      const { reader, runs } = this.#contents;
      return reader.read(runs[index]!, offset, target);
    }
    if (this.#contents.kind === 'blocks') throw new Error('blocks have no runs');
    const { source, runs } = this.#contents;
    return source.read(runs[index]!.fileOffset + offset, target);
  }

  /** The pieces of a range that lie in the input's file as they are, in order. */
  *filePieces(address: number, length: number): Generator<{ from: number; to: number; fileOffset: number }> {
    if (this.stored) yield* this.sourcePieces(address, length);
  }

  /** The pieces of a range that lie in the input as they are, be it a file or not, in order. */
  *sourcePieces(address: number, length: number): Generator<{ from: number; to: number; fileOffset: number }> {
    if (this.#contents.kind !== 'stored') return;
    for (const { run, index, from, to } of this.#pieces(address, length)) {
      yield { from, to, fileOffset: this.#contents.runs[index]!.fileOffset + from - run.start };
    }
  }

  /** The parts of a range that are present, in order; parts that touch are joined. */
  presentParts(address: number, length: number): PhysicalRun[] {
    const parts: PhysicalRun[] = [];
    for (const { from, to } of this.#pieces(address, length)) append(parts, { start: pa(from), size: to - from });
    return parts;
  }

  /** Whether every byte of the range is present. */
  has(address: number, length = 1): boolean {
    let next = address;
    for (const { from, to } of this.#pieces(address, length)) {
      if (from !== next) return false;
      next = to;
    }
    return next === address + length;
  }

  /** Fills `target` from physical `address` on. Returns false, with `target` undefined in part, unless all is present and sound. */
  readSync(address: number, target: Buffer): boolean {
    let next = address;
    for (const { run, index, from, to } of this.#pieces(address, target.length)) {
      if (from !== next) return false;
      if (!this.#readRunSync(index, from - run.start, target.subarray(from - address, to - address))) return false;
      this.#bytesRead += to - from;
      next = to;
    }
    return next === address + target.length;
  }

  /** As `readSync`; the caller knows that the range is present. Damaged pages come as zeros: a full dump has no holes. */
  async read(address: number, target: Buffer): Promise<void> {
    let next = address;
    for (const { run, index, from, to } of this.#pieces(address, target.length)) {
      if (from !== next) break;
      await this.#readRun(index, from - run.start, target.subarray(from - address, to - address));
      this.#bytesRead += to - from;
      next = to;
    }
    if (next !== address + target.length) throw new RangeError(`physical 0x${next.toString(16)} is not in the image`);
  }

  /** The page at a page-aligned address from a bounded cache; undefined unless all of it is present. Not to be written to. */
  page(address: PhysicalAddress): Buffer | undefined {
    let page = this.#young.get(address);
    if (page !== undefined) return page ?? undefined;
    page = this.#old.get(address);
    if (page === undefined) {
      const buffer = Buffer.allocUnsafeSlow(PAGE_SIZE);
      page = this.readSync(address, buffer) ? buffer : null;
    }
    if (this.#young.size >= CACHE_PAGES) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(address, page);
    return page ?? undefined;
  }

  /** As `readSync`, for a few bytes of a page of which no more may be wanted: what is not in the cache stays out of it. */
  peek(address: PhysicalAddress, target: Buffer): boolean {
    const offset = address % PAGE_SIZE;
    const start = pa(address - offset);
    const known = this.#young.get(start) ?? this.#old.get(start);
    if (!known || offset + target.length > PAGE_SIZE) return this.readSync(address, target);
    known.copy(target, 0, offset);
    return true;
  }

  /** Whole pages that are present, as sorted maximal extents, and the bytes of pages present only in part. */
  pageExtents(): { extents: { start: PhysicalAddress; size: number }[]; partial: { start: number; size: number }[] } {
    const extents: { start: PhysicalAddress; size: number }[] = [];
    const partial: { start: number; size: number }[] = [];
    const add = (start: number, end: number) => {
      const first = Math.ceil(start / PAGE_SIZE) * PAGE_SIZE;
      const last = Math.floor(end / PAGE_SIZE) * PAGE_SIZE;
      if (first >= last) {
        partial.push({ start, size: end - start });
        return;
      }
      if (first > start) partial.push({ start, size: first - start });
      extents.push({ start: pa(first), size: last - first });
      if (end > last) partial.push({ start: last, size: end - last });
    };
    const joined: PhysicalRun[] = [];
    for (const { start, size } of this.runs) append(joined, { start, size });
    for (const run of joined) add(run.start, endOf(run));
    return { extents, partial };
  }
}

function anyPageOf(pages: DamagedPages | undefined, from: number, to: number): boolean {
  if (!pages || pages.size === 0) return false;
  for (let page = from - (from % PAGE_SIZE); page < to; page += PAGE_SIZE) if (pages.has(page)) return true;
  return false;
}
