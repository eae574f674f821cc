/** The kernel stack of the thread that a processor runs. */
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
