/** PRCBs from KiProcessorBlock, and which CPU state belongs to which. */

import { isKernelAddress } from '../core/bits.ts';
import { because, Reason } from '../core/reason.ts';
import { hex, hex64, type VirtualAddress, va } from '../core/units.ts';
import { MAX_PROCESSORS } from '../formats/win-kernel.ts';
import type { CpuState, Registers } from '../machines/machine.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { DebuggerFields } from './kdbg.ts';
import { currentThread, isOnThreadStack } from './thread-stack.ts';

/** A processor as Windows knows it. */
export interface Processor {
  /** Windows' processor number: the index in KiProcessorBlock. */
  number: number;
  prcb: VirtualAddress;
  kpcr: VirtualAddress;
  /**
   * The CONTEXT frame that the debugger takes this processor's registers from; a reason where the PRCB points to
   * something that is not believed to be one; undefined where it points to nothing.
   */
  context: VirtualAddress | Reason | undefined;
  /**
   * What the PRCB lacks: its pointer to that frame, which is in it, and where that pointer is to be. undefined where
   * nothing is to be mended.
   */
  missingPointer?: VirtualAddress | undefined;
  /** Where KiProcessorBlock should have its PRCB and has not; undefined where nothing is to be mended. */
  missingEntry?: VirtualAddress | undefined;
  /** KSPECIAL_REGISTERS in the PRCB's ProcessorState. */
  specialRegisters: VirtualAddress | undefined;
  /** What is wrong with its KPCR or PRCB; undefined when nothing is. */
  doubt: string | undefined;
  /** The CPU state that runs this processor. */
  cpu: CpuState | undefined;
  /** How that was found out, for evidence: `by the KPCR 0x…`. */
  cpuBy: string | undefined;
  /** CPUs whose registers name its KPCR, where nothing decides which of them runs it, or which processor the CPU runs. */
  claimants?: readonly CpuState[] | undefined;
}

/** An entry of KiProcessorBlock that should be a PRCB and is not. */
export interface BadProcessor {
  number: number;
  address: bigint;
  reason: string;
}

/** Where the CPUs' registers say that their KPCRs are. */
export const loadedKpcrs = ({ image: { cpus, machine }, reader }: AddressSpace): VirtualAddress[] =>
  cpus.flatMap(({ registers }) => (registers ? machine.kpcrCandidates(registers, reader) : []));

/** Unused entries after which no more processors are expected. */
const MAX_GAP = 64;

/**
 * Reads KiProcessorBlock; entries are believed when their KPCR names itself and them, or when a CPU's
 * registers point to that KPCR, whatever is left of it.
 */
export function findProcessors(
  space: AddressSpace,
  fields: DebuggerFields,
): { processors: Processor[]; bad: BadProcessor[] } {
  const processors: Processor[] = [];
  const bad: BadProcessor[] = [];
  const table = fields.KiProcessorBlock;
  if (table === undefined || !isKernelAddress(table)) return { processors, bad };
  const known = new Set<bigint>();
  const loaded = new Set<bigint>(loadedKpcrs(space));
  const { pointerSize } = space.image.machine;
  let last = -1;
  for (let i = 0; i < MAX_PROCESSORS && i - last <= MAX_GAP; i++) {
    const entry = space.readPointer(table + BigInt(pointerSize * i));
    if (entry === undefined) break;
    if (entry === 0n || known.has(entry)) continue;
    const kpcr = entry - prcbOffset(space, fields);
    const doubt = checkPrcb(space, fields, entry);
    const reason = loaded.has(kpcr) || dumpedKpcrs(space, fields, i, entry).includes(va(kpcr)) ? undefined : doubt;
    if (reason === undefined) {
      known.add(entry);
      last = i;
      processors.push({
        ...describeProcessor(space, fields, i, va(entry)),
        doubt: doubt ?? checkNumber(space, fields, entry, i),
      });
    } else {
      bad.push({ number: i, address: entry, reason });
    }
  }
  // What follows the last processor is other data, unless it still has a PRCB's place in its page.
  const inPage = BigInt(space.image.machine.kpcr.prcb);
  for (let more = true; more; ) {
    more = bad.some((b) => b.number === last + 1 && isKernelAddress(b.address) && (b.address & 0xfffn) === inPage);
    if (more) last++;
  }
  return { processors, bad: bad.filter((b) => b.number <= last) };
}

/**
 * As `findProcessors`, with those whose entries were overwritten: for a KDBG that is believed. A KDBG is never chosen by
 * them, as they are the same whatever its KiProcessorBlock is.
 */
