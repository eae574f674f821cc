/** Frames of stacks as plain data. */
import { hex64 } from '../core/units.ts';
import type { StackFrame } from '../windows/stacks.ts';
import { reportFramePlace } from './frame-place.ts';
import type { AddressPlace, Places } from './places.ts';
import type { CodePlace } from './processors.ts';

export interface FrameReport {
  instructionPointer: string;
  /** Its value while that instruction runs (the debugger's Child-SP). */
  stackPointer: string;
  /** null where it is not known. */
  returnAddress: string | null;
  /**
   * Where the instruction lies; null outside all modules. The function that runs may not be the nearest export. For a
   * caller, the symbol is that of its call: of the byte before the instruction.
   */
  at: CodePlace | null;
  /** Where an instruction outside all modules lies, as far as that is known. */
  place: AddressPlace | null;
  /** See `StackFrame.how`. */
  how: StackFrame['how'];
  /** false from the first guess on. */
  certain: boolean;
}

/** Frames in the order of their stack. */
export const reportFrames = (frames: readonly StackFrame[], places: Places): FrameReport[] =>
  frames.map((frame) => {
    const at = reportFramePlace(frame);
    return {
      instructionPointer: hex64(frame.instructionPointer),
      stackPointer: hex64(frame.stackPointer),
      returnAddress: frame.returnAddress === undefined ? null : hex64(frame.returnAddress),
      at,
      place: at ? null : places.of(frame.instructionPointer),
      how: frame.how,
      certain: frame.certain,
    };
  });
