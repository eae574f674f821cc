import { hex64 } from '../core/units.ts';
import type { ContextSource, Contexts } from '../plan/contexts.ts';
import { type Stack, type StackFrame, walkStack } from '../windows/stacks.ts';
import type { Windows } from '../windows/windows.ts';

export interface FrameReport {
  instructionPointer: string;
  /** RSP while that instruction runs (the debugger's Child-SP). */
  stackPointer: string;
  /** null where it is not known. */
  returnAddress: string | null;
  /** Name of the module that the instruction lies in, and its base; null if it lies in none. */
  module: string | null;
  moduleBase: string | null;
  /** At or nearest below the instruction; the function that runs may be another one. */
  nearestExport: { name: string; offset: number } | null;
  /** See `StackFrame.how`. */
  how: StackFrame['how'];
  /** false from the first guess on. */
  certain: boolean;
}
export interface ProcessorStackReport {
  processor: number;
  /** Index of the CPU in the input that runs it; null if none does. */
  cpu: number | null;
  /** Whose registers the stack begins at; with none there are no frames. */
  from: ContextSource;
  frames: FrameReport[];
  /** Why it goes no further. */
  end: string;
  /** Why frames were guessed. */
  doubts: readonly string[];
}

/** The stack of each processor, from the registers that it shows. */
export function stacksOf(windows: Windows, { shown }: Contexts): ProcessorStackReport[] {
  return shown.map(({ processor, source, frame }) => {
    const stack: Pick<Stack, 'frames' | 'end' | 'doubts'> =
      source === 'unknown'
        ? { frames: [], end: 'its registers are unknown', doubts: [] }
        : walkStack(windows, processor, frame);
    return {
      processor: processor.number,
      cpu: processor.cpu?.index ?? null,
      from: source,
      frames: stack.frames.map(reportFrame),
      end: stack.end,
      doubts: stack.doubts,
    };
  });
}
export const reportFrame = (f: StackFrame): FrameReport => ({
  instructionPointer: hex64(f.instructionPointer),
  stackPointer: hex64(f.stackPointer),
  returnAddress: f.returnAddress === undefined ? null : hex64(f.returnAddress),
  module: f.module?.name ?? null,
  moduleBase: f.module ? hex64(f.module.base) : null,
  nearestExport: f.nearestExport ?? null,
  how: f.how,
  certain: f.certain,
});
