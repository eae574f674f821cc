/**
 * ARM64 page tables with a granule of 4 KiB (Arm Architecture Reference Manual, D8.3), as Windows uses them: TTBR0 and
 * TTBR1 are the halves of one page, so that its 512 entries map both halves of the address space, as on x64.
 */
import { PAGE_SIZE } from '../../core/units.ts';
import { ABSENT, type PagingLevel, type PagingMode } from '../paging-mode.ts';
import { softwareEntry } from '../software-entries.ts';

const VALID = 0x1;
/** Of a valid entry: it leads to a table, or in the last level to a page; clear, it maps a block. */
const TABLE = 0x2;

/** Of an entry's upper half: bits 47 to 32 of an address. */
const HIGH_ADDRESS = 0xffff;

const level = (name: string, shift: number): PagingLevel => ({ name, shift, bits: 9 });
const LEVELS = [level('level 0 entry', 39), level('level 1 entry', 30), level('level 2 entry', 21), level('PTE', 12)];
const LAST = LEVELS.length - 1;

/** 48-bit addresses. */
export const PAGING_4K_GRANULE: PagingMode = {
  name: '4-level',
  addressBits: 48,
  levels: LEVELS,
  entrySize: 8,
  decode: (at, low, high) => {
    if ((low & VALID) === 0) return at === LAST ? softwareEntry(low, high, HIGH_ADDRESS) : ABSENT;
    const physical = (high & HIGH_ADDRESS) * 2 ** 32 + ((low & 0xffff_f000) >>> 0);
    const leads = (low & TABLE) !== 0;
    if (at === LAST) return leads ? { kind: 'page', physical, size: PAGE_SIZE } : ABSENT;
    if (leads) return { kind: 'table', physical };
    // The root's entries cannot be blocks.
    if (at === 0) return ABSENT;
    const size = 2 ** LEVELS[at]!.shift;
    return { kind: 'page', physical: physical - (physical % size), size };
  },
  kernelFrom: 256,
  selfMapLevel: 0,
  // An address-space number above; TTBR1 leads to the upper half of the page.
  root: { address: 0x0000_ffff_ffff_f000n, reserved: 0n },
  debuggerRoot: undefined,
};
