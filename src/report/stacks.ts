/** Stacks as plain data. */
import type { Diagnostic } from '../core/errors.ts';
import type { ContextSource, Contexts } from '../plan/contexts.ts';
import type { Symbols } from '../symbols/symbols.ts';
import type { TOOL } from '../version.ts';
import { type Stack, walkStack } from '../windows/stacks.ts';
import type { Windows } from '../windows/windows.ts';
import type { HangReport } from './activity.ts';
import type { FaultStackReport } from './fault.ts';
import type { InputReport } from './input.ts';
import type { Places } from './places.ts';
import type { SCHEMA } from './schemas.ts';
import { type FrameReport, reportFrames } from './stack-frames.ts';
import type { WindowsReport } from './windows.ts';

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
  /** The stack at the fault, from registers that the crash itself keeps; null where it keeps none, or for another processor. */
  fault: FaultStackReport | null;
  /** What all processors do; null in a guest that crashed. */
  activity: HangReport | null;
  diagnostics: readonly Diagnostic[];
}

/** The stack of each processor, from the registers that it shows. */
export function stacksOf(
  windows: Windows,
  { shown }: Contexts,
  { symbols, places }: { symbols?: Symbols | undefined; places: Places },
): ProcessorStackReport[] {
  return shown.map(({ processor, source, frame }) => {
    const stack: Pick<Stack, 'frames' | 'end' | 'doubts'> =
      source === 'unknown'
        ? { frames: [], end: 'its registers are unknown', doubts: [] }
        : walkStack(windows, processor, frame, { symbols });
    return {
      processor: processor.number,
      registers: source,
      frames: reportFrames(stack.frames, places),
      end: stack.end,
      doubts: stack.doubts,
    };
  });
}
