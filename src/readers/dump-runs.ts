/** Where crash dumps of each kind say which pages they hold. */
import type { Fail as FailOf } from '../core/errors.ts';
import { hex, MIB, PAGE_SIZE, PHYSICAL_ADDRESS_LIMIT, pa } from '../core/units.ts';
import type { DumpHeader, DumpHeaderForm, HeaderField } from '../formats/dump-header.ts';
import {
  BITMAP_SIGNATURE_FULL,
  BITMAP_SIGNATURE_KERNEL,
  BITMAP_VALID,
  BitmapDumpHeader,
  DumpRange,
  RANGE_MARKER,
  RANGE_SIGNATURE,
  RangeDumpHeader,
  SUMMARY_SIGNATURE,
  SummaryDumpHeader,
} from '../formats/win-dump.ts';
import type { ListFault } from '../memory/list-fault.ts';
import { endOf, type FileRun, firstOverlap, sum } from '../memory/runs.ts';
import { type ByteSource, readUpTo } from '../source/source.ts';

/** 8 TiB of pages of 4 KiB. */
const MAX_BITMAP_BYTES = 256 * MIB;

/** A run costs about 100 bytes. */
const MAX_RUNS = 1 << 20;
const MAX_PAGES = PHYSICAL_ADDRESS_LIMIT / PAGE_SIZE;

/** A header and its form. */
export interface Header {
  form: DumpHeaderForm;
  values: DumpHeader;
}

/** Makes errors about the dump. */
export type Fail = FailOf<'unsupported' | 'corrupt'>;

/** A field of a header, for errors. */
export const at = ({ layout }: DumpHeaderForm, field: HeaderField) => ({
  structure: layout.name,
  field,
  offset: layout.offsetOf(field),
});

/** What a reader of runs does with a list that the file proves to be wrong: refuses it, or notes what is mended here. */
export type Mended = ListFault[] | undefined;

/** The runs of a full dump (type 1): their pages follow each other right behind the header. */
export function headerRuns(header: Header, source: ByteSource, fail: Fail, mended?: Mended): FileRun[] {
  const { form, values } = header;
  const bad = (field: 'NumberOfRuns' | 'Runs' | 'NumberOfPages', message: string, expected: string, actual: string) =>
    fail('corrupt', {
      code: 'dmp-runs',
      message,
      ...at(form, field),
      expected,
      actual,
    });
  const { NumberOfRuns: count } = values;
  const known = mended && mendedRuns(header, source, mended);
  if (known) return known;
  if (count === 0 || count > form.maxRuns) {
    throw bad('NumberOfRuns', 'an impossible number of runs', `1 to ${form.maxRuns}`, `${count}`);
  }
  const runs: FileRun[] = [];
  let pages = 0n;
  for (let i = 0; i < count; i++) {
    const { basePage, pageCount } = form.runAt(values, i);
    if (basePage + pageCount > BigInt(MAX_PAGES)) {
      throw bad(
        'Runs',
        `run ${i} lies beyond what a machine can address`,
        `pages below ${hex(MAX_PAGES)}`,
        `${hex(pageCount)} pages from ${hex(basePage)} on`,
      );
    }
    const fileOffset = form.size + Number(pages) * PAGE_SIZE;
    if (pageCount > 0n) {
      runs.push({ start: pa(Number(basePage) * PAGE_SIZE), size: Number(pageCount) * PAGE_SIZE, fileOffset });
    }
    pages += pageCount;
  }
  if (pages !== values.NumberOfPages) {
    throw bad(
      'NumberOfPages',
      'the number of pages is not that of the runs',
      `${pages} pages`,
      `${values.NumberOfPages}`,
    );
  }
  return sortRuns(runs, (expected, actual) => bad('Runs', 'runs overlap', expected, actual));
}

/**
 * The runs of a header of which one number is wrong, if they and the size of the file agree on what it should be:
 * NumberOfPages; or NumberOfRuns, also of a writer that had more runs than the header has room for and wrote on over
 * the context. undefined where nothing is wrong, or more is.
 */
