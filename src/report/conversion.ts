/** What a conversion found and did, as plain data: `--json` prints it. Addresses are hex strings. */
import type { Diagnostic } from '../core/errors.ts';
import { hex, hex64 } from '../core/units.ts';
import type { Conversion } from '../plan/conversion.ts';
import type { DumpPlan } from '../plan/plan.ts';
import type { Repair } from '../plan/repairs.ts';
import type { PageSelection } from '../plan/select-pages.ts';
import type { TOOL } from '../version.ts';
import type { Attempt } from '../windows/evidence.ts';
import type { VerificationReport } from './findings.ts';
import { type InputReport, type RangeReport, reportRuns } from './input.ts';
import { type PatchReport, reportPatch } from './patch-file.ts';
import { type CodePlace, codePlace, type Images } from './processors.ts';
import type { SCHEMA } from './schemas.ts';
import type { WindowsReport } from './windows.ts';

export interface DumpReport {
  path: string;
  type: DumpPlan['type'];
  bytes: number;
  pages: number;
  /** Sorted, disjoint; the first 4096 where there are more. */
  runs: RangeReport[];
  runCount: number;
  /** In a kernel dump or one of active memory; pages of zeros that were dropped count as kept here. */
  selection: Omit<PageSelection, 'type' | 'extents' | 'diagnostics'> | null;
  /** With `--drop-zero-pages`. */
  zeroPagesDropped: number;
  /** The format and bytes of the compressed file; `bytes` are those of the dump in it. */
  compression: { format: string; bytes: number } | null;
  /** The pages share the input's blocks (reflink). */
  sharesInput: boolean;
  /** The input became the dump, in place: the journal that `--undo` needs. */
  undoJournal: string | null;
  bugCheckCode: string;
  /** The header's exception record, where it lies, and its origin; null where no registers are known. */
  exception: { code: string; address: string; at: CodePlace | null; from: string } | null;
  patches: PatchReport[];
  /** What was wrong in a crash dump that was converted, and is right in the new one. */
  repairs: readonly Repair[];
}

export interface ConversionReport {
  schema: (typeof SCHEMA)['convert'];
  tool: typeof TOOL;
  outcome: 'good' | 'losses';
  input: InputReport;
  windows: WindowsReport;
  dump: DumpReport;
  /** What reading the dump back showed; null without `verify`. */
  verification: VerificationReport | null;
  /** null without `hash`. */
  sha256: HashReport | null;
  seconds: number;
  /** What it took to find Windows. */
  effort: { locateMilliseconds: number; bytesReadToLocate: number };
  diagnostics: readonly Diagnostic[];
  evidence: readonly Attempt[];
}

/** SHA-256 of the files as they are; null for an input that is missing or can be read only once. */
export interface HashReport {
  input: string | null;
  dump: string;
}

/** What `--undo` did. */
export interface UndoReport {
  schema: (typeof SCHEMA)['undo'];
  tool: typeof TOOL;
  outcome: 'good';
  /** The ELF file, and its bytes. */
  path: string;
  bytes: number;
  /** Places in the guest's memory that got their old bytes back. */
  patchesUndone: number;
}

/** @param images that names the code of the header's exception */
export function reportDump(path: string, conversion: Conversion, images: Images): DumpReport {
  const { plan, header, repairs, selection, zeroPagesDropped, written } = conversion;
  return {
    path,
    type: plan.type,
    bytes: plan.size,
    pages: plan.pages,
    ...reportRuns(plan.extents),
    selection: selection ? selectionReport(selection) : null,
    zeroPagesDropped,
    compression: written.how === 'compressed' ? { format: written.format, bytes: written.bytes } : null,
    sharesInput: written.how === 'shared',
    undoJournal: written.how === 'in place' ? written.journal : null,
    bugCheckCode: hex(header.BugCheckCode),
    exception: reportException(conversion, images),
    patches: plan.patches.map(reportPatch),
    repairs,
  };
}

function reportException(
  { header, windows, contexts: { opened } }: Conversion,
  images: Images,
): DumpReport['exception'] {
  if (!opened) return null;
  const { ExceptionCode, ExceptionAddress } = header.Exception;
  const whose = opened.source === 'captured' ? 'captured' : "CPU's";
  return {
    code: hex(ExceptionCode),
    address: hex64(ExceptionAddress),
    at: codePlace(windows, ExceptionAddress, images),
    from:
      opened.source === 'dump'
        ? "the input's header"
        : `a breakpoint at the ${whose} instruction pointer of processor ${opened.processor.number}, as Windows writes it in every dump: not an exception that the guest had`,
  };
}

const selectionReport = ({ type: _, extents: __, diagnostics: ___, ...rest }: PageSelection) => rest;
