/** Options on what an input is and where Windows is in it, for commands that only read. */
import type { Argv } from 'yargs';
import type { LocateOptions } from '../locate/locator.ts';
import type { OpenOptions } from '../readers/input.ts';
import { FORMAT_CHOICES } from '../readers/registry.ts';
import { address, rawRanges } from './values.ts';

export const inputOptions = <T>(y: Argv<T>) =>
  y
    .option('format', {
      choices: FORMAT_CHOICES,
      default: 'auto' as const,
      describe: 'raw: physical memory without a header, whatever it looks like',
    })
    .option('runs', {
      type: 'string',
      requiresArg: true,
      describe: 'of raw memory: START+SIZE of each range in the file, as 0+3G,4G; else it is found',
    })
    .option('spool', {
      type: 'string',
      requiresArg: true,
      describe: 'directory for the temporary file that a compressed or piped input needs',
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
    });

interface InputArguments {
  format: (typeof FORMAT_CHOICES)[number];
  runs: string | undefined;
  spool: string | undefined;
  dtb: string | undefined;
  'kernel-base': string | undefined;
}

/** Throws `Elf2dmpError` (kind `usage`). */
export const inputFrom = (args: InputArguments): OpenOptions & LocateOptions => ({
  format: args.format,
  runs: args.runs === undefined ? undefined : rawRanges(args.runs),
  spoolDirectory: args.spool,
  dtb: args.dtb === undefined ? undefined : Number(address('--dtb', args.dtb, 2n ** 52n)),
  kernelBase: args['kernel-base'] === undefined ? undefined : address('--kernel-base', args['kernel-base'], 2n ** 64n),
});
