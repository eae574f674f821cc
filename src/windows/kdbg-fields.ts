/** Whether memory bears out the fields of the KDBG that reach a dump's header or say where something is written. */
import { isKernelAddress } from '../core/bits.ts';
import type { Diagnostic } from '../core/errors.ts';
import { hex, hex64, PAGE_SIZE, pfnOf, va } from '../core/units.ts';
import { PageLocation } from '../formats/win-kernel.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { DebuggerFields, Kdbg } from './kdbg.ts';
import type { KernelImage } from './kernel-image.ts';
import { findExport } from './pe-image.ts';

type FieldName = keyof DebuggerFields;

/** The kernel's variables whose addresses are used. */
const VARIABLES = [
  'PsLoadedModuleList',
  'PsActiveProcessHead',
  'KiBugCheckData',
  'MmPfnDatabase',
  'KiProcessorBlock',
  'MmPhysicalMemoryBlock',
  'MmUnloadedDrivers',
  'MmLastUnloadedDriver',
  'NtBuildLab',
] as const satisfies readonly FieldName[];

/** Where each is, its low bits are zeros. Text and counts can be anywhere. */
const ALIGNED = new Set<FieldName>([
  'PsLoadedModuleList',
  'PsActiveProcessHead',
  'KiBugCheckData',
  'MmPfnDatabase',
  'KiProcessorBlock',
  'MmPhysicalMemoryBlock',
  'MmUnloadedDrivers',
]);

/** 0 where a kernel does not give it. */
const OPTIONAL = new Set<FieldName>([
  'MmPhysicalMemoryBlock',
  'MmUnloadedDrivers',
  'MmLastUnloadedDriver',
  'NtBuildLab',
]);

/**
 * The KDBG without the fields that memory contradicts: what they lead to is unknown then, which is a loss for each.
 * Its block stays as the guest has it. What is not in the input contradicts nothing.
 */
export function withoutDamagedFields(
  space: AddressSpace,
  kernel: KernelImage,
  kdbg: Kdbg,
): { kdbg: Kdbg; losses: Diagnostic[] } {
  const doubts = new Map<FieldName, string>();
  for (const name of VARIABLES) {
    const doubt = variableDoubt(space, kernel, kdbg.fields, name);
    if (doubt !== undefined) doubts.set(name, doubt);
  }
  for (const [name, doubt] of stateDoubts(space, kdbg.fields)) doubts.set(name, doubt);
  const contained = containedDoubt(space, kdbg.fields);
  if (contained !== undefined) doubts.set('OffsetPcrContainedPrcb', contained);
  if (doubts.size === 0) return { kdbg, losses: [] };
  const kept = Object.entries(kdbg.fields).filter(([name]) => !doubts.has(name as FieldName));
  const losses = [...doubts].map(([name, doubt]): Diagnostic => {
    const value = kdbg.fields[name] ?? 0;
    return {
      severity: 'loss',
      code: 'kdbg-field-damaged',
      message: `${name} in the KDBG is ${typeof value === 'bigint' ? hex64(value) : hex(value)}, but ${doubt}: it was not used`,
      where: { virtual: hex64(kdbg.address) },
    };
  });
  return { kdbg: { ...kdbg, fields: Object.fromEntries(kept) }, losses };
}

/**
 * KDDEBUGGER_DATA64's sizes in public memory forensics profiles and real guests, from a build on. It only ever grew;
 * where it is not known which build was the first with more, both stand.
 */
const SIZES: readonly { from: number; sizes: readonly number[] }[] = [
  { from: 6000, sizes: [0x328, 0x330] },
  { from: 7600, sizes: [0x340] },
  { from: 9200, sizes: [0x360] },
  { from: 10240, sizes: [0x360, 0x368] },
  { from: 14393, sizes: [0x368] },
  { from: 17134, sizes: [0x368, 0x380] },
  { from: 17763, sizes: [0x380] },
  { from: 22001, sizes: [0x380, 0x3a0] },
  { from: 22621, sizes: [0x3a0] },
];

/** Before, they are 0x290 to 0x318. */
const OLDEST_SIZES = [0x290, 0x318] as const;

/** Why a block's size can't be that of a build's, as a clause. */
export function sizeDoubt({ size }: Kdbg, build: number): string | undefined {
  const sizes = SIZES.findLast(({ from }) => build >= from)?.sizes ?? OLDEST_SIZES;
  return sizes.includes(size) ? undefined : `build ${build} has ${sizes.map(hex).join(' or ')} bytes`;
}

