import type { VirtualAddress } from '../core/units.ts';
import { type DebuggerFields, readDebuggerData } from '../formats/win-kernel.ts';
import type { Machine } from '../machines/machine.ts';

export type { DebuggerFields } from '../formats/win-kernel.ts';

/** A debugger data block that was found and decoded. */
export interface Kdbg {
  address: VirtualAddress;
  size: number;
  encoded: boolean;
  /** The decoded block, `size` bytes. */
  block: Buffer;
  /** Fields within `size`; those beyond it do not exist in this build. */
  fields: DebuggerFields;
}

/** The fields of a decoded block; those that its build's blocks end before are the machine's. */
export const debuggerFields = (
  block: Buffer,
  size: number,
  { pointerSize, debuggerDefaults }: Machine,
): DebuggerFields => ({
  ...debuggerDefaults,
  ...readDebuggerData(block, size, pointerSize),
});
