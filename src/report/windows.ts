import { isKernelAddress } from '../core/bits.ts';
import { Reason } from '../core/reason.ts';
import { hex, hex64 } from '../core/units.ts';
import type { Machine, Registers } from '../machines/machine.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { ContextSource, Contexts, ShownContext } from '../plan/contexts.ts';
import { type PdbIdentity, symbolPath } from '../symbols/identity.ts';
import { bugCheckName, parameterMeanings } from '../windows/bug-checks.ts';
import { type Module, moduleOf } from '../windows/modules.ts';
import {
  type ExportTable,
  nearestExport,
  type PeImage,
  pdbIdentity,
  readExports,
  readPeImage,
} from '../windows/pe-image.ts';
import { readProcesses } from '../windows/processes.ts';
import { releaseName, suiteNames } from '../windows/releases.ts';
import { readUnloadedModules } from '../windows/unloaded-modules.ts';
import { readFileVersion } from '../windows/version-resource.ts';
import type { Windows } from '../windows/windows.ts';

export interface WindowsInfo {
  /** `Windows 10 22H2`; null for a build that elf2dmp does not know. */
  name: string | null;
  build: number;
  checked: boolean;
  buildLab: string | null;
  ntVersion: string;
  productType: 'workstation' | 'domain controller' | 'server' | null;
  suiteMask: string;
  suites: string[];
  systemRoot: string;
  /** ISO 8601, UTC. */
  systemTime: string | null;
  uptimeSeconds: number | null;
  directoryTableBase: string;
  pagingMode: string;
  kernel: { base: string; size: number; pdb: PdbInfo | null };
  kdbg: { address: string; size: number; encoded: boolean };
  /** null in a guest that did not crash. */
  bugCheck: (BugCheckInfo & { processor: number | null }) | null;
  processors: ProcessorInfo[];
  modules: ModuleInfo[];
  /** The last one unloaded first. */
  unloadedModules: { name: string; from: string; to: string; time: string | null }[];
  processes: ProcessInfo[];
  /** What Windows counts as RAM; null where that is not known. */
  ram: { start: string; size: number }[] | null;
  /** What could not be told, and why. */
  doubts: string[];
}
export interface BugCheckInfo {
  code: string;
  name: string | null;
  parameters: { value: string; meaning: string | null }[];
}
export type CpuMode = 'kernel' | 'user' | 'user, 32-bit code';
export interface CodePlace {
  module: string;
  /** From the module's base. */
  offset: string;
  /** The nearest export at or below; null where the module has none, or they are not present. */
  nearestExport: { name: string; offset: string } | null;
}
export interface ProcessorInfo {
  number: number;
  kpcr: string;
  prcb: string;
  /** Whose registers these are: a CPU's, those that Windows captured at the bug check, those that a crash dump holds; or none are known. */
  registers: ContextSource;
  mode: CpuMode | null;
  rip: string | null;
  rsp: string | null;
  cr3: string | null;
  /** null where RIP lies in no module. */
  at: CodePlace | null;
}
export interface PdbInfo extends PdbIdentity {
  /** Below the root of a symbol server. */
  symbolPath: string;
}
export interface ModuleInfo {
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
  pdb: PdbInfo | null;
}
export interface ProcessInfo {
  /** null, here and below: not determined, or not present. */
  address: string | null;
  pid: number | null;
  parentPid: number | null;
  name: string | null;
  directoryTableBase: string | null;
  peb: string | null;
}

