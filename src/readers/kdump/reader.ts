/** Kdump-compressed files of x86-64 guests, raw and flattened, as QEMU's `dump-guest-memory -z|-l|-s [-R]` writes them. */
import { Diagnostics, Elf2dmpError, type ErrorDetails } from '../../core/errors.ts';
import { bytes, hex, KIB, MIB, PHYSICAL_ADDRESS_LIMIT, pa } from '../../core/units.ts';
import {
  DUMP_DH_COMPRESSED_LZO,
  DUMP_DH_COMPRESSED_SNAPPY,
  DUMP_DH_COMPRESSED_ZLIB,
  DUMP_DH_COMPRESSED_ZSTD,
  FLATTENED_HEADER_SIZE,
  FlattenedRecord,
  KDUMP_SIGNATURE,
  KDUMP_VERSION,
  KdumpHeader32,
  KdumpHeader64,
  KdumpSubHeader64,
  PageDescriptor,
  PRSTATUS_SIZES,
} from '../../formats/kdump.ts';
import { X64 } from '../../machines/x64/index.ts';
import { MemoryImage, type PhysicalRun, type RunReader } from '../../memory/image.ts';
import { FlattenedSource } from './flattened.ts';
import { type ByteSource, readUpTo } from '../../source/source.ts';
import { interpretNotes, MAX_NOTE_BYTES, splitNotes } from '../notes.ts';
import { decodePage, PageDecoder, type PageJob } from './page-decoder.ts';
import type { Reader } from '../reader.ts';

/** 8 TiB of pages of 4 KiB. */
const MAX_BITMAP_BYTES = 256 * MIB;
/** A run costs about 100 bytes; QEMU's files have as many as the guest has RAM blocks. */
const MAX_RUNS = 1 << 20;
const MIN_BLOCK = 4 * KIB;
const MAX_BLOCK = MIB;
const PRSTATUS_X64 = 336;
/** Blocks whose bytes are read from the file together. */
const MAX_SPAN = MIB;
/** Bytes between two pages' data that are read and thrown away rather than asked for separately. */
const MAX_GAP = 16 * KIB;
/** Damaged pages that are named each. */
const NAMED_PAGES = 10;

export const kdump: Reader = {
  format: 'kdump',
  probe: (head) => head.subarray(0, KDUMP_SIGNATURE.length).equals(KDUMP_SIGNATURE) || FlattenedSource.probe(head),
  estimate(head) {
    const header = FlattenedSource.probe(head) ? head.subarray(FLATTENED_HEADER_SIZE + FlattenedRecord.size) : head;
    if (header.length < KdumpHeader64.size) return undefined;
    const { max_mapnr, block_size } = KdumpHeader64.read(header);
    return { file: undefined, memory: max_mapnr * block_size };
  },
  open(source) {
    try {
      const flattened = FlattenedSource.probe(readUpTo(source, 0, 16));
      return open(flattened ? FlattenedSource.open(source) : source);
    } catch (error) {
      source.close();
      throw error;
    }
  },
};

type Fail = (kind: 'unsupported' | 'corrupt', details: Omit<ErrorDetails, 'kind' | 'file'>) => Elf2dmpError;

function open(source: ByteSource): MemoryImage {
  const diagnostics = new Diagnostics();
  const fail: Fail = (kind, details) => new Elf2dmpError({ kind, file: source.name, ...details });
  const header = readHeader(source, fail);
  const { blockSize, sub } = header;
  if (source instanceof FlattenedSource && source.overlaps > 0) {
    diagnostics.add(
      'note',
      'kdump-flattened-overlap',
      'records of the flattened file overwrite earlier ones; the later ones were used',
    );
  }

  const notes = readNotes(source, Number(sub.offset_note), Number(sub.note_size), diagnostics);
  checkMachine(notes, blockSize, fail);
  const { cpus, notes: otherNotes } = interpretNotes(notes, X64, diagnostics);
  const pages = new PageIndex(readBitmap(source, header, fail), header.descriptorsAt);
  const runs = scanDescriptors(source, pages, blockSize, diagnostics, fail);
  return new MemoryImage({
    file: source.name,
    format: source instanceof FlattenedSource ? 'kdump-flattened' : 'kdump',
    machine: X64,
    runs,
    cpus,
    notes: otherNotes,
    diagnostics,
    ...pageReader(source, pages, blockSize, diagnostics),
  });
}