function mendedRuns({ form, values }: Header, source: ByteSource, mended: ListFault[]): FileRun[] | undefined {
  const inFile = BigInt(source.size - form.size) / BigInt(PAGE_SIZE);
  if (BigInt(source.size - form.size) % BigInt(PAGE_SIZE) !== 0n) return undefined;
  const runs: FileRun[] = [];
  let pages = 0n;
  while (runs.length < form.roomForRuns && pages < inFile) {
    const { basePage, pageCount } = form.runAt(values, runs.length);
    if (pageCount === 0n || pages + pageCount > inFile || basePage + pageCount > BigInt(MAX_PAGES)) return undefined;
    const fileOffset = form.size + Number(pages) * PAGE_SIZE;
    runs.push({ start: pa(Number(basePage) * PAGE_SIZE), size: Number(pageCount) * PAGE_SIZE, fileOffset });
    pages += pageCount;
  }
  if (pages !== inFile) return undefined;
  runs.sort((a, b) => a.start - b.start);
  if (firstOverlap(runs)) return undefined;
  const evidence = 'the runs and the size of the file';
  const { NumberOfRuns, NumberOfPages } = values;
  if (runs.length > form.maxRuns) {
    if (NumberOfRuns !== runs.length || NumberOfPages !== pages) return undefined;
    if (runs.length > form.maxRuns + 1) {
      const expected = `the first ${form.maxRuns} runs, and a page map`;
      mended.push({ field: 'Runs', found: `${runs.length} runs, over the context`, expected, evidence, spilled: true });
    }
    return runs;
  }
  if (NumberOfRuns === runs.length && NumberOfPages !== pages) {
    mended.push({ field: 'NumberOfPages', found: `${NumberOfPages}`, expected: `${pages}`, evidence });
    return runs;
  }
  if (NumberOfRuns === runs.length || NumberOfPages !== pages) return undefined;
  mended.push({ field: 'NumberOfRuns', found: `${NumberOfRuns}`, expected: `${runs.length}`, evidence });
  return runs;
}

/** Throws what `overlapping` makes of the end of one run and the start of another. */
function sortRuns(runs: FileRun[], overlapping: (expected: string, actual: string) => Error): FileRun[] {
  runs.sort((a, b) => a.start - b.start);
  const overlap = firstOverlap(runs);
  if (overlap) throw overlapping(`none below ${hex(endOf(overlap.before))}`, hex(overlap.range.start));
  return runs;
}

/** A structure behind the header: `head` has all of it, or the file ends within it. */
interface SecondHeader<Field extends string> {
  head: Buffer;
  bad(field: Field, message: string, expected: string, actual: string | number | bigint): Error;
}

/** Reads a structure right behind the header. Throws `Elf2dmpError` where the file ends within it. */
function secondHeader<Field extends string>(
  layout: { name: string; size: number; offsetOf(field: Field): number },
  { form }: Header,
  source: ByteSource,
  { fail, what }: { fail: Fail; what: string },
): SecondHeader<Field | 'Signature'> {
  const head = readUpTo(source, form.size, layout.size);
  const offsetOf = (field: Field | 'Signature') => (layout.offsetOf as (field: string) => number)(field);
  const bad = (field: Field | 'Signature', message: string, expected: string, actual: string | number | bigint) =>
    fail('corrupt', {
      code: 'dmp-bitmap',
      message,
      structure: layout.name,
      field,
      offset: form.size + offsetOf(field),
      expected,
      actual: typeof actual === 'string' ? actual : hex(actual),
    });
  if (head.length < layout.size) {
    throw bad('Signature', `the file ends within the ${what}`, `${layout.size} bytes`, `${head.length}`);
  }
  return { head, bad };
}

/** A page map, whatever the header that describes it. */
interface MapPlace<Field extends string> {
  /** File offset of the map. */
  mapAt: number;
  /** Bits in the map, file offset of the first page and number of set bits, each with its field. */
  bits: readonly [field: Field, value: bigint];
  firstPage: readonly [field: Field, value: bigint];
  pages: readonly [field: Field, value: bigint];
}

