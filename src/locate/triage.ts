/** Windows in a triage dump: what the dump itself lists, held against its memory where that is there. */
import { isKernelAddress } from '../core/bits.ts';
import { because, Reason } from '../core/reason.ts';
import { hex, hex64, va } from '../core/units.ts';
import type { DumpHeader } from '../formats/dump-header.ts';
import { LIVE_SYSTEM_DUMP } from '../formats/win-dump.ts';
import { KDBG_TAG, readDebuggerData } from '../formats/win-kernel.ts';
import type { Machine } from '../machines/machine.ts';
import type { BlockSpace } from '../memory/block-space.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { TriageContents } from '../memory/triage-contents.ts';
import { triageSpace } from '../readers/triage.ts';
import type { Crash } from '../windows/crash.ts';
import { Evidence } from '../windows/evidence.ts';
import type { DebuggerFields, Kdbg } from '../windows/kdbg.ts';
import type { KernelImage } from '../windows/kernel-image.ts';
import type { Module } from '../windows/modules.ts';
import { exportName, pdbIdentity, readPeImage } from '../windows/pe-image.ts';
import { listedProcessors, type Processor, readDumpedCpus } from '../windows/processors.ts';
import { readSharedUserData, type SharedData } from '../windows/shared-user-data.ts';
import { ntVersionOf, readLab } from '../windows/version.ts';
import type { Windows } from '../windows/windows.ts';
import { failure } from './failures.ts';
import { KDBG_STEP } from './kdbg.ts';

/** Throws `Elf2dmpError` where the dump has no KDBG, or lists no kernel. */
export function locateInTriage(image: MemoryImage, contents: TriageContents, header: DumpHeader): Windows {
  const evidence = new Evidence();
  const { diagnostics } = image;
  const space = triageSpace(image, contents, header.DirectoryTableBase);
  const kdbg = kdbgOf(contents, header, image.machine);
  if (kdbg instanceof Reason) {
    evidence.reject(KDBG_STEP, "the dump's debugger data", kdbg.text);
    throw failure(image, evidence, KDBG_STEP, {
      code: 'kdbg-not-found',
      message: `the triage dump has no debugger data block (KDBG): ${kdbg}`,
    });
  }
  evidence.accept(
    KDBG_STEP,
    "the dump's debugger data",
    `${hex(kdbg.size)} bytes, at ${hex64(kdbg.address)} in memory`,
  );
  const modules = contents.modules.map(moduleOfList);
  const kernel = kernelOf(space, kdbg.fields, modules);
  if (!kernel) {
    throw failure(image, evidence, 'kernel', {
      code: 'kernel-not-found',
      message: `the triage dump lists no module at ${hex64(kdbg.fields.KernBase ?? 0n)}, where its KDBG has the kernel`,
    });
  }
  evidence.accept('kernel', "the dump's list of modules", `${hex(kernel.size)} bytes at ${hex64(kernel.base)}`);
  const processors = listedProcessors(space, kdbg.fields, header.NumberProcessors);
  readDumpedCpus(space, processors);
  if (processors.length < header.NumberProcessors) {
    diagnostics.add(
      'loss',
      'no-processors',
      `the triage dump has the PRCBs of ${processors.length} of ${header.NumberProcessors} processors`,
    );
  }
  return {
    image,
    space,
    root: space.root,
    headerRoot: space.root,
    kernel,
    kdbg,
    version: {
      build: header.MinorVersion,
      majorVersion: header.MajorVersion & 0xff,
      kdSecondaryVersion: header.KdSecondaryVersion,
      lab: readLab(space, kdbg.fields.NtBuildLab),
      kdVersionBlock: undefined,
    },
    shared: sharedOf(space, header),
    crash: crashOf(
      header,
      kdbg.fields,
      processors.find(({ number }) => number === contents.current),
    ),
    processors,
    damagedProcessors: [],
    strayCpus: [],
    modules,
    physicalMemory: because('a triage dump has no physical memory'),
    diagnostics,
    evidence: evidence.attempts,
  };
}

function kdbgOf(
  { kdbg: block }: TriageContents,
  { KdDebuggerDataBlock: address }: DumpHeader,
  { pointerSize }: Machine,
): Kdbg | Reason {
  const fields = readDebuggerData(block, block.length, pointerSize);
  if (fields.OwnerTag !== KDBG_TAG) return because('its tag is not KDBG');
  if (!isKernelAddress(address))
    return because(`the header has it at ${hex64(address)}, which is not a kernel address`);
  if (fields.Size === undefined || fields.Size > block.length) {
    return because(`it has ${hex(fields.Size ?? 0)} bytes by its own account, and ${hex(block.length)} in the dump`);
  }
  const size = fields.Size;
  return {
    address: va(address),
    size,
    encoded: false,
    block: block.subarray(0, size),
    fields: readDebuggerData(block, size, pointerSize),
  };
}

const moduleOfList = ({ path, base, ...rest }: TriageContents['modules'][number]): Module => ({
  ...rest,
  path,
  name: path.slice(Math.max(path.lastIndexOf('\\'), path.lastIndexOf('/')) + 1),
  base: va(base),
  entry: va(0n),
});

/** Its header is not always there. */
function kernelOf(
  space: BlockSpace,
  { KernBase }: DebuggerFields,
  modules: readonly Module[],
): KernelImage | undefined {
  const module = modules.find(({ base }) => base === KernBase);
  if (!module) return undefined;
  const image = readPeImage(space, module.base, space.image.machine.imageFileMachine);
  if (!(image instanceof Reason)) {
    return { ...image, exportName: exportName(space, image), pdb: pdbIdentity(space, image) };
  }
  const { base, size, checkSum, timeDateStamp } = module;
  return { base, size, checkSum, timeDateStamp, directories: [], exportName: undefined, pdb: undefined };
}

/** Fields that Windows leaves unset read "PAGE". */
const FILL = 0x45474150;

/** SharedUserData, or the header's part of it. */
function sharedOf(space: BlockSpace, header: DumpHeader): SharedData {
  const shared = space.read(space.image.machine.sharedUserData, 8) ? readSharedUserData(space) : undefined;
  if (shared && !(shared instanceof Reason)) return shared;
  const { ProductType, SuiteMask, SystemTime, SystemUpTime } = header;
  const { major, minor } = ntVersionOf(header.MinorVersion);
  return {
    unset: undefined,
    ntMajorVersion: major,
    ntMinorVersion: minor,
    ntBuildNumber: header.MinorVersion,
    productType: ProductType <= 3 ? ProductType : 0,
    suiteMask: SuiteMask === FILL ? 0 : SuiteMask,
    systemTime: SystemTime,
    interruptTime: SystemUpTime,
    systemRoot: '',
    physicalPages: 0,
    activeProcessors: 0,
    bootId: header.BootId === FILL ? 0 : header.BootId,
  };
}

function crashOf(header: DumpHeader, fields: DebuggerFields, processor: Processor | undefined): Crash | undefined {
  const { BugCheckCode: code, BugCheckParameters: list } = header;
  if (code === LIVE_SYSTEM_DUMP || code === 0) return undefined;
  const parameters = [list[0] ?? 0n, list[1] ?? 0n, list[2] ?? 0n, list[3] ?? 0n] as const;
  return {
    bugCheck: { code, parameters, address: va(fields.KiBugCheckData ?? 0n) },
    processor,
    how: processor ? 'input' : 'unknown',
    captured: new Map(),
  };
}