function readHeader(source: ByteSource, fail: Fail) {
  const head = readUpTo(source, 0, KdumpHeader64.size);
  const truncated = (structure: string, at: number, size: number) =>
    fail('corrupt', {
      code: 'kdump-truncated-header',
      message: 'the file ends before any memory is in it',
      structure,
      offset: at,
      expected: `${hex(at + size)} bytes`,
      actual: `a file of ${hex(source.size)}`,
      hint: 'the dump was cut off at once: make a new one',
    });
  if (head.length < KdumpHeader64.size) throw truncated(KdumpHeader64.name, 0, KdumpHeader64.size);
  const header = KdumpHeader64.read(head);
  if (!header.signature.equals(KDUMP_SIGNATURE)) {
    throw fail('corrupt', {
      code: 'kdump-signature',
      message: 'a flattened file, but not of a kdump-compressed dump',
      structure: KdumpHeader64.name,
      field: 'signature',
      offset: 0,
      expected: '"KDUMP   "',
      actual: header.signature.toString('hex'),
    });
  }
  if (header.header_version !== KDUMP_VERSION) {
    const bigEndian = head.readUInt32BE(KdumpHeader64.offsetOf('header_version')) === KDUMP_VERSION;
    throw fail('unsupported', {
      code: bigEndian ? 'kdump-big-endian' : 'kdump-version',
      message: bigEndian
        ? 'a kdump-compressed dump of a big-endian machine, which Windows does not run on'
        : 'a kdump-compressed dump of a version that elf2dmp does not know',
      structure: KdumpHeader64.name,
      field: 'header_version',
      offset: KdumpHeader64.offsetOf('header_version'),
      expected: `${KDUMP_VERSION}`,
      actual: hex(header.header_version),
    });
  }
  const isBlockSize = (size: number) => size >= MIN_BLOCK && size <= MAX_BLOCK && (size & (size - 1)) === 0;
  const as32 = KdumpHeader32.read(head);
  // In the 64-bit form there is the upper half of a time in seconds.
  if (as32.status !== 0 && as32.status < 0x100 && isBlockSize(as32.block_size)) {
    throw fail('unsupported', {
      code: 'kdump-32-bit',
      message: 'a kdump-compressed dump of a 32-bit machine (32-bit Arm): only 64-bit x86 guests are converted',
      structure: KdumpHeader32.name,
      field: 'block_size',
      offset: KdumpHeader32.offsetOf('block_size'),
      expected: `a block size at ${hex(KdumpHeader64.offsetOf('block_size'))}`,
      actual: `${as32.block_size}`,
    });
  }
  const blockSize = header.block_size;
  if (!isBlockSize(blockSize)) {
    throw fail('corrupt', {
      code: 'kdump-block-size',
      message: 'the header gives an impossible block size',
      structure: KdumpHeader64.name,
      field: 'block_size',
      offset: KdumpHeader64.offsetOf('block_size'),
      expected: `a power of two from ${MIN_BLOCK} to ${MAX_BLOCK}`,
      actual: `${blockSize}`,
    });
  }
  const subBytes = readUpTo(source, blockSize, KdumpSubHeader64.size);
  if (subBytes.length < KdumpSubHeader64.size) {
    throw truncated(KdumpSubHeader64.name, blockSize, KdumpSubHeader64.size);
  }
  const sub = KdumpSubHeader64.read(subBytes);
  if (sub.split !== 0) {
    throw fail('unsupported', {
      code: 'kdump-split',
      message: 'one of several files that hold a part of the memory each (makedumpfile --split)',
      structure: KdumpSubHeader64.name,
      field: 'split',
      offset: blockSize + KdumpSubHeader64.offsetOf('split'),
      expected: '0',
      actual: `${sub.split}`,
      hint: 'put them together first: `makedumpfile --reassemble PART... OUT`',
    });
  }
  const bitmapAt = (1 + header.sub_hdr_size) * blockSize;
  const bitmapBytes = (header.bitmap_blocks / 2) * blockSize;
  const maxPage = sub.max_mapnr_64 === 0n ? header.max_mapnr : Number(sub.max_mapnr_64);
  return { blockSize, sub, bitmapAt, bitmapBytes, maxPage, descriptorsAt: bitmapAt + 2 * bitmapBytes };
}

