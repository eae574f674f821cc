/** `elf2dmp INPUT OUTPUT`, `elf2dmp --in-place FILE`: the conversion, which needs no word of its own. */
import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Argv } from 'yargs';
import { STANDARD_INPUT } from '../../choices.ts';
import type { Progress } from '../../operations/convert.ts';
import type { InPlaceOptions } from '../../operations/in-place.ts';
import { CONVERSION_OPTIONS } from '../conversion-options.ts';
import { EXIT } from '../exit-codes.ts';
import { pageWriter } from '../html/write-page.ts';
import { locateOptions, sourceOptions } from '../input-options.ts';
import type { AddCommand, Job } from '../job.ts';
import { ProgressLine, progressForBatch } from '../text/progress.ts';
import { renderReport, renderSpooling, writeDiagnostics } from '../text/render.ts';
import { writeFindings } from '../text/render-verify.ts';
import { inputName, outputName, usage } from '../values.ts';
import { undoJob } from './undo.ts';

export const conversionOptions = (y: Argv) =>
  y
    .positional('input', {
      type: 'string',
      describe:
        'what `virsh dump --memory-only` or `dump-guest-memory` wrote, also compressed (.gz, .zst, .xz); - for standard input; it is only read',
    })
    .positional('output', { type: 'string', describe: 'the crash dump (.dmp) to write' })
    .option('in-place', {
      type: 'string',
      requiresArg: true,
      describe: 'instead of INPUT OUTPUT: this ELF file becomes the dump, without copying (ext4, XFS)',
    })
    .option('undo', {
      type: 'string',
      requiresArg: true,
      describe: 'make the ELF file again of a file converted in place',
    })
    .option('force', { alias: 'f', type: 'boolean', default: false, describe: 'replace OUTPUT if it exists' })
    .options(CONVERSION_OPTIONS)
    .option('hash', { type: 'boolean', default: false, describe: 'put the SHA-256 of input and output in the report' })
    .option('patches', {
      type: 'string',
      requiresArg: true,
      describe: 'save what was changed in memory, with the original bytes, to this file (JSON)',
    })
    .option('report', {
      type: 'string',
      requiresArg: true,
      describe: 'write a report for people, with stacks and a picture of memory, to this file (HTML)',
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
    '$0 [input] [output]',
    "Turns a Windows guest's memory, as QEMU or libvirt dumped it to a file, into a crash dump for WinDbg.",
    conversionOptions,
    (args) => chosen(conversionJob(args)),
  );

type ConversionArguments = ReturnType<typeof conversionOptions> extends Argv<infer T> ? T : never;

/** What INPUT OUTPUT alone means, for a start that needs no parser; a test holds it against the options above. */
export const PLAIN_CONVERSION: Omit<ConversionArguments, 'input' | 'output'> = {
  'in-place': undefined,
  undo: undefined,
  force: false,
  strict: false,
  patch: true,
  type: 'auto',
  'drop-zero-pages': false,
  compress: undefined,
  sparse: 'auto',
  reflink: 'never',
  ram: 'all',
  context: 'auto',
  verify: false,
  hash: false,
  patches: undefined,
  report: undefined,
  format: 'auto',
  runs: undefined,
  spool: undefined,
  dtb: undefined,
  'kernel-base': undefined,
  json: false,
  quiet: false,
  verbose: false,
};

/** Throws `Elf2dmpError` (kind `usage`). */
export function conversionJob(args: ConversionArguments): Job {
  const { json, quiet, verbose } = args;
  const names = namesOf(args);
  if ('undo' in names) return undoJob(names.undo, args);
  const common: Omit<InPlaceOptions, 'file'> = {
    strict: args.strict,
    patch: args.patch,
    context: args.context,
    ...locateOptions(args),
  };
  const { force, type, ram, reflink, sparse, verify, hash, patches, compress } = args;
  const dropZeroPages = args['drop-zero-pages'];
  const source = sourceOptions(args);
  return {
    json,
    verbose,
    output: 'inPlace' in names ? names.inPlace : names.output,
    run: async (signal) => {
      const line = process.stderr.isTTY && !quiet ? new ProgressLine(process.stderr) : undefined;
      try {
        refuseOneFileTwice({
          OUTPUT: 'output' in names ? names.output : names.inPlace,
          '--report': args.report,
          '--patches': patches,
        });
        const page =
          args.report === undefined
            ? undefined
            : await pageWriter(args.report, 'inPlace' in names ? names.inPlace : names.input, force);
        const all = {
          ...common,
          onPage: page?.take,
          signal,
          onProgress: line ? (progress: Progress) => line.update(progress) : progressForBatch(),
        };
        const report =
          'inPlace' in names
            ? await (await import('../../operations/in-place.ts')).convertInPlace({ ...all, file: names.inPlace })
            : await (await import('../../operations/convert.ts')).convert({
                ...all,
                ...names,
                ...{ force, type, ram, reflink, sparse, verify, hash, patches, compress, dropZeroPages },
                ...source,
                onSpool: quiet
                  ? undefined
                  : (spooling) => {
                      line?.clear();
                      process.stderr.write(renderSpooling(spooling, true));
                    },
              });
        await page?.write();
        line?.clear();
        writeDiagnostics(report.diagnostics, { quiet, verbose });
        if (report.verification) writeFindings(report.verification, quiet);
        if (json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
        else if (!quiet) process.stdout.write(renderReport(report, verbose));
        if (report.verification && report.verification.outcome !== 'sound') return EXIT.differs;
        return report.outcome === 'losses' ? EXIT.losses : EXIT.good;
      } finally {
        line?.clear();
      }
    },
  };
}

/** Each would replace the other; a directory may have several names. */
function refuseOneFileTwice(files: Record<string, string | undefined>): void {
  const named = Object.entries(files).flatMap(([what, path]) => {
    if (path === undefined) return [];
    const directory = dirname(resolve(path));
    let real = directory;
    try {
      real = realpathSync(directory);
    } catch {
      // That it is not there is told where it is used.
    }
    return [{ what, path: join(real, basename(path)) }];
  });
  named.forEach(({ what, path }, i) => {
    const other = named.slice(0, i).find((earlier) => earlier.path === path);
    if (other) throw usage(`${other.what} and ${what} name the same file`);
  });
}

interface Given {
  input?: string | undefined;
  output?: string | undefined;
  'in-place'?: string | undefined;
  undo?: string | undefined;
  force: boolean;
  strict: boolean;
  patch: boolean;
  context: string;
  report?: string | undefined;
  dtb?: string | undefined;
  'kernel-base'?: string | undefined;
  type: string;
  ram: string;
  reflink: string;
  sparse: string;
  verify: boolean;
  hash: boolean;
  patches?: string | undefined;
  format: string;
  runs?: string | undefined;
  spool?: string | undefined;
  compress?: string | undefined;
  'drop-zero-pages': boolean;
}

/** What --in-place and --undo can't honour is refused, not ignored. */
function namesOf(args: Given): { undo: string } | { inPlace: string } | { input: string; output: string } {
  const { undo, 'in-place': inPlace, input, output } = args;
  if (undo === undefined && inPlace === undefined) {
    if (input === undefined || output === undefined) throw usage('INPUT and OUTPUT are needed');
    return { input: inputName(input), output: outputName(output) };
  }
  const option = undo === undefined ? '--in-place' : '--undo';
  const refused: [given: boolean, what: string][] = [
    [undo !== undefined && inPlace !== undefined, '--in-place'],
    [input !== undefined, 'INPUT and OUTPUT'],
    [args.force, '--force'],
    [!['auto', 'bitmap'].includes(args.type), `--type ${args.type}`],
    [args.compress !== undefined, '--compress'],
    [args['drop-zero-pages'], '--drop-zero-pages'],
    [args.ram === 'windows', '--ram windows'],
    [args.reflink !== 'never', '--reflink'],
    [args.sparse !== 'auto', '--sparse'],
    // The input is no more: what there is to verify, `verify` does.
    [args.verify, '--verify'],
    [args.hash, '--hash'],
    [args.patches !== undefined, '--patches'],
    [args.format !== 'auto', '--format'],
    [args.runs !== undefined, '--runs'],
    [args.spool !== undefined, '--spool'],
  ];
  if (undo !== undefined) {
    refused.push(
      [args.report !== undefined, '--report'],
      [args.strict, '--strict'],
      [!args.patch, '--no-patch'],
      [args.context !== 'auto', '--context'],
      [args.dtb !== undefined, '--dtb'],
      [args['kernel-base'] !== undefined, '--kernel-base'],
    );
  }
  const first = refused.find(([given]) => given);
  if (first) throw usage(`${option} FILE and ${first[1]} do not go together`);
  const file = inputName(undo ?? inPlace!);
  if (file === STANDARD_INPUT) throw usage(`${option} needs a file, not standard input`);
  return undo === undefined ? { inPlace: file } : { undo: file };
}
