/** A found Windows as plain data: one description for every report. Addresses are hex strings, null is "not known". */
import { Reason } from '../core/reason.ts';
import { hex, hex64, va } from '../core/units.ts';
import type { Contexts } from '../plan/contexts.ts';
import { type PdbIdentity, symbolPath } from '../symbols/identity.ts';
import type { Symbols } from '../symbols/symbols.ts';
import { bugCheckName, describeParameters } from '../windows/bug-checks.ts';
import type { Crash } from '../windows/crash.ts';
import { findFault } from '../windows/fault.ts';
import type { Module } from '../windows/modules.ts';
import { pdbIdentity } from '../windows/pe-image.ts';
import { readProcesses } from '../windows/processes.ts';
import { ntVersionOf, releaseName, suiteNames } from '../windows/releases.ts';
import { readUnloadedModules } from '../windows/unloaded-modules.ts';
import { readFileVersion } from '../windows/version-resource.ts';
import type { Windows } from '../windows/windows.ts';
import { type HangReport, reportActivity } from './activity.ts';
import { type CulpritReport, judge, type SignaturesReport } from './culprit.ts';
import { type FaultReport, reportFault } from './fault.ts';
import { type InterruptsReport, reportInterrupts } from './interrupts.ts';
import { type AddressPlace, Places } from './places.ts';
import { Images, type ProcessorReport, reportProcessors } from './processors.ts';

/** What identifies a guest; a line of a batch's report has these. */
export interface WindowsSummary {
  /** `Windows 10 22H2`; null for a build that elf2dmp does not know. */
  name: string | null;
  build: number;
  buildLab: string | null;
  productType: 'workstation' | 'domain controller' | 'server' | null;
  /** ISO 8601, UTC: when the dump was taken, by the guest's clock. */
  systemTime: string | null;
  uptimeSeconds: number | null;
  /** null in a guest that did not crash. */
  bugCheck: CrashReport | null;
  /** Which driver probably caused the crash, by rules; null where they say nothing. */
  culprit: CulpritReport | null;
  /** What the crash, or in a running guest the work of its processors, is known by. */
  signatures: SignaturesReport;
}

export interface WindowsReport extends WindowsSummary {
  checked: boolean;
  ntVersion: string;
  suiteMask: string;
  suites: string[];
  systemRoot: string;
  /** Physical address of the kernel's page-table root. */
  directoryTableBase: string;
  /** The root that a dump's header names, where it is another: debuggers walk four levels. */
  headerDirectoryTableBase: string | null;
  pagingMode: string;
  kernel: { base: string; size: number; pdb: PdbReport | null };
  kdbg: { address: string; size: number; encoded: boolean };
  /** Where the crash itself keeps the registers of the code at fault; null where it keeps none, or did not crash. */
  fault: FaultReport | null;
  /** Number of the processor that a debugger opens on; null where no registers are known. */
  currentProcessor: number | null;
  processors: ProcessorReport[];
  moduleCount: number;
}

/** What `info` adds. */
export interface WindowsInfo extends WindowsReport {
  modules: ModuleReport[];
  /** The last one unloaded first. */
  unloadedModules: { name: string; from: string; to: string; time: string | null }[];
  processes: ProcessReport[];
  /** What Windows counts as RAM; null where that is not known. */
  ram: { start: string; size: number }[] | null;
  /** Where the processors' interrupt tables lead. */
  interrupts: InterruptsReport[];
  /** What its processors do; null in a guest that crashed. */
  activity: HangReport | null;
  /** What could not be determined, and why. */
  doubts: string[];
}

export interface BugCheckReport {
  code: string;
  name: string | null;
  parameters: ParameterReport[];
}

/** One of a bug check's four parameters. */
export interface ParameterReport {
  value: string;
  /** What it is; null: reserved, unused, or not known. */
  meaning: string | null;
  /** The value in words, where it is one of a few: `write`, `STATUS_ACCESS_VIOLATION`. */
  decoded: string | null;
  /** Where it lies; null where it is not an address, or nothing is known of it. */
  place: AddressPlace | null;
}

export interface CrashReport extends BugCheckReport {
  /** The processor that crashed, null if unknown; and what shows it. */
  processor: number | null;
  processorFrom: Crash['how'];
}

