/** What a conversion found and did, as plain data: `--json` prints it. Addresses are hex strings. */
import type { Diagnostic } from '../core/errors.ts';
import { hex, hex64, PAGE_SIZE, pfnOf } from '../core/units.ts';
import { STATUS_BREAKPOINT } from '../formats/win-dump.ts';
import type { Conversion } from '../plan/conversion.ts';
import type { PageSelection } from '../plan/select-pages.ts';
import type { Attempt } from '../windows/evidence.ts';
import type { VerificationReport } from './findings.ts';
import type { InputReport } from './input.ts';
import { type PatchReport, reportPatch } from './patch-file.ts';
import type { ProcessorReport, WindowsReport } from './windows.ts';

export interface DumpReport {
  path: string;
  type: 'full' | 'bitmap' | 'kernel' | 'active';
  bytes: number;
  pages: number;
  /** The first 4096 where there are more. */
  runs: { basePage: string; pageCount: number }[];
  runCount: number;
  /** Of a kernel dump or one of active memory; pages of zeros that were dropped count as kept here. */
  selection: Omit<PageSelection, 'type' | 'extents'> | null;
  /** With `--drop-zero-pages`. */
  zeroPagesDropped: number;
  /** The format and bytes of the compressed file; `bytes` are those of the dump in it. */
  compression: { format: string; bytes: number } | null;
  /** The pages share the input's blocks (reflink). */
  sharesInput: boolean;
  /** The input became the dump, in place: the journal that `--undo` needs. */
  undoJournal: string | null;
  bugCheckCode: string;
  headerProcessor: number | null;
  /** The header's exception record, and where it comes from; null where no registers are known. */
  exception: { code: string; address: string; from: string } | null;
  patches: PatchReport[];
}

export interface ConversionReport {
  tool: { name: 'elf2dmp'; version: string };
  outcome: 'good' | 'losses';
  input: InputReport;
  windows: WindowsReport;
  processors: ProcessorReport[];
  dump: DumpReport;
  /** With `verify`: what reading the dump back showed. */
  verification?: VerificationReport;
  /** With `hash`; of the input as it lies there, compressed or not, and null for what can be read once only. */
  sha256?: { input: string | null; output: string };
  seconds: number;
  /** What it took to find Windows. */
  effort: { locateMilliseconds: number; bytesReadToLocate: number };
  diagnostics: readonly Diagnostic[];
  evidence: readonly Attempt[];
}

/** What `--undo` did. */
export interface UndoReport {
  tool: { name: 'elf2dmp'; version: string };
  outcome: 'good';
  /** The ELF file, and its bytes. */
  path: string;
  bytes: number;
  /** Places in the guest's memory that got their old bytes back. */
  patches: number;
}

/** A kernel dump of a large guest has runs by the hundred thousand. */
const MAX_REPORTED_RUNS = 4096;

export function reportDump(
  path: string,
  {
    plan,
    contexts: { opened },
    exceptionAddress,
    sharesInput,
    journal,
    selection,
    zeroPagesDropped,
    compression,
  }: Conversion,
  bugCheckCode: number,
): DumpReport {
  return {
    path,
    type: plan.type,
    bytes: plan.size,
    pages: plan.pages,
    runs: plan.extents
      .slice(0, MAX_REPORTED_RUNS)
      .map(({ start, size }) => ({ basePage: hex(pfnOf(start)), pageCount: size / PAGE_SIZE })),
    runCount: plan.extents.length,
    selection: selection ? selectionReport(selection) : null,
    zeroPagesDropped: zeroPagesDropped ?? 0,
    compression: compression ?? null,
    sharesInput,
    undoJournal: journal ?? null,
    bugCheckCode: hex(bugCheckCode),
    headerProcessor: opened?.processor.number ?? null,
    exception: opened
      ? {
          code: hex(STATUS_BREAKPOINT),
          address: hex64(exceptionAddress),
          from: `a breakpoint at the ${opened.source === 'captured' ? 'captured' : "CPU's"} instruction pointer of processor ${opened.processor.number}, as Windows writes it in every dump: not an exception that the guest had`,
        }
      : null,
    patches: plan.patches.map(reportPatch),
  };
}

const selectionReport = ({ type: _, extents: __, ...rest }: PageSelection) => rest;
