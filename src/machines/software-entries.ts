/** Page-table entries that are not present to the hardware: the same words on all machines with 64-bit entries. */
import { ABSENT, type PageEntry } from './paging-mode.ts';

const PROTOTYPE = 0x400;
const TRANSITION = 0x800;

/** Clear: the entry may be swizzled. Set: the page's address has that bit itself. */
const NOT_SWIZZLED = 0x10;

/** Of an entry's upper half: bits 63 to 47 of a kernel pointer. */
const POINTER_SHIFT = 15;
const POINTER_BITS = 0x1_ffff;

/**
 * MMPTE_TRANSITION and MMPTE_PROTOTYPE (types in public symbols; checked against Volatility 3 and MemProcFS).
 *
 * @param highAddress the bits of the upper half that are a page's address
 */
export function softwareEntry(low: number, high: number, highAddress: number): PageEntry {
  // Since 22621 some entries are pointers: (entry & 0xffff80000000000f) == 0xffff800000000000.
  if (high >>> POINTER_SHIFT === POINTER_BITS && (low & 0xf) === 0) return ABSENT;
  const swizzled = (low & NOT_SWIZZLED) === 0;
  if ((low & (PROTOTYPE | TRANSITION)) === TRANSITION) {
    return { kind: 'transition', physical: (high & highAddress) * 2 ** 32 + ((low & 0xffff_f000) >>> 0), swizzled };
  }
  // Prototype entries lie in the kernel, 8-byte aligned.
  if ((low & 0x7_0400) === PROTOTYPE && high >>> 31 === 1) {
    const entry = (BigInt(high) << 16n) | BigInt(low >>> 16) | 0xffff_0000_0000_0000n;
    return { kind: 'prototype', entry, swizzled };
  }
  return ABSENT;
}
