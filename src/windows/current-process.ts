/** The thread that a processor runs, and what memory it sees: PRCB.CurrentThread and what that leads to. */
import type { PageTables } from '../machines/machine.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { DebuggerFields } from './kdbg.ts';
import { mapsKernel } from './process-roots.ts';
import type { Processor } from './processors.ts';
import { currentRoot, currentThread } from './thread-stack.ts';
import type { Windows } from './windows.ts';

/** KTHREAD.Teb: 0 of a thread of the kernel; undefined where it is not known. */
export function currentTeb(space: AddressSpace, fields: DebuggerFields, prcb: bigint): bigint | undefined {
  const { OffsetKThreadTeb: tebAt } = fields;
  const thread = tebAt ? currentThread(space, fields, prcb) : undefined;
  return tebAt && thread !== undefined ? space.readPointer(thread + BigInt(tebAt)) : undefined;
}

/**
 * The page tables that a processor's CPU has loaded: by its registers or, on machines whose inputs never have those,
 * its thread's process's. undefined where they are unknown.
 */
export function tablesOf(
  { image, space, kernel, kdbg }: Pick<Windows, 'image' | 'space' | 'kernel' | 'kdbg'>,
  processor: Processor,
): PageTables | undefined {
  const registers = processor.cpu?.registers;
  if (image.machine.systemRegisters || image.triage) return registers && image.machine.pageTables(registers);
  const root = registers && currentRoot(space, kdbg.fields, processor.prcb);
  return root !== undefined && mapsKernel({ space, kernel }, root) ? { root, mode: space.mode } : undefined;
}
