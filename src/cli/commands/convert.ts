/** The conversion: `elf2dmp INPUT OUTPUT`, `elf2dmp --in-place FILE` and `elf2dmp --undo FILE`. */

import { EXIT } from '../../core/exit-codes.ts';
import { toJson } from '../../core/json.ts';
import type { Converted, ConvertOptions, Progress, Wanted } from '../../operations/convert.ts';
import { asTyped, checkTogether, isSet, notTogether } from '../../options/check.ts';
import { STANDARD_STREAM } from '../../options/choices.ts';
import { rowsOf } from '../../options/table.ts';
import type { CommandValues } from '../../options/values.ts';
import type { ConversionReport } from '../../report/conversion.ts';
import { renderReportPage } from '../html/write-page.ts';
import { type Job, withDefaults } from '../job.ts';
import { optionsFor } from '../library-options.ts';
import type { Given } from '../parse.ts';
import { symbolPath } from '../symbol-path.ts';
import { ProgressLine, progressForBatch } from '../text/progress.ts';
import { renderReport, renderSpooling, writeDiagnostics } from '../text/render.ts';
import { writeFindings } from '../text/render-verify.ts';
import { usage } from '../usage.ts';
import { undoJob } from './undo.ts';

/** The job that a command line without a command's word asks for. Throws `Elf2dmpError` (kind `usage`). */
export function conversionJob(given: Given): Job {
  const { values } = given;
  const args = withDefaults('convert', values);
  const target = targetOf(args, given.names, values);
  checkTogether(values);
  if ('undo' in target) return undoJob(target.undo, args);
  return {
    json: args.json,
    verbose: args.verbose,
    output: 'inPlace' in target ? target.inPlace : target.output,
    run: (signal) => runConversion({ target, args, values }, signal),
  };
}

/** As `conversionJob`, for a batch: prints nothing. */
export async function convertForBatch({ names, values }: Given, signal: AbortSignal): Promise<ConversionReport> {
  const args = withDefaults('convert', values);
  const target = targetOf(args, names, values);
  checkTogether(values);
  if ('undo' in target) throw notTogether('--undo', 'batch');
  const { report } = await performConversion({ target, args, values }, { signal, onProgress: progressForBatch() });
  return report;
}

type ConversionValues = CommandValues<'convert'>;

/** What a conversion reads and writes. */
type Target = { inPlace: string } | { input: string; output: string };

/** A conversion as it was asked for. */
interface Asked {
  target: Target;
  args: ConversionValues;
  values: Given['values'];
}

/** The exit code for a dump that was written. */
export function exitCodeOf({ outcome, verification }: ConversionReport): number {
  if (verification && verification.outcome !== 'sound') return EXIT.differs;
  return outcome === 'losses' ? EXIT.losses : EXIT.good;
}

async function runConversion(asked: Asked, signal: AbortSignal): Promise<number> {
  const { json, quiet, verbose, progress: form } = asked.args;
  const line = new ProgressLine(process.stderr, { quiet, json: form === 'json' });
  try {
    const { report, page, patches } = await performConversion(asked, {
      signal,
      onProgress: progressForBatch() ?? ((progress: Progress) => line.update(progress)),
      onSpool: quiet
        ? undefined
        : (spooling) => {
            line.clear();
            process.stderr.write(renderSpooling(spooling, { for: 'conversion' }));
          },
    });
    line.clear();
    writeDiagnostics(report.diagnostics, { quiet, verbose });
    if (report.verification) writeFindings(report.verification, { quiet, verbose });
    if (page && asked.args.report === STANDARD_STREAM) process.stdout.write(await renderReportPage(page));
    if (patches) process.stdout.write(patches);
    if (json) process.stdout.write(`${toJson(report, 2)}\n`);
    else if (!quiet) (usesOutput(asked) ? process.stderr : process.stdout).write(renderReport(report, verbose));
    return exitCodeOf(report);
  } finally {
    line.end();
  }
}

/** Whether standard output takes something else than the report. */
const usesOutput = ({ target, args }: Asked): boolean =>
  [args.report, args.patches, 'output' in target && target.output].includes(STANDARD_STREAM);

async function performConversion(
  { target, args, values }: Asked,
  { onSpool, ...watched }: Pick<ConvertOptions, 'signal' | 'onProgress' | 'onSpool'>,
): Promise<Converted> {
  const path = args.report;
  const isFile = path !== undefined && path !== STANDARD_STREAM;
  const wanted: Wanted = {
    pageFile: isFile ? { path, force: args.force, render: renderReportPage } : undefined,
    page: path === STANDARD_STREAM,
    patches: args.patches === STANDARD_STREAM,
    approve: (await import('../../batch/approval.ts')).approvalOfBatch(),
  };
  const common = { ...watched, symbols: symbolPath(args.symbols) };
  return 'inPlace' in target
    ? (await import('../../operations/in-place.ts')).convertInPlaceAndDescribe(
        { ...optionsFor('convertInPlace', values), ...common, file: target.inPlace },
        wanted,
      )
    : (await import('../../operations/convert.ts')).convertAndDescribe(
        {
          ...optionsFor('convert', values),
          ...(wanted.patches ? { patches: undefined } : {}),
          ...common,
          input: target.input,
          output: target.output === STANDARD_STREAM ? process.stdout : target.output,
          onSpool,
        },
        wanted,
      );
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
  if (output === STANDARD_STREAM && process.stdout.isTTY) {
    throw usage('the dump is to go to standard output, but that is a terminal', 'convert', 'name a file, or a pipe');
  }
  return { input, output };
}

function fileOf(mode: 'in-place' | 'undo', file: string, names: readonly string[], values: Given['values']): string {
  checkMode(mode, names, values);
  if (file === STANDARD_STREAM) throw usage(`--${mode} needs a file, not standard input`);
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
