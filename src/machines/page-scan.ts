/**
 * The first look at pages in the search of all memory: which of them can have a clue at all. In
 * WebAssembly with SIMD, which goes through memory as fast as it comes; `pageClues` and the search for tags
 * then look at the few that are left. What this leaves out has none (tested against both).
 */

import { KDBG_TAG } from '../formats/win-kernel.ts';
import type { PageScan } from './page-search.ts';
import { I32, I64, instantiate, op, V128, wasmModule } from './wasm.ts';

const PAGE = 4096;

/** Bytes that one round of a loop takes. */
export const STRIDE = 64;

/** What of a machine's clues can be seen at a glance: all pages that have one, and few others. */
export interface ScanPatterns {
  /** An entry of the upper half of a root, masked, is the root's address with these bits. */
  selfMap: { mask: bigint; bits: bigint };
  /** WebAssembly that leaves whether a KPCR begins at `from`, a local with an address. */
  kpcr: (from: number) => readonly number[];
  /** Where KPCRs begin: at pages, or at any multiple of `STRIDE`. */
  kpcrAt: 'page' | 'stride';
  /** Pages below are all looked at: they can have clues that this does not look for. */
  everyPageBelow: number;
}

/** A tag is the lower half of an aligned word. */
const TAG_MASK = 0xffff_ffffn;

const [BASE, END, TAG_END, EXPECTED, OUT] = [0, 1, 2, 3, 4];
const [AT, WORD, FOUND, WANTED, COUNT, KPCR] = [5, 6, 7, 8, 9, 10];

const { get, set } = op;
const advance = (local: number, by: number) => [...get(local), ...op.i32(by), ...op.i32Add, ...set(local)].flat();

/** found |= each pair of words from `WORD` on, masked, that equals `wanted` */
const compare = (mask: bigint, wanted: readonly number[]) =>
  Array.from({ length: STRIDE / 16 }, (_, i) => [
    ...get(FOUND),
    ...get(WORD),
    ...op.v128Load(16 * i),
    ...op.v128Pair(mask),
    ...op.v128And,
    ...wanted,
    ...op.i64x2Equal,
    ...op.v128Or,
    ...set(FOUND),
  ]).flat();

/** Through the rest of the page from `WORD` on. */
const throughPage = (mask: bigint, wanted: readonly number[], more: readonly number[] = []) =>
  op.repeatWhile(compare(mask, wanted), [...more], advance(WORD, STRIDE), [
    ...get(WORD),
    ...get(AT),
    ...op.i32(PAGE),
    ...op.i32Add,
    ...op.i32LessUnsigned,
  ]);

const code = ({ selfMap, kpcr, kpcrAt }: ScanPatterns) => [
  ...get(BASE),
  ...set(AT),
  ...op.repeatWhile(
    [...op.v128Pair(0n), ...set(FOUND), ...op.i32(0), ...set(KPCR), ...get(AT), ...set(WORD)],
    kpcrAt === 'page' ? [...kpcr(AT), ...set(KPCR)] : [],
    throughPage(
      TAG_MASK,
      op.v128Pair(BigInt(KDBG_TAG)),
      kpcrAt === 'page' ? [] : [...get(KPCR), ...kpcr(WORD), ...op.i32Or, ...set(KPCR)],
    ),
    [...get(AT), ...get(END), ...op.i32LessUnsigned],
    op.when(
      // The kernel's half of a table.
      [...get(AT), ...op.i32(PAGE / 2), ...op.i32Add, ...set(WORD)],
      [...get(EXPECTED), ...op.i64x2Splat, ...set(WANTED)],
      throughPage(selfMap.mask, get(WANTED)),
      get(KPCR),
      op.when([...op.v128Pair(-1n & 0xffff_ffff_ffff_ffffn), ...set(FOUND)]),
    ),
    [...get(FOUND), ...op.v128AnyTrue],
    op.when(
      [...get(OUT), ...get(AT), ...get(BASE), ...op.i32Sub, ...op.i32Store(0)],
      advance(OUT, 4),
      advance(COUNT, 1),
    ),
    advance(AT, PAGE),
    [...get(EXPECTED), ...op.i64(BigInt(PAGE)), ...op.i64Add, ...set(EXPECTED)],
    [...get(AT), ...get(TAG_END), ...op.i32LessUnsigned],
  ),
  ...get(COUNT),
];

const WASM_PAGE = 65_536;

/**
 * See `Machine.createPageScan`.
 *
 * @param bytes that each of two buffers holds
 * @returns undefined where WebAssembly has no SIMD, or no memory
 */
export function createPageScan(bytes: number, patterns: ScanPatterns): PageScan | undefined {
  const perBuffer = Math.ceil(bytes / WASM_PAGE);
  const listPages = Math.ceil(((bytes / PAGE) * 4) / WASM_PAGE);
  const signature = {
    parameters: [I32, I32, I32, I64, I32],
    results: [I32],
    locals: [I32, I32, V128, V128, I32, I32],
  };
  const instance = instantiate(wasmModule(signature, listPages + 2 * perBuffer, code(patterns)));
  if (!instance) return undefined;
  const { memory: buffer } = instance;
  const run = instance.run as (base: number, end: number, tagEnd: number, expected: bigint, out: number) => number;
  const list = new Uint32Array(buffer, 0, bytes / PAGE);
  const everyPage = Uint32Array.from({ length: bytes / PAGE }, (_, i) => i * PAGE);
  const start = (which: number) => (listPages + which * perBuffer) * WASM_PAGE;
  return {
    buffers: [0, 1].map((which) => Buffer.from(buffer, start(which), bytes)) as [Buffer, Buffer],
    scan: (which, length, extended, physical) => {
      if (physical < patterns.everyPageBelow) return everyPage.subarray(0, extended / PAGE);
      const base = start(which);
      return list.subarray(0, run(base, base + length, base + extended, BigInt(physical) | patterns.selfMap.bits, 0));
    },
  };
}