/** What `info` reports of a Windows whose processors show `contexts`. */
export function describeWindows(w: Windows, contexts: Contexts): WindowsInfo {
  const { build, checked, buildLab, ntVersion, productType, systemRoot, ...found } = reportWindows(w);
  const { space, kdbg } = w;
  const doubts: string[] = [];
  const images = new Images(space);
  const unloaded = readUnloadedModules(space, kdbg.fields);
  if (unloaded instanceof Reason) doubts.push(`unloaded modules: ${unloaded}`);
  const processes = readProcesses(space, kdbg.fields, w.processors);
  if (processes instanceof Reason) doubts.push(`processes: ${processes}`);
  else
    doubts.push(
      ...[...(processes.broken ? [processes.broken] : []), ...processes.doubts].map((doubt) => `processes: ${doubt}`),
    );
  if (w.physicalMemory instanceof Reason) doubts.push(`RAM: ${w.physicalMemory}`);
  return {
    name: releaseName(build, w.shared.productType),
    build,
    checked,
    buildLab,
    ntVersion,
    productType,
    suiteMask: hex(w.shared.suiteMask),
    suites: suiteNames(w.shared.suiteMask),
    systemRoot,
    systemTime: found.systemTime,
    uptimeSeconds: found.uptimeSeconds,
    directoryTableBase: hex(w.headerRoot),
    pagingMode: found.pagingMode,
    kernel: { base: found.kernelBase, size: found.kernelSize, pdb: describePdb(w.kernel.pdb) },
    kdbg: found.kdbg,
    bugCheck: w.crash
      ? {
          ...describeBugCheck(w.crash.bugCheck.code, w.crash.bugCheck.parameters),
          processor: w.crash.processor?.number ?? null,
        }
      : null,
    processors: contexts.shown.map((context) => describeProcessor(w, context, images)),
    modules: w.modules.map((m) => describeModule(space, m, images.at(m.base))),
    unloadedModules:
      unloaded instanceof Reason
        ? []
        : unloaded.map(({ name, from, to, time }) => ({
            name,
            from: hex64(from),
            to: hex64(to),
            time: filetimeToIso(time),
          })),
    processes:
      processes instanceof Reason
        ? []
        : processes.processes.map((p) => ({
            address: p.address === undefined ? null : hex64(p.address),
            pid: p.pid ?? null,
            parentPid: p.parentPid ?? null,
            name: p.name ?? null,
            directoryTableBase: p.directoryTableBase === undefined ? null : hex(p.directoryTableBase),
            peb: p.peb === undefined ? null : hex64(p.peb),
          })),
    ram:
      w.physicalMemory instanceof Reason
        ? null
        : w.physicalMemory.map(({ start, size }) => ({ start: hex(start), size })),
    doubts,
  };
}
export function describeBugCheck(code: number, parameters: readonly bigint[]): BugCheckInfo {
  const meanings = parameterMeanings(code, parameters);
  return {
    code: hex(code),
    name: bugCheckName(code),
    parameters: parameters.map((value, i) => ({ value: hex64(value), meaning: meanings[i] ?? null })),
  };
}

/** Image headers and export tables of modules, each read once. */
export class Images {
  readonly #space: AddressSpace;
  readonly #images = new Map<bigint, PeImage | undefined>();
  readonly #exports = new Map<PeImage, ExportTable | undefined>();
  #count = 0;

  constructor(space: AddressSpace) {
    this.#space = space;
  }

