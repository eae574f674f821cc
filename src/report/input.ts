/** What an input is, as plain data: one description for every report. */
import type { Diagnostic } from '../core/errors.ts';
import { hex, hex64 } from '../core/units.ts';
import type { CpuState } from '../machines/machine.ts';
import type { HostWitness } from '../memory/host-witness.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { TriageContents } from '../memory/triage-contents.ts';
import type { Contexts } from '../plan/contexts.ts';
import type { Symbols } from '../symbols/symbols.ts';
import type { TOOL } from '../version.ts';
import { guestBuild } from '../windows/host-witness.ts';
import type { Windows } from '../windows/windows.ts';
import type { ErrorReport } from './failure.ts';
import { Places } from './places.ts';
import { type CpuMode, Images, modeOf } from './processors.ts';
import type { SCHEMA } from './schemas.ts';
import { type BugCheckReport, filetimeToIso, reportBugCheck, type WindowsInfo } from './windows.ts';

/** A physical address and bytes. */
export interface RangeReport {
  start: string;
  size: number;
}

/** A CPU as the input describes it, whatever runs on it. null: the input has the CPU, but its state can't be read. */
export interface CpuReport {
  index: number;
  mode: CpuMode | 'never started' | null;
  instructionPointer: string | null;
  stackPointer: string | null;
  /** Physical address; null also where the control registers are unknown or paging is off. */
  pageTableRoot: string | null;
  /** All that the input has, by the debugger's names; null where the state can't be read. */
  registers: Record<string, string> | null;
}

/** What a crash dump's header says. */
export interface DumpHeaderReport {
  dumpType: number;
  build: number;
  processors: number;
  systemTime: string | null;
  uptimeSeconds: number;
  bugCheck: BugCheckReport;
  comment: string | null;
}

export interface InputReport {
  path: string;
  format: string;
  machine: string;
  memoryBytes: number;
  /** Sorted, disjoint; the first 4096 where there are more. */
  runs: RangeReport[];
  runCount: number;
  cpus: CpuReport[];
  /** Of a triage dump: virtual memory in blocks, sorted and disjoint; the first 4096. null for all others. */
  blocks: { count: number; runs: RangeReport[] } | null;
  /** null for inputs that are not crash dumps. */
  dumpHeader: DumpHeaderReport | null;
  /** What the hypervisor recorded besides memory; null where the input has none of it. */
  host: HostReport | null;
}

/** See `HostWitness`. */
export interface HostReport {
  /** QEMU's name of the guest's state. */
  runState: string | null;
  /** The bug check that the guest told it of. */
  bugCheck: BugCheckReport | null;
  /** Modulo 65536, as the guest told it. */
  build: number | null;
}

export interface InfoReport {
  schema: (typeof SCHEMA)['info'];
  tool: typeof TOOL;
  input: InputReport;
  /** null where none was found: then `problem` says why. */
  windows: WindowsInfo | null;
  problem: ErrorReport | null;
  diagnostics: readonly Diagnostic[];
}

/** A kernel dump of a large guest has runs by the hundred thousand. */
const MAX_REPORTED_RUNS = 4096;

/** The first runs of a list, and how many there are. */
export const reportRuns = (runs: readonly { start: number; size: number }[]) => ({
  runs: runs.slice(0, MAX_REPORTED_RUNS).map(({ start, size }): RangeReport => ({ start: hex(start), size })),
  runCount: runs.length,
});

/** @param places where addresses lie in the Windows that was found; without it, parameters of the header have none */
export function reportInput(image: MemoryImage, places?: Places): InputReport {
  return {
    path: image.file,
    format: image.format,
    machine: image.machine.name,
    memoryBytes: image.size,
    ...reportRuns(image.runs),
    cpus: image.cpus.map((cpu) => reportCpu(image, cpu)),
    blocks: image.triage ? reportBlocks(image.triage) : null,
    dumpHeader: image.dumpHeader ? reportHeader(image.dumpHeader, places) : null,
    host: image.host ? reportHost(image.host, places) : null,
  };
}

function reportHost({ runState, crash, guestOsId }: HostWitness, places: Places | undefined): HostReport {
  const [code, ...parameters] = crash ?? [];
  return {
    runState: runState ?? null,
    bugCheck: code === undefined ? null : reportBugCheck(Number(BigInt.asUintN(32, code)), parameters, places),
    build: guestBuild(guestOsId) ?? null,
  };
}

/** The input of a Windows that was found: addresses in its header have places. */
export const reportGuestInput = (windows: Windows, contexts: Contexts, symbols?: Symbols): InputReport =>
  reportInput(windows.image, new Places(windows, contexts, new Images(windows, symbols)));

const reportBlocks = ({ blockCount, runs }: TriageContents): NonNullable<InputReport['blocks']> => ({
  count: blockCount,
  runs: runs.slice(0, MAX_REPORTED_RUNS).map(({ address, size }) => ({ start: hex64(address), size })),
});

function reportCpu(image: MemoryImage, { index, registers }: CpuState): CpuReport {
  if (!registers) {
    return { index, mode: null, instructionPointer: null, stackPointer: null, pageTableRoot: null, registers: null };
  }
  const { machine } = image;
  const tables = machine.pageTables(registers);
  return {
    index,
    mode: machine.neverStarted(registers) ? 'never started' : modeOf(image, registers),
    instructionPointer: hex64(machine.instructionPointer(registers)),
    stackPointer: hex64(machine.stackPointer(registers)),
    pageTableRoot: tables ? hex(tables.root) : null,
    registers: Object.fromEntries(
      machine.namedRegisters(registers).map(({ name, value }) => [name, `0x${value.toString(16)}`]),
    ),
  };
}

export type DumpHeader = NonNullable<MemoryImage['dumpHeader']>;

export function reportHeader(header: DumpHeader, places?: Places): DumpHeaderReport {
  return {
    dumpType: header.DumpType,
    build: header.MinorVersion,
    processors: header.NumberProcessors,
    systemTime: filetimeToIso(header.SystemTime),
    uptimeSeconds: Number(header.SystemUpTime / 10000n) / 1000,
    bugCheck: reportBugCheck(header.BugCheckCode, header.BugCheckParameters, places),
    comment: headerText(header.Comment),
  };
}

/** Windows fills what it does not use with "PAGE". */
function headerText(field: Buffer): string | null {
  const text = field.toString('latin1').replace(/\0.*$/s, '');
  return text === '' || text.startsWith('PAGEPAGE') ? null : text;
}
