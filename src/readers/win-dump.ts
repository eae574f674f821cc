/** Windows crash dumps that hold pages of all memory: full ones and bitmap ones. */
import { type Fail as FailOf, failIn } from '../core/errors.ts';
import type { StructOf } from '../core/struct.ts';
import { bytes, hex, MIB, PAGE_SIZE, PHYSICAL_ADDRESS_LIMIT, pa } from '../core/units.ts';
import type { DumpHeader, DumpHeaderForm } from '../formats/dump-header.ts';
import {
  BITMAP_SIGNATURE_FULL,
  BITMAP_SIGNATURE_KERNEL,
  BITMAP_VALID,
  BitmapDumpHeader,
  DumpType,
} from '../formats/win-dump.ts';
import { dumpHeaderFormOf, MACHINES, machineOf, marksOf } from '../machines/index.ts';
import type { Machine } from '../machines/machine.ts';
import { MemoryImage } from '../memory/image.ts';
import { InputDiagnostics } from '../memory/input-diagnostics.ts';
import { endOf, type FileRun, firstOverlap, sum } from '../memory/runs.ts';
import { type ByteSource, readUpTo } from '../source/source.ts';
import type { Estimate, Reader } from './reader.ts';
import { openTriage } from './triage.ts';

/** 8 TiB of pages of 4 KiB. */
const MAX_BITMAP_BYTES = 256 * MIB;

/** A run costs about 100 bytes. */
const MAX_RUNS = 1 << 20;
const MAX_PAGES = PHYSICAL_ADDRESS_LIMIT / PAGE_SIZE;

/** A header and its form. */
interface Header {
  form: DumpHeaderForm;
  values: DumpHeader;
}

/** Of every form. */
const SIGNATURE_BYTES = 8;

type Fail = FailOf<'unsupported' | 'corrupt'>;

/** The reader of Windows crash dumps. */
export const winDump: Reader = {
  format: 'windows-dump',
  probe: (head) => dumpHeaderFormOf(head) !== undefined,
  estimate(head): Estimate | undefined {
    const form = dumpHeaderFormOf(head);
    if (!form || head.length < form.size) return undefined;
    const { RequiredDumpSpace: file, NumberOfPages: pages } = form.decode(head);
    const limit = BigInt(PHYSICAL_ADDRESS_LIMIT);
    if (file > limit || pages * BigInt(PAGE_SIZE) > limit) return undefined;
    return { file: Number(file), memory: Number(pages) * PAGE_SIZE };
  },
  open(source) {
    try {
      return open(source);
    } catch (error) {
      source.close();
      throw error;
    }
  },
};

/**
 * The header alone, also of kinds of dumps whose memory is not read (triage, kernel memory). Throws
 * `Elf2dmpError` where there is no whole header.
 */
export function readDumpHeader(source: ByteSource): DumpHeader {
  return readHeader(source, failIn(source.name)).values;
}

function open(source: ByteSource): MemoryImage {
  const diagnostics = new InputDiagnostics();
  const fail = failIn(source.name);
  const header = readHeader(source, fail);
  const machine = dumpMachine(header, fail);
  if (header.values.DumpType === DumpType.triage) {
    return openTriage({ source, form: header.form, header: header.values, machine, fail });
  }
  checkKind(header, fail);
  const full = header.values.DumpType === DumpType.full;
  const listed = full ? headerRuns(header, fail) : bitmapRuns(source, header.form.size, fail);
  const runs = listed.flatMap((run) => {
    const size = Math.min(run.size, source.size - run.fileOffset);
    return size > 0 ? [{ ...run, size }] : [];
  });
  const missing = sum(listed) - sum(runs);
  if (missing > 0) {
    diagnostics.addCutOff('memory', `the file ends ${bytes(missing)} before the memory that it lists does`, {
      offset: hex(source.size),
    });
  }
  if (runs.length === 0) {
    throw fail('corrupt', {
      code: 'dmp-no-memory',
      message: 'none of the memory that the header lists is in the file',
    });
  }
  return new MemoryImage({
    file: source.name,
    format: full ? 'windows-full-dump' : 'windows-bitmap-dump',
    machine,
    contents: { kind: 'stored', runs, source },
    cpus: [],
    notes: [],
    diagnostics,
    missing: diagnostics.missing,
    dumpHeader: header.values,
  });
}

