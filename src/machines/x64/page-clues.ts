/** What a page of physical memory shows of Windows on x64, for the search of dumps without useful CPU states. */
import { isKernelAddress } from '../../core/bits.ts';
import { MIB, PAGE_SIZE, pa, va } from '../../core/units.ts';
import { type ScanPatterns, STRIDE } from '../page-scan.ts';
import type { PageClue } from '../page-search.ts';
import { op } from '../wasm.ts';
import { Kpcr, PRCB_IN_KPCR } from './kpcr.ts';

/** Windows puts the start block of its other processors into the first MiB. */
const LOW_MEMORY = MIB;

/** Of a page-table entry: present, writable, not large. */
const TABLE_ENTRY = 0x3;
const TABLE_ENTRY_MASK = 0x83;

/** Clues are rare: most pages cost the comparisons and share this. */
const NONE: readonly PageClue[] = [];

/** See `Machine.pageClues`. */
export function pageClues(words: Uint32Array, at: number, physical: number): readonly PageClue[] {
  const startBlock = physical < LOW_MEMORY ? startBlockCr3(words, at) : undefined;
  const kpcr = kpcrIn(words, at);
  const selfMap = hasSelfMap(words, at, physical);
  if (startBlock === undefined && !kpcr && !selfMap) return NONE;
  const clues: PageClue[] = [];
  if (startBlock !== undefined) {
    // It holds the System process's root.
    clues.push({ kind: 'root', root: pa(startBlock), how: 'processor start block', rank: 0 });
  }
  if (kpcr) clues.push(kpcr);
  if (selfMap) clues.push({ kind: 'root', root: pa(physical), how: 'self-map', rank: 1 });
  return clues;
}

/** A 64-bit word at a byte offset in the page. */
const word = (words: Uint32Array, at: number, offset: number): bigint =>
  (BigInt(words[at + offset / 4 + 1]!) << 32n) | BigInt(words[at + offset / 4]!);

const SELF = Kpcr.offsetOf('Self');
const CURRENT_PRCB = Kpcr.offsetOf('CurrentPrcb');
const IDT_BASE = Kpcr.offsetOf('IdtBase');

/** Most KPCRs begin a page; Windows 7's for the boot processor is a variable of the kernel, in whole cache lines. */
const KPCR_ALIGNMENT = STRIDE;

/** Pages are at the same addresses here and in the guest, modulo a page. Of both words, the lower halves are compared. */
const isKpcr = (from: number): readonly number[] => [
  ...[...op.get(from), ...op.i32Load(CURRENT_PRCB)],
  ...[...op.get(from), ...op.i32Load(SELF), ...op.i32(PRCB_IN_KPCR), ...op.i32Add, ...op.i32Eq],
  ...[...op.get(from), ...op.i32Load(SELF), ...op.get(from), ...op.i32Sub],
  ...[...op.i32(PAGE_SIZE - 1), ...op.i32And, ...op.i32Eqz, ...op.i32And],
];

/** What the first look at pages goes by. */
export const SCAN_PATTERNS: ScanPatterns = {
  // Present, writable, not large; the address of up to 52 bits.
  selfMap: { mask: 0x000f_ffff_ffff_f083n, bits: 0x3n },
  begins: isKpcr,
  beginsAt: 'stride',
  // The start block is known by more than this looks for.
  everyPageBelow: LOW_MEMORY,
};

/** Self is the KPCR's address, and CurrentPrcb that of the PRCB in it. */
function kpcrIn(words: Uint32Array, page: number): PageClue | undefined {
  for (let offset = 0; offset < PAGE_SIZE; offset += KPCR_ALIGNMENT) {
    const at = page + offset / 4;
    const selfLow = words[at + SELF / 4]!;
    // Cheap test first.
    if (words[at + CURRENT_PRCB / 4] !== (selfLow + PRCB_IN_KPCR) >>> 0 || (selfLow & 0xfff) !== offset) continue;
    const self = word(words, at, SELF);
    const idtBase = word(words, at, IDT_BASE);
    if (
      isKernelAddress(self) &&
      word(words, at, CURRENT_PRCB) === self + BigInt(PRCB_IN_KPCR) &&
      isKernelAddress(idtBase)
    ) {
      return { kind: 'kpcr', virtual: va(self), leadsTo: { interruptTable: { base: va(idtBase), size: PAGE_SIZE } } };
    }
  }
  return undefined;
}

/**
 * CR3 in a PROCESSOR_START_BLOCK: a jump over its header and its completion flag in the first word, the
 * kernel's entry at +0x70, CR3 at +0xa0 (as public memory forensics tools look for it).
 */
function startBlockCr3(words: Uint32Array, at: number): number | undefined {
  if ((word(words, at, 0) & 0xffff_ffff_ffff_00ffn) !== 0x0000_0001_0006_00e9n) return undefined;
  if ((word(words, at, 0x70) & 0xffff_f800_0000_0003n) !== 0xffff_f800_0000_0000n) return undefined;
  const cr3 = word(words, at, 0xa0);
  return (cr3 & 0xfff0_0000_0000_0fffn) === 0n && cr3 !== 0n ? Number(cr3) : undefined;
}

/** Whether an entry of the kernel's half of a table points back to the table. */
function hasSelfMap(words: Uint32Array, at: number, physical: number): boolean {
  const low = physical % 2 ** 32;
  const high = Math.floor(physical / 2 ** 32);
  for (let i = at + 512; i < at + 1024; i += 2) {
    const entryLow = words[i]!;
    if ((entryLow & 0xffff_f000) >>> 0 !== low || (entryLow & TABLE_ENTRY_MASK) !== TABLE_ENTRY) continue;
    if ((words[i + 1]! & 0xf_ffff) === high) return true;
  }
  return false;
}
