import type { VirtualAddress } from '../core/units.ts';
import type { DebuggerFields } from '../formats/win-kernel.ts';

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