/** Every kind of dump, by DumpType, and whether its pages are read. What is not here is damage, not a kind. */
const DUMP_KINDS: Readonly<Record<number, { what: string; read: boolean }>> = {
  [DumpType.full]: { what: 'a full dump', read: true },
  2: { what: 'a kernel memory (summary) dump', read: false },
  3: { what: 'a dump of the header alone', read: false },
  [DumpType.triage]: { what: 'a small memory (triage) dump', read: true },
  [DumpType.bitmapFull]: { what: 'a bitmap dump', read: true },
  [DumpType.bitmapKernel]: { what: 'a bitmap dump of the kernel', read: true },
  7: { what: 'an automatic memory dump', read: false },
  8: { what: 'a kernel memory dump of the newer kind', read: false },
  9: { what: 'a kernel and user memory dump', read: false },
  10: { what: 'a complete memory dump of the newer kind', read: false },
};

/** Machines that Windows ran on, by IMAGE_FILE_MACHINE_*, for those that are not converted. */
const WINDOWS_MACHINES: Readonly<Record<number, string>> = {
  332: 'x86',
  452: '32-bit ARM',
  512: 'Itanium',
  34404: 'x64',
  43620: 'ARM64',
};

const at = ({ layout }: DumpHeaderForm, field: keyof DumpHeader) => ({
  structure: layout.name,
  field,
  offset: layout.offsetOf(field),
});

function readHeader(source: ByteSource, fail: Fail): Header {
  const named = dumpHeaderFormOf(readUpTo(source, 0, SIGNATURE_BYTES));
  const form = named ?? MACHINES[0]!.dumpHeader;
  const head = readUpTo(source, 0, form.size);
  if (head.length < form.size) {
    throw fail('corrupt', {
      code: 'dmp-truncated-header',
      message: 'the file ends within its header',
      structure: form.layout.name,
      offset: head.length,
      expected: `${form.size} bytes`,
      actual: `${head.length}`,
    });
  }
  const values = form.decode(head);
  if (!named) {
    throw fail('corrupt', {
      code: 'dmp-signature',
      message: `not a Windows ${form.title} crash dump`,
      ...at(form, 'Signature'),
      expected: `"${form.signature.toString('latin1')}"`,
      actual: values.Signature.toString('hex'),
    });
  }
  return { form, values };
}

function dumpMachine({ form, values }: Header, fail: Fail): Machine {
  const machine = machineOf({ imageFileMachine: values.MachineImageType });
  if (machine?.dumpHeader === form) return machine;
  const other = WINDOWS_MACHINES[values.MachineImageType];
  throw fail(other === undefined ? 'corrupt' : 'unsupported', {
    code: 'dmp-machine',
    message: `a crash dump of ${other === undefined ? 'no machine that Windows runs on' : `an ${other} machine`}: only those of ${marksOf(({ name }) => name)} are read`,
    ...at(form, 'MachineImageType'),
    expected: marksOf(({ imageFileMachine }) => hex(imageFileMachine)),
    actual: hex(values.MachineImageType),
  });
}

function checkKind({ form, values }: Header, fail: Fail): void {
  const kind = DUMP_KINDS[values.DumpType];
  if (kind?.read) return;
  const read = Object.keys(DUMP_KINDS).filter((type) => DUMP_KINDS[Number(type)]?.read);
  throw fail(kind ? 'unsupported' : 'corrupt', {
    code: 'dmp-type',
    message: `${kind?.what ?? 'a crash dump of a kind that does not exist'}: only full, bitmap and triage dumps are read`,
    ...at(form, 'DumpType'),
    expected: read.join(', '),
    actual: `${values.DumpType}`,
  });
}

