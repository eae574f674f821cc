/** `elf2dmp stack FILE`: shows each processor's stack. */
import { printable } from '../../core/errors.ts';
import type { FrameReport, StackReport } from '../../report/stacks.ts';
import { EXIT } from '../exit-codes.ts';
import { type Job, withDefaults } from '../job.ts';
import { optionsFor } from '../library-options.ts';
import type { Given } from '../parse.ts';
import { symbolOf, WHOSE } from '../text/processors.ts';
import { renderSpooling, writeDiagnostics } from '../text/render.ts';

/** The job that a command line for `stack` asks for. */
export function stackJob({ names: [file], values }: Given): Job {
  const { json, quiet, verbose } = withDefaults('stack', values);
  return {
    json,
    verbose,
    run: async (signal) => {
      const report = await (await import('../../operations/stacks.ts')).stacks({
        ...optionsFor('stacks', values),
        input: file!,
        signal,
        onSpool: quiet ? undefined : (spooling) => process.stderr.write(renderSpooling(spooling)),
      });
      writeDiagnostics(report.diagnostics, { quiet, verbose });
      process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : renderStacks(report, verbose));
      return report.outcome === 'losses' ? EXIT.losses : EXIT.good;
    },
  };
}

const LEGEND =
  'Names are the nearest exports below each address, not symbols. Frames marked ? are guesses or follow from one.\n';

function renderStacks({ stacks: all, windows }: StackReport, verbose: boolean): string {
  let text = LEGEND;
  for (const stack of all) {
    const cpu = windows.processors.find(({ number }) => number === stack.processor)?.cpu ?? null;
    const whose = stack.registers === 'cpu' && cpu !== null ? `CPU ${cpu}` : WHOSE[stack.registers];
    text += `\nProcessor ${stack.processor}, registers: ${whose}\n`;
    if (stack.frames.length > 0) text += `   # ${'Child-SP'.padEnd(18)} ${'Return address'.padEnd(18)} Call site\n`;
    stack.frames.forEach((frame, i) => {
      text += `${frame.certain ? ' ' : '?'}${String(i).padStart(3)} ${frame.stackPointer} ${(frame.returnAddress ?? 'unknown').padEnd(18)} ${printable(place(frame))}\n`;
    });
    text += `     end: ${printable(stack.end)}\n`;
    for (const doubt of verbose ? stack.doubts : []) text += `     guessed: ${printable(doubt)}\n`;
  }
  return text;
}

function place({ at, instructionPointer, how }: FrameReport): string {
  if (!at) return instructionPointer;
  return how === 'trap' ? `${symbolOf(at)} (interrupted)` : symbolOf(at);
}
