/** Guest physical memory: sorted runs over whatever a reader opened, read on demand. */
import type { Diagnostics } from '../core/errors.ts';
import type { StructOf } from '../core/struct.ts';
import { PAGE_SIZE, type PhysicalAddress, pa } from '../core/units.ts';
import type { DumpHeader64 } from '../formats/win-dump.ts';
import type { CpuState, Machine } from '../machines/machine.ts';

/** Physically contiguous bytes that the input holds. Runs are sorted, disjoint and not empty. */
export interface PhysicalRun {
  start: PhysicalAddress;
  /** Bytes; need not be whole pages. */
  size: number;
  /** Where the bytes lie in the input file, where they lie there as they are. */
  fileOffset?: number;
}

/**
 * What a reader gives: how to get at a run's bytes. Pages that turn out to be damaged only now become
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

export interface MemoryImageSpec {
  /** Path or name of the input. */
  file: string;
  /** `elf-core`, … */
  format: string;
  machine: Machine;
  runs: readonly PhysicalRun[];
  cpus: readonly CpuState[];
  notes: readonly ImageNote[];
  diagnostics: Diagnostics;
  /** Of a crash dump: what its header says, none of it believed yet. */
  dumpHeader?: StructOf<typeof DumpHeader64> | undefined;
  reader: RunReader;
  /**
   * Other readings of the same bytes, by layout and machine, where the input doesn't say which is right: all
   * layouts of a machine follow each other. They are closed with this one.
   */
  alternatives?: readonly MemoryImage[] | undefined;
  /** The open file that the runs' `fileOffset`s are of. */
  fd?: number | undefined;
  close(): void;
}

/** Pages kept in each of two generations: together at most 32 MiB, whatever the guest's size. */
const CACHE_PAGES = 4096;

export class MemoryImage {
  readonly file: string;
  readonly format: string;
  readonly machine: Machine;
  readonly runs: readonly PhysicalRun[];
  readonly cpus: readonly CpuState[];
  readonly notes: readonly ImageNote[];
  readonly diagnostics: Diagnostics;
  readonly dumpHeader: StructOf<typeof DumpHeader64> | undefined;
  readonly close: () => void;
  readonly fd: number | undefined;
  readonly alternatives: readonly MemoryImage[];
  /** Bytes of guest memory that the input holds. */
  readonly size: number;
  readonly #reader: RunReader;
  #young = new Map<number, Buffer | null>();
  #old = new Map<number, Buffer | null>();
  #bytesRead = 0;

  constructor(spec: MemoryImageSpec) {
    this.file = spec.file;
    this.format = spec.format;
    this.machine = spec.machine;
    this.runs = spec.runs;
    this.cpus = spec.cpus;
    this.notes = spec.notes;
    this.diagnostics = spec.diagnostics;
    this.dumpHeader = spec.dumpHeader;
    this.close = spec.close;
    this.fd = spec.fd;
    this.alternatives = spec.alternatives ?? [];
    this.#reader = spec.reader;
    let end = 0;
    let size = 0;
    for (const run of spec.runs) {
      if (run.size <= 0 || run.start < end) throw new Error(`runs not sorted and disjoint at ${run.start}`);
      end = run.start + run.size;
      size += run.size;
    }
    this.size = size;
  }

  /** Bytes read through this image so far, for figures on how much of a file locating needs. */
  get bytesRead(): number {
    return this.#bytesRead;
  }

  /** Index of the first run that ends after `address`. */
  #firstRunAfter(address: number): number {
    let low = 0;
    let high = this.runs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const run = this.runs[middle]!;
      if (run.start + run.size <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The pieces of [address, address + length) that are present, in order. */
  *#pieces(address: number, length: number) {
    const end = address + length;
    for (let i = this.#firstRunAfter(address); i < this.runs.length; i++) {
      const run = this.runs[i]!;
      if (run.start >= end) return;
      const from = Math.max(address, run.start);
      yield { run, from, to: Math.min(end, run.start + run.size) };
    }
  }

  /** The pieces of a range that lie in the input's file as they are, in order. */
  *filePieces(address: number, length: number): Generator<{ from: number; to: number; fileOffset: number }> {
    for (const { run, from, to } of this.#pieces(address, length)) {
      if (run.fileOffset !== undefined) yield { from, to, fileOffset: run.fileOffset + from - run.start };
    }
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
    for (const { run, from, to } of this.#pieces(address, target.length)) {
      if (from !== next) return false;
      const sound = this.#reader.readSync(run, from - run.start, target.subarray(from - address, to - address));
      if (!sound) return false;
      this.#bytesRead += to - from;
      next = to;
    }
    return next === address + target.length;
  }

  /** As `readSync`; the caller knows that the range is present. Damaged pages come as zeros: a full dump has no holes. */
  async read(address: number, target: Buffer): Promise<void> {
    let next = address;
    for (const { run, from, to } of this.#pieces(address, target.length)) {
      if (from !== next) break;
      await this.#reader.read(run, from - run.start, target.subarray(from - address, to - address));
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
    let start = 0;
    let end = -1;
    for (const run of this.runs) {
      if (run.start === end) end += run.size;
      else {
        if (end > start) add(start, end);
        start = run.start;
        end = run.start + run.size;
      }
    }
    if (end > start) add(start, end);
    return { extents, partial };
  }
}