/** The runs of a full dump: their pages follow each other right behind the header. */
function headerRuns({ form, values }: Header, fail: Fail): FileRun[] {
  const bad = (field: 'NumberOfRuns' | 'Runs' | 'NumberOfPages', message: string, expected: string, actual: string) =>
    fail('corrupt', {
      code: 'dmp-runs',
      message,
      ...at(form, field),
      expected,
      actual,
    });
  const { NumberOfRuns: count } = values;
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
  runs.sort((a, b) => a.start - b.start);
  const overlap = firstOverlap(runs);
  if (overlap) {
    const { before, range } = overlap;
    throw bad('Runs', 'runs overlap', `none below ${hex(endOf(before))}`, hex(range.start));
  }
  return runs;
}

/** The runs of set bits; their pages follow each other from FirstPage on. */
function bitmapRuns(source: ByteSource, headerSize: number, fail: Fail): FileRun[] {
  const head = readUpTo(source, headerSize, BitmapDumpHeader.size);
  const bad = (
    field: keyof StructOf<typeof BitmapDumpHeader>,
    message: string,
    expected: string,
    actual: string | bigint,
  ) =>
    fail('corrupt', {
      code: 'dmp-bitmap',
      message,
      structure: BitmapDumpHeader.name,
      field,
      offset: headerSize + BitmapDumpHeader.offsetOf(field),
      expected,
      actual: typeof actual === 'bigint' ? hex(actual) : actual,
    });
  if (head.length < BitmapDumpHeader.size) {
    throw bad(
      'Signature',
      'the file ends within the bitmap header',
      `${BitmapDumpHeader.size} bytes`,
      `${head.length}`,
    );
  }
  const bitmap = BitmapDumpHeader.read(head);
  if (!bitmap.Signature.equals(BITMAP_SIGNATURE_FULL) && !bitmap.Signature.equals(BITMAP_SIGNATURE_KERNEL)) {
    throw bad('Signature', 'no bitmap header', '"FDMP" or "SDMP"', bitmap.Signature.toString('hex'));
  }
  if (!bitmap.ValidDump.equals(BITMAP_VALID)) {
    throw bad('ValidDump', 'the bitmap was not completed', '"DUMP"', bitmap.ValidDump.toString('hex'));
  }
  const mapAt = headerSize + BitmapDumpHeader.size;
  const limit = Math.min(MAX_BITMAP_BYTES, source.size - mapAt) * 8;
  if (bitmap.Pages === 0n || bitmap.Pages > BigInt(Math.min(limit, MAX_PAGES))) {
    throw bad(
      'Pages',
      'the bitmap does not fit the file',
      `1 to ${hex(Math.min(limit, MAX_PAGES))} bits`,
      bitmap.Pages,
    );
  }
  const bits = Number(bitmap.Pages);
  const mapEnd = mapAt + Math.ceil(bits / 8);
  if (bitmap.FirstPage < BigInt(mapEnd) || bitmap.FirstPage > BigInt(source.size)) {
    throw bad(
      'FirstPage',
      'the pages do not begin behind the bitmap in the file',
      `${hex(mapEnd)} to ${hex(source.size)}`,
      bitmap.FirstPage,
    );
  }
  const map = readUpTo(source, mapAt, mapEnd - mapAt);
  const runs: FileRun[] = [];
  let fileOffset = Number(bitmap.FirstPage);
  let pages = 0;
  for (const { from, to } of setBits(map, bits)) {
    if (runs.length === MAX_RUNS) {
      throw bad('Pages', 'the bitmap has more runs than any machine', `at most ${MAX_RUNS}`, 'more');
    }
    const size = (to - from) * PAGE_SIZE;
    runs.push({ start: pa(from * PAGE_SIZE), size, fileOffset });
    fileOffset += size;
    pages += to - from;
  }
  if (bitmap.TotalPresentPages !== BigInt(pages)) {
    throw bad('TotalPresentPages', "the number of pages is not the bitmap's", hex(pages), bitmap.TotalPresentPages);
  }
  return runs;
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