export function findAllProcessors(space: AddressSpace, fields: DebuggerFields): ReturnType<typeof findProcessors> {
  const { processors, bad } = findProcessors(space, fields);
  // Its writer has decided what a crash dump shows. An entry that is right proves that this is the block.
  const isBlock = processors.length > 0 && processors.every(({ doubt }) => doubt === undefined);
  const recovered = space.image.dumpHeader || !isBlock ? [] : recoverProcessors(space, fields, processors);
  return {
    processors: [...processors, ...recovered].sort((a, b) => a.number - b.number),
    bad: bad.filter(({ number }) => recovered.every((r) => r.number !== number)),
  };
}

/** Processors that the block does not have: those of KPCRs that CPUs have loaded. */
function recoverProcessors(space: AddressSpace, fields: DebuggerFields, processors: readonly Processor[]): Processor[] {
  const { machine, cpus } = space.image;
  const { KiProcessorBlock: table } = fields;
  const known = new Set(processors.map(({ number }) => number));
  const recovered: Processor[] = [];
  for (const { registers } of cpus) {
    for (const kpcr of registers ? machine.kpcrCandidates(registers, space.reader) : []) {
      const prcb = va(kpcr + prcbOffset(space, fields));
      const number = registers && provenNumber(space, fields, registers, prcb);
      // Each runs on a CPU, and they are numbered from 0. Of two with one number, one at least is not what it seems.
      if (table === undefined || number === undefined || number >= cpus.length || known.has(number)) continue;
      known.add(number);
      const missingEntry = va(table + BigInt(machine.pointerSize * number));
      recovered.push({ ...describeProcessor(space, fields, number, prcb), missingEntry });
    }
  }
  return recovered;
}

/**
 * The number of a PRCB whose KPCR names itself and it, and which runs a thread: where a CPU has its descriptor tables
 * loaded, or, where those are unknown, is on that thread's stack.
 */
function provenNumber(
  space: AddressSpace,
  fields: DebuggerFields,
  registers: Registers,
  prcb: VirtualAddress,
): number | undefined {
  const { machine } = space.image;
  const { OffsetPrcbNumber: numberAt } = fields;
  if (!numberAt || checkPrcb(space, fields, prcb) !== undefined) return undefined;
  if (currentThread(space, fields, prcb) === undefined) return undefined;
  const runs = machine.runsKpcr(registers, space.reader, va(prcb - prcbOffset(space, fields)));
  const isProven = runs ?? isOnThreadStack(space, fields, prcb, machine.stackPointer(registers));
  return isProven ? space.read(prcb + BigInt(numberAt), 1)?.readUInt8() : undefined;
}

/**
 * The processors of KiProcessorBlock in a dump that need not have their KPCRs: an entry is believed if the PRCB there
 * has its number.
 */
export function listedProcessors(space: AddressSpace, fields: DebuggerFields, count: number): Processor[] {
  const { KiProcessorBlock: table } = fields;
  if (table === undefined || !isKernelAddress(table)) return [];
  const processors: Processor[] = [];
  for (let i = 0; i < Math.min(count, MAX_PROCESSORS); i++) {
    const prcb = space.readPointer(table + BigInt(space.image.machine.pointerSize * i));
    if (prcb === undefined || !isKernelAddress(prcb) || !space.read(prcb, 1)) continue;
    if (checkNumber(space, fields, prcb, i) === undefined)
      processors.push(describeProcessor(space, fields, i, va(prcb)));
  }
  return processors;
}

/** Offset of the PRCB in its KPCR: the KDBG's word, and the machine's where it has none. */
const prcbOffset = ({ image }: AddressSpace, fields: DebuggerFields): bigint =>
  BigInt(fields.OffsetPcrContainedPrcb || image.machine.kpcr.prcb);

/** undefined when the PRCB at `address` names itself through its KPCR. */
function checkPrcb(space: AddressSpace, fields: DebuggerFields, address: bigint): string | undefined {
  if (!isKernelAddress(address)) return `${hex64(address)} is not a kernel address`;
  const kpcr = va(address - prcbOffset(space, fields));
  return space.image.machine.kpcrDoubt(space.reader, kpcr, {
    prcb: va(address),
    selfAt: fields.OffsetPcrSelfPcr,
    currentPrcbAt: fields.OffsetPcrCurrentPrcb,
  });
}

/** KPRCB.Number is a byte in the oldest builds: that much is compared. */
function checkNumber(space: AddressSpace, fields: DebuggerFields, prcb: bigint, index: number): string | undefined {
  if (!fields.OffsetPrcbNumber) return undefined;
  const number = space.read(prcb + BigInt(fields.OffsetPrcbNumber), 1)?.readUInt8();
  return number === undefined || number === (index & 0xff)
    ? undefined
    : `PRCB.Number is ${number}, but KiProcessorBlock has it at ${index}`;
}

