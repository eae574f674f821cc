/** What a page of physical memory shows of Windows on ARM64, most of whose inputs hold no system registers. */
import { isKernelAddress } from '../../core/bits.ts';
import { PAGE_SIZE, pa, va } from '../../core/units.ts';
import type { ScanPatterns } from '../page-scan.ts';
import type { PageClue } from '../page-search.ts';
import { rootIn } from '../paging-mode.ts';
import { op } from '../wasm.ts';
import { KpcrPage } from './kpcr.ts';
import { PAGING_4K_GRANULE } from './paging.ts';

/** TTBR1 from TTBR0: the second half of the page. */
const HALF = 0x800n;

/**
 * An entry of a root that leads back to it: a table, accessed, of normal memory, not executable (as real ones are); not
 * compared are the bits that hardware or software may set.
 */
const SELF_MAP_MASK = 0x0063_ffff_ffff_f073n;
const SELF_MAP_BITS = 0x0060_0000_0000_0003n;

const at = (offset: number) => (from: number) => [...op.get(from), ...op.i64Load(offset)];
const ttbr0 = at(KpcrPage.offsetOf('Ttbr0_El1'));
const ttbr1 = at(KpcrPage.offsetOf('Ttbr1_El1'));

/** What the first look at pages goes by. */
export const SCAN_PATTERNS: ScanPatterns = {
  selfMap: { mask: SELF_MAP_MASK, bits: SELF_MAP_BITS },
  begins: (from) => [...ttbr0(from), ...op.i64(HALF), ...op.i64Add, ...ttbr1(from), ...op.i64Equal],
  beginsAt: 'page',
  everyPageBelow: 0,
};

/** Clues are rare: most pages cost the comparisons and share this. */
const NONE: readonly PageClue[] = [];

/** See `Machine.pageClues`. */
export function pageClues(words: Uint32Array, page: number, physical: number): readonly PageClue[] {
  const kpcr = kpcrIn(words, page);
  const selfMap = hasSelfMap(words, page, physical);
  if (!selfMap) return kpcr;
  return [...kpcr, { kind: 'root', root: pa(physical), how: 'self-map', rank: 1 }];
}

const word = (words: Uint32Array, page: number, field: keyof (typeof KpcrPage)['fields']): bigint => {
  const i = page + KpcrPage.offsetOf(field) / 4;
  return (BigInt(words[i + 1]!) << 32n) | BigInt(words[i]!);
};

const TTBR0 = KpcrPage.offsetOf('Ttbr0_El1') / 4;
const TTBR1 = KpcrPage.offsetOf('Ttbr1_El1') / 4;

/** TCR_EL1: the sizes of both halves, 47 bits each. */
const TCR_SIZES = 0x003f_003fn;
const BOTH_47_BITS = 0x0011_0011n;

/** VBAR_EL1's alignment. */
const VECTORS_ALIGNMENT = 0x800n;

/**
 * A processor's saved architecture state: it gives the root, the KPCR and an address in the kernel at once. All
 * processors save that of System's tables.
 */
function kpcrIn(words: Uint32Array, page: number): readonly PageClue[] {
  // Cheap test first.
  if (words[page + TTBR1] !== (words[page + TTBR0]! + Number(HALF)) >>> 0) return NONE;
  const low = word(words, page, 'Ttbr0_El1');
  const code = word(words, page, 'Vbar_El1');
  const root = rootIn(PAGING_4K_GRANULE, low);
  const isState =
    word(words, page, 'Ttbr1_El1') === low + HALF &&
    root !== 0 &&
    (low & BigInt(PAGE_SIZE - 1) & ~1n) === 0n &&
    (word(words, page, 'Tcr_El1') & TCR_SIZES) === BOTH_47_BITS &&
    isKernelAddress(code) &&
    code % VECTORS_ALIGNMENT === 0n;
  if (!isState) return NONE;
  const pageOf = (address: bigint) => address - (address % BigInt(PAGE_SIZE));
  const thread = pageOf(word(words, page, 'Tpidr_El1'));
  // A PRCB has its locks in the KPCR's second page.
  const locks = pageOf(word(words, page, 'LockArray')) - BigInt(PAGE_SIZE);
  const virtual = [thread, locks].find(isKernelAddress);
  return [
    { kind: 'root', root: pa(root), how: 'use by a KPCR', rank: 0 },
    ...(virtual === undefined ? [] : [{ kind: 'kpcr' as const, virtual: va(virtual), leadsTo: { code: va(code) } }]),
  ];
}

/** Whether an entry of the kernel's half of a table points back to the table. */
function hasSelfMap(words: Uint32Array, page: number, physical: number): boolean {
  const low = ((physical % 2 ** 32) | Number(SELF_MAP_BITS & 0xffff_ffffn)) >>> 0;
  const high = (Math.floor(physical / 2 ** 32) | Number(SELF_MAP_BITS >> 32n)) >>> 0;
  const [maskLow, maskHigh] = [Number(SELF_MAP_MASK & 0xffff_ffffn), Number(SELF_MAP_MASK >> 32n)];
  for (let i = page + 512; i < page + 1024; i += 2) {
    if ((words[i]! & maskLow) >>> 0 === low && (words[i + 1]! & maskHigh) >>> 0 === high) return true;
  }
  return false;
}
