/** x64 page tables (Intel SDM volume 3, 4.5): 4 levels, or 5 with CR4.LA57. */
import type { PagingMode, SoftwareEntry } from '../paging-mode.ts';

const level = (shift: number, largePages = false) => ({ shift, bits: 9, largePages });
const FOUR = [level(39), level(30, true), level(21, true), level(12)];

const PROTOTYPE = 0x400;
const TRANSITION = 0x800;

/** MMPTE_TRANSITION and MMPTE_PROTOTYPE (types in public symbols; checked against Volatility 3 and MemProcFS). */
function softwareEntry(low: number, high: number): SoftwareEntry | undefined {
  if ((low & (PROTOTYPE | TRANSITION | 1)) === TRANSITION) {
    // Bits above 44 are not the frame's: Windows flips one of them against L1TF.
    return { kind: 'transition', physical: (high & 0x1fff) * 2 ** 32 + ((low & 0xffff_f000) >>> 0) };
  }
  // Prototype entries lie in the kernel, 8-byte aligned.
  if ((low & 0x7_0401) === PROTOTYPE && high >>> 31 === 1) {
    const entry = (BigInt(high) << 16n) | BigInt(low >>> 16) | 0xffff_0000_0000_0000n;
    return { kind: 'prototype', entry };
  }
  return undefined;
}

export const PAGING_4_LEVELS: PagingMode = {
  name: '4-level',
  addressBits: 48,
  levels: FOUR,
  softwareEntry,
  kernelFrom: 256,
  levelNames: ['PML4E', 'PDPTE', 'PDE', 'PTE'],
};

export const PAGING_5_LEVELS: PagingMode = {
  name: '5-level',
  addressBits: 57,
  levels: [level(48), ...FOUR],
  softwareEntry,
  kernelFrom: 256,
  levelNames: ['PML5E', 'PML4E', 'PDPTE', 'PDE', 'PTE'],
};