/** A PRCB's own frame, where the machine has them there and what is there can be one. */
export function ownFrame(
  { image: { machine }, reader }: AddressSpace,
  { OffsetPrcbProcStateContext: frameAt }: DebuggerFields,
  prcb: VirtualAddress,
): VirtualAddress | undefined {
  const frame = machine.framesInPrcb && frameAt ? reader(prcb + BigInt(frameAt), machine.contextSize) : undefined;
  return frameAt && frame && machine.looksLikeContext(frame) ? va(prcb + BigInt(frameAt)) : undefined;
}

/** A processor's frame, and the pointer to it if that has to be mended. */
function frameOf(
  space: AddressSpace,
  fields: DebuggerFields,
  prcb: VirtualAddress,
): Pick<Processor, 'context' | 'missingPointer'> {
  const context = contextOf(space, fields, prcb);
  const { OffsetPrcbContext: pointerAt } = fields;
  if (context !== undefined && !(context instanceof Reason)) return { context };
  // Its writer has decided what a crash dump shows.
  const own = space.image.dumpHeader ? undefined : ownFrame(space, fields, prcb);
  if (own === undefined) return { context };
  // Without an offset the debugger looks there by itself.
  return { context: own, ...(pointerAt ? { missingPointer: va(prcb + BigInt(pointerAt)) } : {}) };
}

/** See `Processor.context`. */
function contextOf(space: AddressSpace, fields: DebuggerFields, prcb: VirtualAddress): Processor['context'] {
  const { OffsetPrcbContext: pointerAt, OffsetPrcbProcStateContext: frameAt } = fields;
  const { machine } = space.image;
  if (pointerAt === 0 || (pointerAt !== undefined && pointerAt % machine.pointerSize !== 0)) {
    return because(`the KDBG has ${hex(pointerAt)} for where its PRCB points to its CONTEXT frame`);
  }
  if (pointerAt !== undefined) {
    const pointer = space.readPointer(prcb + BigInt(pointerAt));
    return pointer !== undefined && isKernelAddress(pointer) ? va(pointer) : undefined;
  }
  // A KDBG without OffsetPrcbContext (before Windows 7): the frame is in the PRCB itself.
  if (!frameAt) return undefined;
  const frame = space.read(prcb + BigInt(frameAt), machine.contextSize);
  return frame && !machine.looksLikeContext(frame)
    ? because(`no CONTEXT is at ${hex(frameAt)} in its PRCB, where the KDBG has one`)
    : va(prcb + BigInt(frameAt));
}

function describeProcessor(
  space: AddressSpace,
  fields: DebuggerFields,
  number: number,
  prcb: VirtualAddress,
): Processor {
  return {
    number,
    prcb,
    kpcr: va(prcb - prcbOffset(space, fields)),
    ...frameOf(space, fields, prcb),
    specialRegisters: fields.OffsetPrcbProcStateSpecialReg
      ? va(prcb + BigInt(fields.OffsetPrcbProcStateSpecialReg))
      : undefined,
    doubt: undefined,
    cpu: undefined,
    cpuBy: undefined,
  };
}

/** Where the registers that a crash dump holds for a processor say that its KPCR is. */
function dumpedKpcrs(space: AddressSpace, fields: DebuggerFields, number: number, prcb: bigint): VirtualAddress[] {
  if (!space.image.dumpHeader || !isKernelAddress(prcb)) return [];
  const registers = savedRegisters(space, describeProcessor(space, fields, number, va(prcb)));
  return registers ? space.image.machine.kpcrCandidates(registers, space.reader) : [];
}

/** A processor's CONTEXT frame as it is in memory; undefined where none is known or it is not present. */
export function readContextFrame(space: AddressSpace, { context }: Processor): Buffer | undefined {
  if (context === undefined || context instanceof Reason) return undefined;
  return space.read(context, space.image.machine.contextSize);
}

/** A crash dump holds the CPUs' states where the debugger takes them from: in the PRCBs. */
export function readDumpedCpus(space: AddressSpace, processors: readonly Processor[]): void {
  for (const processor of processors) {
    const registers = savedRegisters(space, processor);
    if (registers) {
      processor.cpu = { index: processor.number, registers, crashed: undefined, origin: 'PRCB in the dump' };
    }
  }
}

/**
 * The registers that are in a processor's PRCB: its own in a crash dump; in a crashed guest those that the bug check
 * saved; in others what is left of an earlier time. undefined where its frame holds none.
 */
export function savedRegisters(space: AddressSpace, processor: Processor): Registers | undefined {
  const { machine } = space.image;
  const { specialRegisters } = processor;
  const frame = readContextFrame(space, processor);
  const special =
    specialRegisters === undefined ? undefined : space.read(specialRegisters, machine.specialRegistersSize);
  return frame && special && machine.decodeContext(frame, special, (address, length) => space.read(address, length));
}
