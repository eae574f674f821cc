/** One pass over all descriptors when a file is opened: which pages can be read, and which are missing. */
import type { DiagnosticCode, Fail } from '../../core/errors.ts';
import { bytes, hex, MIB, pa } from '../../core/units.ts';
import { DUMP_DH_COMPRESSED_ZSTD, PageDescriptor } from '../../formats/kdump.ts';
import type { InputDiagnostics } from '../../memory/input-diagnostics.ts';
import { append, type PhysicalRun } from '../../memory/runs.ts';
import { DescriptorRules, type PageData, type PagedFile, type PageProblem, parseDescriptor } from './descriptors.ts';
import { FlattenedSource } from './flattened.ts';

/** A run costs about 100 bytes; QEMU's files have as many as the guest has RAM blocks. */
const MAX_RUNS = 1 << 20;

/** Descriptors that are read at once. */
const PER_READ = Math.floor(MIB / PageDescriptor.size);

/** Pages that cannot be read, by what is wrong with them. */
class MissingPages {
  readonly counts: Record<PageProblem, number> = { cut: 0, bad: 0, unknown: 0 };
  readonly first: Record<PageProblem, number> = { cut: 0, bad: 0, unknown: 0 };
  /** Of the last page with an unknown compression. */
  unknownFlags = 0;

  add(problem: PageProblem, page: number, flags: number): void {
    if (this.counts[problem]++ === 0) this.first[problem] = page;
    if (problem === 'unknown') this.unknownFlags = flags;
  }
}

/** Reads descriptors one after the other. */
class DescriptorStream {
  readonly #file: PagedFile;
  readonly #rules: DescriptorRules;
  /** How many of them are in the file. */
  readonly #inFile: number;
  readonly #chunk = Buffer.alloc(PER_READ * PageDescriptor.size);
  #next = 0;
  /** The descriptor that `nextProblem` looked at. */
  readonly data: PageData = { offset: 0, size: 0, flags: 0 };

  constructor(file: PagedFile) {
    this.#file = file;
    this.#rules = new DescriptorRules(file);
    this.#inFile = Math.max(0, Math.floor((file.source.size - file.pages.descriptorAt(0)) / PageDescriptor.size));
  }

  /** What is wrong with the next page; undefined where nothing is. */
  nextProblem(): PageProblem | undefined {
    const n = this.#next++;
    if (n >= this.#inFile) return 'cut';
    const { source, pages } = this.#file;
    const i = n % PER_READ;
    if (i === 0) {
      const many = Math.min(PER_READ, this.#inFile - n, pages.count - n);
      source.readSync(pages.descriptorAt(n), this.#chunk.subarray(0, many * PageDescriptor.size));
    }
    const data = parseDescriptor(this.#chunk, i * PageDescriptor.size, this.data);
    return this.#rules.problem(pages.descriptorAt(n), data);
  }
}

/**
 * The memory that can be read. Every descriptor is looked at, so that a page that cannot be in the file is known to be
 * missing before anything is planned; they take 0.6% of the guest's memory. Throws where none can be read.
 */
export function scanDescriptors(
  file: PagedFile,
  diagnostics: InputDiagnostics,
  fail: Fail<'unsupported' | 'corrupt'>,
): PhysicalRun[] {
  const { source, pages, blockSize } = file;
  const stream = new DescriptorStream(file);
  const missing = new MissingPages();
  const runs: PhysicalRun[] = [];
  pages.forEach((page) => {
    const problem = stream.nextProblem();
    if (problem) missing.add(problem, page, stream.data.flags);
    else append(runs, { start: pa(page * blockSize), size: blockSize });
    if (runs.length > MAX_RUNS) {
      throw fail('unsupported', {
        code: 'kdump-fragmented',
        message: 'the memory is in more pieces than elf2dmp keeps track of',
        structure: 'bitmap 2',
        expected: `at most ${MAX_RUNS} runs`,
        actual: 'more',
      });
    }
  });
  if (runs.length === 0) throw nothingToRead(file, missing, fail);
  reportMissing(missing, blockSize, diagnostics);
  if (source instanceof FlattenedSource && !source.complete && missing.counts.cut === 0) {
    diagnostics.add(
      'warning',
      'kdump-no-end-mark',
      'the flattened file has no end mark, so it was cut off, but all pages are there',
    );
  }
  return runs;
}

function nothingToRead(
  { pages }: PagedFile,
  { counts, first, unknownFlags }: MissingPages,
  fail: Fail<'unsupported' | 'corrupt'>,
) {
  if (counts.unknown > 0) {
    const zstd = unknownFlags === DUMP_DH_COMPRESSED_ZSTD;
    return fail('unsupported', {
      code: 'kdump-compression',
      message: `the pages are compressed in a way that elf2dmp does not know${zstd ? ' (zstd)' : ''}`,
      structure: PageDescriptor.name,
      field: 'flags',
      offset: pages.descriptorAt(pages.rank(first.unknown)) + PageDescriptor.offsetOf('flags'),
      expected: '0 (none), 1 (zlib), 2 (LZO) or 4 (snappy)',
      actual: hex(unknownFlags),
    });
  }
  return fail('corrupt', {
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

function reportMissing(missing: MissingPages, blockSize: number, diagnostics: InputDiagnostics): void {
  const describe = (problem: PageProblem, what: string) => {
    const physical = hex(missing.first[problem] * blockSize);
    const size = missing.counts[problem] * blockSize;
    const message = `${bytes(size)} of guest memory are ${what} (the first at physical ${physical})`;
    return [message, { physical, missingBytes: hex(size) }] as const;
  };
  if (missing.counts.cut > 0) {
    const what = 'listed by the bitmap, but not in the file, which was cut off or has lost a part';
    diagnostics.addCutOff('memory', ...describe('cut', what));
  }
  const damaged: ['bad' | 'unknown', DiagnosticCode, string][] = [
    ['bad', 'page-descriptors-damaged', 'whose descriptors give impossible places or sizes, and are missing'],
    [
      'unknown',
      'page-compression-unknown',
      `compressed in an unknown way (flags ${hex(missing.unknownFlags)}), and are missing`,
    ],
  ];
  for (const [problem, code, what] of damaged) {
    if (missing.counts[problem] > 0) diagnostics.add('loss', code, ...describe(problem, what));
  }
}
