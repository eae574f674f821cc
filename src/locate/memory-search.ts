/**
 * One pass over all physical memory, for dumps whose CPU states are missing or useless. It collects what
 * looks like Windows: page-table roots, KPCRs, plain KDBGs. Nothing that it finds is believed yet.
 */
import { isKernelAddress, widened } from '../core/bits.ts';
import { MIB, PAGE_SIZE, type PhysicalAddress, pa } from '../core/units.ts';
import { KDBG_MAX_SIZE, KDBG_MIN_SIZE } from '../formats/win-kernel.ts';
import type { KpcrClue, PageScan, RootClue } from '../machines/page-search.ts';
import type { MemoryImage } from '../memory/image.ts';
import { SkipSearch } from './skip-search.ts';

/** Clues that a search of memory found, at most 1024 of each kind. */
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

/** How a search is followed and ended. */
export interface SearchOptions {
  signal?: AbortSignal | undefined;
  onSearch?: ((done: number, total: number) => void) | undefined;
  /** The first look at pages; for tests. */
  scan?: PageScan | undefined;
}

/** A search that can stop early and go on later. Of no use once the image is closed. */
export class MemorySearch {
  readonly #image: MemoryImage;
  readonly #options: SearchOptions;
  readonly #scan: PageScan;
  readonly #words: readonly Uint32Array[];
  readonly #blocks: Iterator<Block, undefined>;
  readonly #result: SearchResult = { roots: [], kpcrs: [], kdbgs: [], bytes: 0 };
  #which: 0 | 1 = 0;
  #next: Promise<ReadBlock> | undefined;
  /** It stopped before it read on. */
  #paused = false;

  constructor(image: MemoryImage, options: SearchOptions = {}) {
    this.#image = image;
    this.#options = options;
    this.#scan = options.scan ?? image.machine.createPageScan(BLOCK + PAGE_SIZE) ?? everyPage();
    this.#words = this.#scan.buffers.map((b) => new Uint32Array(b.buffer, b.byteOffset, b.length / 4));
    this.#blocks = blocksOf(image);
    this.#next = this.#read();
  }

  /** Nothing is left to be searched. */
  get finished(): boolean {
    return this.#next === undefined && !this.#paused;
  }

  /**
   * Goes on to the end, or to the block with the first root that is good enough. Reads a block while it looks
   * through the one before, but for the first, which often ends the search. Pages that can't be read hold nothing to be found; the reader says which they are.
   *
   * @returns what was found so far
   */
  async run(enough: (clue: RootClue) => boolean = () => false): Promise<SearchResult> {
    const { signal, onSearch } = this.#options;
    if (this.#paused) this.#next = this.#read();
    this.#paused = false;
    while (this.#next) {
      const block = await this.#next;
      signal?.throwIfAborted();
      const isFirst = this.#result.bytes === 0;
      this.#next = isFirst ? undefined : this.#read();
      const seen = this.#result.roots.length;
      this.#searchBlock(block);
      this.#result.bytes += block.length;
      onSearch?.(this.#result.bytes, this.#image.size);
      if (this.#result.roots.slice(seen).some(enough)) {
        // The image may be closed before the search goes on, if ever.
        await Promise.allSettled([this.#next]);
        this.#paused = isFirst;
        break;
      }
      if (isFirst) this.#next = this.#read();
    }
    return this.#result;
  }

  #read(): Promise<ReadBlock> | undefined {
    const { done, value: block } = this.#blocks.next();
    if (done) return undefined;
    const which = this.#which;
    this.#which = which === 0 ? 1 : 0;
    const target = this.#scan.buffers[which].subarray(0, block.extended);
    const reading = this.#image.read(block.start, target).then(() => ({ ...block, which }));
    // A failure is thrown where it is awaited.
    reading.catch(() => undefined);
    return reading;
  }

  #searchBlock({ start, length, extended, which }: ReadBlock): void {
    const buffer = this.#scan.buffers[which].subarray(0, extended);
    for (const page of this.#scan.scan(which, length, extended, start)) {
      if (page < length) this.#addClues(this.#words[which]!, page, start + page);
      for (const hit of tag.all(buffer.subarray(page, page + PAGE_SIZE))) {
        const begin = page + hit - TAG_OFFSET;
        if (begin >= length) break;
        const kernBase = taggedKernel(buffer, begin, this.#image.machine.pointerSize);
        if (kernBase !== undefined) add(this.#result.kdbgs, { physical: pa(start + begin), kernBase });
      }
    }
  }

  #addClues(words: Uint32Array, page: number, physical: number): void {
    for (const clue of this.#image.machine.pageClues(words, page / 4, physical)) {
      if (clue.kind === 'root') add(this.#result.roots, clue);
      else add(this.#result.kpcrs, clue);
    }
  }
}

function add<T>(list: T[], item: T): void {
  if (list.length < MAX_FOUND) list.push(item);
}

/** Searches all memory. */
export const searchMemory = (image: MemoryImage, options?: SearchOptions): Promise<SearchResult> =>
  new MemorySearch(image, options).run();

type ReadBlock = Block & { which: 0 | 1 };

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
function taggedKernel(block: Buffer, at: number, pointerSize: 4 | 8): bigint | undefined {
  if (at < 0 || at % 8 !== 0 || at + 0x20 > block.length) return undefined;
  const size = block.readUInt32LE(at + 0x14);
  const kernBase = widened(block.readBigUInt64LE(at + 0x18), pointerSize);
  if (size < KDBG_MIN_SIZE || size > KDBG_MAX_SIZE || size % 8 !== 0) return undefined;
  return isKernelAddress(kernBase) && kernBase % BigInt(PAGE_SIZE) === 0n ? kernBase : undefined;
}
