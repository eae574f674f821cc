/** What Windows uses each page of RAM for, from its page frame database (MmPfnDatabase). */

import { isKernelAddress } from '../core/bits.ts';
import { because, type Reason } from '../core/reason.ts';
import { hex, hex64, PAGE_SIZE, pfnOf } from '../core/units.ts';
import { PageLocation } from '../formats/win-kernel.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { MemoryImage } from '../memory/image.ts';

/** `PageLocation` of a page, undefined where the database has no entry that is present. */
export type PageState = (address: number) => number | undefined;

/** Pages whose use is known, to judge the database by. */
export interface KnownPages {
  /** Physical addresses of pages that a page table maps as present: they are active. */
  mapped: Iterable<number>;
  /** Of pages in transition: no longer active. */
  transition: Iterable<number>;
}

/** Minimum sample size. */
const MIN_SAMPLE = 32;
const MAX_SAMPLE = 16_384;

/** A running system may have been stopped amid a change of a few entries. */
const NEEDED = 0.98;

/**
 * A reader of page states, or why the database is not believed. Nothing says where an entry has its
 * state, so the places that versions had it are tried, and one is believed only if it says of almost all
 * pages that are known to be mapped that they are active, and of those in transition that they are not.
 */
export function readPageStates(
  image: MemoryImage,
  space: AddressSpace,
  variable: bigint | undefined,
  known: KnownPages,
): { state: PageState; how: string } | Reason {
  if (variable === undefined || !isKernelAddress(variable)) return because('the KDBG names no MmPfnDatabase');
  const base = space.readU64(variable);
  if (base === undefined || !isKernelAddress(base) || base % BigInt(PAGE_SIZE) !== 0n) {
    return because(
      `MmPfnDatabase at ${hex64(variable)} holds ${base === undefined ? 'nothing that is present' : hex64(base)}`,
    );
  }
  const { entrySize, stateAt } = image.machine.pageDatabase;
  const mapped = take(known.mapped, MAX_SAMPLE);
  const transition = take(known.transition, MAX_SAMPLE);
  if (mapped.length < MIN_SAMPLE) return because(`only ${mapped.length} pages are known to hold it against`);
  const tried: string[] = [];
  for (const at of stateAt) {
    const state = reader(space, base, entrySize, at);
    const active = mapped.filter((address) => state(address) === PageLocation.active).length;
    const inactive = transition.filter((address) => {
      const location = state(address);
      return location !== undefined && location !== PageLocation.active;
    }).length;
    const result = `by byte ${hex(at)} of its ${hex(entrySize)}-byte entries, ${active} of ${mapped.length} mapped pages are active and ${inactive} of ${transition.length} in transition are not`;
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

function reader(space: AddressSpace, base: bigint, entrySize: number, stateAt: number): PageState {
  let page = -1;
  let bytes: Buffer | undefined;
  return (address) => {
    const at = pfnOf(address) * entrySize + stateAt;
    if (Math.floor(at / PAGE_SIZE) !== page) {
      page = Math.floor(at / PAGE_SIZE);
      const virtual = base + BigInt(page) * BigInt(PAGE_SIZE);
      bytes = isKernelAddress(virtual) ? space.read(virtual, PAGE_SIZE) : undefined;
    }
    return bytes === undefined ? undefined : bytes[at % PAGE_SIZE]! & 7;
  };
}