function readNotes(source: ByteSource, at: number, size: number, diagnostics: Diagnostics) {
  const available = Math.max(0, Math.min(size, source.size - at));
  if (available < size) {
    diagnostics.add(
      'loss',
      'notes-truncated',
      `the notes should lie at file offsets ${hex(at)} to ${hex(at + size)}, but the file ends at ${hex(source.size)}`,
      { offset: hex(at) },
    );
  }
  if (available > MAX_NOTE_BYTES) {
    diagnostics.add(
      'loss',
      'notes-too-large',
      `${bytes(available)} of notes: only the first ${bytes(MAX_NOTE_BYTES)} were read`,
    );
  }
  return [...splitNotes(readUpTo(source, at, Math.min(available, MAX_NOTE_BYTES)), at, diagnostics)];
}

/** The header's name for the machine may be "Unknown", so the notes tell: each machine's status has its own size. */
function checkMachine(notes: ReturnType<typeof readNotes>, blockSize: number, fail: Fail): void {
  const prstatus = notes.filter((n) => n.name === 'CORE' && n.type === 1);
  const other = prstatus.find((n) => n.desc.length !== PRSTATUS_X64);
  if (other) {
    const machine = PRSTATUS_SIZES[other.desc.length] ?? 'unknown';
    throw fail('unsupported', {
      code: 'kdump-machine',
      message: `a kdump-compressed dump of another machine (${machine}): only 64-bit x86 guests are converted`,
      structure: 'Elf64_Nhdr',
      field: 'n_descsz',
      offset: other.offset,
      expected: `${PRSTATUS_X64} bytes (x86-64)`,
      actual: `${other.desc.length} (${machine})`,
      hint:
        machine === 'i386'
          ? 'QEMU writes i386 when CPU 0 was not in 64-bit mode: a 32-bit guest, or a 64-bit one still in its boot loader'
          : undefined,
    });
  }
  if (prstatus.length === 0 && blockSize === 64 * KIB) {
    throw fail('unsupported', {
      code: 'kdump-machine',
      message: 'a kdump-compressed dump of an AArch64 machine: only 64-bit x86 guests are converted',
      structure: KdumpHeader64.name,
      field: 'block_size',
      offset: KdumpHeader64.offsetOf('block_size'),
      expected: '4096',
      actual: `${blockSize}`,
    });
  }
}

/** The second bitmap: the pages that are in the file. QEMU writes the same twice. */
function readBitmap(
  source: ByteSource,
  { blockSize, bitmapAt, bitmapBytes, maxPage }: ReturnType<typeof readHeader>,
  fail: Fail,
): Buffer {
  const needed = Math.ceil(maxPage / 8);
  const bad = (message: string, expected: string, actual: string) =>
    fail('corrupt', {
      code: 'kdump-bitmap-size',
      message,
      structure: KdumpHeader64.name,
      field: 'bitmap_blocks',
      offset: KdumpHeader64.offsetOf('bitmap_blocks'),
      expected,
      actual,
    });
  if (bitmapBytes === 0 || bitmapBytes % blockSize !== 0 || needed === 0 || needed > bitmapBytes) {
    throw bad(
      'the size of the bitmaps does not fit the number of pages',
      `two bitmaps of whole blocks for ${maxPage} pages`,
      `${bitmapBytes / blockSize} blocks of ${blockSize} bytes each`,
    );
  }
  if (needed > MAX_BITMAP_BYTES || maxPage * blockSize > PHYSICAL_ADDRESS_LIMIT) {
    throw bad(
      'the dump claims more memory than elf2dmp can handle',
      `bitmaps of at most ${bytes(MAX_BITMAP_BYTES)}, for addresses up to ${hex(PHYSICAL_ADDRESS_LIMIT)}`,
      `${bytes(needed)}, for ${hex(maxPage * blockSize)}`,
    );
  }
  const at = bitmapAt + bitmapBytes;
  if (at + needed > source.size || (source instanceof FlattenedSource && !source.covers(at, needed))) {
    throw fail('corrupt', {
      code: 'kdump-truncated-bitmap',
      message: 'the bitmap of pages is not in the file',
      structure: 'bitmap 2',
      offset: at,
      expected: `${hex(needed)} bytes`,
      actual: `a file of ${hex(source.size)}`,
      hint: 'the dump was cut off before any memory was written: make a new one',
    });
  }
  // Whole words, with the bits beyond the last page cleared.
  const bitmap = Buffer.alloc(Math.ceil(needed / 4) * 4);
  source.readSync(at, bitmap.subarray(0, needed));
  if (maxPage % 8 !== 0) bitmap[needed - 1]! &= (1 << (maxPage % 8)) - 1;
  return bitmap;
}