export interface PdbReport extends PdbIdentity {
  /** Below the root of a symbol server. */
  symbolPath: string;
  /** Whether the symbol path has it; null where none was given. */
  found: boolean | null;
}

export interface ModuleReport {
  name: string;
  path: string;
  base: string;
  size: number;
  /** From the image's header; null where that is not present. The time stamp as symbol servers have it. */
  timeDateStamp: string | null;
  checkSum: string | null;
  /** From the image's resources; null where they are not present. */
  fileVersion: string | null;
  productVersion: string | null;
  pdb: PdbReport | null;
}

export interface ProcessReport {
  /** null, here and below: not determined, or not present. */
  address: string | null;
  pid: number | null;
  parentPid: number | null;
  name: string | null;
  directoryTableBase: string | null;
  /** `gone`: swapped out, exited, or Secure System; its root's page has another use. `missing`: not in the input. */
  pageTables: 'present' | 'gone' | 'missing' | null;
  peb: string | null;
}

/** What every report says of a Windows whose processors show `contexts`. */
export function reportWindows(
  w: Windows,
  contexts: Contexts,
  images = new Images(w),
  places = new Places(w, contexts, images),
): WindowsReport {
  const { version, shared, kernel, kdbg } = w;
  const { symbols } = images;
  const fault = findFault(w);
  return {
    name: releaseName(version.build, shared.productType),
    build: version.build,
    checked: version.majorVersion === 0xc,
    buildLab: version.lab ?? null,
    ntVersion:
      (shared.unset === undefined ? undefined : ntVersionOf(version.build)) ??
      `${shared.ntMajorVersion}.${shared.ntMinorVersion}`,
    productType: PRODUCT_TYPES[shared.productType] ?? null,
    suiteMask: hex(shared.suiteMask),
    suites: suiteNames(shared.suiteMask),
    systemRoot: shared.systemRoot,
    systemTime: filetimeToIso(shared.systemTime),
    uptimeSeconds: shared.interruptTime === undefined ? null : Number(shared.interruptTime / 10000n) / 1000,
    directoryTableBase: hex(w.root),
    headerDirectoryTableBase: w.headerRoot === w.root ? null : hex(w.headerRoot),
    pagingMode: w.space.mode.name,
    kernel: { base: hex64(kernel.base), size: kernel.size, pdb: reportPdb(kernel.pdb, images) },
    kdbg: { address: hex64(kdbg.address), size: kdbg.size, encoded: kdbg.encoded },
    bugCheck: reportCrash(w, places),
    ...judge(w, places, { fault, symbols }),
    fault: reportFault(w, fault, symbols),
    currentProcessor: contexts.opened?.processor.number ?? null,
    processors: reportProcessors(w, contexts, images),
    moduleCount: w.modules.length,
  };
}

/** The part of a description that identifies the guest. */
export const summarize = (w: WindowsReport): WindowsSummary => ({
  name: w.name,
  build: w.build,
  buildLab: w.buildLab,
  productType: w.productType,
  systemTime: w.systemTime,
  uptimeSeconds: w.uptimeSeconds,
  bugCheck: w.bugCheck,
  culprit: w.culprit,
  signatures: w.signatures,
});

/** What `info` reports of a Windows whose processors show `contexts`. */
export function describeWindows(w: Windows, contexts: Contexts, symbols?: Symbols): WindowsInfo {
  const { space, kdbg, physicalMemory } = w;
  const images = new Images(w, symbols);
  const places = new Places(w, contexts, images);
  const doubts: string[] = [];
  const unloaded = readUnloadedModules(space, kdbg.fields);
  if (unloaded instanceof Reason) doubts.push(`unloaded modules: ${unloaded}`);
  const processes = readProcesses(space, kdbg.fields, w.processors);
  const processDoubts =
    processes instanceof Reason ? [processes] : [...(processes.broken ? [processes.broken] : []), ...processes.doubts];
  doubts.push(...processDoubts.map((doubt) => `processes: ${doubt}`));
  const { NtBuildLab: lab } = kdbg.fields;
  if (w.version.lab === undefined && lab && space.read(va(lab), 1))
    doubts.push(`build lab: there is none at ${hex64(lab)}`);
  if (physicalMemory instanceof Reason) doubts.push(`RAM: ${physicalMemory}`);
  return {
    ...reportWindows(w, contexts, images, places),
    modules: w.modules.map((m) => reportModule(m, images, w.image.triage ? m : undefined)),
    unloadedModules: unloaded instanceof Reason ? [] : unloaded.map(reportUnloaded),
    processes: processes instanceof Reason ? [] : processes.processes.map(reportProcess),
    ram:
      physicalMemory instanceof Reason ? null : physicalMemory.map(({ start, size }) => ({ start: hex(start), size })),
    interrupts: reportInterrupts(w, places),
    activity: reportActivity(w, contexts, images),
    doubts,
  };
}

