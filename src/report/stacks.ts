/** Stacks as plain data. */
import type { Diagnostic } from '../core/errors.ts';
import { hex64 } from '../core/units.ts';
import type { ContextSource, Contexts } from '../plan/contexts.ts';
import type { Symbols } from '../symbols/symbols.ts';
import type { TOOL } from '../version.ts';
import { type Stack, type StackFrame, walkStack } from '../windows/stacks.ts';
import type { Windows } from '../windows/windows.ts';
import type { HangReport } from './activity.ts';
import { reportFramePlace } from './frame-place.ts';
import type { InputReport } from './input.ts';
import type { CodePlace } from './processors.ts';
import type { SCHEMA } from './schemas.ts';
import type { WindowsReport } from './windows.ts';

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
  /** See `StackFrame.how`. */
  how: StackFrame['how'];
  /** false from the first guess on. */
  certain: boolean;
}

export interface ProcessorStackReport {
  processor: number;
  /** Whose registers the stack begins at, as in `windows.processors`; with none there are no frames. */
  registers: ContextSource;
  frames: FrameReport[];
  /** Why it goes no further. */
  end: string;
  /** Why frames were guessed. */
  doubts: readonly string[];
}

export interface StackReport {
  schema: (typeof SCHEMA)['stack'];
  tool: typeof TOOL;
  /** `losses`: registers or memory are missing, and the diagnostics say which. */
  outcome: 'good' | 'losses';
  input: InputReport;
  windows: WindowsReport;
  stacks: ProcessorStackReport[];
  /** What all processors do; null in a guest that crashed. */
  activity: HangReport | null;
  diagnostics: readonly Diagnostic[];
}

/** The stack of each processor, from the registers that it shows. */
export function stacksOf(windows: Windows, { shown }: Contexts, symbols?: Symbols): ProcessorStackReport[] {
  return shown.map(({ processor, source, frame }) => {
    const stack: Pick<Stack, 'frames' | 'end' | 'doubts'> =
      source === 'unknown'
        ? { frames: [], end: 'its registers are unknown', doubts: [] }
        : walkStack(windows, processor, frame, { symbols });
    return {
      processor: processor.number,
      registers: source,
      frames: stack.frames.map(reportFrame),
      end: stack.end,
      doubts: stack.doubts,
    };
  });
}

const reportFrame = (f: StackFrame): FrameReport => ({
  instructionPointer: hex64(f.instructionPointer),
  stackPointer: hex64(f.stackPointer),
  returnAddress: f.returnAddress === undefined ? null : hex64(f.returnAddress),
  at: reportFramePlace(f),
  how: f.how,
  certain: f.certain,
});
