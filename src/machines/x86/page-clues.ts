/** What a page of physical memory shows of 32-bit Windows, for the search of dumps without useful CPU states. */
import { isKernelAddress } from '../../core/bits.ts';
import { PAGE_SIZE, pa } from '../../core/units.ts';
import { type ScanPatterns, STRIDE } from '../page-scan.ts';
import type { PageClue } from '../page-search.ts';
import { op } from '../wasm.ts';
import { Kpcr } from './kpcr.ts';
import { address } from './registers.ts';

/** Of a page-directory entry: present, writable, not large. */
const TABLE_ENTRY = 0x3;
const TABLE_ENTRY_MASK = 0x83;

/** Without PAE, the entry of the page directory that maps the tables at 0xc0000000. */
const SELF_MAP = 0x300;

/** Bytes of the root with PAE, whose entries are present and nothing else; QEMU's own CPU sets "accessed" in them. */
const PDPT = 32;
const PDPT_ENTRY = 0x001;
const PDPT_ENTRY_MASK = 0xfdf;

/** The page that holds the roots of many processes shows those of enough. */
const MAX_ROOTS = 16;

/** CR3 has 32 bits. */
const ROOT_LIMIT = 2 ** 32;

/** KPCRs begin a page, but that of the boot processor, which is a variable of the kernel since Vista. */
const KPCR_ALIGNMENT = STRIDE;

/** 64 GiB: what PAE reaches on all processors that Windows knows. */
const HIGH_LIMIT = 16;

const [SELF_AT, PRCB_AT] = [Kpcr.offsetOf('SelfPcr'), Kpcr.offsetOf('Prcb')];

/** Pages are at the same addresses here and in the guest, modulo a page. */
const isKpcr = (from: number): readonly number[] => [
  ...[...op.get(from), ...op.i32Load(PRCB_AT)],
  ...[...op.get(from), ...op.i32Load(SELF_AT), ...op.i32(Kpcr.size), ...op.i32Add, ...op.i32Eq],
  ...[...op.get(from), ...op.i32Load(SELF_AT), ...op.get(from), ...op.i32Sub],
  ...[...op.i32(PAGE_SIZE - 1), ...op.i32And, ...op.i32Eqz, ...op.i32And],
];

/** The bits of an entry of a root with PAE that are all clear but for `PDPT_ENTRY`. */
const PDPT_BITS = (BigInt(-HIGH_LIMIT >>> 0) << 32n) | BigInt(PDPT_ENTRY_MASK);

const isPdptAt = (from: number, offset: number): readonly number[] => [
  ...[0, 16].flatMap((half) => [
    ...[...op.get(from), ...op.v128Load(offset + half), ...op.v128Pair(PDPT_BITS), ...op.v128And],
    ...[...op.v128Pair(BigInt(PDPT_ENTRY)), ...op.i64x2Equal],
  ]),
  ...[...op.v128And, ...op.i64x2AllTrue],
];

/** What the first look at pages goes by. Without PAE, an entry is the lower half of an aligned word, as `SELF_MAP` is. */
export const SCAN_PATTERNS: ScanPatterns = {
  selfMap: { mask: BigInt((0xffff_f000 | TABLE_ENTRY_MASK) >>> 0), bits: BigInt(TABLE_ENTRY) },
  begins: (from) => [...isKpcr(from), ...isPdptAt(from, 0), ...op.i32Or, ...isPdptAt(from, PDPT), ...op.i32Or],
  beginsAt: 'stride',
  everyPageBelow: 0,
};

/** See `Machine.pageClues`. */
export function pageClues(words: Uint32Array, at: number, physical: number): readonly PageClue[] {
  const clues: PageClue[] = [];
  if (physical < ROOT_LIMIT) {
    const entry = words[at + SELF_MAP]!;
    if ((entry & TABLE_ENTRY_MASK) === TABLE_ENTRY && (entry & 0xffff_f000) >>> 0 === physical) {
      clues.push({ kind: 'root', root: pa(physical), how: 'self-map', rank: 1 });
    }
    for (const offset of pdptsIn(words, at)) {
      clues.push({ kind: 'root', root: pa(physical + offset), how: 'four page directories', rank: 2 });
    }
  }
  const kpcr = kpcrIn(words, at);
  if (kpcr) clues.push(kpcr);
  return clues;
}

/** Offsets of what can be a root with PAE. */
function pdptsIn(words: Uint32Array, page: number): number[] {
  const offsets: number[] = [];
  for (let offset = 0; offset < PAGE_SIZE && offsets.length < MAX_ROOTS; offset += PDPT) {
    // Cheap test first.
    if ((words[page + offset / 4]! & PDPT_ENTRY_MASK) === PDPT_ENTRY && isPdpt(words, page + offset / 4)) {
      offsets.push(offset);
    }
  }
  return offsets;
}

function isPdpt(words: Uint32Array, at: number): boolean {
  const tables = new Set<string>();
  for (let i = at; i < at + PDPT / 4; i += 2) {
    const [low, high] = [words[i]!, words[i + 1]!];
    if ((low & PDPT_ENTRY_MASK) !== PDPT_ENTRY || high >= HIGH_LIMIT) return false;
    tables.add(`${high} ${low >>> 12}`);
  }
  return tables.size === PDPT / 8;
}

const [SELF, PRCB] = [SELF_AT / 4, PRCB_AT / 4];
const IDT = Kpcr.offsetOf('Idt') / 4;

/** SelfPcr is the KPCR's address, and Prcb that of the PRCB in it. */
function kpcrIn(words: Uint32Array, page: number): PageClue | undefined {
  for (let offset = 0; offset < PAGE_SIZE; offset += KPCR_ALIGNMENT) {
    const at = page + offset / 4;
    const self = words[at + SELF]!;
    if (words[at + PRCB] !== (self + Kpcr.size) >>> 0 || (self & 0xfff) !== offset) continue;
    const virtual = address(BigInt(self));
    const base = address(BigInt(words[at + IDT]!));
    if (isKernelAddress(virtual) && isKernelAddress(base)) {
      return { kind: 'kpcr', virtual, leadsTo: { interruptTable: { base, size: PAGE_SIZE / 2 } } };
    }
  }
  return undefined;
}
