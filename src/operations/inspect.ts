/** What an input is and what runs in it, as plain data (schema/info.schema.json). Addresses are hex strings. */
import { isKernelAddress } from '../core/bits.ts';
import { type Diagnostic, Elf2dmpError, type ErrorKind } from '../core/errors.ts';
import { hex, hex64 } from '../core/units.ts';
import { IMAGE_FILE_MACHINE_AMD64 } from '../formats/pe.ts';
import { type LocateOptions, locateWindows, type Windows } from '../locate/locator.ts';
import { type Module, moduleOf } from '../windows/modules.ts';
import {
  type ExportTable,
  nearestExport,
  type PdbIdentity,
  type PeImage,
  pdbIdentity,
  readExports,
  readPeImage,
} from '../windows/pe-image.ts';
import { readProcesses } from '../windows/processes.ts';
import type { Processor } from '../windows/processors.ts';
import { readUnloadedModules } from '../windows/unloaded-modules.ts';
import { readFileVersion } from '../windows/version-resource.ts';
import type { Registers } from '../machines/machine.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { MemoryImage } from '../memory/image.ts';
import { type OpenOptions, openInput } from '../readers/input.ts';
import { openDumpHeader } from '../readers/registry.ts';
import { TOOL } from '../version.ts';
import { bugCheckName, parameterMeanings } from '../windows/bug-checks.ts';
import { chooseContext } from './convert.ts';
import { describePage, type PageData } from '../report/page.ts';
import { releaseName, suiteNames } from '../windows/releases.ts';
import { filetimeToIso, reportInput, reportWindows } from '../report/conversion.ts';

export interface InspectOptions extends LocateOptions, OpenOptions {
  /** A file, a compressed file, a pipe, or `-` for standard input. */
  input: string;
  /** Called with what a report for people shows. */
  onPage?: ((page: PageData) => void) | undefined;
}

export interface BugCheckInfo {
  code: string;
  name: string | null;
  parameters: { value: string; meaning: string | null }[];
}

export type CpuMode = 'kernel' | 'user' | 'user, 32-bit code';

/** A CPU as the input describes it, whatever runs on it. */
export interface CpuInfo {
  index: number;
  /** null: the input has the CPU, but its state can't be read. */
  rip: string | null;
  cr3: string | null;
  mode: CpuMode | 'never started' | null;
}

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
  registers: 'cpu' | 'captured' | 'dump' | 'unknown';
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
  problem: { code: string; kind: ErrorKind; message: string; hint: string | null } | null;
  diagnostics: readonly Diagnostic[];
}

/** Looks at a dump of any kind that is read, crash dumps too. Throws `Elf2dmpError` where the input can't be opened. */
export async function inspect(options: InspectOptions): Promise<InfoReport> {
  const report = (found: Pick<InfoReport, 'input'> & Partial<InfoReport>): InfoReport => ({
    schema: 'elf2dmp-info-1',
    tool: TOOL,
    windows: null,
    problem: null,
    diagnostics: [],
    ...found,
  });
  let image: MemoryImage;
  try {
    image = await openInput(options.input, { ...options, crashDumps: true });
  } catch (error) {
    // Of a dump whose memory is not read, the header is worth telling.
    if (!(error instanceof Elf2dmpError) || (error.code !== 'dmp-type' && error.code !== 'dmp-machine')) throw error;
    const input = describeHeaderOnly(options.input);
    if (!input) throw error;
    return report({ input, problem: asProblem(error) });
  }
  try {
    const windows = await locateWindows(image, options);
    if (options.onPage) options.onPage({ ...(await describePage(windows)), conversion: undefined });
    return report({
      input: describeInput(windows.image),
      windows: describeWindows(windows),
      diagnostics: windows.image.diagnostics.list,
    });
  } catch (error) {
    if (!(error instanceof Elf2dmpError) || (error.kind !== 'unsupported' && error.kind !== 'corrupt')) throw error;
    const found = { input: describeInput(image), problem: asProblem(error), diagnostics: image.diagnostics.list };
    options.onPage?.({ ...found, ...NOTHING_FOUND });
    return report(found);
  } finally {
    image.close();
  }
}

const NOTHING_FOUND = { windows: null, evidence: [], stacks: [], memory: undefined, conversion: undefined } as const;

const asProblem = ({ details: { code, kind, message, hint } }: Elf2dmpError): InfoReport['problem'] => ({
  code,
  kind,
  message,
  hint: hint ?? null,
});

/** undefined for what is compressed or can be read once only. */
function describeHeaderOnly(path: string): InfoReport['input'] | undefined {
  let header: DumpHeader;
  try {
    header = openDumpHeader(path);
  } catch {
    return undefined;
  }
  return {
    path,
    format: 'windows-dump',
    machine: header.MachineImageType === IMAGE_FILE_MACHINE_AMD64 ? 'x64' : hex(header.MachineImageType),
    memoryBytes: 0,
    runs: [],
    cpus: [],
    dumpHeader: describeHeader(header),
  };
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
      cr3: r?.control ? hex(r.control.cr3) : null,
      mode: r ? (neverStarted(image, r) ? 'never started' : modeOf(image, r)) : null,
    })),
    dumpHeader: header ? describeHeader(header) : null,
  };
}

