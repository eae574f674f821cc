/**
 * One pass over all physical memory, for dumps whose CPU states are missing or useless. It collects what
 * looks like Windows: page-table roots, KPCRs, plain KDBGs, for each machine whose guest it may be. Nothing that it finds
 * is believed yet.
 */
import { isKernelAddress, widened } from '../core/bits.ts';
import { MIB, PAGE_SIZE, type PhysicalAddress, pa } from '../core/units.ts';
import { KDBG_MAX_SIZE, KDBG_MIN_SIZE } from '../formats/win-kernel.ts';
import { createScanMemory } from '../machines/page-scan.ts';
import type { KpcrClue, PageClue, PageScan, RootClue } from '../machines/page-search.ts';
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

const BLOCK = 2 * MIB;

/** Blocks that are read while one is looked through: two threads read then, which is faster than one (benchmarks/copying.md). */
const READ_AHEAD = 2;

/** The first bytes are read by smaller blocks, and one after the other: they often end the search. */
const FRONT = 4 * MIB;
const FRONT_BLOCK = MIB;

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

/** One of the images that a search is for, and what was found for it so far. */
interface Target {
  image: MemoryImage;
  /** Its place among the images. */
  index: number;
  scan: PageScan;
  result: SearchResult;
}

/** Whether a clue that was found for an image ends a search. */
type Enough = (clue: RootClue, image: MemoryImage) => boolean;

/** A search that can stop early and go on later. Of no use once the images are closed. */
export class MemorySearch {
  readonly #options: SearchOptions;
  /** Through which all is read. */
  readonly #reader: MemoryImage;
  #targets: readonly Target[];
  readonly #buffers: readonly Buffer[];
  readonly #words: readonly Uint32Array[];
  readonly #blocks: Iterator<Block, undefined>;
  /** Blocks that are being read, in order. */
  readonly #reading: Promise<ReadBlock>[] = [];
  #which = 0;
  #bytes = 0;
  #isAllRead = false;

  /** @param images at least one; more of them are readings of the same bytes (`areSameBytes`), which are read once */
  constructor(images: readonly MemoryImage[], options: SearchOptions = {}) {
    this.#options = options;
    const memory = createScanMemory(BLOCK + PAGE_SIZE, READ_AHEAD + 1);
    this.#reader = images[0]!;
    this.#targets = images.map((image, index) => ({
      image,
      index,
      scan: options.scan ?? image.machine.createPageScan(memory) ?? everyPage(),
      result: { roots: [], kpcrs: [], kdbgs: [], bytes: 0 },
    }));
    this.#buffers = memory.buffers;
    this.#words = memory.buffers.map((b) => new Uint32Array(b.buffer, b.byteOffset, b.length / 4));
    this.#blocks = blocksOf(images);
  }

  /** Nothing is left to be searched. */
  get finished(): boolean {
    return this.#isAllRead && this.#reading.length === 0;
  }

  /** From here on it is for one of its images alone. */
  narrowTo(image: MemoryImage): void {
    this.#targets = this.#targets.filter((target) => target.image === image);
  }

  /**
   * Goes on to the end, or to the block with the first root that is good enough; not at all where one is known already.
   * Pages that can't be read hold nothing to be found; the reader says which they are.
   *
   * @returns what was found so far for the image, by default the first
   */
  async run(enough: Enough = () => false, image: MemoryImage = this.#targets[0]!.image): Promise<SearchResult> {
    const { signal, onSearch } = this.#options;
    const total = this.#reader.size;
    let isEnough = this.#targets.some(({ image, result }) => result.roots.some((root) => enough(root, image)));
    while (!isEnough) {
      this.#readOn(1);
      const reading = this.#reading.shift();
      if (!reading) break;
      const block = await reading;
      signal?.throwIfAborted();
      if (this.#bytes >= FRONT) this.#readOn(READ_AHEAD);
      for (const target of this.#targets) {
        const seen = target.result.roots.length;
        this.#searchBlock(block, target);
        if (target.result.roots.slice(seen).some((root) => enough(root, target.image))) isEnough = true;
      }
      this.#bytes += block.length;
      for (const { result } of this.#targets) result.bytes = this.#bytes;
      onSearch?.(this.#bytes, total);
    }
    // The images may be closed before the search goes on, if ever.
    await Promise.allSettled(this.#reading);
    return this.#targets.find((target) => target.image === image)!.result;
  }

  #readOn(count: number): void {
    while (!this.#isAllRead && this.#reading.length < count) {
      const block = this.#read();
      if (block) this.#reading.push(block);
      else this.#isAllRead = true;
    }
  }

  #read(): Promise<ReadBlock> | undefined {
    const { done, value: block } = this.#blocks.next();
    if (done) return undefined;
    const which = this.#which;
    this.#which = (which + 1) % this.#buffers.length;
    const target = this.#buffers[which]!.subarray(0, block.extended);
    const reading = this.#reader.read(block.starts[0]!, target).then(() => ({ ...block, which }));
    // A failure is thrown where it is awaited.
    reading.catch(() => undefined);
    return reading;
  }

  #searchBlock({ starts, length, extended, which }: ReadBlock, { image, index, scan, result }: Target): void {
    const buffer = this.#buffers[which]!.subarray(0, extended);
    const words = this.#words[which]!;
    const { machine } = image;
    const start = starts[index]!;
    for (const page of scan.scan(which, length, extended, start)) {
      if (page < length) addClues(result, machine.pageClues(words, page / 4, start + page));
      for (const hit of tag.all(buffer.subarray(page, page + PAGE_SIZE))) {
        const begin = page + hit - TAG_OFFSET;
        if (begin >= length) break;
        const kernBase = taggedKernel(buffer, begin, machine.pointerSize);
        if (kernBase !== undefined) add(result.kdbgs, { physical: pa(start + begin), kernBase });
      }
    }
  }
}

