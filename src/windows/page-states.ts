/** What Windows uses each page of RAM for, from its page frame database (MmPfnDatabase). */

import { isKernelAddress } from '../core/bits.ts';
import { because, type Reason } from '../core/reason.ts';
import { hex, hex64, PAGE_SIZE, pfnOf } from '../core/units.ts';
import { PageLocation } from '../formats/win-kernel.ts';
import type { PageEntryLayout } from '../machines/machine.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { MemoryImage } from '../memory/image.ts';

/** What the database says of a page. */
export interface PageState {
  /** A `PageLocation`. */
  location: number;
  /** The page is cached as memory usually is: Windows reads no other when it writes a dump. */
  cached: boolean;
  /** Its content is in no file: it is a process's or the kernel's own. */
  isPrivate: boolean;
}

/** States of pages, by physical address. */
export interface PageStates {
  /** undefined where the database has no entry that is present. */
  of(address: number): PageState | undefined;
  /** For a page without an entry: how many pages from it on have none, at least. */
  pagesWithout(address: number): number;
  /** The state of a page and of those after it that have the same: 1 to `limit` pages. To be asked in ascending order. */
  run(address: number, limit: number): { state: PageState | undefined; pages: number };
}

/** Pages whose use is known, to judge the database by. */
export interface KnownPages {
  /** Physical addresses of pages that a page table maps as present: they are active. */
  mapped: Iterable<number>;
  /** Of pages in transition: no longer active. */
  transition: Iterable<number>;
  /** Whether a range of physical memory is known to be zeros without being read. Default: none is. */
  isZero?: ((physical: number, size: number) => boolean) | undefined;
}

/** Minimum sample size. */
const MIN_SAMPLE = 32;

/** Pages that the database is held against. */
export const MAX_SAMPLE = 16_384;

/** A running system may have been stopped amid a change of a few entries. */
const NEEDED = 0.98;

/**
 * A reader of page states, or why the database is not believed. Nothing says where an entry has its
 * state, so the layouts of all versions are tried, and one is believed only if it says of almost all
 * pages that are known to be mapped that they are active, and of those in transition that they are not.
 */
export function readPageStates(
  image: MemoryImage,
  space: AddressSpace,
  variable: bigint | undefined,
  known: KnownPages,
): { states: PageStates; how: string } | Reason {
  if (variable === undefined || !isKernelAddress(variable)) return because('the KDBG names no MmPfnDatabase');
  const base = space.readPointer(variable);
  if (base === undefined || !isKernelAddress(base) || base % BigInt(PAGE_SIZE) !== 0n) {
    return because(
      `MmPfnDatabase at ${hex64(variable)} holds ${base === undefined ? 'nothing that is present' : hex64(base)}`,
    );
  }
  const { layouts } = image.machine.pageDatabase;
  const mapped = take(known.mapped, MAX_SAMPLE);
  const transition = take(known.transition, MAX_SAMPLE);
  if (mapped.length < MIN_SAMPLE) return because(`only ${mapped.length} pages are known to hold it against`);
  const tried: string[] = [];
  for (const layout of layouts) {
    const { entrySize } = layout;
    const states = reader({ space, base, entrySize, isZero: known.isZero }, layout);
    const active = mapped.filter((address) => states.of(address)?.location === PageLocation.active).length;
    const inactive = transition.filter((address) => {
      const location = states.of(address)?.location;
      return location !== undefined && location !== PageLocation.active;
    }).length;
    const result = `by byte ${hex(layout.stateAt)} of its ${hex(entrySize)}-byte entries, ${active} of ${mapped.length} mapped pages are active and ${inactive} of ${transition.length} in transition are not`;
    if (active >= mapped.length * NEEDED && inactive >= transition.length * NEEDED) {
      return { states, how: `MmPfnDatabase at ${hex64(base)}: ${result}` };
    }
    tried.push(result);
  }
  return because(`MmPfnDatabase at ${hex64(base)} does not agree with the page tables: ${tried.join('; ')}`);
}

function take(values: Iterable<number>, limit: number): number[] {
  const list: number[] = [];
  for (const value of values) {
    if (list.length === limit) break;
    list.push(value);
  }
  return list;
}

interface Database {
  space: AddressSpace;
  base: bigint;
  entrySize: number;
  isZero: KnownPages['isZero'];
}

/** MI_PAGE_CACHE_ATTRIBUTE: cached. */
const CACHED = 1;

