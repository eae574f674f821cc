/** x64 page tables (Intel SDM volume 3, 4.5): 4 levels, or 5 with CR4.LA57. */
import { PAGE_SIZE } from '../../core/units.ts';
import { ABSENT, type PagingLevel, type PagingMode, type SoftwareEntry } from '../paging-mode.ts';
import { softwareEntry } from '../software-entries.ts';

const PRESENT = 0x1;
const LARGE = 0x80;

/** Of an entry's upper half: bits 51 to 32 of an address. */
const HIGH_ADDRESS = 0xf_ffff;

/** In levels that map large pages bit 7 says which entries do. */
type Level = PagingLevel & { large: boolean };
const level = (name: string, shift: number, large = false): Level => ({ name, shift, bits: 9, large });
const FOUR = [level('PML4E', 39), level('PDPTE', 30, true), level('PDE', 21, true), level('PTE', 12)];

/** No guest has memory up there: where the bit is not known, those are not the address's. */
const FIRST_DOUBTFUL_BIT = 45;

/** An entry has a prototype's address from this bit on. */
const PROTOTYPE_SHIFT = 16;

/** See `PagingMode.unswizzle`. The bit is the highest that the processor implements (types in public symbols, 22631). */
function unswizzle(entry: SoftwareEntry, bit: number | undefined): SoftwareEntry {
  if (!entry.swizzled) return entry;
  if (entry.kind === 'transition') {
    const { physical } = entry;
    if (bit === undefined) return { ...entry, physical: physical % 2 ** FIRST_DOUBTFUL_BIT };
    const isSet = Math.floor(physical / 2 ** bit) % 2 === 1;
    return { ...entry, physical: isSet ? physical - 2 ** bit : physical };
  }
  return bit === undefined ? entry : { ...entry, entry: entry.entry & ~(1n << BigInt(bit - PROTOTYPE_SHIFT)) };
}

function decodeIn(levels: readonly Level[]): PagingMode['decode'] {
  const last = levels.length - 1;
  const sizes = levels.map(({ shift }) => 2 ** shift);
  return (at, low, high) => {
    if ((low & PRESENT) === 0) return at === last ? softwareEntry(low, high, HIGH_ADDRESS) : ABSENT;
    const physical = (high & HIGH_ADDRESS) * 2 ** 32 + ((low & 0xffff_f000) >>> 0);
    if (at === last) return { kind: 'page', physical, size: PAGE_SIZE };
    if (!levels[at]!.large || (low & LARGE) === 0) return { kind: 'table', physical };
    const size = sizes[at]!;
    // A large page's entry has flag bits (PAT) below its address.
    return { kind: 'page', physical: physical - (physical % size), size };
  };
}

const COMMON = {
  entrySize: 8,
  kernelFrom: 256,
  selfMapLevel: 0,
  unswizzle,
  // PCID and flags below; bit 63 says "do not flush".
  root: { address: 0x000f_ffff_ffff_f000n, reserved: 0x7ff0_0000_0000_0000n },
} as const;

/** 48-bit addresses. */
export const PAGING_4_LEVELS: PagingMode = {
  ...COMMON,
  name: '4-level',
  addressBits: 48,
  levels: FOUR,
  decode: decodeIn(FOUR),
  debuggerRoot: undefined,
};

const FIVE = [level('PML5E', 48), ...FOUR];

/** 57-bit addresses, with CR4.LA57. */
export const PAGING_5_LEVELS: PagingMode = {
  ...COMMON,
  name: '5-level',
  addressBits: 57,
  levels: FIVE,
  decode: decodeIn(FIVE),
  debuggerRoot: { table: 'PML4', maps: 'kernel addresses from 0xffff800000000000' },
};
