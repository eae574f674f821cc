/** Options on what an input is and where Windows is in it. */
import { FORMAT_CHOICES } from '../choices.ts';
import { address, rawRanges } from './values.ts';

/** `--dtb` and `--kernel-base`, for every command that locates Windows. */
export const locateDescriptions = {
  dtb: {
    type: 'string',
    requiresArg: true,
    describe: 'page-table root (physical address, hex), instead of searching',
  },
  'kernel-base': {
    type: 'string',
    requiresArg: true,
    describe: "the kernel's base (virtual address, hex), instead of searching",
  },
} as const;

/** `--format`, `--runs` and `--spool`, for every command that opens an input. */
export const sourceDescriptions = (spoolDefault: string) =>
  ({
    format: {
      choices: FORMAT_CHOICES,
      default: 'auto' as const,
      describe: 'raw: physical memory without a header, whatever it looks like',
    },
    runs: {
      type: 'string',
      requiresArg: true,
      describe: 'of raw memory: START+SIZE of each range in the file, as 0+3G,4G; else it is found',
    },
    spool: {
      type: 'string',
      requiresArg: true,
      describe: `directory for the temporary file that a compressed or piped input needs (default: ${spoolDefault})`,
    },
  }) as const;

export const sourceOptions = (args: {
  format: (typeof FORMAT_CHOICES)[number];
  runs: string | undefined;
  spool: string | undefined;
}) => ({
  format: args.format,
  runs: args.runs === undefined ? undefined : rawRanges(args.runs),
  ...(args.spool === undefined ? {} : { spoolDirectory: args.spool }),
});

export const locateOptions = (args: {
  dtb: string | undefined;
  'kernel-base': string | undefined;
}): { dtb: number | undefined; kernelBase: bigint | undefined } => ({
  dtb: args.dtb === undefined ? undefined : Number(address('--dtb', args.dtb, 2n ** 52n)),
  kernelBase: args['kernel-base'] === undefined ? undefined : address('--kernel-base', args['kernel-base'], 2n ** 64n),
});
