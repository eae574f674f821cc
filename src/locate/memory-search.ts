/**
 * One pass over all physical memory, for dumps whose CPU states are missing or useless. It collects what
 * looks like Windows: page-table roots, KPCRs, plain KDBGs. Nothing that it finds is believed yet.
 */
import { isKernelAddress } from '../core/bits.ts';
import { MIB, PAGE_SIZE, type PhysicalAddress, pa } from '../core/units.ts';
import { KDBG_MAX_SIZE, KDBG_MIN_SIZE } from '../formats/win-kernel.ts';
import type { PageClue, PageScan } from '../machines/page-search.ts';
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

const BLOCK = 4 * MIB;

/** Of each kind; a guest has one root per process. */
const MAX_FOUND = 1024;
const KDBG_PATTERN = Buffer.from('KDBG', 'latin1');
const tag = new SkipSearch(KDBG_PATTERN);

/** Of the tag in its block. */
const TAG_OFFSET = 0x10;

export interface SearchOptions {
  signal?: AbortSignal | undefined;
  onSearch?: ((done: number, total: number) => void) | undefined;
  /** The first look at pages; for tests. */
  scan?: PageScan | undefined;
}

/**
 * Reads a block while it looks through the one before. Pages that can't be read hold nothing to be found;
 * the reader says which they are.
 */
export async function searchMemory(
  image: MemoryImage,
  { signal, onSearch, scan = image.machine.createPageScan(BLOCK + PAGE_SIZE) ?? everyPage() }: SearchOptions = {},
): Promise<SearchResult> {
  const result: SearchResult = { roots: [], kpcrs: [], kdbgs: [], bytes: 0 };
  const words = scan.buffers.map((b) => new Uint32Array(b.buffer, b.byteOffset, b.length / 4));
  const read = async (block: Block, which: 0 | 1) => {
    await image.read(block.start, scan.buffers[which].subarray(0, block.extended));
    return { ...block, which };
  };
  const blocks = blocksOf(image);
  let which: 0 | 1 = 0;
  const request = () => {
    const { done, value } = blocks.next();
    const reading = done ? undefined : read(value, which);
    which = which === 0 ? 1 : 0;
    return reading;
  };
  for (let reading = request(); reading; ) {
    const { start, length, extended, which: current } = await reading;
    signal?.throwIfAborted();
    reading = request();
    // A failure is told when it is awaited.
    reading?.catch(() => undefined);
    const buffer = scan.buffers[current];
    for (const page of scan.scan(current, length, extended, start)) {
      if (page < length) {
        for (const clue of image.machine.pageClues(words[current]!, page / 4, start + page)) {
          const list: PageClue[] = clue.kind === 'root' ? result.roots : result.kpcrs;
          if (list.length < MAX_FOUND) list.push(clue);
        }
      }
      for (const hit of tag.all(buffer.subarray(page, page + PAGE_SIZE))) {
        const begin = page + hit - TAG_OFFSET;
        if (begin >= length) break;
        const kernBase = taggedKernel(buffer.subarray(0, extended), begin);
        if (kernBase !== undefined && result.kdbgs.length < MAX_FOUND) {
          result.kdbgs.push({ physical: pa(start + begin), kernBase });
        }
      }
    }
    result.bytes += length;
    onSearch?.(result.bytes, image.size);
  }
  return result;
}

interface Block {
  start: PhysicalAddress;
  /** Bytes. */
  length: number;
  /** With the page behind it: a structure at a block's end is seen whole; what begins there is the next block's. */
  extended: number;
}

function* blocksOf(image: MemoryImage): Generator<Block, undefined> {
  for (const extent of image.pageExtents().extents) {
    for (let at = 0; at < extent.size; at += BLOCK) {
      yield {
        start: pa(extent.start + at),
        length: Math.min(BLOCK, extent.size - at),
        extended: Math.min(BLOCK + PAGE_SIZE, extent.size - at),
      };
    }
  }
}

/** In place of a scan: every page is looked at. */
export function everyPage(): PageScan {
  const list = Uint32Array.from({ length: BLOCK / PAGE_SIZE + 1 }, (_, i) => i * PAGE_SIZE);
  // Each of its own, so that its words are aligned.
  const buffer = () => Buffer.allocUnsafeSlow(BLOCK + PAGE_SIZE);
  return { buffers: [buffer(), buffer()], scan: (_, _length, extended) => list.subarray(0, extended / PAGE_SIZE) };
}

/** The kernel base of the block at `at`, if it can be a KDBG. */
function taggedKernel(block: Buffer, at: number): bigint | undefined {
  if (at < 0 || at % 8 !== 0 || at + 0x20 > block.length) return undefined;
  const size = block.readUInt32LE(at + 0x14);
  const kernBase = block.readBigUInt64LE(at + 0x18);
  if (size < KDBG_MIN_SIZE || size > KDBG_MAX_SIZE || size % 8 !== 0) return undefined;
  return isKernelAddress(kernBase) && kernBase % BigInt(PAGE_SIZE) === 0n ? kernBase : undefined;
}