/** The runs of a bitmap dump (types 5 and 6). */
export function bitmapRuns(header: Header, source: ByteSource, fail: Fail, mended?: Mended): FileRun[] {
  const { head, bad } = secondHeader(BitmapDumpHeader, header, source, { fail, what: 'bitmap header' });
  const bitmap = BitmapDumpHeader.read(head);
  if (!bitmap.Signature.equals(BITMAP_SIGNATURE_FULL) && !bitmap.Signature.equals(BITMAP_SIGNATURE_KERNEL)) {
    throw bad('Signature', 'no bitmap header', '"FDMP" or "SDMP"', bitmap.Signature.toString('hex'));
  }
  if (!bitmap.ValidDump.equals(BITMAP_VALID)) {
    throw bad('ValidDump', 'the bitmap was not completed', '"DUMP"', bitmap.ValidDump.toString('hex'));
  }
  const place: MapPlace<keyof typeof BitmapDumpHeader.fields> = {
    mapAt: header.form.size + BitmapDumpHeader.size,
    bits: ['Pages', bitmap.Pages],
    firstPage: ['FirstPage', bitmap.FirstPage],
    pages: ['TotalPresentPages', bitmap.TotalPresentPages],
  };
  return mapRuns(place, source, bad, mended);
}

/** The runs of a kernel summary dump (type 2). */
export function summaryRuns(header: Header, source: ByteSource, fail: Fail, mended?: Mended): FileRun[] {
  const { head, bad } = secondHeader(SummaryDumpHeader, header, source, { fail, what: 'summary header' });
  const summary = SummaryDumpHeader.read(head);
  if (!summary.Signature.equals(SUMMARY_SIGNATURE)) {
    throw bad('Signature', 'no summary header', '"SDMP"', summary.Signature.toString('hex'));
  }
  if (!summary.ValidDump.equals(BITMAP_VALID)) {
    throw bad('ValidDump', 'the bitmap was not completed', '"DUMP"', summary.ValidDump.toString('hex'));
  }
  const place: MapPlace<keyof typeof SummaryDumpHeader.fields> = {
    mapAt: header.form.size + SummaryDumpHeader.size,
    bits: ['BitmapSize', BigInt(summary.BitmapSize)],
    firstPage: ['HeaderSize', BigInt(summary.HeaderSize)],
    pages: ['Pages', BigInt(summary.Pages)],
  };
  return mapRuns(place, source, bad, mended);
}

/** The runs of set bits; their pages follow each other from the first page on. */
function mapRuns<Field extends string>(
  place: MapPlace<Field>,
  source: ByteSource,
  bad: SecondHeader<Field>['bad'],
  mended: Mended,
): FileRun[] {
  const { mapAt } = place;
  const limit = Math.min(MAX_BITMAP_BYTES, source.size - mapAt) * 8;
  const [bitsField, bitsFound] = place.bits;
  if (bitsFound === 0n || bitsFound > BigInt(Math.min(limit, MAX_PAGES))) {
    throw bad(bitsField, 'the bitmap does not fit the file', `1 to ${hex(Math.min(limit, MAX_PAGES))} bits`, bitsFound);
  }
  const bits = Number(bitsFound);
  const mapEnd = mapAt + Math.ceil(bits / 8);
  const [firstField, firstPage] = place.firstPage;
  if (firstPage < BigInt(mapEnd) || firstPage > BigInt(source.size)) {
    throw bad(
      firstField,
      'the pages do not begin behind the bitmap in the file',
      `${hex(mapEnd)} to ${hex(source.size)}`,
      firstPage,
    );
  }
  const map = readUpTo(source, mapAt, mapEnd - mapAt);
  const runs: FileRun[] = [];
  let fileOffset = Number(firstPage);
  let pages = 0;
  for (const { from, to } of setBits(map, bits)) {
    if (runs.length === MAX_RUNS) {
      throw bad(bitsField, 'the bitmap has more runs than any machine', `at most ${MAX_RUNS}`, 'more');
    }
    const size = (to - from) * PAGE_SIZE;
    runs.push({ start: pa(from * PAGE_SIZE), size, fileOffset });
    fileOffset += size;
    pages += to - from;
  }
  const [pagesField, pagesFound] = place.pages;
  if (pagesFound !== BigInt(pages)) {
    const evidence = 'the page map and the size of the file';
    // What the map lists ends where the file does.
    if (mended && pages > 0 && fileOffset === source.size) {
      mended.push({ field: pagesField, found: hex(pagesFound), expected: hex(pages), evidence });
      return runs;
    }
    throw bad(pagesField, "the number of pages is not the bitmap's", hex(pages), pagesFound);
  }
  return runs;
}