function addClues({ roots, kpcrs }: SearchResult, clues: Iterable<PageClue>): void {
  for (const clue of clues) {
    if (clue.kind === 'root') add(roots, clue);
    else add(kpcrs, clue);
  }
}

/** Whether two images are readings of the same bytes of one input in the same order, at whatever addresses. */
export function areSameBytes(one: MemoryImage, other: MemoryImage): boolean {
  const [pieces, others] = [filePieces(one), filePieces(other)];
  return pieces.length > 0 && pieces.length === others.length && pieces.every((piece, i) => piece === others[i]);
}

/** What the extents of an image are made of; empty where that does not lie in the input as it is. */
const filePieces = (image: MemoryImage): string[] =>
  image
    .pageExtents()
    .extents.flatMap(({ start, size }) =>
      [...image.sourcePieces(start, size)].map(
        ({ from, to, fileOffset }) => `${size} ${from - start} ${to - start} ${fileOffset}`,
      ),
    );

function add<T>(list: T[], item: T): void {
  if (list.length < MAX_FOUND) list.push(item);
}

/** Searches all memory. */
export const searchMemory = (image: MemoryImage, options?: SearchOptions): Promise<SearchResult> =>
  new MemorySearch([image], options).run();

type ReadBlock = Block & { which: number };

interface Block {
  /** Its address in each of the images. */
  starts: readonly PhysicalAddress[];
  /** Bytes. */
  length: number;
  /** With the page behind it: a structure at a block's end is seen whole; what begins there is the next block's. */
  extended: number;
}

function* blocksOf(images: readonly MemoryImage[]): Generator<Block, undefined> {
  const extents = images.map((image) => image.pageExtents().extents);
  let done = 0;
  for (const [i, { size }] of extents[0]!.entries()) {
    for (let at = 0; at < size; ) {
      const block = done < FRONT ? FRONT_BLOCK : BLOCK;
      const length = Math.min(block, size - at);
      const starts = extents.map((of) => pa(of[i]!.start + at));
      yield { starts, length, extended: Math.min(block + PAGE_SIZE, size - at) };
      at += length;
      done += length;
    }
  }
}

/** In place of a scan: every page is looked at. */
export function everyPage(): PageScan {
  const list = Uint32Array.from({ length: BLOCK / PAGE_SIZE + 1 }, (_, i) => i * PAGE_SIZE);
  return { scan: (_, _length, extended) => list.subarray(0, extended / PAGE_SIZE) };
}

/** The kernel base of the block at `at`, if it can be a KDBG. */
function taggedKernel(block: Buffer, at: number, pointerSize: 4 | 8): bigint | undefined {
  if (at < 0 || at % 8 !== 0 || at + 0x20 > block.length) return undefined;
  const size = block.readUInt32LE(at + 0x14);
  const kernBase = widened(block.readBigUInt64LE(at + 0x18), pointerSize);
  if (size < KDBG_MIN_SIZE || size > KDBG_MAX_SIZE || size % 8 !== 0) return undefined;
  return isKernelAddress(kernBase) && kernBase % BigInt(PAGE_SIZE) === 0n ? kernBase : undefined;
}