/** MMPTE.u.Soft.Prototype of an original entry: a file has the page. */
const OF_FILE = 0x400;

/** Pages in a large one of 64 KiB, 2 MiB and 1 GiB: each lies at a multiple of its size. */
const LARGE_PAGES = [16, 512, 512 * 512];

function reader(database: Database, layout: PageEntryLayout): PageStates {
  const { stateAt, cacheShift, originalPteAt, resident } = layout;
  const entries = new Entries(database);
  const window = new Window(database);
  /** Within a large free page only its first entry has the state; the others say Bad. */
  const locationOf = (pfn: number, location: number, residence: number): number => {
    if (location !== PageLocation.bad || !resident || (residence & resident.mask) === 0) return location;
    for (const pages of LARGE_PAGES) {
      const state = entries.find(pfn - (pfn % pages)) ? entries.byte(stateAt) & 7 : PageLocation.bad;
      if (state !== PageLocation.bad) return state;
    }
    return location;
  };
  /** Of the entry that was found last. */
  const stateOf = (pfn: number): PageState => {
    const state = entries.byte(stateAt);
    const cached = ((state >> cacheShift) & 3) === CACHED;
    const isPrivate = ((entries.byte(originalPteAt) | (entries.byte(originalPteAt + 1) << 8)) & OF_FILE) === 0;
    return { location: locationOf(pfn, state & 7, resident ? entries.byte(resident.at) : 0), cached, isPrivate };
  };
  const of: PageStates['of'] = (address) => {
    const pfn = pfnOf(address);
    return entries.find(pfn) ? stateOf(pfn) : undefined;
  };
  return {
    of,
    pagesWithout: (address) => entries.pagesWithout(pfnOf(address)),
    run(address, limit) {
      const pfn = pfnOf(address);
      const found = window.find(pfn);
      if (!found) {
        const state = of(address);
        return { state, pages: state ? 1 : Math.min(limit, entries.pagesWithout(pfn)) };
      }
      entries.use(found);
      const state = stateOf(pfn);
      // Within a large free page the state is that of an entry before: the same for all of the smallest large page.
      const inLarge = LARGE_PAGES[0]! - (pfn % LARGE_PAGES[0]!);
      return { state, pages: alike(found, { limit, inLarge }, layout) };
    },
  };
}

/** Bytes of the database that are looked at together. */
const WINDOW = 64 * PAGE_SIZE;
const ZEROS = Buffer.alloc(WINDOW);

/** Bytes of the database, and where in them an entry is. */
interface EntryPlace {
  bytes: Buffer;
  at: number;
}

/** Goes through entries in ascending order, many at a time. */
class Window {
  readonly #database: Database;
  /** From this byte of the database on. */
  #from = 0;
  #bytes: Buffer = Buffer.alloc(0);
  /** Where physically contiguous memory is read into. */
  readonly #room = Buffer.allocUnsafeSlow(WINDOW);
  /** No window can be read that begins before. */
  #missingUpTo = 0;

  constructor(database: Database) {
    this.#database = database;
  }

