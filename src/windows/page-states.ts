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

/** State of the page at a physical address; undefined where the database has no entry that is present. */
export type PageStates = (address: number) => PageState | undefined;

/** Pages whose use is known, to judge the database by. */
export interface KnownPages {
  /** Physical addresses of pages that a page table maps as present: they are active. */
  mapped: Iterable<number>;
  /** Of pages in transition: no longer active. */
  transition: Iterable<number>;
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
): { state: PageStates; how: string } | Reason {
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
    const state = reader({ space, base, entrySize }, layout);
    const active = mapped.filter((address) => state(address)?.location === PageLocation.active).length;
    const inactive = transition.filter((address) => {
      const location = state(address)?.location;
      return location !== undefined && location !== PageLocation.active;
    }).length;
    const result = `by byte ${hex(layout.stateAt)} of its ${hex(entrySize)}-byte entries, ${active} of ${mapped.length} mapped pages are active and ${inactive} of ${transition.length} in transition are not`;
    if (active >= mapped.length * NEEDED && inactive >= transition.length * NEEDED) {
      return { state, how: `MmPfnDatabase at ${hex64(base)}: ${result}` };
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
}

/** MI_PAGE_CACHE_ATTRIBUTE: cached. */
const CACHED = 1;

/** MMPTE.u.Soft.Prototype of an original entry: a file has the page. */
const OF_FILE = 0x400;

/** Pages in a large one of 64 KiB, 2 MiB and 1 GiB: each lies at a multiple of its size. */
const LARGE_PAGES = [16, 512, 512 * 512];

function reader(database: Database, { stateAt, cacheShift, originalPteAt, resident }: PageEntryLayout): PageStates {
  const entryOf = entryReader(database);
  /** Within a large free page only its first entry has the state; the others say Bad. */
  const locationOf = (pfn: number, entry: Buffer): number => {
    const location = entry[stateAt]! & 7;
    if (location !== PageLocation.bad || !resident || (entry[resident.at]! & resident.mask) === 0) return location;
    for (const pages of LARGE_PAGES) {
      const base = entryOf(pfn - (pfn % pages));
      const state = base === undefined ? PageLocation.bad : base[stateAt]! & 7;
      if (state !== PageLocation.bad) return state;
    }
    return location;
  };
  return (address) => {
    const pfn = pfnOf(address);
    const entry = entryOf(pfn);
    if (!entry) return undefined;
    return {
      location: locationOf(pfn, entry),
      cached: ((entry[stateAt]! >> cacheShift) & 3) === CACHED,
      isPrivate: (entry.readUInt16LE(originalPteAt) & OF_FILE) === 0,
    };
  };
}

/** Reads entries by page frame number; undefined where not all of one is present. */
function entryReader({ space, base, entrySize }: Database): (pfn: number) => Buffer | undefined {
  const pages = new Map<number, Buffer | undefined>();
  const pageAt = (page: number): Buffer | undefined => {
    if (!pages.has(page)) {
      // Pages are asked for in order: a few are enough.
      if (pages.size >= KEPT_PAGES) pages.clear();
      const virtual = base + BigInt(page) * BigInt(PAGE_SIZE);
      pages.set(page, isKernelAddress(virtual) ? space.read(virtual, PAGE_SIZE) : undefined);
    }
    return pages.get(page);
  };
  return (pfn) => {
    const at = pfn * entrySize;
    const offset = at % PAGE_SIZE;
    const first = pageAt((at - offset) / PAGE_SIZE);
    if (!first || offset + entrySize <= PAGE_SIZE) return first?.subarray(offset, offset + entrySize);
    const second = pageAt((at - offset) / PAGE_SIZE + 1);
    return second && Buffer.concat([first.subarray(offset), second.subarray(0, offset + entrySize - PAGE_SIZE)]);
  };
}

const KEPT_PAGES = 16;
