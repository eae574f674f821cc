import type { DiagnosticCode, Diagnostics } from '../../core/errors.ts';
import { bytes, hex, MIB, pa } from '../../core/units.ts';
import {
  DUMP_DH_COMPRESSED_LZO,
  DUMP_DH_COMPRESSED_SNAPPY,
  DUMP_DH_COMPRESSED_ZLIB,
  DUMP_DH_COMPRESSED_ZSTD,
  PageDescriptor,
} from '../../formats/kdump.ts';
import type { PhysicalRun } from '../../memory/runs.ts';
import type { ByteSource } from '../../source/source.ts';
import { FlattenedSource } from './flattened.ts';
import { type Fail, MAX_RUNS } from './limits.ts';

/** Finds a page's descriptor: how many pages come before it, from counts every 16 words (1/16 of the bitmap). */
export class PageIndex {
  readonly words: Uint32Array;
  readonly count: number;
  readonly #descriptorsAt: number;
  readonly #before: Uint32Array;

  constructor(bitmap: Buffer, descriptorsAt: number) {
    const words = new Uint32Array(bitmap.length / 4);
    for (let i = 0; i < words.length; i++) words[i] = bitmap.readUInt32LE(4 * i);
    this.words = words;
    this.#before = new Uint32Array(Math.ceil(words.length / 16));
    let count = 0;
    for (let i = 0; i < words.length; i++) {
      if (i % 16 === 0) this.#before[i / 16] = count;
      count += popcount(words[i]!);
    }
    this.count = count;
    this.#descriptorsAt = descriptorsAt;
  }

  /** File offset of descriptor number `n`. */
  descriptorAt(n: number): number {
    return this.#descriptorsAt + n * PageDescriptor.size;
  }

  /** Number of the page's descriptor. */
  rank(page: number): number {
    const word = Math.floor(page / 32);
    let n = this.#before[word >>> 4]!;
    for (let i = word & ~15; i < word; i++) n += popcount(this.words[i]!);
    return n + popcount(this.words[word]! & ((1 << (page % 32)) - 1));
  }
}

/** Where a page's bytes lie. The size is 1 to that of a block. */
export interface PageData {
  offset: number;
  size: number;
  flags: number;
}

/**
 * The descriptors' checks, which hold for all in a file: the data lies behind the descriptors and within
 * the file, and has a size that fits how it is stored.
 */
export class DescriptorRules {
  readonly #fileEnd: number;
  readonly #dataStart: number;
  readonly #blockSize: number;
  readonly #covers: ((offset: number, size: number) => boolean) | undefined;

  constructor(source: ByteSource, pages: PageIndex, blockSize: number) {
    this.#fileEnd = source.size;
    this.#dataStart = pages.descriptorAt(pages.count);
    this.#blockSize = blockSize;
    this.#covers =
      source instanceof FlattenedSource && source.hasHolesFrom(pages.descriptorAt(0))
        ? (offset, size) => source.covers(offset, size)
        : undefined;
  }

