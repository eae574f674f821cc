/** The command line, parsed with yargs. */
import yargs from 'yargs';
import {
  CONTEXT_CHOICES,
  type ConvertOptions,
  DUMP_TYPE_CHOICES,
  RAM_CHOICES,
  REFLINK_CHOICES,
} from '../commands/convert.ts';
import { Elf2dmpError } from '../core/errors.ts';
import { VERSION } from '../version.ts';
import { EXIT_CODE_HELP } from './exit-codes.ts';

/** The conversion that was asked for, and how to tell of it. */
export interface ConvertArguments extends ConvertOptions {
  json: boolean;
  quiet: boolean;
  verbose: boolean;
}

/** Text to print and be done, or what to do. Throws `Elf2dmpError` (kind `usage`). */
export async function parseArguments(
  argv: readonly string[],
): Promise<{ print: string } | { convert: ConvertArguments }> {
  let parsed: ConvertArguments | undefined;
  let printed = '';
  let problem: string | undefined;
  const parser = yargs()
    .scriptName('elf2dmp')
    // Messages in one language, whatever the environment: scripts read them too.
    .locale('en')
    .parserConfiguration({
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'dot-notation': false,
      'duplicate-arguments-array': false,
      'camel-case-expansion': false,
    })
    .command(
      '$0 <input> <output>',
      "Turns a Windows guest's memory, as QEMU or libvirt dumped it to an ELF file, into a crash dump for WinDbg.",
      (y) =>
        y
          .positional('input', {
            type: 'string',
            demandOption: true,
            describe: 'what `virsh dump --memory-only` or `dump-guest-memory` wrote; it is only read',
          })
          .positional('output', { type: 'string', demandOption: true, describe: 'the crash dump (.dmp) to write' })
          .option('force', { type: 'boolean', default: false, describe: 'replace OUTPUT if it exists' })
          .option('strict', {
            type: 'boolean',
            default: false,
            describe: 'write nothing when anything would be lost (exit 5)',
          })
          .option('patch', {
            type: 'boolean',
            default: true,
            describe: "--no-patch leaves the guest's memory untouched: no decoded KDBG, no registers",
          })
          .option('type', {
            choices: DUMP_TYPE_CHOICES,
            default: 'auto' as const,
            describe: 'auto: a full dump, or a bitmap dump if there are more than 42 runs',
          })
          .option('reflink', {
            choices: REFLINK_CHOICES,
            default: 'never' as const,
            describe: "share the input's blocks instead of copying (XFS, Btrfs); makes a bitmap dump",
          })
          .option('ram', {
            choices: RAM_CHOICES,
            default: 'all' as const,
            describe: 'all that the input holds, or only what Windows counts as RAM (no video memory, no firmware)',
          })
          .option('context', {
            choices: CONTEXT_CHOICES,
            default: 'auto' as const,
            describe:
              'registers in a crashed guest: as Windows captured them (auto: for the crashing processor), or as the CPUs had them',
          })
          .option('dtb', {
            type: 'string',
            requiresArg: true,
            describe: 'page-table root (physical address, hex), instead of searching',
          })
          .option('kernel-base', {
            type: 'string',
            requiresArg: true,
            describe: "the kernel's base (virtual address, hex), instead of searching",
          })
          .option('json', { type: 'boolean', default: false, describe: 'print the report as JSON' })
          .option('quiet', { type: 'boolean', default: false, describe: 'print errors and losses only' })
          .option('verbose', {
            type: 'boolean',
            default: false,
            describe: 'print what was tried and what was changed',
          }),
      (args) => {
        parsed = {
          input: args.input,
          output: args.output,
          force: args.force,
          strict: args.strict,
          patch: args.patch,
          context: args.context,
          type: args.type,
          ram: args.ram,
          reflink: args.reflink,
          dtb: args.dtb === undefined ? undefined : Number(address('--dtb', args.dtb, 2n ** 52n)),
          kernelBase:
            args['kernel-base'] === undefined ? undefined : address('--kernel-base', args['kernel-base'], 2n ** 64n),
          json: args.json,
          quiet: args.quiet,
          verbose: args.verbose,
        };
      },
    )
    .usage(
      "$0 INPUT OUTPUT [options]\n\nTurns a Windows guest's memory, as QEMU or libvirt dumped it to a file, into a crash dump for WinDbg.",
    )
    .version(VERSION)
    .help()
    .alias({ help: 'h', force: 'f', quiet: 'q', verbose: 'v' })
    .strict()
    .epilogue(EXIT_CODE_HELP)
    .wrap(100)
    .exitProcess(false)
    .showHelpOnFail(false)
    .fail((message, error) => {
      if (error instanceof Elf2dmpError) throw error;
      problem = message?.startsWith('Not enough non-option')
        ? 'INPUT and OUTPUT are needed'
        : (message ?? error?.message ?? 'wrong arguments').replace(/\s+/g, ' ');
    });
  await parser.parseAsync([...argv], {}, (_error, _args, output) => {
    printed = output;
  });
  if (problem !== undefined) throw usage(problem);
  if (parsed) return { convert: parsed };
  return { print: printed };
}

function usage(message: string): Elf2dmpError {
  return new Elf2dmpError({ code: 'usage', kind: 'usage', message, hint: 'see elf2dmp --help' });
}

/** Hexadecimal as people copy it: 0x1ad000, 1ad000, fffff800`12345000. */
function address(option: string, text: string, limit: bigint): bigint {
  const digits = text.replaceAll('`', '').replace(/^0x/i, '');
  const value = /^[0-9a-f]{1,16}$/i.test(digits) ? BigInt(`0x${digits}`) : undefined;
  if (value === undefined || value >= limit) {
    throw usage(`${option}: "${text}" is not a hexadecimal address below 0x${limit.toString(16)}`);
  }
  return value;
}
