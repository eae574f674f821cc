/** The stacks of a guest's processors. */

import { Diagnostics, Elf2dmpError } from '../core/errors.ts';
import { takeSignals } from '../core/pulse.ts';
import type { CallOptions } from '../options/values.ts';
import { chooseContexts } from '../plan/contexts.ts';
import { reportActivity } from '../report/activity.ts';
import { reportFaultStack } from '../report/fault.ts';
import { reportGuestInput } from '../report/input.ts';
import { Places } from '../report/places.ts';
import { Images } from '../report/processors.ts';
import { SCHEMA } from '../report/schemas.ts';
import { type StackReport, stacksOf } from '../report/stacks.ts';
import { reportWindows } from '../report/windows.ts';
import type { Symbols } from '../symbols/symbols.ts';
import { TOOL } from '../version.ts';
import { findFault } from '../windows/fault.ts';
import { type Guest, type Input, type ReadingOptions, withGuest } from './guest.ts';
import { symbolDiagnostics, withSymbols } from './symbols.ts';

export interface StackOptions extends CallOptions<'stacks'>, ReadingOptions {
  /** What to read. */
  input: Input;
}

/** The stacks of a guest's processors. Throws `Elf2dmpError`. */
export const stacks = (options: StackOptions): Promise<StackReport> =>
  withSymbols(options.symbols, (symbols) =>
    withGuest(options.input, { ...options, crashDumps: true }, async (guest) => reportGuest(guest, options, symbols)),
  );

async function reportGuest(
  { windows, image }: Guest,
  { processor, context = 'auto', signal }: StackOptions,
  symbols: Symbols | undefined,
): Promise<StackReport> {
  // What follows lets no signal in.
  await takeSignals(signal);
  const contexts = chooseContexts(windows, context);
  const images = new Images(windows, symbols);
  const places = new Places(windows, contexts, images);
  const all = stacksOf(windows, contexts, { symbols, places });
  const wanted = processor === undefined ? all : all.filter((s) => s.processor === processor);
  if (wanted.length === 0 && processor !== undefined) {
    throw new Elf2dmpError({
      code: 'no-such-processor',
      kind: 'usage',
      message: `the guest has no processor ${processor}`,
      file: image.file,
      hint: `its processors are ${all.map((s) => s.processor).join(', ')}`,
    });
  }
  const described = reportWindows(windows, contexts, images, places);
  const isAsked = processor === undefined || processor === windows.crash?.processor?.number;
  const fault = isAsked ? reportFaultStack(windows, findFault(windows), { symbols, places }) : null;
  const activity = reportActivity(windows, contexts, images);
  await takeSignals(signal);
  await image.checkUnchanged();
  const diagnostics = Diagnostics.join(image.diagnostics.list, contexts.diagnostics, symbolDiagnostics(symbols));
  return {
    schema: SCHEMA.stack,
    tool: TOOL,
    outcome: diagnostics.outcome,
    input: reportGuestInput(windows, contexts, symbols),
    windows: described,
    stacks: wanted,
    fault,
    activity,
    diagnostics: diagnostics.list,
  };
}
