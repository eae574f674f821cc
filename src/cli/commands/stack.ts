/** `elf2dmp stack FILE`: shows each processor's stack. */

import { byKey } from '../../core/by-key.ts';
import { printable } from '../../core/errors.ts';
import { EXIT } from '../../core/exit-codes.ts';
import { toJson } from '../../core/json.ts';
import type { FrameReport } from '../../report/stack-frames.ts';
import type { StackReport } from '../../report/stacks.ts';
import { type Job, withDefaults } from '../job.ts';
import { optionsFor } from '../library-options.ts';
import type { Given } from '../parse.ts';
import { symbolPath } from '../symbol-path.ts';
import {
  describeFault,
  inlinedCalls,
  isNamed,
  legendOf,
  readingRows,
  siteOfFrame,
  verdictRows,
  WHOSE,
} from '../text/processors.ts';
import { ProgressLine } from '../text/progress.ts';
import { writeDiagnostics } from '../text/render.ts';
import { watchReading } from '../text/watch-reading.ts';

/** The job that a command line for `stack` asks for. */
export function stackJob({ names: [file], values }: Given): Job {
  const { json, quiet, verbose, symbols, progress } = withDefaults('stack', values);
  return {
    json,
    verbose,
    run: async (signal) => {
      const line = new ProgressLine(process.stderr, { quiet, json: progress === 'json' });
      try {
        const report = await (await import('../../operations/stacks.ts')).stacks({
          ...optionsFor('stacks', values),
          symbols: symbolPath(symbols),
          input: file!,
          signal,
          ...watchReading(line, quiet),
        });
        line.clear();
        writeDiagnostics(report.diagnostics, { quiet, verbose });
        process.stdout.write(json ? `${toJson(report, 2)}\n` : renderStacks(report, verbose));
        return report.outcome === 'losses' ? EXIT.losses : EXIT.good;
      } finally {
        line.end();
      }
    },
  };
}

const GUESSES = 'Frames marked ? are guesses or follow from one.';

function renderStacks({ stacks: all, fault, windows, activity }: StackReport, verbose: boolean): string {
  const named = isNamed(fault ? [...all, fault] : all);
  let text = `${legendOf(named)} ${GUESSES}\n`;
  for (const [name, value] of [...verdictRows(windows), ...readingRows(activity)])
    text += `${name}: ${printable(value)}\n`;
  if (fault) {
    text += `\nAt the fault, registers: ${printable(describeFault(fault))}\n`;
    text += renderRegisters(fault.registers);
    text += renderFrames(fault, { named, verbose });
  }
  const processors = byKey(windows.processors, ({ number }) => number);
  const activities = byKey(activity?.processors, ({ processor }) => processor);
  for (const stack of all) {
    const cpu = processors.get(stack.processor)?.cpu ?? null;
    const whose = stack.registers === 'cpu' && cpu !== null ? `CPU ${cpu}` : WHOSE[stack.registers];
    text += `\nProcessor ${stack.processor}, registers: ${whose}\n`;
    const does = activities.get(stack.processor);
    if (does && stack.frames.length > 0) text += `     ${printable(does.reading)}\n`;
    text += renderFrames(stack, { named, verbose });
  }
  return text;
}

const REGISTERS_IN_LINE = 4;

function renderRegisters(registers: readonly { name: string; value: string }[]): string {
  let text = '';
  for (let i = 0; i < registers.length; i += REGISTERS_IN_LINE) {
    const line = registers.slice(i, i + REGISTERS_IN_LINE).map(({ name, value }) => `${name}=${value}`);
    text += `     ${line.join(' ')}\n`;
  }
  return text;
}

function renderFrames(
  { frames, end, doubts }: Pick<StackReport['stacks'][number], 'frames' | 'end' | 'doubts'>,
  { named, verbose }: { named: boolean; verbose: boolean },
): string {
  let text = '';
  if (frames.length > 0) text += `   # ${'Child-SP'.padEnd(18)} ${'Return address'.padEnd(18)} Call site\n`;
  frames.forEach((frame, i) => {
    for (const call of inlinedCalls(frame.at)) text += `     ${'(inlined)'.padEnd(37)} ${printable(call)}\n`;
    text += `${frame.certain ? ' ' : '?'}${String(i).padStart(3)} ${frame.stackPointer} ${(frame.returnAddress ?? 'unknown').padEnd(18)} ${printable(place(frame, named))}\n`;
  });
  text += `     end: ${printable(end)}\n`;
  for (const doubt of verbose ? doubts : []) text += `     guessed: ${printable(doubt)}\n`;
  return text;
}

function place(frame: FrameReport, named: boolean): string {
  const site = siteOfFrame(frame, named);
  return frame.how === 'trap' && frame.at ? `${site} (interrupted)` : site;
}
