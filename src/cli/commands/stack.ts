/** `elf2dmp stack FILE`: shows each processor's stack. */
import { printable } from '../../core/errors.ts';
import type { StackReport } from '../../operations/stacks.ts';
import type { FrameReport } from '../../report/stacks.ts';
import { EXIT } from '../exit-codes.ts';
import { type Job, withDefaults } from '../job.ts';
import { optionsFor } from '../library-options.ts';
import type { Given } from '../parse.ts';
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

function renderStacks({ stacks: all }: StackReport, verbose: boolean): string {
  let text = LEGEND;
  for (const stack of all) {
    const from = {
      cpu: `CPU ${stack.cpu}`,
      captured: 'captured by Windows at the bug check',
      dump: 'what the dump holds',
      unknown: 'unknown',
    };
    text += `\nProcessor ${stack.processor}, registers: ${from[stack.from]}\n`;
    if (stack.frames.length > 0) text += `   # ${'Child-SP'.padEnd(18)} ${'Return address'.padEnd(18)} Call site\n`;
    stack.frames.forEach((frame, i) => {
      text += `${frame.certain ? ' ' : '?'}${String(i).padStart(3)} ${frame.stackPointer} ${(frame.returnAddress ?? 'unknown').padEnd(18)} ${printable(place(frame))}\n`;
    });
    text += `     end: ${printable(stack.end)}\n`;
    for (const doubt of verbose ? stack.doubts : []) text += `     guessed: ${printable(doubt)}\n`;
  }
  return text;
}

function place(frame: FrameReport): string {
  const { instructionPointer: at, nearestExport: near } = frame;
  if (frame.moduleBase === null) return at;
  const name = frame.module || `image at ${frame.moduleBase}`;
  const offset = BigInt(at) - BigInt(frame.moduleBase);
  const where = near ? `${name}!${near.name}+0x${near.offset.toString(16)}` : `${name}+0x${offset.toString(16)}`;
  return frame.how === 'trap' ? `${where} (interrupted)` : where;
}