  at(base: bigint): PeImage | undefined {
    if (!this.#images.has(base)) {
      const image = readPeImage(this.#space, base, this.#space.image.machine.imageFileMachine);
      this.#images.set(base, image instanceof Reason ? undefined : image);
    }
    return this.#images.get(base);
  }

  exports(image: PeImage): ExportTable | undefined {
    if (!this.#exports.has(image)) {
      const table = this.#count < MAX_EXPORTS ? readExports(this.#space, image) : undefined;
      this.#count += table?.entries.length ?? 0;
      this.#exports.set(image, table);
    }
    return this.#exports.get(image);
  }
}

/** Exports of all modules together whose names are looked at; a kernel has some 3,000. */
export const MAX_EXPORTS = 1 << 18;
export function describeProcessor(w: Windows, shown: ShownContext, images: Images): ProcessorInfo {
  const { machine } = w.image;
  const { processor } = shown;
  const registers = processor.cpu?.registers;
  const known = shown.source !== 'unknown';
  const view = machine.viewContext(shown.frame);
  const rip = view.instructionPointer;
  let mode: CpuMode | null = null;
  if (shown.source === 'captured') mode = isKernelAddress(rip) ? 'kernel' : 'user';
  else if (registers) mode = modeOf(w.image, registers);
  else if (known) mode = isKernelAddress(rip) ? 'kernel' : 'user';
  return {
    number: processor.number,
    kpcr: hex64(processor.kpcr),
    prcb: hex64(processor.prcb),
    registers: shown.source,
    mode,
    rip: known ? hex64(rip) : null,
    rsp: known ? hex64(view.stackPointer) : null,
    cr3: rootRegister(machine, registers),
    at: known ? placeOf(w, rip, images) : null,
  };
}
/** The register with the page-table root; null where it is not known. */
function rootRegister(machine: Machine, registers: Registers | undefined): string | null {
  const value = registers && machine.rootRegister(registers);
  return value === undefined ? null : hex(value);
}
export function placeOf({ space, modules }: Windows, address: bigint, images: Images): CodePlace | null {
  const module = moduleOf(modules, address);
  if (!module) return null;
  const image = images.at(module.base);
  const table = image && images.exports(image);
  const nearest = table && nearestExport(space, table, address);
  return {
    module: module.name,
    offset: hex(address - module.base),
    nearestExport: nearest ? { name: nearest.name, offset: hex(nearest.offset) } : null,
  };
}
export function describeModule(space: AddressSpace, module: Module, image: PeImage | undefined): ModuleInfo {
  const version = image && readFileVersion(space, image);
  return {
    name: module.name,
    path: module.path,
    base: hex64(module.base),
    size: module.size,
    timeDateStamp: image ? hex(image.timeDateStamp) : null,
    checkSum: image ? hex(image.checkSum) : null,
    fileVersion: version?.file ?? null,
    productVersion: version?.product ?? null,
    pdb: describePdb(image && pdbIdentity(space, image)),
  };
}

/** Symbol servers file a PDB under its name, without the path of the machine that it was built on. */
export function describePdb(pdb: PdbIdentity | undefined): PdbInfo | null {
  if (!pdb) return null;
  return { ...pdb, symbolPath: symbolPath(pdb) };
}
export function modeOf({ machine }: MemoryImage, registers: Registers): CpuMode {
  if (!machine.isUserMode(registers)) return 'kernel';
  return machine.runsNativeCode(registers) ? 'user' : 'user, 32-bit code';
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
  shown: ContextSource;
  /** In a crashed guest: the frame that Windows captured, and why it is not trusted (null if it is). */
  captured: { rip: string; rsp: string; atBugCheck: boolean; doubt: string | null } | null;
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
    uptimeSeconds: w.shared.interruptTime === undefined ? null : Number(w.shared.interruptTime / 10000n) / 1000,
    bugCheck: w.crash
      ? {
          code: hex(w.crash.bugCheck.code),
          name: bugCheckName(w.crash.bugCheck.code),
          parameters: w.crash.bugCheck.parameters.map(hex64),
          processor: w.crash.processor?.number ?? null,
          processorFrom: w.crash.how,
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
    const mode = r && (machine.isUserMode(r) ? 'user' : 'kernel');
    return {
      number: p.number,
      cpu: p.cpu?.index ?? null,
      kpcr: hex64(p.kpcr),
      prcb: hex64(p.prcb),
      mode: mode ?? null,
      rip: rip === undefined ? null : hex64(rip),
      rsp: r ? hex64(machine.stackPointer(r)) : null,
      cr3: rootRegister(machine, r),
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
export const PRODUCT_TYPES = [null, 'workstation', 'domain controller', 'server'] as const;

/** 100 ns units between 1601 and 1970. */
export const UNIX_EPOCH = 116444736000000000n;

/** ISO 8601 of a FILETIME; null where it is zero, unknown or beyond what a date can say. */
export function filetimeToIso(filetime: bigint | undefined): string | null {
  if (!filetime) return null;
  const date = new Date(Number((filetime - UNIX_EPOCH) / 10000n));
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}
