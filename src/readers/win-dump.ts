/** Windows crash dumps that hold pages of memory: those by Windows, and those by WinDbg's `.dump`. */
import { Elf2dmpError, failIn } from '../core/errors.ts';
import { bytes, hex, PAGE_SIZE, PHYSICAL_ADDRESS_LIMIT, pa } from '../core/units.ts';
import type { DumpHeader } from '../formats/dump-header.ts';
import { DumpType } from '../formats/win-dump.ts';
import { dumpHeaderFormOf, MACHINES, machineOf, marksOf } from '../machines/index.ts';
import type { Machine } from '../machines/machine.ts';
import { MemoryImage, type MemoryImageSpec } from '../memory/image.ts';
import { InputDiagnostics } from '../memory/input-diagnostics.ts';
import type { ListFault } from '../memory/list-fault.ts';
import { type FileRun, sum } from '../memory/runs.ts';
import { type ByteSource, readUpTo } from '../source/source.ts';
import {
  at,
  bitmapRuns,
  type Fail,
  type Header,
  headerRuns,
  type Mended,
  rangeRuns,
  summaryRuns,
} from './dump-runs.ts';
import { closing, type Estimate, type Reader } from './reader.ts';
import { openTriage } from './triage.ts';

/** Of every form. */
const SIGNATURE_BYTES = 8;

/** The reader of Windows crash dumps. */
export const winDump: Reader = {
  format: 'windows-dump',
  headersFirst: true,
  probe: (head) => dumpHeaderFormOf(head) !== undefined,
  estimate(head): Estimate | undefined {
    const form = dumpHeaderFormOf(head);
    if (!form || head.length < form.size) return undefined;
    const { RequiredDumpSpace: file, NumberOfPages: pages } = form.decode(head);
    const limit = BigInt(PHYSICAL_ADDRESS_LIMIT);
    if (file > limit || pages * BigInt(PAGE_SIZE) > limit) return undefined;
    return { file: Number(file), memory: Number(pages) * PAGE_SIZE };
  },
  open: (source) => closing(source, () => open(source)),
};

/**
 * As `winDump`, for a dump that is to be converted or looked at: where its list of pages is wrong, what the size of the
 * file proves is read, and reported, and the locator asks Windows' own list.
 */
export const mendingWinDump: Reader = { ...winDump, open: (source) => closing(source, () => openMending(source)) };

/**
 * The header alone, also of kinds of dumps whose memory is not read (triage, kernel memory). Throws
 * `Elf2dmpError` where there is no whole header.
 */
export function readDumpHeader(source: ByteSource): DumpHeader {
  return readHeader(source, failIn(source.name)).values;
}

function open(source: ByteSource): MemoryImage {
  const fail = failIn(source.name);
  const dump = openHeader(source, fail);
  if (dump.header.values.DumpType === DumpType.triage) return openTriageOf(dump, source, fail);
  const { format, runsOf } = kindOf(dump.header, fail);
  return imageOf({ ...dump, source, format }, runsOf(dump.header, source, fail), fail);
}

function openMending(source: ByteSource): MemoryImage {
  const fail = failIn(source.name);
  const dump = openHeader(source, fail);
  if (dump.header.values.DumpType === DumpType.triage) return openTriageOf(dump, source, fail);
  const { format, runsOf } = kindOf(dump.header, fail);
  const opened = { ...dump, source, format };
  const listFaults: ListFault[] = [];
  if (runsOf !== headerRuns)
    return imageOf({ ...opened, listFaults }, runsOf(dump.header, source, fail, listFaults), fail);
  const arrange = arrangementOf(opened, fail);
  try {
    const runs = headerRuns(dump.header, source, fail, listFaults);
    return imageOf({ ...opened, listFaults, arrange }, runs, fail);
  } catch (error) {
    if (!arrange || !(error instanceof Elf2dmpError) || error.code !== 'dmp-runs') throw error;
    const size = source.size - dump.header.form.size;
    const runs = [{ start: pa(0), size, fileOffset: dump.header.form.size }];
    return imageOf({ ...opened, arrange, unlisted: error }, runs, fail);
  }
}

/** Other runs for a full dump's pages, from 0 on as if there was no header; undefined where it has no whole pages. */
function arrangementOf(dump: OpenedDump, fail: Fail): MemoryImageSpec['arrange'] {
  const { form, values } = dump.header;
  const size = dump.source.size - form.size;
  if (size <= 0 || size % PAGE_SIZE !== 0) return undefined;
  const listed = Math.min(values.NumberOfRuns, form.maxRuns);
  const found = describeRuns(Array.from({ length: listed }, (_, i) => runOf(form.runAt(values, i))));
  return (runs) => {
    const placed = runs.map((run) => ({ ...run, fileOffset: run.fileOffset + form.size }));
    const fault: ListFault = {
      field: 'Runs',
      found,
      expected: describeRuns(runs),
      evidence: "Windows' own list of its RAM, and the size of the file",
    };
    return imageOf({ ...dump, listFaults: [fault], arrange: arrangementOf(dump, fail) }, placed, fail);
  };
}

