/** 32-bit x86 page tables (Intel SDM volume 3, 4.3 and 4.4): two levels of 4-byte entries or, with PAE, three of 8-byte ones. */
import { PAGE_SIZE } from '../../core/units.ts';
import { ABSENT, type PageEntry, type PagingMode } from '../paging-mode.ts';

const PRESENT = 0x1;
const LARGE = 0x80;

const PROTOTYPE = 0x400;
const TRANSITION = 0x800;

const LARGE_PAGE = 2 ** 22;
const LARGE_PAE_PAGE = 2 ** 21;

/** Of an MMPTE_TRANSITION with PAE: 26 bits of a page frame number. */
const TRANSITION_HIGH = 0x3f;

/** A 32-bit kernel's addresses are kept sign-extended. */
const KERNEL_HIGH = 0xffff_ffff_0000_0000n;

/**
 * MMPTE_TRANSITION and MMPTE_PROTOTYPE (types in public symbols; where the debugger looks for prototype entries was
 * seen in the engine).
 */
function softwareEntry(entry: number): PageEntry {
  if ((entry & (PROTOTYPE | TRANSITION)) === TRANSITION) {
    return { kind: 'transition', physical: (entry & 0xffff_f000) >>> 0 };
  }
  // The low three bits are the address's too, and those of such an entry are zeros.
  if ((entry & (PROTOTYPE | 0x7)) !== PROTOTYPE) return ABSENT;
  const address = 0x8000_0000 + (((entry >>> 11) << 10) >>> 0) + ((entry << 1) & 0x3ff);
  return address > 0xffff_ffff ? ABSENT : { kind: 'prototype', entry: KERNEL_HIGH | BigInt(address) };
}

function softwareEntryPae(low: number, high: number): PageEntry {
  if ((low & (PROTOTYPE | TRANSITION)) === TRANSITION) {
    return { kind: 'transition', physical: (high & TRANSITION_HIGH) * 2 ** 32 + ((low & 0xffff_f000) >>> 0) };
  }
  // The upper half is its address: in the kernel, 8-byte aligned.
  if ((low & PROTOTYPE) !== 0 && high >>> 31 === 1 && (high & 0x7) === 0) {
    return { kind: 'prototype', entry: KERNEL_HIGH | BigInt(high) };
  }
  return ABSENT;
}

/** Without PAE. Large pages have bits 39 to 32 of their address in bits 20 to 13 (PSE-36). */
export const PAGING_32_BIT: PagingMode = {
  name: '32-bit',
  addressBits: 32,
  levels: [
    { name: 'PDE', shift: 22, bits: 10 },
    { name: 'PTE', shift: 12, bits: 10 },
  ],
  entrySize: 4,
  decode: (level, low) => {
    if ((low & PRESENT) === 0) return level === 1 ? softwareEntry(low) : ABSENT;
    const physical = (low & 0xffff_f000) >>> 0;
    if (level === 1) return { kind: 'page', physical, size: PAGE_SIZE };
    if ((low & LARGE) === 0) return { kind: 'table', physical };
    const high = (low >>> 13) & 0xff;
    return { kind: 'page', physical: high * 2 ** 32 + physical - (physical % LARGE_PAGE), size: LARGE_PAGE };
  },
  kernelFrom: 512,
  selfMapLevel: 0,
  root: { address: 0xffff_f000n, reserved: 0n },
  debuggerRoot: undefined,
};

/** With CR4.PAE. The root has four entries, and lies at a multiple of 32 bytes. */
export const PAGING_PAE: PagingMode = {
  name: 'PAE',
  addressBits: 32,
  levels: [
    { name: 'PDPTE', shift: 30, bits: 2 },
    { name: 'PDE', shift: 21, bits: 9 },
    { name: 'PTE', shift: 12, bits: 9 },
  ],
  entrySize: 8,
  decode: (level, low, high) => {
    if ((low & PRESENT) === 0) return level === 2 ? softwareEntryPae(low, high) : ABSENT;
    const physical = (high & 0xf_ffff) * 2 ** 32 + ((low & 0xffff_f000) >>> 0);
    if (level === 2) return { kind: 'page', physical, size: PAGE_SIZE };
    // Bit 7 of a root's entry is reserved.
    if (level === 0 || (low & LARGE) === 0) return { kind: 'table', physical };
    return { kind: 'page', physical: physical - (physical % LARGE_PAE_PAGE), size: LARGE_PAE_PAGE };
  },
  pae: true,
  kernelFrom: 2,
  // Four entries of the last page directory lead to the four directories.
  selfMapLevel: 1,
  root: { address: 0xffff_ffe0n, reserved: 0n },
  debuggerRoot: undefined,
};
