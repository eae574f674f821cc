/** The conversion: `elf2dmp INPUT OUTPUT`, `elf2dmp --in-place FILE` and `elf2dmp --undo FILE`. */
import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Progress } from '../../operations/convert.ts';
import { asTyped, checkTogether, isSet, notTogether } from '../../options/check.ts';
import { STANDARD_INPUT } from '../../options/choices.ts';
import { rowsOf } from '../../options/table.ts';
import type { CommandValues } from '../../options/values.ts';
import { EXIT } from '../exit-codes.ts';
import { pageWriter } from '../html/write-page.ts';
import { type Job, withDefaults } from '../job.ts';
import { optionsFor } from '../library-options.ts';
import type { Given } from '../parse.ts';
import { ProgressLine, progressForBatch } from '../text/progress.ts';
import { renderReport, renderSpooling, writeDiagnostics } from '../text/render.ts';
import { writeFindings } from '../text/render-verify.ts';
import { usage } from '../usage.ts';
import { undoJob } from './undo.ts';

/** The job that a command line without a command's word asks for. Throws `Elf2dmpError` (kind `usage`). */
export function conversionJob({ names, values }: Given): Job {
  const args = withDefaults('convert', values);
  const target = targetOf(args, names, values);
  checkTogether(values);
  if ('undo' in target) return undoJob(target.undo, args);
  return {
    json: args.json,
    verbose: args.verbose,
    output: 'inPlace' in target ? target.inPlace : target.output,
    run: (signal) => runConversion(target, args, values, signal),
  };
}

type ConversionValues = CommandValues<'convert'>;

/** What a conversion reads and writes. */
type Target = { inPlace: string } | { input: string; output: string };

async function runConversion(
  target: Target,
  args: ConversionValues,
  values: Given['values'],
  signal: AbortSignal,
): Promise<number> {
  const { json, quiet, verbose, force, patches } = args;
  const line = process.stderr.isTTY && !quiet ? new ProgressLine(process.stderr) : undefined;
  try {
    refuseOneFileTwice({
      OUTPUT: 'output' in target ? target.output : target.inPlace,
      '--report': args.report,
      '--patches': patches,
    });
    const writePage =
      args.report === undefined
        ? undefined
        : await pageWriter(args.report, 'inPlace' in target ? target.inPlace : target.input, force);
    const common = {
      signal,
      onProgress: line ? (progress: Progress) => line.update(progress) : progressForBatch(),
    };
    const wanted = { page: writePage !== undefined };
    const { report, page } =
      'inPlace' in target
        ? await (await import('../../operations/in-place.ts')).convertInPlaceAndDescribe(
            { ...optionsFor('convertInPlace', values), ...common, file: target.inPlace },
            wanted,
          )
        : await (await import('../../operations/convert.ts')).convertAndDescribe(
            {
              ...optionsFor('convert', values),
              ...common,
              ...target,
              onSpool: quiet
                ? undefined
                : (spooling) => {
                    line?.clear();
                    process.stderr.write(renderSpooling(spooling, { for: 'conversion' }));
                  },
            },
            wanted,
          );
    if (page) await writePage?.(page);
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
}

/** Refuses two outputs with one real path. */
function refuseOneFileTwice(files: Record<string, string | undefined>): void {
  const named = Object.entries(files).flatMap(([what, path]) => {
    if (path === undefined) return [];
    const directory = dirname(resolve(path));
    let real = directory;
    try {
      real = realpathSync(directory);
    } catch {
      // Missing: the error comes where it is used.
    }
    return [{ what, path: join(real, basename(path)) }];
  });
  named.forEach(({ what, path }, i) => {
    const other = named.slice(0, i).find((earlier) => earlier.path === path);
    if (other) throw usage(`${other.what} and ${what} name the same file`);
  });
}

/** Throws `Elf2dmpError` (kind `usage`). */
function targetOf(
  { undo, 'in-place': inPlace }: ConversionValues,
  names: readonly string[],
  values: Given['values'],
): Target | { undo: string } {
  if (undo !== undefined) return { undo: fileOf('undo', undo, names, values) };
  if (inPlace !== undefined) return { inPlace: fileOf('in-place', inPlace, names, values) };
  const [input, output] = names;
  if (input === undefined || output === undefined) throw usage('INPUT and OUTPUT are needed');
  if (output === STANDARD_INPUT) {
    throw usage(
      'the dump cannot go to standard output: its header depends on what comes last',
      'convert',
      'name a file',
    );
  }
  return { input, output };
}

function fileOf(mode: 'in-place' | 'undo', file: string, names: readonly string[], values: Given['values']): string {
  checkMode(mode, names, values);
  if (file === STANDARD_INPUT) throw usage(`--${mode} needs a file, not standard input`);
  return file;
}

/** Refuses options of a conversion that `--in-place` or `--undo` can't honour. Throws `Elf2dmpError` (kind `usage`). */
function checkMode(mode: 'in-place' | 'undo', names: readonly string[], values: Given['values']): void {
  if (names.length > 0) throw notTogether(`--${mode}`, 'INPUT and OUTPUT');
  for (const [name, row] of rowsOf('convert')) {
    if (!row.commands.includes(mode) && isSet(row, values[name])) {
      throw notTogether(`--${mode}`, asTyped(name, row, values[name]));
    }
  }
}