function describeHeader(header: DumpHeader): InfoReport['input']['dumpHeader'] {
  return {
    dumpType: header.DumpType,
    build: header.MinorVersion,
    processors: header.NumberProcessors,
    systemTime: filetimeToIso(header.SystemTime),
    uptimeSeconds: Number(header.SystemUpTime / 10_000n) / 1000,
    bugCheck: describeBugCheck(header.BugCheckCode, header.BugCheckParameters),
    comment: headerText(header.Comment),
  };
}

type DumpHeader = NonNullable<MemoryImage['dumpHeader']>;

/** Windows fills what it does not use with "PAGE". */
function headerText(field: Buffer): string | null {
  const text = field.toString('latin1').replace(/\0.*$/s, '');
  return text === '' || text.startsWith('PAGEPAGE') ? null : text;
}

function describeBugCheck(code: number, parameters: readonly bigint[]): BugCheckInfo {
  const meanings = parameterMeanings(code);
  return {
    code: hex(code),
    name: bugCheckName(code),
    parameters: parameters.map((value, i) => ({ value: hex64(value), meaning: meanings[i] ?? null })),
  };
}

const neverStarted = ({ machine }: MemoryImage, registers: Registers): boolean =>
  machine.knowsControl(registers) && !machine.pageTables(registers);

function modeOf({ machine }: MemoryImage, registers: Registers): CpuMode {
  if (!machine.isUserMode(registers)) return 'kernel';
  return machine.runsNativeCode(registers) ? 'user' : 'user, 32-bit code';
}

/** What `info` tells of a Windows. */
export function describeWindows(w: Windows): WindowsInfo {
  const { build, checked, buildLab, ntVersion, productType, systemRoot, ...found } = reportWindows(w);
  const { space, kdbg } = w;
  const doubts: string[] = [];
  const images = new Images(space);
  const unloaded = readUnloadedModules(space, kdbg.fields);
  if (typeof unloaded === 'string') doubts.push(`unloaded modules: ${unloaded}`);
  const processes = readProcesses(space, kdbg.fields, w.processors);
  if (typeof processes === 'string') doubts.push(`processes: ${processes}`);
  else
    doubts.push(
      ...[...(processes.broken ? [processes.broken] : []), ...processes.doubts].map((doubt) => `processes: ${doubt}`),
    );
  if (typeof w.physicalMemory === 'string') doubts.push(`RAM: ${w.physicalMemory}`);
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
    bugCheck: w.bugCheck
      ? {
          ...describeBugCheck(w.bugCheck.code, w.bugCheck.parameters),
          processor: w.crash?.processor?.number ?? null,
        }
      : null,
    processors: w.processors.map((p) => describeProcessor(w, p, images)),
    modules: w.modules.map((m) => describeModule(space, m, images.at(m.base))),
    unloadedModules:
      typeof unloaded === 'string'
        ? []
        : unloaded.map(({ name, from, to, time }) => ({
            name,
            from: hex64(from),
            to: hex64(to),
            time: filetimeToIso(time),
          })),
    processes:
      typeof processes === 'string'
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
      typeof w.physicalMemory === 'string'
        ? null
        : w.physicalMemory.map(({ start, size }) => ({ start: hex(start), size })),
    doubts,
  };
}

/** Exports of all modules together whose names are looked at; a kernel has some 3,000. */
const MAX_EXPORTS = 1 << 18;

/** Image headers and export tables of modules, each read once. */
class Images {
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
      this.#images.set(base, typeof image === 'string' ? undefined : image);
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

function describeProcessor(w: Windows, processor: Processor, images: Images): ProcessorInfo {
  const { machine, dumpHeader } = w.image;
  const registers = processor.cpu?.registers;
  const shown = chooseContext(w, processor, 'auto');
  const known = shown.source !== 'unknown';
  const view = machine.viewContext(shown.frame);
  const rip = view.instructionPointer;
  let mode: CpuMode | null = null;
  if (shown.source === 'captured') mode = isKernelAddress(rip) ? 'kernel' : 'user';
  else if (registers) mode = modeOf(w.image, registers);
  return {
    number: processor.number,
    kpcr: hex64(processor.kpcr),
    prcb: hex64(processor.prcb),
    registers: known && dumpHeader ? 'dump' : shown.source,
    mode,
    rip: known ? hex64(rip) : null,
    rsp: known ? hex64(view.stackPointer) : null,
    cr3: registers?.control ? hex(registers.control.cr3) : null,
    at: known ? placeOf(w, rip, images) : null,
  };
}

function placeOf({ space, modules }: Windows, address: bigint, images: Images): CodePlace | null {
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

function describeModule(space: AddressSpace, module: Module, image: PeImage | undefined): ModuleInfo {
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
function describePdb(pdb: PdbIdentity | undefined): PdbInfo | null {
  if (!pdb) return null;
  const name = pdb.name.replace(/^.*[\\/]/s, '');
  return { ...pdb, symbolPath: `${name}/${pdb.guid}${pdb.age.toString(16)}/${name}` };
}