const popcount = (word: number): number => {
  let v = word - ((word >>> 1) & 0x55555555);
  v = (v & 0x33333333) + ((v >>> 2) & 0x33333333);
  return Math.imul((v + (v >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
};

/** Finds a page's descriptor: how many pages come before it, from counts every 16 words (1/16 of the bitmap). */
class PageIndex {
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
interface PageData {
  offset: number;
  size: number;
  flags: number;
}

/**
 * The descriptors' checks, which hold for all in a file: the data lies behind the descriptors and within
 * the file, and has a size that fits how it is stored.
 */
class DescriptorRules {
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

function parseDescriptors(buffer: Buffer, from: number, into: PageData): PageData {
  into.offset = buffer.readUInt32LE(from) + buffer.readUInt32LE(from + 4) * 2 ** 32;
  into.size = buffer.readUInt32LE(from + 8);
  into.flags = buffer.readUInt32LE(from + 12);
  return into;
}

/**
 * Reads all descriptors once, so that a page that can't be in the file is known to be missing before
 * anything is planned. It is 0.6% of the guest's memory.
 */
function scanDescriptors(
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
  const losses: [keyof typeof missing, string, string][] = [
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

/** A page, and the part of it that is wanted. */
interface Wanted extends PageData {
  page: number;
  /** Bytes of the target for it; `from` in the page. */
  target: Buffer;
  from: number;
}

function pageReader(source: ByteSource, pages: PageIndex, blockSize: number, diagnostics: Diagnostics) {
  const rules = new DescriptorRules(source, pages, blockSize);
  const decoder = new PageDecoder(blockSize);
  const zeroAt = zeroPage(source, pages.descriptorAt(pages.count), blockSize);
  let damaged = 0;
  const report = (page: number): void => {
    damaged++;
    const physical = hex(page * blockSize);
    if (damaged <= NAMED_PAGES) {
      const message = `the page at physical ${physical} is damaged (its data does not decompress to a page)`;
      diagnostics.add('loss', 'page-damaged', message, { physical });
    } else {
      diagnostics.add('loss', 'pages-damaged', 'further pages are damaged too');
    }
  };

  /** What is to be read for a range: descriptors' numbers, which go on within a run. */
  const locate = (address: number, length: number) => {
    const firstPage = Math.floor(address / blockSize);
    const count = Math.floor((address + length - 1) / blockSize) - firstPage + 1;
    return { firstPage, count, rank: pages.rank(firstPage) };
  };
  /** The pages whose bytes are needed; fills those that are zero and those that are bad. */
  const want = (address: number, target: Buffer, at: ReturnType<typeof locate>, descriptors: Buffer) => {
    const wanted: Wanted[] = [];
    let sound = true;
    for (let i = 0; i < at.count; i++) {
      const page = at.firstPage + i;
      const start = page * blockSize - address;
      const part = target.subarray(Math.max(0, start), Math.min(target.length, start + blockSize));
      const w: Wanted = { page, target: part, from: Math.max(0, -start), offset: 0, size: 0, flags: 0 };
      parseDescriptors(descriptors, i * PageDescriptor.size, w);
      if (w.flags === 0 && w.offset === zeroAt) part.fill(0);
      else if (rules.problem(pages.descriptorAt(at.rank + i), w) === undefined) wanted.push(w);
      else {
        // It was good when the file was opened.
        part.fill(0);
        report(page);
        sound = false;
      }
    }
    return { wanted, sound };
  };

  const reader: RunReader = {
    readSync(run, offset, target) {
      const address = run.start + offset;
      if (target.length === 0) return true;
      const at = locate(address, target.length);
      const descriptors = Buffer.allocUnsafe(at.count * PageDescriptor.size);
      source.readSync(pages.descriptorAt(at.rank), descriptors);
      let { wanted, sound } = want(address, target, at, descriptors);
      for (const span of spans(wanted)) {
        const data = Buffer.allocUnsafe(span.size);
        source.readSync(span.offset, data);
        for (const w of span.pages) {
          const compressed = data.subarray(w.offset - span.offset, w.offset - span.offset + w.size);
          const whole = w.target.length === blockSize ? w.target : Buffer.allocUnsafe(blockSize);
          if (decodePage(w.flags, compressed, whole)) {
            if (whole !== w.target) whole.copy(w.target, 0, w.from);
          } else {
            w.target.fill(0);
            report(w.page);
            sound = false;
          }
        }
      }
      return sound;
    },
    async read(run, offset, target) {
      const address = run.start + offset;
      if (target.length === 0) return;
      const at = locate(address, target.length);
      const descriptors = Buffer.allocUnsafe(at.count * PageDescriptor.size);
      await source.read(pages.descriptorAt(at.rank), descriptors);
      for (const span of spans(want(address, target, at, descriptors).wanted)) {
        const data = Buffer.allocUnsafe(span.size);
        await source.read(span.offset, data);
        const jobs: (PageJob & { wanted: Wanted })[] = [];
        for (const w of span.pages) {
          const bytes = data.subarray(w.offset - span.offset, w.offset - span.offset + w.size);
          if (w.flags === 0) bytes.copy(w.target, 0, w.from);
          else {
            const whole = w.target.length === blockSize ? w.target : Buffer.allocUnsafe(blockSize);
            jobs.push({ flags: w.flags, source: bytes, target: whole, wanted: w });
          }
        }
        if (jobs.length === 0) continue;
        await decoder.decode(jobs);
        for (const { good, target: whole, wanted: w } of jobs) {
          if (whole !== w.target) w.target.set(whole.subarray(w.from, w.from + w.target.length));
          if (!good) report(w.page);
        }
      }
    },
  };
  return {
    reader,
    close: () => {
      decoder.close();
      source.close();
    },
  };
}

/** QEMU's first page of data is a zero page that all zero pages share. Its offset, if it is there. */
function zeroPage(source: ByteSource, at: number, blockSize: number): number | undefined {
  if (at + blockSize > source.size) return undefined;
  if (source instanceof FlattenedSource && !source.covers(at, blockSize)) return undefined;
  const page = readUpTo(source, at, blockSize);
  return page.equals(Buffer.alloc(blockSize)) ? at : undefined;
}

/** Groups pages whose data lies near together and in order, as it does in QEMU's files. */
function* spans(wanted: readonly Wanted[]): Generator<{ offset: number; size: number; pages: Wanted[] }> {
  let span: { offset: number; size: number; pages: Wanted[] } | undefined;
  for (const w of wanted) {
    if (span) {
      const end = span.offset + span.size;
      if (w.offset >= end && w.offset - end <= MAX_GAP && w.offset + w.size - span.offset <= MAX_SPAN) {
        span.size = w.offset + w.size - span.offset;
        span.pages.push(w);
        continue;
      }
      yield span;
    }
    span = { offset: w.offset, size: w.size, pages: [w] };
  }
  if (span) yield span;
}