/** Why there can't be such a variable, as a clause. */
function variableDoubt(
  space: AddressSpace,
  kernel: KernelImage,
  fields: DebuggerFields,
  name: (typeof VARIABLES)[number],
): string | undefined {
  const address = fields[name];
  if (address === undefined) return undefined;
  if (address === 0n) return OPTIONAL.has(name) ? undefined : 'every kernel has it';
  const { pointerSize } = space.image.machine;
  if (address < kernel.base || address >= kernel.base + BigInt(kernel.size)) return 'that is not in the kernel';
  if (ALIGNED.has(name) && address % BigInt(pointerSize) !== 0n) return 'a variable like that is aligned';
  const exported = findExport(space, kernel, name);
  if (exported !== undefined && exported !== address) return `the kernel exports it at ${hex64(exported)}`;
  const same = VARIABLES.find((other) => other !== name && fields[other] === address);
  if (same) return `${same} is the same`;
  if (name === 'PsActiveProcessHead' || name === 'PsLoadedModuleList') return listDoubt(space, address);
  return name === 'MmPfnDatabase' ? databaseDoubt(space, kernel, address) : undefined;
}

/** A head whose neighbours are there, and neither links back. The kernel and System are always on theirs. */
function listDoubt(space: AddressSpace, head: bigint): string | undefined {
  const size = BigInt(space.image.machine.pointerSize);
  const [next, previous] = [space.readPointer(head), space.readPointer(head + size)];
  if (next === undefined || previous === undefined) return undefined;
  const back = isKernelAddress(next) ? space.readPointer(next + size) : null;
  const forth = isKernelAddress(previous) ? space.readPointer(previous) : null;
  if (next === head || previous === head) return 'an empty list begins there';
  if (back === head || forth === head) return undefined;
  return back === undefined || forth === undefined ? undefined : 'no list begins there';
}

function databaseDoubt(space: AddressSpace, kernel: KernelImage, variable: bigint): string | undefined {
  const base = space.readPointer(variable);
  if (base === undefined) return undefined;
  const inKernel = base >= kernel.base && base < kernel.base + BigInt(kernel.size);
  if (!isKernelAddress(base) || base % BigInt(PAGE_SIZE) !== 0n || inKernel) {
    return `the variable there holds ${hex64(base)}, where no page frame database begins`;
  }
  // The entry of a page that is in use for certain.
  const { complete, layouts } = space.image.machine.pageDatabase;
  const active = layouts.map(({ entrySize, stateAt }) => {
    const entry = space.read(base + BigInt(entrySize) * BigInt(pfnOf(space.root)), entrySize);
    return entry && (entry[stateAt]! & 7) === PageLocation.active;
  });
  return complete && active.every((is) => is === false)
    ? 'the database there does not have the page tables’ root as a page in use'
    : undefined;
}

/** The first processor's KPCR has its PRCB where the machine has it: another place leads to other processors' KPCRs. */
function containedDoubt(space: AddressSpace, fields: DebuggerFields): string | undefined {
  const { KiProcessorBlock: table, OffsetPcrContainedPrcb: contained } = fields;
  const { machine } = space.image;
  const { prcb: usual } = machine.kpcr;
  if (!contained || contained === usual || table === undefined) return undefined;
  const prcb = space.readPointer(table);
  if (prcb === undefined || !isKernelAddress(prcb)) return undefined;
  const claim = { prcb: va(prcb), selfAt: fields.OffsetPcrSelfPcr, currentPrcbAt: fields.OffsetPcrCurrentPrcb };
  const isThere = machine.kpcrDoubt(space.reader, va(prcb - BigInt(usual)), claim) === undefined;
  return isThere ? `the first processor's KPCR has its PRCB at ${hex(usual)}` : undefined;
}

/** A PRCB's saved state: special registers, and the CONTEXT right behind them. */
function stateDoubts(space: AddressSpace, fields: DebuggerFields): [FieldName, string][] {
  const { OffsetPrcbProcStateSpecialReg: special = 0, OffsetPrcbProcStateContext: context = 0 } = fields;
  const isState = special !== 0 && space.image.machine.isProcessorState(special, context);
  if (isState) return [];
  const why = `with ${hex(special)} for the special registers and ${hex(context)} for the CONTEXT no PRCB has its saved state`;
  const doubts: [FieldName, string][] = [['OffsetPrcbProcStateSpecialReg', why]];
  if (!holdsContext(space, fields)) doubts.push(['OffsetPrcbProcStateContext', why]);
  return doubts;
}

/** The first processor has a CONTEXT that was used where the KDBG has one. */
function holdsContext(space: AddressSpace, { KiProcessorBlock, OffsetPrcbProcStateContext }: DebuggerFields): boolean {
  const { machine } = space.image;
  const prcb = KiProcessorBlock === undefined ? undefined : space.readPointer(KiProcessorBlock);
  const frame =
    prcb === undefined || !isKernelAddress(prcb)
      ? undefined
      : space.read(prcb + BigInt(OffsetPrcbProcStateContext ?? 0), machine.contextSize);
  return frame !== undefined && machine.looksLikeContext(frame) && frame.some((byte) => byte !== 0);
}
