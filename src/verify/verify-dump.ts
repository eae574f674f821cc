/** Whether a crash dump holds together, and holds what it should: read back from its file by our own reader. */
import { Elf2dmpError } from '../core/errors.ts';
import { hex, hex64, MIB, PAGE_SIZE, pa } from '../core/units.ts';
import type { Extent } from '../plan/header.ts';
import { applyPatches, type Patch } from '../plan/patches.ts';
import { type DumpPlan, dumpTypeOf, planDump } from '../plan/plan.ts';
import { BitmapDumpHeader, DUMP_HEADER64_SIZE, DumpHeader64, DumpType } from '../formats/win-dump.ts';
import { type LocateOptions, locateWindows, type Windows } from '../locate/locator.ts';
import { readProcesses } from '../windows/processes.ts';
import type { Processor } from '../windows/processors.ts';
import type { MemoryImage } from '../memory/image.ts';
import { openCrashDump } from '../readers/registry.ts';
import { identifyContainer } from '../source/containers.ts';
import { FileSource } from '../source/file.ts';
import { readUpTo } from '../source/source.ts';
import { compareHeader } from './compare-header.ts';
import { type Finding, Findings } from '../report/findings.ts';
import { COMMENT_START, headerValues } from '../plan/header-values.ts';
import { type PatchReport, reportPatch } from '../report/conversion.ts';

/** What a dump should hold. */
export interface Expectation {
  /** The input. */
  image: MemoryImage;
  /** As found in the input; undefined where it was not looked for. */
  windows: Windows | undefined;
  /** Its pages, sorted. */
  extents: readonly Extent[];
  /** What differs from the input's memory, sorted. */
  patches: readonly Patch[];
  /** The file's first bytes; undefined where they are not known. */
  prefix: Buffer | undefined;
  /** false: converted without patches, so that the KDBG may be encoded and frames be old. */
  patched: boolean;
}

export interface VerifyDumpOptions extends LocateOptions {
  /** Called with bytes compared so far and in all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

export interface VerificationReport {
  /** `differs`: the comparison with the input found something; `unsound`: the dump alone shows it. */
  outcome: 'sound' | 'unsound' | 'differs';
  dump: { path: string; bytes: number; type: DumpPlan['type'] | null; pages: number };
  /** The comparison with the input; null without one. */
  against: {
    path: string;
    pagesCompared: number;
    /** Pages that differ from the input's where no change is listed. */
    pagesDifferent: number;
    /** What the conversion changed, each found as it should be unless a finding says otherwise. */
    changes: PatchReport[];
  } | null;
  findings: readonly Finding[];
  /** Findings beyond those that are listed. */
  findingsLeftOut: number;
}

/** Throws `Elf2dmpError` where a file can't be read. */
export async function verifyDump(
  path: string,
  expectation: Expectation | undefined,
  options: VerifyDumpOptions = {},
): Promise<VerificationReport> {
  const findings = new Findings();
  const source = FileSource.open(path);
  refuseCompressed(source);
  let image: MemoryImage | undefined;
  let comparison: { pagesCompared: number; pagesDifferent: number } | undefined;
  try {
    image = openForFindings(path, findings);
    const prefix = image && readUpTo(source, 0, prefixSize(source));
    if (image && prefix) {
      checkSize(image, source.size, prefix, findings);
      const windows = await locateForFindings(image, options, findings);
      if (windows) checkMemory(windows, expectation, findings);
      const wanted = expectation?.prefix;
      if (wanted) {
        compareHeader(prefix, { bytes: withComment(wanted, prefix), foreign: false, difference: true }, findings);
      } else if (windows) checkHeader(windows, prefix, expectation?.patched ?? true, findings);
      if (expectation) comparison = await comparePages(image, expectation, findings, options);
    }
    return {
      outcome: findings.outcome,
      dump: {
        path,
        bytes: source.size,
        type: image?.dumpHeader ? dumpTypeOf(image.dumpHeader) : null,
        pages: image ? Math.floor(image.size / PAGE_SIZE) : 0,
      },
      against: expectation
        ? {
            path: expectation.image.file,
            pagesCompared: 0,
            pagesDifferent: 0,
            ...comparison,
            changes: expectation.patches.map(reportPatch),
          }
        : null,
      findings: findings.list,
      findingsLeftOut: findings.leftOut,
    };
  } finally {
    image?.close();
    source.close();
  }
}

/** What a reader or the locator refuses is a finding here; what can't be read at all is not. */
function asFinding(error: unknown): Finding {
  if (!(error instanceof Elf2dmpError) || (error.kind !== 'corrupt' && error.kind !== 'unsupported')) throw error;
  const { code, message, structure, field, offset, expected, actual } = error.details;
  return {
    severity: 'error',
    code,
    message,
    ...(structure === undefined ? {} : { structure }),
    ...(field === undefined ? {} : { field }),
    ...(offset === undefined ? {} : { offset: hex(offset) }),
    ...(expected === undefined ? {} : { expected }),
    ...(actual === undefined ? {} : { found: actual }),
  };
}

