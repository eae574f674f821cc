/**
 * One pass over all physical memory, for dumps whose CPU states are missing or useless. It collects what
 * looks like Windows: page-table roots, KPCRs, plain KDBGs. Nothing that it finds is believed yet.
 */
import { setImmediate } from 'node:timers/promises';
import { isKernelAddress } from '../core/bits.ts';
import { MIB, PAGE_SIZE, type PhysicalAddress, pa } from '../core/units.ts';
import { KDBG_MAX_SIZE, KDBG_MIN_SIZE } from '../formats/win-kernel.ts';
import type { PageClue } from '../machines/machine.ts';
import type { MemoryImage } from '../memory/image.ts';
import { SkipSearch } from './skip-search.ts';

export type RootClue = Extract<PageClue, { kind: 'root' }>;
export type KpcrClue = Extract<PageClue, { kind: 'kpcr' }>;

export interface SearchResult {
  roots: RootClue[];
  kpcrs: KpcrClue[];
  /** Plain KDBGs: where, and the kernel base that they name. */
  kdbgs: { physical: PhysicalAddress; kernBase: bigint }[];
  /** How much was searched. */
  bytes: number;
}

const BLOCK = MIB;
/** Of each kind; a guest has one root per process. */
const MAX_FOUND = 1024;
const KDBG_PATTERN = Buffer.from('KDBG', 'latin1');
/** Of the tag in its block. */
const TAG_OFFSET = 0x10;

export interface SearchOptions {
  signal?: AbortSignal | undefined;
  onSearch?: ((done: number, total: number) => void) | undefined;
}

/** Reads in blocks and lets other work in between them, so that signals and progress get through. */
export async function searchMemory(
  image: MemoryImage,
  { signal, onSearch }: SearchOptions = {},
): Promise<SearchResult> {
  const result: SearchResult = { roots: [], kpcrs: [], kdbgs: [], bytes: 0 };
  const tag = new SkipSearch(KDBG_PATTERN);
  // Of its own, so that its words are aligned.
  const buffer = Buffer.allocUnsafeSlow(BLOCK + PAGE_SIZE);
  const words = new Uint32Array(buffer.buffer);
  for (const extent of image.pageExtents().extents) {
    for (let at = 0; at < extent.size; at += BLOCK) {
      const start = extent.start + at;
      // The overlap lets a structure at a block's end be seen whole; what begins in it is the next block's.
      const length = Math.min(BLOCK, extent.size - at);
      const block = buffer.subarray(0, Math.min(BLOCK + PAGE_SIZE, extent.size - at));
      if (!image.readSync(start, block)) continue;
      result.bytes += length;
      onSearch?.(result.bytes, image.size);
      await setImmediate();
      signal?.throwIfAborted();
      for (let page = 0; page < length; page += PAGE_SIZE) {
        for (const clue of image.machine.pageClues(words, page / 4, start + page)) {
          const list: PageClue[] = clue.kind === 'root' ? result.roots : result.kpcrs;
          if (list.length < MAX_FOUND) list.push(clue);
        }
      }
      for (const hit of tag.all(block)) {
        const begin = hit - TAG_OFFSET;
        if (begin >= length) break;
        const kernBase = taggedKernel(block, begin);
        if (kernBase !== undefined && result.kdbgs.length < MAX_FOUND) {
          result.kdbgs.push({ physical: pa(start + begin), kernBase });
        }
      }
    }
  }
  return result;
}

/** The kernel base of the block at `at`, if it can be a KDBG. */
function taggedKernel(block: Buffer, at: number): bigint | undefined {
  if (at < 0 || at % 8 !== 0 || at + 0x20 > block.length) return undefined;
  const size = block.readUInt32LE(at + 0x14);
  const kernBase = block.readBigUInt64LE(at + 0x18);
  if (size < KDBG_MIN_SIZE || size > KDBG_MAX_SIZE || size % 8 !== 0) return undefined;
  return isKernelAddress(kernBase) && kernBase % BigInt(PAGE_SIZE) === 0n ? kernBase : undefined;
}