const runOf = ({ basePage, pageCount }: { basePage: bigint; pageCount: bigint }) => ({
  start: basePage * BigInt(PAGE_SIZE),
  size: pageCount * BigInt(PAGE_SIZE),
});

const SHOWN_RUNS = 8;

function describeRuns(runs: readonly { start: number | bigint; size: number | bigint }[]): string {
  const shown = runs.slice(0, SHOWN_RUNS).map(({ start, size }) => `${hex(start)}+${hex(size)}`);
  return [...shown, ...(runs.length > SHOWN_RUNS ? [`and ${runs.length - SHOWN_RUNS} more`] : [])].join(', ') || 'none';
}

function openTriageOf({ header, machine }: OpenedHeader, source: ByteSource, fail: Fail): MemoryImage {
  return openTriage({ source, form: header.form, header: header.values, machine, fail });
}

/** A dump's header, of a machine whose dumps are read. */
interface OpenedHeader {
  header: Header;
  machine: Machine;
}

function openHeader(source: ByteSource, fail: Fail): OpenedHeader {
  const header = readHeader(source, fail);
  return { header, machine: dumpMachine(header, fail) };
}

/** A dump, and how its list of pages is to be taken. */
interface OpenedDump extends OpenedHeader, Pick<MemoryImageSpec, 'listFaults' | 'arrange' | 'unlisted'> {
  source: ByteSource;
  format: string;
}

function imageOf({ header, source, ...rest }: OpenedDump, listed: readonly FileRun[], fail: Fail): MemoryImage {
  const diagnostics = new InputDiagnostics();
  for (const { field, found, expected, evidence } of rest.listFaults ?? []) {
    const message = `the dump's list of its pages is wrong: ${field} is ${found}, and has to be ${expected} (${evidence})`;
    diagnostics.add('warning', 'dump-list-wrong', message);
  }
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
    ...rest,
    file: source.name,
    contents: { kind: 'stored', runs, source },
    cpus: [],
    notes: [],
    diagnostics,
    missing: diagnostics.missing,
    dumpHeader: header.values,
  });
}

/** A kind of dump whose pages are read. */
interface ReadKind {
  format: string;
  /** Sorted; throws `Elf2dmpError` where what lists them cannot be right. */
  runsOf(header: Header, source: ByteSource, fail: Fail, mended?: Mended): FileRun[];
}

const FULL: ReadKind = { format: 'windows-full-dump', runsOf: headerRuns };
const BITMAP: ReadKind = {
  format: 'windows-bitmap-dump',
  runsOf: bitmapRuns,
};
const SUMMARY: ReadKind = {
  format: 'windows-summary-dump',
  runsOf: summaryRuns,
};
const RANGES: ReadKind = {
  format: 'windows-range-dump',
  runsOf: rangeRuns,
};

/** Every kind of dump, by DumpType, and how its pages are read, if they are. What is not here is damage, not a kind. */
const DUMP_KINDS: Readonly<Record<number, { what: string; read?: ReadKind }>> = {
  [DumpType.full]: { what: 'a full dump', read: FULL },
  [DumpType.kernelSummary]: { what: 'a kernel memory (summary) dump', read: SUMMARY },
  3: { what: 'a dump of the header alone' },
  [DumpType.triage]: { what: 'a small memory (triage) dump' },
  [DumpType.bitmapFull]: { what: 'a bitmap dump', read: BITMAP },
  [DumpType.bitmapKernel]: { what: 'a bitmap dump of the kernel', read: BITMAP },
  7: { what: 'an automatic memory dump' },
  [DumpType.rangesKernel]: { what: "a kernel dump by WinDbg's .dump", read: RANGES },
  [DumpType.rangesActive]: { what: "a kernel and user memory dump by WinDbg's .dump", read: RANGES },
  [DumpType.rangesFull]: { what: "a full dump by WinDbg's .dump", read: RANGES },
};

/** Machines that Windows ran on, by IMAGE_FILE_MACHINE_*, for those that are not converted. */
const WINDOWS_MACHINES: Readonly<Record<number, string>> = {
  332: 'x86',
  452: '32-bit ARM',
  512: 'Itanium',
  34404: 'x64',
  43620: 'ARM64',
};

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

function kindOf({ form, values }: Header, fail: Fail): ReadKind {
  const kind = DUMP_KINDS[values.DumpType];
  if (kind?.read) return kind.read;
  const read = Object.keys(DUMP_KINDS).filter(
    (type) => DUMP_KINDS[Number(type)]?.read || Number(type) === DumpType.triage,
  );
  throw fail(kind ? 'unsupported' : 'corrupt', {
    code: 'dmp-type',
    message: `${kind?.what ?? 'a crash dump of a kind that does not exist'}: only dumps of pages of memory and triage dumps are read`,
    ...at(form, 'DumpType'),
    expected: read.join(', '),
    actual: `${values.DumpType}`,
  });
}