  /** An entry, with as many after it as were read; undefined where those are not all present. Valid up to the next call. */
  find(pfn: number): EntryPlace | undefined {
    const { base, entrySize } = this.#database;
    const at = pfn * entrySize;
    if (at >= this.#from && at + entrySize <= this.#from + this.#bytes.length) {
      return { bytes: this.#bytes, at: at - this.#from };
    }
    const from = at - (at % PAGE_SIZE);
    if (from < this.#missingUpTo) return undefined;
    const virtual = base + BigInt(from);
    const { bytes, length } = isKernelAddress(virtual) ? this.#read(virtual) : { bytes: undefined, length: 0 };
    if (!bytes || at + entrySize > from + length) {
      // What is mapped and not in the image is not looked for again at each of its pages.
      this.#missingUpTo = from + Math.max(length, PAGE_SIZE);
      // What was read may have taken the place of the window.
      this.#bytes = Buffer.alloc(0);
      return undefined;
    }
    this.#from = from;
    this.#bytes = bytes;
    return { bytes, at: at - from };
  }

  /** As much as is mapped without a gap, at most `WINDOW`; no bytes where not all of that is in the image. */
  #read(virtual: bigint): { bytes: Buffer | undefined; length: number } {
    const { space, isZero } = this.#database;
    const mapping = space.walk(virtual);
    if ('reason' in mapping) return { bytes: undefined, length: 0 };
    const { physical, pageSize } = mapping;
    if (pageSize === PAGE_SIZE) {
      const length = mappedFrom(space, virtual, WINDOW);
      return { bytes: space.read(virtual, length), length };
    }
    // Windows maps the database by large pages: one walk for each.
    const length = Math.min(WINDOW, pageSize - (physical % pageSize));
    if (isZero?.(physical, length)) return { bytes: ZEROS.subarray(0, length), length };
    const room = this.#room.subarray(0, length);
    return { bytes: space.image.readSync(physical, room) ? room : undefined, length };
  }
}

/** Bytes that are mapped without a gap, of at most `most`. */
function mappedFrom(space: AddressSpace, virtual: bigint, most: number): number {
  const gap = space.pieces(virtual, most).find(({ physical }) => physical === undefined);
  return gap ? gap.offset : most;
}

/**
 * How many entries say the same, from one on.
 *
 * @param most.limit at most so many
 * @param most.inLarge at most so many where they are of pages within a large free one
 */
function alike(
  { bytes, at: first }: EntryPlace,
  { limit, inLarge }: { limit: number; inLarge: number },
  { entrySize, stateAt, cacheShift, originalPteAt, resident }: PageEntryLayout,
): number {
  const stateMask = 7 | (3 << cacheShift);
  const state = bytes[first + stateAt]! & stateMask;
  const file = bytes[first + originalPteAt + 1]! & (OF_FILE >> 8);
  const residentAt = resident?.at ?? 0;
  const residentMask = resident?.mask ?? 0;
  const residence = bytes[first + residentAt]! & residentMask;
  const most = (state & 7) === PageLocation.bad && residence !== 0 ? Math.min(limit, inLarge) : limit;
  const last = Math.min(bytes.length - entrySize, first + (most - 1) * entrySize);
  let at = first + entrySize;
  while (
    at <= last &&
    (bytes[at + stateAt]! & stateMask) === state &&
    (bytes[at + originalPteAt + 1]! & (OF_FILE >> 8)) === file &&
    (bytes[at + residentAt]! & residentMask) === residence
  ) {
    at += entrySize;
  }
  return (at - first) / entrySize;
}

/** Reads entries by page frame number, most of them in ascending order. */
class Entries {
  readonly #database: Database;
  /** By number of page in the database. */
  readonly #pages = new Map<number, Buffer | undefined>();
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Goes to an entry. False where not all of it is present. */
  find(pfn: number): boolean {
    const { entrySize } = this.#database;
    const at = pfn * entrySize;
    const offset = at % PAGE_SIZE;
    const page = (at - offset) / PAGE_SIZE;
    const first = this.#page(page);
    if (!first) return false;
    this.#bytes = first;
    this.#at = offset;
    if (offset + entrySize <= PAGE_SIZE) return true;
    const second = this.#page(page + 1);
    if (!second) return false;
    this.#bytes = Buffer.concat([first.subarray(offset), second.subarray(0, offset + entrySize - PAGE_SIZE)]);
    this.#at = 0;
    return true;
  }

  /** As if it had been found. */
  use({ bytes, at }: EntryPlace): void {
    this.#bytes = bytes;
    this.#at = at;
  }

  /** A byte of the entry that was found last. */
  byte(offset: number): number {
    return this.#bytes[this.#at + offset]!;
  }

  /** As `PageStates` says. */
  pagesWithout(pfn: number): number {
    const { space, base, entrySize } = this.#database;
    const at = pfn * entrySize;
    const virtual = base + BigInt(at - (at % PAGE_SIZE));
    const fault = isKernelAddress(virtual) ? space.fault(virtual) : undefined;
    if (!fault) return 1;
    const end = virtual - (virtual % BigInt(fault.region)) + BigInt(fault.region);
    return Math.max(1, Math.ceil(Number(end - base) / entrySize) - pfn);
  }

  #page(number: number): Buffer | undefined {
    const known = this.#pages.get(number);
    if (known || this.#pages.has(number)) return known;
    const { space, base } = this.#database;
    // A few are enough.
    if (this.#pages.size >= KEPT_PAGES) this.#pages.clear();
    const virtual = base + BigInt(number) * BigInt(PAGE_SIZE);
    const page = isKernelAddress(virtual) ? space.read(virtual, PAGE_SIZE) : undefined;
    this.#pages.set(number, page);
    return page;
  }
}

const KEPT_PAGES = 16;
