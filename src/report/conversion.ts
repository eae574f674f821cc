/** What a conversion found and did, as plain data: `--json` prints it. Addresses are hex strings. */
import type { Diagnostic } from '../core/errors.ts';
import { hex, hex64, PAGE_SIZE, pfnOf } from '../core/units.ts';
import { type Patch, sha256 } from '../plan/patches.ts';
import { STATUS_BREAKPOINT } from '../formats/win-dump.ts';
import type { Attempt } from '../windows/evidence.ts';
import type { Windows } from '../locate/locator.ts';
import { moduleOf } from '../windows/modules.ts';
import type { MemoryImage } from '../memory/image.ts';
import { bugCheckName } from '../windows/bug-checks.ts';
import type { Conversion, ShownContext } from '../operations/convert.ts';
import type { PageSelection } from '../plan/select-pages.ts';
import type { VerificationReport } from '../verify/verify-dump.ts';

export interface InputReport {
  path: string;
  format: string;
  machine: string;
  cpus: number;
  /** Physically contiguous ranges in the input, and their bytes. */
  runs: number;
  memoryBytes: number;
}

export interface ProcessorReport {
  number: number;
  /** Index of the CPU in the input that runs it; null if none does. */
  cpu: number | null;
  kpcr: string;
  prcb: string;
  mode: 'kernel' | 'user' | null;
  rip: string | null;
  rsp: string | null;
  cr3: string | null;
  /** Module that RIP lies in. */
  module: string | null;
  /** Whose registers the dump shows: the CPU's, those that Windows captured at the bug check, or none. */
  shown: 'cpu' | 'captured' | 'unknown';
  /** In a crashed guest: the frame that Windows captured, and why it is not trusted (null if it is). */
  captured: { rip: string; rsp: string; atBugCheck: boolean; doubt: string | null } | null;
}

export interface WindowsReport {
  build: number;
  checked: boolean;
  buildLab: string | null;
  ntVersion: string;
  productType: 'workstation' | 'domain controller' | 'server' | null;
  systemRoot: string;
  directoryTableBase: string;
  pagingMode: string;
  kernelBase: string;
  kernelSize: number;
  kernelPdb: { name: string; guid: string; age: number } | null;
  kdbg: { address: string; size: number; encoded: boolean };
  /** ISO 8601, UTC. */
  systemTime: string | null;
  uptimeSeconds: number | null;
  /** null in a guest that did not crash. */
  bugCheck: {
    code: string;
    name: string | null;
    parameters: string[];
    /** The processor that crashed, null if nothing tells; and how it was told. */
    processor: number | null;
    processorFrom: 'input' | 'captured-frame' | 'stack' | 'only-processor' | 'unknown';
  } | null;
  modules: number;
}

export interface PatchReport {
  what: string;
  virtual: string;
  physical: string;
  length: number;
  originalSha256: string;
}

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

export function reportInput(image: MemoryImage): InputReport {
  return {
    path: image.file,
    format: image.format,
    machine: image.machine.name,
    cpus: image.cpus.length,
    runs: image.runs.length,
    memoryBytes: image.size,
  };
}

const PRODUCT_TYPES = [null, 'workstation', 'domain controller', 'server'] as const;
/** 100 ns units between 1601 and 1970. */
const UNIX_EPOCH = 116_444_736_000_000_000n;

/** ISO 8601 of a FILETIME; null where it is zero, unknown or beyond what a date can say. */
export function filetimeToIso(filetime: bigint | undefined): string | null {
  if (!filetime) return null;
  const date = new Date(Number((filetime - UNIX_EPOCH) / 10_000n));
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}

export function reportWindows(w: Windows): WindowsReport {
  return {
    build: w.version.build,
    checked: w.version.majorVersion === 0xc,
    buildLab: w.version.lab ?? null,
    ntVersion: `${w.shared.ntMajorVersion}.${w.shared.ntMinorVersion}`,
    productType: PRODUCT_TYPES[w.shared.productType] ?? null,
    systemRoot: w.shared.systemRoot,
    directoryTableBase: hex(w.root),
    pagingMode: w.space.mode.name,
    kernelBase: hex64(w.kernel.base),
    kernelSize: w.kernel.size,
    kernelPdb: w.kernel.pdb ?? null,
    kdbg: { address: hex64(w.kdbg.address), size: w.kdbg.size, encoded: w.kdbg.encoded },
    systemTime: filetimeToIso(w.shared.systemTime),
    uptimeSeconds: w.shared.interruptTime === undefined ? null : Number(w.shared.interruptTime / 10_000n) / 1000,
    bugCheck: w.bugCheck
      ? {
          code: hex(w.bugCheck.code),
          name: bugCheckName(w.bugCheck.code),
          parameters: w.bugCheck.parameters.map(hex64),
          processor: w.crash?.processor?.number ?? null,
          processorFrom: w.crash?.how ?? 'unknown',
        }
      : null,
    modules: w.modules.length,
  };
}

export function reportProcessors(w: Windows, shown: readonly ShownContext[]): ProcessorReport[] {
  const { machine } = w.image;
  return w.processors.map((p) => {
    const r = p.cpu?.registers;
    const rip = r && machine.instructionPointer(r);
    const captured = w.crash?.captured.get(p);
    return {
      number: p.number,
      cpu: p.cpu?.index ?? null,
      kpcr: hex64(p.kpcr),
      prcb: hex64(p.prcb),
      mode: r ? (machine.isUserMode(r) ? 'user' : 'kernel') : null,
      rip: rip === undefined ? null : hex64(rip),
      rsp: r ? hex64(machine.stackPointer(r)) : null,
      cr3: r?.control ? hex(r.control.cr3) : null,
      module: rip === undefined ? null : (moduleOf(w.modules, rip)?.name ?? null),
      shown: shown.find((s) => s.processor === p)?.source ?? 'unknown',
      captured: captured
        ? {
            rip: hex64(captured.view.instructionPointer),
            rsp: hex64(captured.view.stackPointer),
            atBugCheck: captured.atBugCheck,
            doubt: captured.doubt ?? null,
          }
        : null,
    };
  });
}

export function reportPatch(patch: Patch): PatchReport {
  return {
    what: patch.what,
    virtual: hex64(patch.virtual),
    physical: hex(patch.physical),
    length: patch.bytes.length,
    originalSha256: sha256(patch.original),
  };
}

/** A kernel dump of a large guest has runs by the hundred thousand. */
const MAX_REPORTED_RUNS = 4096;

export function reportDump(
  path: string,
  { plan, header, exceptionAddress, sharesInput, journal, selection, zeroPagesDropped, compression }: Conversion,
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
    headerProcessor: header?.processor.number ?? null,
    exception: header
      ? {
          code: hex(STATUS_BREAKPOINT),
          address: hex64(exceptionAddress),
          from: `a breakpoint at the ${header.source === 'captured' ? 'captured' : "CPU's"} rip of processor ${header.processor.number}, as Windows writes it in every dump: not an exception that the guest had`,
        }
      : null,
    patches: plan.patches.map(reportPatch),
  };
}

const selectionReport = ({ type: _, extents: __, ...rest }: PageSelection) => rest;