  /** `at`: of the descriptor in the file. */
  problem(at: number, { offset, size, flags }: PageData): 'cut' | 'bad' | 'unknown' | undefined {
    if (this.#covers && !this.#covers(at, PageDescriptor.size)) return 'cut';
    switch (flags) {
      case 0:
        if (size !== this.#blockSize) return 'bad';
        break;
      case DUMP_DH_COMPRESSED_ZLIB:
      case DUMP_DH_COMPRESSED_LZO:
      case DUMP_DH_COMPRESSED_SNAPPY:
        if (size === 0 || size > this.#blockSize) return 'bad';
        break;
      default:
        return 'unknown';
    }
    if (offset < this.#dataStart || offset > Number.MAX_SAFE_INTEGER) return 'bad';
    if (offset + size > this.#fileEnd) return 'cut';
    return this.#covers && !this.#covers(offset, size) ? 'cut' : undefined;
  }
}

export function parseDescriptors(buffer: Buffer, from: number, into: PageData): PageData {
  into.offset = buffer.readUInt32LE(from) + buffer.readUInt32LE(from + 4) * 2 ** 32;
  into.size = buffer.readUInt32LE(from + 8);
  into.flags = buffer.readUInt32LE(from + 12);
  return into;
}

/**
 * Reads all descriptors once, so that a page that can't be in the file is known to be missing before
 * anything is planned. It is 0.6% of the guest's memory.
 */
export function scanDescriptors(
  source: ByteSource,
  pages: PageIndex,
  blockSize: number,
  diagnostics: Diagnostics,
  fail: Fail,
): PhysicalRun[] {
  const rules = new DescriptorRules(source, pages, blockSize);
  const inFile = Math.max(0, Math.floor((source.size - pages.descriptorAt(0)) / PageDescriptor.size));
  const perRead = Math.floor(MIB / PageDescriptor.size);
  const chunk = Buffer.alloc(perRead * PageDescriptor.size);
  const missing = { cut: 0, bad: 0, unknown: 0 };
  const first = { cut: 0, bad: 0, unknown: 0 };
  let unknownFlags = 0;
  const data: PageData = { offset: 0, size: 0, flags: 0 };
  const runs: PhysicalRun[] = [];
  let runStart = -1;
  const endRun = (page: number) => {
    if (runStart < 0) return;
    if (runs.length === MAX_RUNS) {
      throw fail('unsupported', {
        code: 'kdump-fragmented',
        message: 'the memory is in more pieces than elf2dmp keeps track of',
        structure: 'bitmap 2',
        expected: `at most ${MAX_RUNS} runs`,
        actual: 'more',
      });
    }
    runs.push({ start: pa(runStart * blockSize), size: (page - runStart) * blockSize });
    runStart = -1;
  };
  let n = 0;
  for (let w = 0; w < pages.words.length; w++) {
    const word = pages.words[w]!;
    if (word === 0) {
      endRun(32 * w);
      continue;
    }
    for (let bit = 0; bit < 32; bit++) {
      const page = 32 * w + bit;
      if (((word >>> bit) & 1) === 0) {
        endRun(page);
        continue;
      }
      let problem: ReturnType<DescriptorRules['problem']> = 'cut';
      if (n < inFile) {
        const i = n % perRead;
        if (i === 0) {
          source.readSync(
            pages.descriptorAt(n),
            chunk.subarray(0, Math.min(perRead, inFile - n, pages.count - n) * PageDescriptor.size),
          );
        }
        problem = rules.problem(pages.descriptorAt(n), parseDescriptors(chunk, i * PageDescriptor.size, data));
      }
      n++;
      if (problem === undefined) {
        if (runStart < 0) runStart = page;
        continue;
      }
      endRun(page);
      if (missing[problem]++ === 0) first[problem] = page;
      if (problem === 'unknown') unknownFlags = data.flags;
    }
  }
  endRun(32 * pages.words.length);

  if (runs.length === 0) {
    const zstd = unknownFlags === DUMP_DH_COMPRESSED_ZSTD;
    if (missing.unknown > 0) {
      throw fail('unsupported', {
        code: 'kdump-compression',
        message: `the pages are compressed in a way that elf2dmp does not know${zstd ? ' (zstd)' : ''}`,
        structure: PageDescriptor.name,
        field: 'flags',
        offset: pages.descriptorAt(pages.rank(first.unknown)) + PageDescriptor.offsetOf('flags'),
        expected: '0 (none), 1 (zlib), 2 (LZO) or 4 (snappy)',
        actual: hex(unknownFlags),
      });
    }
    throw fail('corrupt', {
      code: 'kdump-no-memory',
      message:
        pages.count === 0
          ? 'the dump lists no memory (its bitmap is empty)'
          : 'none of the memory that the bitmap lists is in the file',
      structure: 'bitmap 2',
      expected: 'pages',
      actual: `${pages.count} listed, none usable`,
      hint: 'the dump was cut off, or never finished: make a new one',
    });
  }
  const losses: [keyof typeof missing, DiagnosticCode, string][] = [
    ['cut', 'input-truncated', 'listed by the bitmap, but not in the file, which was cut off or has lost a part'],
    ['bad', 'page-descriptors-damaged', 'whose descriptors give impossible places or sizes, and are missing'],
    [
      'unknown',
      'page-compression-unknown',
      `compressed in an unknown way (flags ${hex(unknownFlags)}), and are missing`,
    ],
  ];
  for (const [problem, code, what] of losses) {
    if (missing[problem] === 0) continue;
    const size = missing[problem] * blockSize;
    diagnostics.add(
      'loss',
      code,
      `${bytes(size)} of guest memory are ${what} (the first at physical ${hex(first[problem] * blockSize)})`,
      { physical: hex(first[problem] * blockSize), missingBytes: hex(size) },
    );
  }
  if (source instanceof FlattenedSource && !source.complete && missing.cut === 0) {
    diagnostics.add(
      'warning',
      'kdump-no-end-mark',
      'the flattened file has no end mark, so it was cut off, but all pages are there',
    );
  }
  return runs;
}
export const popcount = (word: number): number => {
  let v = word - ((word >>> 1) & 0x55555555);
  v = (v & 0x33333333) + ((v >>> 2) & 0x33333333);
  return Math.imul((v + (v >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
};
