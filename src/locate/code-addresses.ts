/** Addresses that may lie in the kernel image, best first. */
import { isKernelAddress, pointerAt } from '../core/bits.ts';
import { hex64, PAGE_SIZE, type VirtualAddress, va } from '../core/units.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { Evidence } from '../windows/evidence.ts';
import { type CodeAddress, KERNEL_STEP } from './kernel.ts';
import type { SearchResult } from './memory-search.ts';

/** Bytes of a stack that are looked through. */
const STACK_BYTES = 0x800;

/**
 * Addresses from a crash dump's header, then from the CPUs: interrupt handlers (first of CPUs in this address space),
 * instruction pointers, words on kernel stacks.
 */
export function* addressesFromCpus(space: AddressSpace, evidence: Evidence): Generator<CodeAddress> {
  const { machine, cpus, dumpHeader } = space.image;
  if (dumpHeader) {
    const named = [
      { address: va(dumpHeader.KdDebuggerDataBlock), why: "the KDBG's address in the dump's header" },
      { address: va(dumpHeader.PsLoadedModuleList), why: "the module list's address in the dump's header" },
    ];
    yield* named.filter(({ address }) => isKernelAddress(address));
  }
  const { pointerSize } = machine;
  const running = cpus.flatMap((cpu) => (cpu.registers ? [{ cpu, registers: cpu.registers }] : []));
  const own = running.filter(({ registers }) => machine.pageTables(registers)?.root === space.root);
  const ordered = [...own, ...running.filter((r) => !own.includes(r))];
  for (const { cpu, registers } of ordered) {
    const table = machine.interruptTable(registers);
    if (table) yield* handlers(space, table, `CPU ${cpu.index}`, evidence);
  }
  const inKernel = ordered.filter(({ registers }) => !machine.isUserMode(registers));
  for (const { cpu, registers } of inKernel) {
    const address = machine.instructionPointer(registers);
    if (isKernelAddress(address)) yield { address, why: `${machine.words.instructionPointer} of CPU ${cpu.index}` };
    const caller = machine.returnAddress(registers);
    if (caller !== undefined && isKernelAddress(caller))
      yield { address: caller, why: `return address of CPU ${cpu.index}` };
  }
  for (const { cpu, registers } of inKernel) {
    const stack = machine.stackPointer(registers);
    const words = isKernelAddress(stack)
      ? space.read(stack, Math.min(STACK_BYTES, PAGE_SIZE - Number(stack & 0xfffn)))
      : undefined;
    for (let at = 0; words && at + pointerSize <= words.length; at += pointerSize) {
      const word = pointerAt(words, at, pointerSize);
      if (isKernelAddress(word)) yield { address: va(word), why: `word on the stack of CPU ${cpu.index}` };
    }
  }
}

/** Addresses from a search of all memory: KPCRs' interrupt tables, and the kernel bases that plain KDBGs name. */
export function* addressesFromSearch(
  space: AddressSpace,
  { kpcrs, kdbgs }: SearchResult,
  evidence: Evidence,
): Generator<CodeAddress> {
  for (const { virtual, leadsTo } of kpcrs) {
    const owner = `the KPCR ${hex64(virtual)} that a search found`;
    if ('code' in leadsTo) yield { address: leadsTo.code, why: `kernel code that ${owner} names` };
    else yield* handlers(space, leadsTo.interruptTable, owner, evidence);
  }
  for (const { physical, kernBase } of kdbgs) {
    yield {
      address: va(kernBase),
      why: `KernBase of the KDBG at physical 0x${physical.toString(16)} that a search found`,
    };
  }
}

function* handlers(
  space: AddressSpace,
  table: { base: VirtualAddress; size: number },
  owner: string,
  evidence: Evidence,
): Generator<CodeAddress> {
  const found = space.image.machine.interruptHandlers(table, (address, length) => space.read(address, length));
  if (found.length === 0)
    evidence.reject(
      KERNEL_STEP,
      `${space.image.machine.words.interruptTable} of ${owner}`,
      `no usable gates at ${hex64(table.base)}`,
    );
  for (const address of found) yield { address, why: `interrupt handler of ${owner}` };
}