/** A bug check with what its parameters mean; and with `places`, where those that are addresses lie. */
export function reportBugCheck(code: number, parameters: readonly bigint[], places?: Places): BugCheckReport {
  const described = describeParameters(code, parameters);
  return {
    code: hex(code),
    name: bugCheckName(code),
    parameters: parameters.map((value, i) => {
      const { what = null, value: decoded = null, address = false } = described[i] ?? {};
      // A reserved parameter may still hold an address: in a kernel module it is hardly anything else.
      const place = address || decoded === null ? (places?.of(value) ?? null) : null;
      return { value: hex64(value), meaning: what, decoded, place: address || place?.in === 'module' ? place : null };
    }),
  };
}

function reportCrash({ crash }: Windows, places: Places): CrashReport | null {
  if (!crash) return null;
  const { bugCheck, processor, how } = crash;
  return {
    ...reportBugCheck(bugCheck.code, bugCheck.parameters, places),
    processor: processor?.number ?? null,
    processorFrom: how,
  };
}

/** @param listed what a triage dump's own list says of a module whose header it lacks */
function reportModule(
  module: Module,
  images: Images,
  listed: Pick<Module, 'timeDateStamp' | 'checkSum'> | undefined,
): ModuleReport {
  const loaded = images.at(module.base);
  const image = loaded?.image ?? listed;
  const version = loaded && readFileVersion(loaded.space, loaded.image);
  return {
    name: module.name,
    path: module.path,
    base: hex64(module.base),
    size: module.size,
    timeDateStamp: image ? hex(image.timeDateStamp) : null,
    checkSum: image ? hex(image.checkSum) : null,
    fileVersion: version?.file ?? null,
    productVersion: version?.product ?? null,
    pdb: reportPdb(loaded && pdbIdentity(loaded.space, loaded.image), images),
  };
}

type Unloaded = Exclude<ReturnType<typeof readUnloadedModules>, Reason>[number];
const reportUnloaded = ({ name, from, to, time }: Unloaded): WindowsInfo['unloadedModules'][number] => ({
  name,
  from: hex64(from),
  to: hex64(to),
  time: filetimeToIso(time),
});

type Process = Exclude<ReturnType<typeof readProcesses>, Reason>['processes'][number];
const reportProcess = (p: Process): ProcessReport => ({
  address: p.address === undefined ? null : hex64(p.address),
  pid: p.pid ?? null,
  parentPid: p.parentPid ?? null,
  name: p.name ?? null,
  directoryTableBase: p.directoryTableBase === undefined ? null : hex(p.directoryTableBase),
  pageTables: p.pageTables ?? null,
  peb: p.peb === undefined ? null : hex64(p.peb),
});

const reportPdb = (pdb: PdbIdentity | undefined, { symbols }: Images): PdbReport | null =>
  pdb ? { ...pdb, symbolPath: symbolPath(pdb), found: symbols ? symbols.has(pdb) : null } : null;

const PRODUCT_TYPES = [null, 'workstation', 'domain controller', 'server'] as const;

/** 100 ns units between 1601 and 1970. */
const UNIX_EPOCH = 116444736000000000n;

/** ISO 8601 of a FILETIME; null where it is zero, unknown or beyond what a date can say. */
export function filetimeToIso(filetime: bigint | undefined): string | null {
  if (!filetime) return null;
  const date = new Date(Number((filetime - UNIX_EPOCH) / 10000n));
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}
