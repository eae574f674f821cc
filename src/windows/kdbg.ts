import type { StructOf } from '../core/struct.ts';
import type { VirtualAddress } from '../core/units.ts';
import type { DebuggerData } from '../formats/win-kernel.ts';

export interface Kdbg {
  address: VirtualAddress;
  size: number;
  encoded: boolean;
  /** The decoded block, `size` bytes. */
  block: Buffer;
  /** Fields within `size`; those beyond it do not exist in this build. */
  fields: DebuggerFields;
}
export type DebuggerFields = Partial<StructOf<typeof DebuggerData>>;
