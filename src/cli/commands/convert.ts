/** `elf2dmp INPUT OUTPUT`: the conversion, which needs no word of its own. */
import type { Argv } from 'yargs';
import {
  CONTEXT_CHOICES,
  type ConvertOptions,
  DUMP_TYPE_CHOICES,
  RAM_CHOICES,
  REFLINK_CHOICES,
} from '../../commands/convert.ts';
import { convert } from '../../index.ts';
import { FORMAT_CHOICES } from '../../readers/registry.ts';
import { EXIT } from '../exit-codes.ts';
import type { AddCommand } from '../job.ts';
import { ProgressLine } from '../progress.ts';
import { renderReport, renderSpooling, writeDiagnostics } from '../render.ts';
import { address, inputName, outputName, rawRanges } from '../values.ts';

const options = (y: Argv) =>
  y
    .positional('input', {
      type: 'string',
      demandOption: true,
      describe:
        'what `virsh dump --memory-only` or `dump-guest-memory` wrote, also compressed (.gz, .zst, .xz); - for standard input; it is only read',
    })
    .positional('output', { type: 'string', demandOption: true, describe: 'the crash dump (.dmp) to write' })
    .option('force', { alias: 'f', type: 'boolean', default: false, describe: 'replace OUTPUT if it exists' })
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
      describe: "directory for the temporary file that a compressed or piped input needs (default: OUTPUT's)",
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
    .option('quiet', { alias: 'q', type: 'boolean', default: false, describe: 'print errors and losses only' })
    .option('verbose', {
      alias: 'v',
      type: 'boolean',
      default: false,
      describe: 'print what was tried and what was changed',
    });

export const addConvert: AddCommand = (yargs, chosen) =>
  yargs.command(
    '$0 <input> <output>',
    "Turns a Windows guest's memory, as QEMU or libvirt dumped it to a file, into a crash dump for WinDbg.",
    options,
    (args) => {
      const { json, quiet, verbose } = args;
      const conversion: ConvertOptions = {
        input: inputName(args.input),
        output: outputName(args.output),
        force: args.force,
        strict: args.strict,
        patch: args.patch,
        context: args.context,
        type: args.type,
        ram: args.ram,
        reflink: args.reflink,
        format: args.format,
        runs: args.runs === undefined ? undefined : rawRanges(args.runs),
        ...(args.spool === undefined ? {} : { spoolDirectory: args.spool }),
        dtb: args.dtb === undefined ? undefined : Number(address('--dtb', args.dtb, 2n ** 52n)),
        kernelBase:
          args['kernel-base'] === undefined ? undefined : address('--kernel-base', args['kernel-base'], 2n ** 64n),
      };
      chosen({
        json,
        verbose,
        output: args.output,
        run: async (signal) => {
          const line = process.stderr.isTTY && !quiet ? new ProgressLine(process.stderr) : undefined;
          try {
            const report = await convert({
              ...conversion,
              signal,
              onSpool: quiet
                ? undefined
                : (spooling) => {
                    line?.clear();
                    process.stderr.write(renderSpooling(spooling));
                  },
              onProgress: line && ((progress) => line.update(progress)),
            });
            line?.clear();
            writeDiagnostics(report.diagnostics, { quiet, verbose });
            if (json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
            else if (!quiet) process.stdout.write(renderReport(report, verbose));
            return report.outcome === 'losses' ? EXIT.losses : EXIT.good;
          } finally {
            line?.clear();
          }
        },
      });
    },
  );