function openForFindings(path: string, findings: Findings): MemoryImage | undefined {
  try {
    return openCrashDump(path);
  } catch (error) {
    findings.add(asFinding(error));
    return undefined;
  }
}

async function locateForFindings(
  image: MemoryImage,
  options: LocateOptions,
  findings: Findings,
): Promise<Windows | undefined> {
  try {
    return await locateWindows(image, options);
  } catch (error) {
    findings.add(asFinding(error));
    return undefined;
  }
}

/** Bytes of header and bitmap, of a dump that the reader took. */
/** It may be sound for all that is known. */
function refuseCompressed(source: FileSource): void {
  const container = identifyContainer(readUpTo(source, 0, 16));
  if (!container) return;
  source.close();
  throw new Elf2dmpError({
    code: 'compressed-dump',
    kind: 'unsupported',
    message: `the dump is compressed (${container.name}), and only a file as it is can be checked byte by byte`,
    file: source.name,
    hint: 'decompress it first',
  });
}

function prefixSize(source: FileSource): number {
  const head = readUpTo(source, 0, DUMP_HEADER64_SIZE + BitmapDumpHeader.size);
  if (DumpHeader64.fields.DumpType.read(head, DumpHeader64.offsetOf('DumpType')) === DumpType.full) {
    return DUMP_HEADER64_SIZE;
  }
  const { Pages } = BitmapDumpHeader.read(head, DUMP_HEADER64_SIZE);
  return head.length + Math.ceil(Number(Pages) / 8);
}

/** File offset of the first page. */
const firstPageOf = (prefix: Buffer): number =>
  prefix.length === DUMP_HEADER64_SIZE
    ? DUMP_HEADER64_SIZE
    : Number(BitmapDumpHeader.read(prefix, DUMP_HEADER64_SIZE).FirstPage);

function checkSize(image: MemoryImage, size: number, prefix: Buffer, findings: Findings): void {
  const truncated = image.diagnostics.list.find((d) => d.code === 'input-truncated');
  const end = firstPageOf(prefix) + image.size;
  if (!truncated && size === end) return;
  findings.add({
    // What was an ELF file, converted in place, keeps its last bytes.
    severity: truncated || prefix.length === DUMP_HEADER64_SIZE ? 'error' : 'warning',
    code: 'file-size',
    message: truncated?.message ?? 'the file goes on behind the last page that it lists',
    offset: hex(truncated ? size : end),
    ...(truncated ? {} : { expected: `${hex(end)} bytes`, found: `${hex(size)} bytes` }),
  });
}

/** Survived by the locator, and no fault of a dump: what the input did not know, no dump can. */
const NO_FAULT: ReadonlySet<string> = new Set(['no-cpu-states', 'processor-without-state', 'kernel-header-missing']);

/** Without patches, the special registers are what Windows last saved there, if anything. */
const SET_BY_PATCHES: ReadonlySet<string> = new Set(['special-registers', 'interrupt-table']);

/** Page tables, KDBG, lists and registers: what a debugger needs. */
function checkMemory(windows: Windows, expectation: Expectation | undefined, findings: Findings): void {
  // What is wrong in the input already is the guest's damage.
  const known = new Set(expectation?.windows ? problemsOf(expectation.windows).map((p) => p.code) : []);
  const unpatched = expectation?.patched === false;
  for (const problem of problemsOf(windows)) {
    const { code } = problem;
    const excused = NO_FAULT.has(code) || known.has(code) || (unpatched && SET_BY_PATCHES.has(code));
    findings.add({ severity: excused ? 'warning' : 'error', ...problem });
  }
  if (windows.kdbg.encoded) {
    findings.add({
      severity: unpatched ? 'warning' : 'error',
      code: 'kdbg-encoded',
      message: 'the KDBG is still encoded: the debugger shows no registers and no processors',
      structure: 'KDDEBUGGER_DATA64',
      virtual: hex64(windows.kdbg.address),
    });
  }
}

type Problem = Omit<Finding, 'severity'>;

