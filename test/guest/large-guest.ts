/**
 * A made-up guest of any size in a sparse file, with the page tables and the page frame database that Windows would have:
 * a part of its memory is the kernel's, another the processes', the rest is free. Only tables, entries of the database
 * and, if wanted, the kernel's pages are written; all else is holes.
 */
import { closeSync, fsyncSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { addProcesses } from './crowd.ts';
import { writeElf } from './elf.ts';
import { buildGuest, type Guest, RVA } from './guest.ts';
import { PAGE } from './memory.ts';
import { addMemoryManager, PFN_DATABASE } from './memory-manager.ts';

export interface LargeGuestOptions {
  /** Memory from 4 GiB on, a multiple of 2 MiB. */
  highBytes: number;
  processes: number;
  /** Pages that the kernel maps, from the beginning of that memory on (behind tables and database). */
  kernelPages: number;
  /** Pages that each process maps. */
  pagesOfEach: number;
  /** Write the kernel's pages; else they are holes. */
  filled?: boolean;
}

const HIGH = 2 ** 32;
const MIB2 = 2 ** 21;
/** In the top-level slot of the pool, which every root has. */
const KERNEL_AREA = 0xffffa5a0_00000000n;
const USER_SLOT = 4;
const TABLE = 0x63n;
const ENTRY = 0x30;
const ACTIVE = 6;

/** Pages of memory from 4 GiB on, one after the other, and those of them that have contents. */
class High {
  next = HIGH;
  readonly tables: { at: number; bytes: Buffer }[] = [];

  take(bytes: number): number {
    const at = this.next;
    this.next += bytes;
    return at;
  }

  table(): { at: number; bytes: Buffer } {
    const table = { at: this.take(PAGE), bytes: Buffer.alloc(PAGE) };
    this.tables.push(table);
    return table;
  }

  /** Page tables for so many pages from `physical` on. @returns the directories' addresses */
  map(pages: number, physicalOf: (page: number) => number, user: boolean): number[] {
    const flags = TABLE | (user ? 4n : 0n);
    const directories: number[] = [];
    for (let page = 0; page < pages; ) {
      const directory = this.table();
      directories.push(directory.at);
      for (let i = 0; i < 512 && page < pages; i++) {
        const table = this.table();
        directory.bytes.writeBigUInt64LE(BigInt(table.at) | flags, 8 * i);
        for (let j = 0; j < 512 && page < pages; j++, page++) {
          table.bytes.writeBigUInt64LE(BigInt(physicalOf(page)) | flags, 8 * j);
        }
      }
    }
    return directories;
  }
}

/** Writes the guest. @returns the pages that its kernel and its processes map in that memory */
export function writeLargeGuest(path: string, options: LargeGuestOptions): { kernel: number; user: number } {
  const { highBytes, processes, kernelPages, pagesOfEach } = options;
  const guest = buildGuest({ ramMiB: 64 });
  addProcesses(guest, processes);
  addMemoryManager(guest);
  const high = new High();
  const database = high.take(Math.ceil(((highBytes / PAGE) * ENTRY) / MIB2) * MIB2);
  mapDatabase(guest, database, highBytes);
  const kernelAt = high.take(kernelPages * PAGE);
  const userAt = high.take(processes * pagesOfEach * PAGE);
  // Neighbours in virtual memory are seldom neighbours in physical memory.
  const scattered = (pages: number) => (page: number) => (page * 7919) % pages;
  const inKernel = scattered(kernelPages);
  const kernelTables = high.map(kernelPages, (page) => kernelAt + inKernel(page) * PAGE, false);
  const pointers = guest.kernel.topEntry(Number((KERNEL_AREA >> 39n) & 511n));
  kernelTables.forEach((at, i) => {
    setEntry(guest, pointers, Number((KERNEL_AREA >> 30n) & 511n) + i, BigInt(at) | TABLE);
  });
  const inUser = scattered(processes * pagesOfEach);
  rootsOf(guest, processes).forEach((root, i) => {
    const pointer = high.table();
    const own = high.map(pagesOfEach, (page) => userAt + inUser(i * pagesOfEach + page) * PAGE, true);
    own.forEach((at, j) => {
      pointer.bytes.writeBigUInt64LE(BigInt(at) | TABLE | 4n, 8 * j);
    });
    guest.memory.page(root).writeBigUInt64LE(BigInt(pointer.at) | TABLE | 4n, 8 * USER_SLOT);
  });
  if (high.next > HIGH + highBytes) throw new Error('the guest has no room for what it maps');
  addRam(guest, highBytes);
  write(path, guest, { options, high, database, kernelAt });
  return { kernel: kernelPages, user: processes * pagesOfEach };
}

/** Writes an entry of the table that another entry leads to. */
function setEntry(guest: Guest, table: bigint, index: number, entry: bigint): void {
  guest.memory.page(Number(table & 0xf_ffff_ffff_f000n)).writeBigUInt64LE(entry, 8 * index);
}

/** Large pages, as Windows has them. */
function mapDatabase(guest: Guest, physical: number, highBytes: number): void {
  const first = (HIGH / PAGE) * ENTRY;
  const directories = new Map<number, bigint>();
  for (let at = 0; at < (highBytes / PAGE) * ENTRY; at += MIB2) {
    const virtual = PFN_DATABASE + BigInt(first + at);
    const gib = Number((virtual >> 30n) & 511n);
    const pointers = guest.kernel.topEntry(Number((virtual >> 39n) & 511n));
    let directory = directories.get(gib);
    if (directory === undefined) {
      const page = guest.memory.page(Number(pointers & 0xf_ffff_ffff_f000n));
      directory = page.readBigUInt64LE(8 * gib);
      if (directory === 0n) {
        directory = BigInt(guest.memory.allocate()) | TABLE;
        page.writeBigUInt64LE(directory, 8 * gib);
      }
      directories.set(gib, directory);
    }
    setEntry(guest, directory, Number((virtual >> 21n) & 511n), BigInt(physical + at) | TABLE | 0x80n);
  }
}

/** Of the processes added last. */
function rootsOf({ kernel, truth, build }: Guest, count: number): number[] {
  const roots: number[] = [];
  let link = kernel.read(truth.psActiveProcessHead + 8n, 8).readBigUInt64LE();
  for (let i = 0; i < count; i++) {
    roots.push(Number(kernel.read(link - BigInt(build.eprocess.links) + 0x28n, 8).readBigUInt64LE()));
    link = kernel.read(link + 8n, 8).readBigUInt64LE();
  }
  return roots;
}

/** To what Windows counts as RAM. */
function addRam({ kernel, truth }: Guest, highBytes: number): void {
  const descriptor = kernel.read(truth.kernelBase + BigInt(RVA.MmPhysicalMemoryBlock), 8).readBigUInt64LE();
  const runs = truth.physicalMemory.length;
  const pages = kernel.read(descriptor + 8n, 8).readBigUInt64LE();
  kernel.u32(descriptor, runs + 1);
  kernel.u64(descriptor + 8n, pages + BigInt(highBytes / PAGE));
  kernel.u64(descriptor + BigInt(0x10 + 16 * runs), BigInt(HIGH / PAGE));
  kernel.u64(descriptor + BigInt(0x18 + 16 * runs), BigInt(highBytes / PAGE));
}

interface Places {
  options: LargeGuestOptions;
  high: High;
  database: number;
  kernelAt: number;
}

function write(path: string, guest: Guest, { options, high, database, kernelAt }: Places): void {
  const { highBytes, kernelPages, filled } = options;
  const elf = writeElf(guest, {
    runs: [
      [0, 0xa0000],
      [0x100000, guest.ramBytes],
      [HIGH, HIGH + PAGE],
    ],
  });
  const last = 0xc0 + 56 * 3;
  elf.writeBigUInt64LE(BigInt(highBytes), last + 0x20);
  elf.writeBigUInt64LE(BigInt(highBytes), last + 0x28);
  const start = Number(elf.readBigUInt64LE(last + 8));
  const fd = openSync(path, 'w');
  const put = (physical: number, bytes: Buffer) => writeSync(fd, bytes, 0, bytes.length, start + physical - HIGH);
  try {
    writeSync(fd, elf, 0, start, 0);
    ftruncateSync(fd, start + highBytes);
    for (const { at, bytes } of high.tables) put(at, bytes);
    // Everything up to the last table is in use.
    const entry = activeEntry(guest);
    const used = Math.ceil((high.next - HIGH) / PAGE);
    const block = Buffer.concat(Array.from({ length: 4096 }, () => entry));
    for (let pfn = 0; pfn < used; pfn += 4096) {
      put(database + pfn * ENTRY, block.subarray(0, Math.min(4096, used - pfn) * ENTRY));
    }
    const page = Buffer.alloc(256 * PAGE);
    for (let i = 0; i < page.length; i += 4) page.writeUInt32LE(Math.imul(i, 2654435761) >>> 0, i);
    for (let at = 0; filled && at < kernelPages; at += 256) {
      put(kernelAt + at * PAGE, page.subarray(0, Math.min(256, kernelPages - at) * PAGE));
    }
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** As `addMemoryManager` makes one of a page in use. */
function activeEntry({ build }: Guest): Buffer {
  const stateAt = build.pageLocation;
  const entry = Buffer.alloc(ENTRY);
  entry.writeUInt16LE(1, stateAt === 0x19 ? 0x1a : stateAt - 2);
  entry.writeUInt8(0x50 | ACTIVE, stateAt);
  entry.writeBigUInt64LE(0x80n, stateAt === 0x22 ? 0x10 : 0x20);
  return entry;
}
