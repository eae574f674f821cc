import type { Diagnostic, ErrorCode, ErrorKind } from '../core/errors.ts';
import { hex, hex64 } from '../core/units.ts';
import type { Registers } from '../machines/machine.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { TOOL } from '../version.ts';
import {
  type BugCheckInfo,
  type CpuMode,
  describeBugCheck,
  filetimeToIso,
  modeOf,
  type WindowsInfo,
} from './windows.ts';

/** A CPU as the input describes it, whatever runs on it. */
export interface CpuInfo {
  index: number;
  /** null: the input has the CPU, but its state can't be read. */
  rip: string | null;
  cr3: string | null;
  mode: CpuMode | 'never started' | null;
}
export interface InfoReport {
  schema: 'elf2dmp-info-1';
  tool: typeof TOOL;
  input: {
    path: string;
    format: string;
    machine: string;
    memoryBytes: number;
    /** Sorted, disjoint. */
    runs: { start: string; size: number }[];
    cpus: CpuInfo[];
    /** What a crash dump's header says; null for other inputs. */
    dumpHeader: {
      dumpType: number;
      build: number;
      processors: number;
      systemTime: string | null;
      uptimeSeconds: number;
      bugCheck: BugCheckInfo;
      comment: string | null;
    } | null;
  };
  /** null where none was found: then `problem` says why. */
  windows: WindowsInfo | null;
  problem: { code: ErrorCode; kind: ErrorKind; message: string; hint: string | null } | null;
  diagnostics: readonly Diagnostic[];
}

export function describeInput(image: MemoryImage): InfoReport['input'] {
  const { path, format, machine, memoryBytes } = reportInput(image);
  const header = image.dumpHeader;
  return {
    path,
    format,
    machine,
    memoryBytes,
    runs: image.runs.map(({ start, size }) => ({ start: hex(start), size })),
    cpus: image.cpus.map(({ index, registers: r }) => ({
      index,
      rip: r ? hex64(image.machine.instructionPointer(r)) : null,
      cr3: hexOrNull(r && image.machine.rootRegister(r)),
      mode: r ? cpuMode(image, r) : null,
    })),
    dumpHeader: header ? describeHeader(header) : null,
  };
}
export function describeHeader(header: DumpHeader): InfoReport['input']['dumpHeader'] {
  return {
    dumpType: header.DumpType,
    build: header.MinorVersion,
    processors: header.NumberProcessors,
    systemTime: filetimeToIso(header.SystemTime),
    uptimeSeconds: Number(header.SystemUpTime / 10000n) / 1000,
    bugCheck: describeBugCheck(header.BugCheckCode, header.BugCheckParameters),
    comment: headerText(header.Comment),
  };
}
export type DumpHeader = NonNullable<MemoryImage['dumpHeader']>;

/** Windows fills what it does not use with "PAGE". */
export function headerText(field: Buffer): string | null {
  const text = field.toString('latin1').replace(/\0.*$/s, '');
  return text === '' || text.startsWith('PAGEPAGE') ? null : text;
}
const cpuMode = (image: MemoryImage, r: Registers) => (neverStarted(image, r) ? 'never started' : modeOf(image, r));
export const neverStarted = ({ machine }: MemoryImage, registers: Registers): boolean =>
  machine.neverStarted(registers);

const hexOrNull = (value: bigint | undefined): string | null => (value === undefined ? null : hex(value));
export interface InputReport {
  path: string;
  format: string;
  machine: string;
  cpus: number;
  /** Physically contiguous ranges in the input, and their bytes. */
  runs: number;
  memoryBytes: number;
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
