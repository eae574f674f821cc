/**
 * The first look at pages in the search of all memory: which of them can have a clue at all. In
 * WebAssembly with SIMD, which goes through memory as fast as it comes; `pageClues` and the search for tags
 * then look at the few that are left. What this leaves out has none (tested against both).
 */

import { KDBG_TAG } from '../formats/win-kernel.ts';
import type { PageScan } from './page-search.ts';
import { createMemory, I32, I64, instantiate, op, V128, type WasmMemory, wasmModule } from './wasm.ts';

const PAGE = 4096;

/** Bytes that one round of a loop takes. */
export const STRIDE = 64;

/** What of a machine's clues can be seen at a glance: all pages that have one, and few others. */
export interface ScanPatterns {
  /** An entry of the upper half of a root, masked, is the root's address with these bits. */
  selfMap: { mask: bigint; bits: bigint };
  /** WebAssembly that leaves whether a KPCR, or another clue, begins at `from`, a local with an address. */
  begins: (from: number) => readonly number[];
  /** Where these begin: at pages, or in any part of `STRIDE` bytes. */
  beginsAt: 'page' | 'stride';
  /** Pages below are all looked at: they can have clues that this does not look for. */
  everyPageBelow: number;
}

/** A tag is the lower half of an aligned word. */
const TAG_MASK = 0xffff_ffffn;

const [BASE, END, TAG_END, EXPECTED, OUT] = [0, 1, 2, 3, 4];
const [AT, WORD, FOUND, WANTED, COUNT, BEGINS] = [5, 6, 7, 8, 9, 10];

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

const code = ({ selfMap, begins, beginsAt }: ScanPatterns) => [
  ...get(BASE),
  ...set(AT),
  ...op.repeatWhile(
    [...op.v128Pair(0n), ...set(FOUND), ...op.i32(0), ...set(BEGINS), ...get(AT), ...set(WORD)],
    beginsAt === 'page' ? [...begins(AT), ...set(BEGINS)] : [],
    throughPage(
      TAG_MASK,
      op.v128Pair(BigInt(KDBG_TAG)),
      beginsAt === 'page' ? [] : [...get(BEGINS), ...begins(WORD), ...op.i32Or, ...set(BEGINS)],
    ),
    [...get(AT), ...get(END), ...op.i32LessUnsigned],
    op.when(
      // The kernel's half of a table.
      [...get(AT), ...op.i32(PAGE / 2), ...op.i32Add, ...set(WORD)],
      [...get(EXPECTED), ...op.i64x2Splat, ...set(WANTED)],
      throughPage(selfMap.mask, get(WANTED)),
      get(BEGINS),
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

/** What pages are read into, for the scans of any machines: buffers of one size. */
export interface ScanMemory {
  readonly buffers: readonly Buffer[];
  /** Where scans find them, behind room for the list that a scan leaves; undefined where WebAssembly has no memory. */
  readonly wasm: { memory: WasmMemory; starts: readonly number[] } | undefined;
}

/** @param bytes that each of `count` buffers holds: whole pages */
export function createScanMemory(bytes: number, count: number): ScanMemory {
  const perBuffer = Math.ceil(bytes / WASM_PAGE);
  const listPages = Math.ceil(((bytes / PAGE) * 4) / WASM_PAGE);
  const memory = createMemory(listPages + count * perBuffer);
  // Each of its own, so that its words are aligned.
  if (!memory) return { buffers: Array.from({ length: count }, () => Buffer.allocUnsafeSlow(bytes)), wasm: undefined };
  const starts = Array.from({ length: count }, (_, i) => (listPages + i * perBuffer) * WASM_PAGE);
  return { buffers: starts.map((start) => Buffer.from(memory.buffer, start, bytes)), wasm: { memory, starts } };
}

/** See `Machine.createPageScan`. */
export function createPageScan({ wasm, buffers }: ScanMemory, patterns: ScanPatterns): PageScan | undefined {
  if (!wasm) return undefined;
  const { memory, starts } = wasm;
  const pages = buffers[0]!.length / PAGE;
  const signature = {
    parameters: [I32, I32, I32, I64, I32],
    results: [I32],
    locals: [I32, I32, V128, V128, I32, I32],
  };
  const module = wasmModule(signature, memory.buffer.byteLength / WASM_PAGE, code(patterns));
  const run = instantiate(module, memory) as
    | ((base: number, end: number, tagEnd: number, expected: bigint, out: number) => number)
    | undefined;
  if (!run) return undefined;
  const list = new Uint32Array(memory.buffer, 0, pages);
  const everyPage = Uint32Array.from({ length: pages }, (_, i) => i * PAGE);
  return {
    scan: (which, length, extended, physical) => {
      if (physical < patterns.everyPageBelow) return everyPage.subarray(0, extended / PAGE);
      const base = starts[which]!;
      return list.subarray(0, run(base, base + length, base + extended, BigInt(physical) | patterns.selfMap.bits, 0));
    },
  };
}