/** What is damaged in a guest's memory, by the same eyes for input and dump. */
function problemsOf(windows: Windows): Problem[] {
  const { space, kdbg, processors, diagnostics, image } = windows;
  const problems: Problem[] = diagnostics.losses
    .filter((d) => MEMORY_LOSSES.has(d.code))
    .map(({ code, message, where }) => {
      const virtual = where?.virtual ?? where?.prcb;
      return { code, message, ...(virtual === undefined ? {} : { virtual }) };
    });
  const processes = readProcesses(space, kdbg.fields, processors);
  const broken = typeof processes === 'string' ? processes : processes.broken;
  if (broken !== undefined) {
    problems.push({ code: 'processes-broken', message: `the list of processes is broken: ${broken}` });
  }
  for (const p of processors) {
    const registers = p.cpu?.registers;
    if (!registers) continue;
    const who = `processor ${p.number}`;
    const tables = image.machine.pageTables(registers);
    // A CPU of which the input did not tell has none.
    if (registers.control && (!tables || !image.has(tables.root, PAGE_SIZE))) {
      problems.push({
        code: 'special-registers',
        message: `${who}: its page-table root is not in the dump, or paging is off`,
        field: 'Cr3',
        found: hex(registers.control.cr3),
      });
    }
    const table = image.machine.interruptTable(registers);
    if (table && image.machine.interruptHandlers(table, (at, length) => space.read(at, length)).length === 0) {
      problems.push({
        code: 'interrupt-table',
        message: `${who}: its interrupt table has no usable gates`,
        virtual: hex64(table.base),
      });
    }
  }
  return problems;
}

/** Losses that the locator reports of a guest's structures; the others are about inputs and conversions. */
const MEMORY_LOSSES: ReadonlySet<string> = new Set([
  'no-cpu-states',
  'processor-without-state',
  'kernel-header-missing',
  'modules-broken',
  'no-processors',
  'processor-damaged',
  'prcb-damaged',
  'bug-check-unreadable',
  'bug-check-implausible',
]);

/** The comment names the version that wrote the dump, which need not be this one. */
function withComment(expected: Buffer, actual: Buffer): Buffer {
  const at = DumpHeader64.offsetOf('Comment');
  const { size } = DumpHeader64.fields.Comment;
  const comment = actual.toString('latin1', at, at + size);
  const version = comment.slice(COMMENT_START.length).match(/^\d+\.\d+\.\d+[\w.+-]*(?= from)/)?.[0];
  if (version === undefined) return expected;
  const bytes = Buffer.from(expected);
  const text = expected.toString('latin1', at, at + size).replace(/^(.{20})\S+([^\0]*)\0*$/s, `$1${version}$2`);
  bytes.fill(0, at, at + size);
  bytes.write(text, at, size - 1, 'latin1');
  return bytes;
}

/** Most of the comment's first words are there, damaged or not. */
function isOurs(header: Buffer): boolean {
  const at = DumpHeader64.offsetOf('Comment');
  let same = 0;
  for (let i = 0; i < COMMENT_START.length; i++) if (header[at + i] === COMMENT_START.charCodeAt(i)) same++;
  return same >= COMMENT_START.length - 4;
}

/** The header against the one that elf2dmp would write for this memory. */
function checkHeader(windows: Windows, prefix: Buffer, patched: boolean, findings: Findings): void {
  const { image, space } = windows;
  const foreign = !isOurs(prefix);
  const at = DumpHeader64.offsetOf('ContextRecord');
  const inHeader = prefix.subarray(at, at + image.machine.contextSize);
  const frames = windows.processors.flatMap((processor) => {
    const frame =
      processor.cpu && processor.context !== undefined
        ? space.read(processor.context, image.machine.contextSize)
        : undefined;
    return frame ? [{ processor, frame }] : [];
  });
  const same = frames.filter(({ frame }) => frame.equals(inHeader));
  const expected = expectedProcessor(windows, frames);
  // Without patches the header has registers that the PRCBs do not.
  const context = patched ? (same[0] ?? expected)?.frame : inHeader;
  const crashed = windows.crash?.processor;
  if (!foreign && patched && crashed?.cpu && same.length > 0 && !same.some((s) => s.processor === crashed)) {
    findings.add({
      severity: 'error',
      code: 'header-context',
      message: `the header's context is that of processor ${same[0]!.processor.number}, but processor ${crashed.number} crashed`,
      structure: DumpHeader64.name,
      field: 'ContextRecord',
      offset: hex(at),
    });
  }
  const type = dumpTypeOf(DumpHeader64.read(prefix));
  // Its losses would be about a conversion of the dump, which nobody asked for.
  const plan = planDump(
    image,
    headerValues(windows, context),
    [],
    { type, firstPage: () => firstPageOf(prefix) },
    image.diagnostics,
  );
  compareHeader(prefix, { bytes: withComment(plan.prefix, prefix), foreign, difference: false }, findings);
}

/** The processor that the debugger opens on. */
function expectedProcessor<T extends { processor: Processor }>(windows: Windows, known: readonly T[]): T | undefined {
  const { machine } = windows.image;
  return (
    known.find((s) => s.processor === windows.crash?.processor) ??
    known.find(({ processor: { cpu } }) => cpu?.registers && machine.runsNativeCode(cpu.registers)) ??
    known[0]
  );
}

