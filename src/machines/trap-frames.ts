/** Trap frames: where Windows keeps the registers of code that an exception or interrupt stopped, on that code's stack. */
import type { FrameState } from './unwinding.ts';

/** What a trap frame of kernel code holds. */
export interface TrapFrame {
  /** Registers that it does not hold are undefined. */
  state: FrameState;
  /** Those that it holds, as the debugger's `.trap` names them. */
  registers: readonly { name: string; value: bigint; bits: number }[];
  /** The address that could not be accessed, if it was a page fault; undefined where frames don't have it. */
  faultAddress: bigint | undefined;
  /** It lies where the processor begins one, or has the mark that Windows puts into each. */
  isMarked: boolean;
}

/** A machine's trap frames. */
export interface TrapFrameForm {
  /** Bytes. */
  size: number;
  alignment: number;
  /**
   * @param bytes `size` bytes
   * @param address where they lie
   * @returns undefined for what cannot be a trap frame of kernel code
   */
  read(bytes: Buffer, address: bigint): TrapFrame | undefined;
}
