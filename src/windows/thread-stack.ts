/** The thread that a processor runs: its process's page tables, its stacks, and whether it is the idle thread. */
import { isKernelAddress } from '../core/bits.ts';
import { GIB, MIB, PAGE_SIZE, pa } from '../core/units.ts';
import { THREAD_INFORMATION } from '../formats/win-kernel.ts';
import { rootIn } from '../machines/paging-mode.ts';
import { AddressSpace } from '../memory/address-space.ts';
import type { DebuggerFields } from './kdbg.ts';

/** Addresses from `limit` up to, not including, `base`. */
export interface StackBounds {
  limit: bigint;
  base: bigint;
}

/** The largest that Windows makes are some 100 KiB. */
const MAX_STACK = BigInt(MIB);

/** Programs choose their own; no default is near it. */
const MAX_USER_STACK = BigInt(GIB);

/** PRCB.CurrentThread. */
export function currentThread(
  space: AddressSpace,
  { OffsetPrcbCurrentThread: threadAt }: DebuggerFields,
  prcb: bigint,
): bigint | undefined {
  const thread = threadAt ? space.readPointer(prcb + BigInt(threadAt)) : undefined;
  return thread !== undefined && isKernelAddress(thread) ? thread : undefined;
}

/** The page-table root of the process that a processor's thread is attached to. */
export function currentRoot(space: AddressSpace, fields: DebuggerFields, prcb: bigint): number | undefined {
  const { OffsetKThreadApcProcess: processAt, OffsetEprocessDirectoryTableBase: rootAt } = fields;
  const thread = currentThread(space, fields, prcb);
  if (thread === undefined || !processAt || !rootAt) return undefined;
  const process = space.readPointer(thread + BigInt(processAt));
  const root =
    process !== undefined && isKernelAddress(process) ? space.readPointer(process + BigInt(rootAt)) : undefined;
  return root === undefined ? undefined : rootIn(space.mode, root);
}

/**
 * PRCB.CurrentThread → KTHREAD.StackLimit and StackBase, where the KDBG tells their offsets (Windows 8 and later).
 * undefined where they can't be had, or can't be a stack's.
 */
export function currentThreadStack(space: AddressSpace, fields: DebuggerFields, prcb: bigint): StackBounds | undefined {
  const { OffsetKThreadStackLimit, OffsetKThreadStackBase } = fields;
  const thread = currentThread(space, fields, prcb);
  if (thread === undefined || !OffsetKThreadStackLimit || !OffsetKThreadStackBase) return undefined;
  const pointer = (at: bigint) => {
    const value = space.readPointer(at);
    return value !== undefined && isKernelAddress(value) ? value : undefined;
  };
  const limit = pointer(thread + BigInt(OffsetKThreadStackLimit));
  const base = pointer(thread + BigInt(OffsetKThreadStackBase));
  if (limit === undefined || base === undefined || limit >= base || base - limit > MAX_STACK) return undefined;
  return { limit, base };
}

/** Whether a stack pointer is on the kernel stack of a processor's current thread. */
export function isOnThreadStack(
  space: AddressSpace,
  fields: DebuggerFields,
  prcb: bigint,
  stackPointer: bigint,
): boolean {
  const bounds = currentThreadStack(space, fields, prcb);
  return bounds !== undefined && stackPointer >= bounds.limit && stackPointer <= bounds.base;
}

/** The thread's stack in user mode, by its TEB in its process's memory; undefined as for the kernel's. */
export function currentUserStack(space: AddressSpace, fields: DebuggerFields, prcb: bigint): StackBounds | undefined {
  const thread = currentThread(space, fields, prcb);
  const root = currentRoot(space, fields, prcb);
  const teb =
    thread !== undefined && fields.OffsetKThreadTeb
      ? space.readPointer(thread + BigInt(fields.OffsetKThreadTeb))
      : undefined;
  if (teb === undefined || teb === 0n || isKernelAddress(teb) || root === undefined) return undefined;
  const own = new AddressSpace(space.image, pa(root), space.mode);
  const word = (index: number) => own.readPointer(teb + BigInt(index * space.image.machine.pointerSize));
  const [limit, base] = [word(THREAD_INFORMATION.stackLimit), word(THREAD_INFORMATION.stackBase)];
  if (limit === undefined || base === undefined || limit === 0n) return undefined;
  return limit < base && base - limit <= MAX_USER_STACK ? { limit, base } : undefined;
}

/**
 * Whether a stack pointer is on one of a processor's own stacks, for DPCs or interrupts, of which the PRCB tells where it
 * begins (`top`). undefined: between them a page is missing, so that they cannot be of one stack.
 */
export function leadsTo(space: AddressSpace, stackPointer: bigint, top: bigint): boolean | undefined {
  if (stackPointer > top || top - stackPointer > BigInt(space.image.machine.kernelStackSize)) return false;
  for (let page = stackPointer & ~0xfffn; page < top; page += 0x1000n) {
    if (space.translate(page) === undefined) return undefined;
  }
  return true;
}

/** A kernel stack from an address on, at most the largest, page by page as far as it is present: a guard page ends it. */
export function* stackPieces(space: AddressSpace, from: bigint): Generator<Buffer> {
  const end = from + BigInt(space.image.machine.kernelStackSize);
  for (let at = from; at < end; ) {
    const length = PAGE_SIZE - Number(at % BigInt(PAGE_SIZE));
    const bytes = space.read(at, length);
    if (!bytes) return;
    yield bytes;
    at += BigInt(length);
  }
}

/** Where a processor's stacks for DPCs and interrupts begin, as far as the KDBG says where the PRCB has that. */
export function processorStackTops(
  space: AddressSpace,
  { OffsetPrcbDpcStack, OffsetPrcbIsrStack }: DebuggerFields,
  prcb: bigint,
): bigint[] {
  return [OffsetPrcbDpcStack, OffsetPrcbIsrStack].flatMap((offset) => {
    const top = offset ? space.readPointer(prcb + BigInt(offset)) : undefined;
    return top !== undefined && isKernelAddress(top) ? [top] : [];
  });
}

/** Whether an address lies on a stack. */
export const isOnStack = ({ limit, base }: StackBounds, address: bigint): boolean => address >= limit && address < base;

/**
 * Whether a processor's current thread is its idle thread. PRCB.IdleThread is the second pointer after CurrentThread on
 * every machine (ntos types in public symbols; so in real dumps of x64 and ARM64). An interrupt or DPC may run on top
 * of the idle thread. undefined where the pointers can't be had.
 */
export function runsIdleThread(
  space: AddressSpace,
  { OffsetPrcbCurrentThread }: DebuggerFields,
  prcb: bigint,
): boolean | undefined {
  if (!OffsetPrcbCurrentThread) return undefined;
  const currentAt = prcb + BigInt(OffsetPrcbCurrentThread);
  const current = space.readPointer(currentAt);
  const idle = space.readPointer(currentAt + BigInt(2 * space.image.machine.pointerSize));
  return current && idle ? current === idle : undefined;
}