const CHUNK = MIB;
/** Chunks of both files in memory. */
const IN_FLIGHT = 4;

/** Every page of the dump against the input's with the changes made; and which are missing or too many. */
async function comparePages(
  dump: MemoryImage,
  { image, extents, patches }: Expectation,
  findings: Findings,
  { signal, onProgress }: VerifyDumpOptions,
): Promise<{ pagesCompared: number; pagesDifferent: number }> {
  const present = dump.pageExtents().extents;
  const report = (code: string, what: string, ranges: readonly Extent[]) => {
    for (const { start, size } of ranges) {
      findings.add(
        {
          severity: 'error',
          code,
          message: `${size / PAGE_SIZE} pages ${what}`,
          physical: hex(start),
          found: `${hex(start)} to ${hex(start + size)}`,
        },
        true,
      );
    }
  };
  report('pages-missing', 'of the input are not in the dump', without(extents, present));
  report('pages-added', 'are in the dump that should not be', without(present, extents));

  const common = without(extents, without(extents, present));
  const total = common.reduce((sum, e) => sum + e.size, 0);
  let done = 0;
  let pagesDifferent = 0;
  // Some chunks are read ahead; they are compared in their order, so that findings are.
  const chunks = chunksOf(common);
  const reading: { physical: number; wanted: Buffer; found: Buffer; buffers: Buffer; ready: Promise<unknown> }[] = [];
  const readNext = (buffers: Buffer) => {
    const chunk = chunks.next();
    if (chunk.done) return;
    const { physical, size } = chunk.value;
    const [wanted, found] = [buffers.subarray(0, size), buffers.subarray(CHUNK, CHUNK + size)];
    const ready = Promise.all([image.read(physical, wanted), dump.read(physical, found)]);
    // It is awaited, but maybe after another one has failed.
    ready.catch(() => undefined);
    reading.push({ physical, wanted, found, buffers, ready });
  };
  for (let i = 0; i < IN_FLIGHT; i++) readNext(Buffer.allocUnsafeSlow(2 * CHUNK));
  try {
    for (let next = reading.shift(); next; next = reading.shift()) {
      signal?.throwIfAborted();
      await next.ready;
      const { physical, wanted, found } = next;
      applyPatches(patches, physical, wanted);
      if (!wanted.equals(found)) {
        for (let page = 0; page < wanted.length; page += PAGE_SIZE) {
          const [a, b] = [wanted.subarray(page, page + PAGE_SIZE), found.subarray(page, page + PAGE_SIZE)];
          if (a.equals(b)) continue;
          pagesDifferent++;
          findings.add(pageFinding(physical + page, a, b, patches), true);
        }
      }
      done += wanted.length;
      onProgress?.(done, total);
      readNext(next.buffers);
    }
  } finally {
    await Promise.allSettled(reading.map(({ ready }) => ready));
  }
  return { pagesCompared: total / PAGE_SIZE, pagesDifferent };
}

function* chunksOf(extents: readonly Extent[]): Generator<{ physical: number; size: number }> {
  for (const { start, size } of extents) {
    for (let at = 0; at < size; at += CHUNK) yield { physical: start + at, size: Math.min(CHUNK, size - at) };
  }
}

function pageFinding(physical: number, wanted: Buffer, found: Buffer, patches: readonly Patch[]): Finding {
  let at = 0;
  while (wanted[at] === found[at]) at++;
  let bytes = 0;
  for (let i = at; i < wanted.length; i++) if (wanted[i] !== found[i]) bytes++;
  const patch = patches.find((p) => physical + at >= p.physical && physical + at < p.physical + p.bytes.length);
  const shown = (buffer: Buffer) =>
    `bytes ${buffer
      .subarray(at, at + 8)
      .toString('hex')
      .replace(/..(?=.)/g, '$& ')}`;
  return {
    severity: 'error',
    code: patch ? 'change-differs' : 'page-differs',
    message: patch
      ? `${patch.what} is not what the conversion makes it (bytes of its page that differ: ${bytes})`
      : `a page is not the input's (bytes that differ: ${bytes})`,
    physical: hex(physical + at),
    expected: shown(wanted),
    found: shown(found),
  };
}

/** What of `a` is not in `b`. Both are sorted and disjoint. */
function without(a: readonly Extent[], b: readonly Extent[]): Extent[] {
  const result: Extent[] = [];
  let j = 0;
  for (const { start, size } of a) {
    const end = start + size;
    let at: number = start;
    while (j < b.length && b[j]!.start + b[j]!.size <= at) j++;
    for (let i = j; i < b.length && b[i]!.start < end; i++) {
      const other = b[i]!;
      if (other.start > at) result.push({ start: pa(at), size: other.start - at });
      at = Math.max(at, other.start + other.size);
    }
    if (at < end) result.push({ start: pa(at), size: end - at });
  }
  return result;
}
