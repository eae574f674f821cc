/** `elf2dmp stack FILE`: the stack of each processor. */
import type { Argv } from 'yargs';
import { CONTEXT_CHOICES } from '../../choices.ts';
import { printable } from '../../core/errors.ts';
import type { StackReport } from '../../operations/stacks.ts';
import type { FrameReport } from '../../report/stacks.ts';
import { EXIT } from '../exit-codes.ts';
import { locateDescriptions, locateOptions, sourceDescriptions, sourceOptions } from '../input-options.ts';
import type { AddCommand } from '../job.ts';
import { renderSpooling, writeDiagnostics } from '../text/render.ts';
import { inputName, usage } from '../values.ts';

const options = (y: Argv) =>
  y
    .positional('file', {
      type: 'string',
      demandOption: true,
      describe: "the guest's memory, in any form that a conversion takes; it is only read",
    })
    .options(sourceDescriptions("the system's for temporary files"))
    .options(locateDescriptions)
    .option('cpu', { type: 'string', requiresArg: true, describe: "one processor only, by Windows' number" })
    .option('context', {
      choices: CONTEXT_CHOICES,
      default: 'auto' as const,
      describe: 'registers in a crashed guest that stacks begin at, as for a conversion',
    })
    .option('json', { type: 'boolean', default: false, describe: 'print the stacks as JSON' })
    .option('quiet', { alias: 'q', type: 'boolean', default: false, describe: 'print errors and losses only' })
    .option('verbose', { alias: 'v', type: 'boolean', default: false, describe: 'print why frames were guessed' });

export const addStack: AddCommand = (yargs, chosen) =>
  yargs.command('stack <file>', 'Shows the stack of each processor, without symbols.', options, (args) => {
    const { json, quiet, verbose } = args;
    const input = { ...sourceOptions(args), ...locateOptions(args) };
    if (args.cpu !== undefined && !/^\d{1,5}$/.test(args.cpu)) throw usage(`--cpu: "${args.cpu}" is not a number`);
    chosen({
      json,
      verbose,
      run: async (signal) => {
        const report = await (await import('../../operations/stacks.ts')).stacks({
          ...input,
          input: inputName(args.file),
          processor: args.cpu === undefined ? undefined : Number(args.cpu),
          context: args.context,
          signal,
          onSpool: quiet ? undefined : (spooling) => process.stderr.write(renderSpooling(spooling)),
        });
        writeDiagnostics(report.diagnostics, { quiet, verbose });
        process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : renderStacks(report, verbose));
        return report.outcome === 'losses' ? EXIT.losses : EXIT.good;
      },
    });
  });

const LEGEND =
  'Names are the nearest exports below each address, not symbols. Frames that begin with ? are guesses, or follow from one.\n';

function renderStacks({ stacks: all }: StackReport, verbose: boolean): string {
  let text = LEGEND;
  for (const stack of all) {
    const from = {
      cpu: `CPU ${stack.cpu}`,
      captured: 'what Windows captured at the bug check',
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
