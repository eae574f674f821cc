/** The stacks of a guest's processors, without symbols. */
import type { Diagnostic } from '../core/errors.ts';
import { Elf2dmpError } from '../core/errors.ts';
import { hex64 } from '../core/units.ts';
import { type LocateOptions, locateWindows, type Windows } from '../locate/locator.ts';
import { type Stack, type StackFrame, walkStack } from '../windows/stacks.ts';
import { type OpenOptions, openInput } from '../readers/input.ts';
import { TOOL } from '../version.ts';
import type { ContextChoice } from '../commands/choices.ts';
import { type ShownContext, showContexts } from './convert.ts';
import { type InputReport, reportInput, reportWindows, type WindowsReport } from '../report/conversion.ts';

export interface StackOptions extends LocateOptions, OpenOptions {
  /** A file's path, or `-` for standard input. */
  input: string;
  /** Of this processor only, by Windows' number. */
  processor?: number | undefined;
  /** Whose registers a crashed guest's stacks begin at, as for a conversion. */
  context?: ContextChoice | undefined;
}

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
  from: 'cpu' | 'captured' | 'unknown';
  frames: FrameReport[];
  /** Why it goes no further. */
  end: string;
  /** Why frames were guessed. */
  doubts: readonly string[];
}

export interface StackReport {
  tool: typeof TOOL;
  /** `losses`: registers or memory are missing, and the diagnostics say which. */
  outcome: 'good' | 'losses';
  input: InputReport;
  windows: WindowsReport;
  stacks: ProcessorStackReport[];
  diagnostics: readonly Diagnostic[];
}

/** Throws `Elf2dmpError`. */
export async function stacks(options: StackOptions): Promise<StackReport> {
  const opened = await openInput(options.input, options);
  try {
    const windows = await locateWindows(opened, options);
    const { image } = windows;
    const all = stacksOf(windows, showContexts(windows, options.context ?? 'auto'));
    const wanted = options.processor === undefined ? all : all.filter((s) => s.processor === options.processor);
    if (wanted.length === 0 && options.processor !== undefined) {
      throw new Elf2dmpError({
        code: 'no-such-processor',
        kind: 'usage',
        message: `the guest has no processor ${options.processor}`,
        file: image.file,
        hint: `its processors are ${all.map((s) => s.processor).join(', ')}`,
      });
    }
    return {
      tool: TOOL,
      outcome: image.diagnostics.losses.length > 0 ? 'losses' : 'good',
      input: reportInput(image),
      windows: reportWindows(windows),
      stacks: wanted,
      diagnostics: image.diagnostics.list,
    };
  } finally {
    opened.close();
  }
}

/** The stack of each processor, from the registers that it shows. */
export function stacksOf(windows: Windows, shown: readonly ShownContext[]): ProcessorStackReport[] {
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

const reportFrame = (f: StackFrame): FrameReport => ({
  instructionPointer: hex64(f.instructionPointer),
  stackPointer: hex64(f.stackPointer),
  returnAddress: f.returnAddress === undefined ? null : hex64(f.returnAddress),
  module: f.module?.name ?? null,
  moduleBase: f.module ? hex64(f.module.base) : null,
  nearestExport: f.nearestExport ?? null,
  how: f.how,
  certain: f.certain,
});