/** The runs of a dump that WinDbg wrote (types 8, 9 and 10). */
export function rangeRuns(header: Header, source: ByteSource, fail: Fail, mended?: Mended): FileRun[] {
  const { head, bad } = secondHeader(RangeDumpHeader, header, source, { fail, what: 'header of ranges' });
  const ranges = RangeDumpHeader.read(head);
  const { size: headerSize } = header.form;
  if (!ranges.Signature.equals(RANGE_SIGNATURE)) {
    throw bad('Signature', 'no header of ranges', '"RDMP"', ranges.Signature.toString('hex'));
  }
  if (!ranges.ValidDump.equals(BITMAP_VALID)) {
    throw bad('ValidDump', 'the ranges were not completed', '"DUMP"', ranges.ValidDump.toString('hex'));
  }
  if (ranges.Marker !== RANGE_MARKER) {
    throw bad('Marker', 'no header of ranges', hex(RANGE_MARKER), ranges.Marker);
  }
  const tableAt = headerSize + RangeDumpHeader.size;
  const firstPage = BigInt(headerSize + RangeDumpHeader.offsetOf('NumberOfRanges')) + ranges.MetadataSize;
  if (ranges.FirstPage !== firstPage || firstPage < BigInt(tableAt) || firstPage > BigInt(source.size)) {
    throw bad('FirstPage', 'the pages do not begin behind the ranges in the file', hex(firstPage), ranges.FirstPage);
  }
  const room = Math.floor((Number(firstPage) - tableAt) / DumpRange.size);
  if (ranges.NumberOfRanges === 0n || ranges.NumberOfRanges > BigInt(Math.min(room, MAX_RUNS))) {
    throw bad(
      'NumberOfRanges',
      'an impossible number of ranges',
      `1 to ${Math.min(room, MAX_RUNS)}`,
      `${ranges.NumberOfRanges}`,
    );
  }
  const count = Number(ranges.NumberOfRanges);
  const table = readUpTo(source, tableAt, count * DumpRange.size);
  const runs: FileRun[] = [];
  let pages = 0n;
  for (let i = 0; i < count; i++) {
    const { BasePage, PageCount } = DumpRange.read(table, i * DumpRange.size);
    if (BasePage + PageCount > BigInt(MAX_PAGES) || PageCount === 0n) {
      throw bad(
        'NumberOfRanges',
        `range ${i} is empty, or lies beyond what a machine can address`,
        `pages below ${hex(MAX_PAGES)}`,
        `${hex(PageCount)} pages from ${hex(BasePage)} on`,
      );
    }
    const fileOffset = Number(firstPage) + Number(pages) * PAGE_SIZE;
    runs.push({ start: pa(Number(BasePage) * PAGE_SIZE), size: Number(PageCount) * PAGE_SIZE, fileOffset });
    pages += PageCount;
  }
  if (ranges.TotalPages !== pages) {
    const evidence = 'the ranges and the size of the file';
    if (mended && sum(runs) === source.size - Number(firstPage)) {
      mended.push({ field: 'TotalPages', found: `${ranges.TotalPages}`, expected: `${pages}`, evidence });
      return sortRuns(runs, (expected, actual) => bad('NumberOfRanges', 'ranges overlap', expected, actual));
    }
    throw bad('TotalPages', 'the number of pages is not that of the ranges', `${pages}`, `${ranges.TotalPages}`);
  }
  return sortRuns(runs, (expected, actual) => bad('NumberOfRanges', 'ranges overlap', expected, actual));
}

/** Runs of set bits [from, to), least significant first. */
function* setBits(map: Buffer, bits: number): Generator<{ from: number; to: number }> {
  let from = -1;
  for (let bit = 0; bit < bits; ) {
    const byte = map[bit >>> 3]!;
    // Whole bytes that change nothing, which are nearly all.
    if (bit % 8 === 0 && byte === (from < 0 ? 0 : 0xff) && bit + 8 <= bits) {
      bit += 8;
      continue;
    }
    const set = ((byte >>> (bit & 7)) & 1) === 1;
    if (set && from < 0) from = bit;
    if (!set && from >= 0) {
      yield { from, to: bit };
      from = -1;
    }
    bit++;
  }
  if (from >= 0) yield { from, to: bits };
}
