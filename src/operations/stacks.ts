/** The stacks of a guest's processors, without symbols. */

import { Elf2dmpError } from '../core/errors.ts';
import { type LocateOptions, locateWindows } from '../locate/locator.ts';
import type { CallOptions } from '../options/values.ts';
import { chooseContexts } from '../plan/contexts.ts';
import { type OpenOptions, openInput } from '../readers/input.ts';
import { reportInput } from '../report/input.ts';
import { SCHEMA } from '../report/schemas.ts';
import { type StackReport, stacksOf } from '../report/stacks.ts';
import { reportWindows } from '../report/windows.ts';
import { TOOL } from '../version.ts';

export interface StackOptions extends CallOptions<'stacks'>, LocateOptions, Omit<OpenOptions, 'crashDumps'> {
  /** A file's path, or `-` for standard input. */
  input: string;
}

/** Throws `Elf2dmpError`. */
export async function stacks(options: StackOptions): Promise<StackReport> {
  const opened = await openInput(options.input, options);
  try {
    const windows = await locateWindows(opened, options);
    const { image } = windows;
    const contexts = chooseContexts(windows, options.context ?? 'auto');
    for (const { severity, code, message } of contexts.warnings) image.diagnostics.add(severity, code, message);
    const all = stacksOf(windows, contexts);
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
      schema: SCHEMA.stack,
      tool: TOOL,
      outcome: image.diagnostics.losses.length > 0 ? 'losses' : 'good',
      input: reportInput(image),
      windows: reportWindows(windows, contexts),
      stacks: wanted,
      diagnostics: image.diagnostics.list,
    };
  } finally {
    opened.close();
  }
}
