/** `elf2dmp stack FILE`: shows each processor's stack. */

import { byKey } from '../../core/by-key.ts';
import { printable } from '../../core/errors.ts';
import { EXIT } from '../../core/exit-codes.ts';
import { toJson } from '../../core/json.ts';
import type { FrameReport, StackReport } from '../../report/stacks.ts';
import { type Job, withDefaults } from '../job.ts';
import { optionsFor } from '../library-options.ts';
import type { Given } from '../parse.ts';
import { symbolPath } from '../symbol-path.ts';
import { inlinedCalls, isNamed, legendOf, readingRows, siteOf, verdictRows, WHOSE } from '../text/processors.ts';
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

function renderStacks({ stacks: all, windows, activity }: StackReport, verbose: boolean): string {
  const named = isNamed(all);
  let text = `${legendOf(named)} ${GUESSES}\n`;
  for (const [name, value] of [...verdictRows(windows), ...readingRows(activity)])
    text += `${name}: ${printable(value)}\n`;
  const processors = byKey(windows.processors, ({ number }) => number);
  const activities = byKey(activity?.processors, ({ processor }) => processor);
  for (const stack of all) {
    const cpu = processors.get(stack.processor)?.cpu ?? null;
    const whose = stack.registers === 'cpu' && cpu !== null ? `CPU ${cpu}` : WHOSE[stack.registers];
    text += `\nProcessor ${stack.processor}, registers: ${whose}\n`;
    const does = activities.get(stack.processor);
    if (does && stack.frames.length > 0) text += `     ${printable(does.reading)}\n`;
    if (stack.frames.length > 0) text += `   # ${'Child-SP'.padEnd(18)} ${'Return address'.padEnd(18)} Call site\n`;
    stack.frames.forEach((frame, i) => {
      for (const call of inlinedCalls(frame.at)) text += `     ${'(inlined)'.padEnd(37)} ${printable(call)}\n`;
      text += `${frame.certain ? ' ' : '?'}${String(i).padStart(3)} ${frame.stackPointer} ${(frame.returnAddress ?? 'unknown').padEnd(18)} ${printable(place(frame, named))}\n`;
    });
    text += `     end: ${printable(stack.end)}\n`;
    for (const doubt of verbose ? stack.doubts : []) text += `     guessed: ${printable(doubt)}\n`;
  }
  return text;
}

function place({ at, instructionPointer, how }: FrameReport, named: boolean): string {
  if (!at) return instructionPointer;
  return how === 'trap' ? `${siteOf(at, named)} (interrupted)` : siteOf(at, named);
}
