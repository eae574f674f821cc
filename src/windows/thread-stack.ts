/** The thread that a processor runs: its kernel stack, and whether it is the idle thread. */
import { isKernelAddress } from '../core/bits.ts';
import { MIB } from '../core/units.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { DebuggerFields } from './kdbg.ts';

/** Addresses from `limit` up to, not including, `base`. */
export interface StackBounds {
  limit: bigint;
  base: bigint;
}

/** The largest that Windows makes are some 100 KiB. */
const MAX_STACK = BigInt(MIB);

/**
 * PRCB.CurrentThread → KTHREAD.StackLimit and StackBase, where the KDBG tells their offsets (Windows 8 and later).
 * undefined where they can't be had, or can't be a stack's.
 */
export function currentThreadStack(
  space: AddressSpace,
  { OffsetPrcbCurrentThread, OffsetKThreadStackLimit, OffsetKThreadStackBase }: DebuggerFields,
  prcb: bigint,
): StackBounds | undefined {
  if (!OffsetPrcbCurrentThread || !OffsetKThreadStackLimit || !OffsetKThreadStackBase) return undefined;
  const pointer = (at: bigint) => {
    const value = space.readPointer(at);
    return value !== undefined && isKernelAddress(value) ? value : undefined;
  };
  const thread = pointer(prcb + BigInt(OffsetPrcbCurrentThread));
  if (thread === undefined) return undefined;
  const limit = pointer(thread + BigInt(OffsetKThreadStackLimit));
  const base = pointer(thread + BigInt(OffsetKThreadStackBase));
  if (limit === undefined || base === undefined || limit >= base || base - limit > MAX_STACK) return undefined;
  return { limit, base };
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
