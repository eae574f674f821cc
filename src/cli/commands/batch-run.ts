/** `elf2dmp batch`: merges command line and configuration, runs the batch and prints its results. */
import { existsSync, statSync } from 'node:fs';
import { readdir, realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import {
  type CrashGroup,
  type CrashPolicy,
  crashLine,
  failsAsNew,
  groupCrashes,
  readKnownCrashes,
} from '../../batch/crashes.ts';
import { isLock, lockOutputs } from '../../batch/lock.ts';
import {
  type BatchJob,
  DEFAULT_NAME,
  type JobOptions,
  pageOf,
  planBatch,
  type Shard,
  shardOf,
  sidecarOf,
} from '../../batch/plan.ts';
import { crashKind, isOurJunit, mayBeReport, ReportFile, renderJunit, reportStream } from '../../batch/report.ts';
import {
  DEFAULT_RETRIES,
  defaultJobs,
  type JobResult,
  makeDirectory,
  runBatch,
  type Standing,
  standingsOf,
} from '../../batch/run.ts';
import { noSpace, renderNeed, type SpaceNeed, spaceNeeds } from '../../batch/space.ts';
import { type Elf2dmpError, printable } from '../../core/errors.ts';
import { EXIT, EXIT_OF_KIND } from '../../core/exit-codes.ts';
import { toJson } from '../../core/json.ts';
import { bytes } from '../../core/units.ts';
import { checkOutputs, replaceFile, type WantedOutput, writeNewFile } from '../../files/publish.ts';
import { checkTogether } from '../../options/check.ts';
import { STANDARD_STREAM } from '../../options/choices.ts';
import { localSymbolPaths } from '../../options/symbol-path.ts';
import { type OptionName, ROWS } from '../../options/table.ts';
import type { GivenValues } from '../../options/values.ts';
import { isOurPage } from '../../report/page-mark.ts';
import { SCHEMA } from '../../report/schemas.ts';
import { TOOL } from '../../version.ts';
import { type BatchConfig, readConfig } from '../config.ts';
import { withDefaults } from '../job.ts';
import type { Given } from '../parse.ts';
import { shardFrom } from '../shard.ts';
import { BatchProgress } from '../text/batch-progress.ts';
import { usage as wrong } from '../usage.ts';

const usage = (message: string) => wrong(message, 'batch');

/** Runs a batch and returns the exit code. Throws `Elf2dmpError`. */
export async function batch(given: Given, signal: AbortSignal): Promise<number> {
  const args = withDefaults('batch', given.values);
  checkTogether(given.values);
  const settings = settingsOf(given);
  const { jobs: all, foreign, unused } = planBatch(settings.plan);
  // Fail before the first job starts, not in each of them.
  for (const { options, relative } of all) checkTogether(options, `these are the options for ${relative}`);
  const shard = shardFrom(args.shard, process.env);
  const jobs = shard ? shardOf(all, shard) : all;
  const say = (text: string) => args.quiet || process.stderr.write(`${printable(text)}\n`);
  for (const { match } of unused) say(`warning: the override for "${match}" matches no input`);
  if (foreign.length > 0) say(foreignFiles(foreign));
  if (shard) say(`shard ${shard.index}/${shard.count}: ${jobs.length} of ${all.length} inputs`);

  const crashes = {
    known: settings.known === undefined ? undefined : readKnownCrashes(settings.known),
    failOnNew: settings.failOnNew,
  };
  const standings = await standingsOf(jobs, settings.run, signal);
  const needs = await spaceNeeds(standings);
  const lacking = args['space-check'] ? needs.find((need) => need.needed > need.free) : undefined;
  if (args['dry-run']) {
    process.stdout.write(renderPlan(standings, needs));
    await checkBatchFiles(settings, shard, all);
    if (lacking) throw noSpace(lacking);
    return exitCodeBefore(standings);
  }
  for (const need of needs) if (need.unknown > 0) say(renderNeed(need));
  if (lacking) throw noSpace(lacking);

  const wanted = await checkBatchFiles(settings, shard, all);
  for (const path of [settings.plan.out, ...wanted.directories]) await makeDirectory(path);
  const outputs = wanted.files;
  const lock = await lockOutputs(settings.plan.out, shard);
  const started = performance.now();
  let results: JobResult[];
  let groups: CrashGroup[];
  try {
    const report = settings.report === undefined ? undefined : await openReport(settings.report, shard);
    const progress = new BatchProgress(process.stderr, standings, {
      quiet: args.quiet,
      json: args.progress === 'json',
    });
    progress.start();
    try {
      results = await runBatch(jobs, { ...settings.run, signal, onEvent: (event) => progress.on(event) }, (record) =>
        report?.add(record),
      );
    } finally {
      progress.stop();
      report?.close();
    }
    groups = groupCrashes(results, crashes.known);
    await writeJunit(settings.junit === STANDARD_STREAM ? STANDARD_STREAM : outputs.junit, results, crashes);
    if (outputs.index !== undefined) await writeIndex(outputs.index, settings.plan.out, { results, groups });
  } finally {
    await lock.release();
  }
  const exitCode = exitCodeOf(results.map(({ record }) => (failsAsNew(record, crashes) ? newCrash(record) : record)));
  const seconds = (performance.now() - started) / 1000;
  if (args.json) process.stdout.write(`${toJson(summaryOf(results, groups, { seconds, exitCode }), 2)}\n`);
  else if (args.quiet) tellNewCrashes(results, crashes, args.progress);
  else streamForPeople(settings).write(renderSummary(results, seconds, args.verbose) + renderCrashes(groups));
  signal.throwIfAborted();
  return exitCode;
}

/** Standard output, unless a program reads something else there. */
const streamForPeople = ({ junit, report }: ReturnType<typeof settingsOf>): NodeJS.WriteStream =>
  junit === STANDARD_STREAM || report?.path === STANDARD_STREAM ? process.stderr : process.stdout;

/** As the jobs would end: what is missing can't be opened, and what is taken is not replaced. */
const exitCodeBefore = (standings: readonly Standing[]): number =>
  standings.some(({ state }) => state === 'missing' || state === 'taken') ? EXIT.ioPermanent : EXIT.good;

/** @param file `-` for standard output */
async function writeJunit(file: string | undefined, results: readonly JobResult[], policy: CrashPolicy): Promise<void> {
  if (file === undefined) return;
  const text = renderJunit(results, policy);
  if (file === STANDARD_STREAM) process.stdout.write(text);
  else await replaceFile(file, text);
}

/** What `--json` prints: schema/batch-summary.schema.json. */
function summaryOf(
  results: readonly JobResult[],
  groups: readonly CrashGroup[],
  { seconds, exitCode }: { seconds: number; exitCode: number },
) {
  const count = (is: (result: JobResult) => boolean) => results.filter(is).length;
  return {
    schema: SCHEMA['batch-summary'],
    tool: TOOL,
    exitCode,
    seconds: Math.round(seconds * 1000) / 1000,
    inputs: results.length,
    good: count(({ record }) => record?.outcome === 'good'),
    losses: count(({ record }) => record?.outcome === 'losses'),
    failed: count(({ record }) => record?.outcome === 'failed'),
    notRun: count(({ record }) => !record),
    doneBefore: count(({ status }) => status === 'skipped'),
    dumpBytes: results.reduce((sum, { record }) => sum + (record?.bytes ?? 0), 0),
    failures: results.flatMap(({ job, record }) =>
      record?.error
        ? [{ input: job.input, exitCode: record.exitCode, code: record.error.code, text: record.error.text }]
        : [],
    ),
    crashes: groups.map(({ signature, results: dumps, firstSeen, lastSeen, known }) => ({
      signature,
      dumps: dumps.map(({ job }) => job.output),
      ...{ firstSeen, lastSeen, known },
    })),
  };
}

/** Files that a message names. */
const NAMED_FILES = 3;

function foreignFiles(files: readonly string[]): string {
  const names = files.slice(0, NAMED_FILES).map((file) => basename(file));
  const more = files.length > NAMED_FILES ? `, and ${files.length - NAMED_FILES} more` : '';
  const left = files.length === 1 ? 'no dump, and is left out' : 'no dumps, and are left out';
  return `${names.join(', ')}${more}: ${left}`;
}

/** The command line overrides the configuration, whose paths are relative to its own directory. */
function settingsOf({ names, raw, values }: Given) {
  const args: GivenValues<'batch'> = values;
  const [configFile, config] = configOf(names);
  const base = configFile === undefined ? process.cwd() : dirname(resolve(configFile));
  const place = (given: string | undefined, configured: string | undefined) => {
    if (given !== undefined) return given === STANDARD_STREAM ? given : resolve(given);
    return configured === undefined ? undefined : resolve(base, configured);
  };
  const out = place(args.out, config.out);
  if (out === undefined) throw usage('--out is missing: the directory for the dumps');
  const manifest = place(args.manifest, config.manifest);
  const known = place(args.known, config.known);
  const paths = configFile === undefined ? names : (config.inputs ?? []);
  if (paths.length === 0 && manifest === undefined)
    throw usage('no inputs: name files, directories, globs or a --manifest');
  const given = args['keep-going'] ?? (args['fail-fast'] === undefined ? undefined : !args['fail-fast']);
  return {
    plan: {
      ...{ paths, manifest, base, out },
      exclude: config.exclude,
      name: args.name ?? config.name ?? DEFAULT_NAME,
      options: { ...optionsOf(config.options, base), ...optionsOf(raw, process.cwd()) },
      /** Files that say what to do. */
      read: [configFile, manifest, known].flatMap((file) =>
        file === undefined || file === STANDARD_STREAM ? [] : [resolve(file)],
      ),
      overrides: config.override?.map((o) => ({ ...o, options: optionsOf(o.options, base) })),
    },
    run: {
      command: ownCommand(),
      jobs: args.jobs ?? config.jobs ?? defaultJobs(),
      keepGoing: given ?? config['keep-going'] ?? true,
      retries: args.retries ?? config.retries ?? DEFAULT_RETRIES,
      force: args.force ?? config.force ?? false,
      hash: args.hash ?? config.hash ?? false,
      html: args.html ?? config.html ?? false,
      recheck: args.recheck ?? false,
      retryFailed: args['retry-failed'] ?? false,
      out,
      exitCodeOf: (error: Elf2dmpError) => EXIT_OF_KIND[error.kind],
    },
    report: reportPlace(args.jsonl ?? config.jsonl, place(args.jsonl, config.jsonl)),
    junit: place(args.junit, config.junit),
    known,
    failOnNew: args['fail-on-new'] ?? config['fail-on-new'] ?? false,
  };
}

function configOf(paths: readonly string[]): [file: string | undefined, config: BatchConfig] {
  const file = paths.find((path) => path.endsWith('.toml'));
  if (file === undefined) return [undefined, {}];
  if (paths.length > 1) throw usage(`${file} is a configuration: list all inputs in it`);
  return [file, readConfig(file)];
}

/** The given options of a conversion, as text for a command line. */
function optionsOf(given: Readonly<Partial<Record<OptionName, unknown>>> = {}, base: string): JobOptions {
  const rows = ROWS.filter(([name, row]) => row.toml === 'options' && given[name] !== undefined);
  return Object.fromEntries(
    rows.map(([name, row]) => {
      const value = given[name] as string | boolean;
      const isPath = row.kind === 'file' || row.kind === 'directory';
      return [name, isPath ? resolve(base, String(value)) : value];
    }),
  );
}

/** In a directory each shard has a file of its own, because NFS cannot append atomically; together they are one report. */
const reportFile = ({ path, isDirectory }: ReportPlace, shard: Shard | undefined): string =>
  isDirectory ? join(path, shard ? `report-${shard.index}-of-${shard.count}.jsonl` : 'report.jsonl') : path;

async function openReport(place: ReportPlace, shard: Shard | undefined): Promise<Pick<ReportFile, 'add' | 'close'>> {
  if (place.path === STANDARD_STREAM) return reportStream((text) => process.stdout.write(text));
  const file = reportFile(place, shard);
  if (!place.isDirectory) return ReportFile.open(file);
  const files = (await readdir(place.path)).filter((name) => name.endsWith('.jsonl'));
  return ReportFile.open(
    file,
    files.map((name) => join(place.path, name)).filter((other) => other !== file),
  );
}

/** Lists only this shard's dumps: it knows nothing of the others. */
async function writeIndex(
  file: string,
  out: string,
  { results, groups }: { results: readonly JobResult[]; groups: readonly CrashGroup[] },
): Promise<void> {
  const { renderIndex } = await import('../html/index-page.ts');
  const outputs = results.map(({ job }) => job.output).filter((output) => existsSync(pageOf(output)));
  const text = renderIndex({ results, groups }, out, new Map(outputs.map((output) => [output, pageOf(output)])));
  await writeNewFile(file, Buffer.from(text), { force: true });
}

/**
 * Refuses, before the first job, files of the batch that would replace inputs, jobs' outputs, each other, or what is
 * not ours. Throws `Elf2dmpError`.
 */
async function checkBatchFiles(
  { plan, run: { force, html }, report, junit }: ReturnType<typeof settingsOf>,
  shard: Shard | undefined,
  jobs: readonly BatchJob[],
): Promise<{ files: { junit: string | undefined; index: string | undefined }; directories: string[] }> {
  const part = shard ? `-${shard.index}-of-${shard.count}` : '';
  const index = html ? join(plan.out, `elf2dmp-index${part}.html`) : undefined;
  const wanted: WantedOutput[] = [];
  if (junit !== undefined && junit !== STANDARD_STREAM)
    wanted.push({ what: '--junit', path: junit, force, ours: isOurJunit });
  if (index !== undefined) wanted.push({ what: 'the index', path: index, force, ours: isOurPage });
  // Lines are appended to it: force does not replace it.
  if (report !== undefined && report.path !== STANDARD_STREAM)
    wanted.push({ what: '--jsonl', path: reportFile(report, shard), force: false, ours: mayBeReport, grows: true });
  const directories = wanted.map(({ path }) => dirname(path));
  const made = jobs.flatMap(({ output }) => [output, sidecarOf(output), pageOf(output)]);
  const symbols = new Set(jobs.flatMap(({ options }) => localSymbolPaths(String(options['symbols'] ?? ''))));
  const read = [...jobs.map(({ input }) => input), ...symbols, ...plan.read];
  // In a directory that is not there yet nobody has the name.
  await checkOutputs(
    wanted.filter(({ path }) => existsSync(dirname(path))),
    [...read, ...made],
  );
  const claimed = new Set(await Promise.all(made.map(realName)));
  for (const { what, path } of wanted) {
    if (isLock(basename(path))) throw usage(`${what} names a file that batches lock: ${path}`);
    if (claimed.has(await realName(path))) throw usage(`${what} names a file that a job writes: ${path}`);
  }
  return { files: { junit, index }, directories };
}

/** The path with its directory's links resolved as far as it exists. */
async function realName(path: string): Promise<string> {
  const directory = await realpath(dirname(path)).catch(() => dirname(path));
  return join(directory, basename(path));
}

interface ReportPlace {
  path: string;
  isDirectory: boolean;
}

function reportPlace(given: string | undefined, path: string | undefined): ReportPlace | undefined {
  if (given === undefined || path === undefined) return undefined;
  return {
    path,
    isDirectory: given.endsWith('/') || (statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false),
  };
}

function renderPlan(standings: readonly Standing[], needs: readonly SpaceNeed[]): string {
  const lines = standings.map(({ job, state, inputBytes }) => {
    const options = Object.entries(job.options).map(([name, value]) => ` --${name}=${value}`);
    return `${state.padEnd(8)}${job.input} (${bytes(inputBytes)}) -> ${job.output}${options.join('')}`;
  });
  const counts = (['to do', 'done', 'taken', 'missing'] as const)
    .map((state) => [state, standings.filter((s) => s.state === state).length] as const)
    .filter(([, n]) => n > 0)
    .map(([state, n]) => `${n} ${state}`);
  lines.push(`${standings.length} inputs: ${counts.join(', ')}`, ...needs.map(renderNeed));
  return lines.map((line) => `${printable(line)}\n`).join('');
}

/** Failures and losses that the summary lists without --verbose. */
const LISTED = 20;

function renderSummary(results: readonly JobResult[], seconds: number, verbose: boolean): string {
  const rows = (['good', 'losses', 'failed', 'not run'] as const).map((outcome) => {
    const these = results.filter(({ record }) => (record?.outcome ?? 'not run') === outcome);
    const skipped = these.filter(({ status }) => status === 'skipped').length;
    const size = these.reduce((sum, { record }) => sum + (record?.bytes ?? 0), 0);
    return [outcome, `${these.length}`, `${skipped}`, size > 0 ? bytes(size) : '-'] as const;
  });
  const line = ([a, b, c, d]: readonly [string, string, string, string]) =>
    `${a.padEnd(8)}${b.padStart(8)}${c.padStart(14)}${d.padStart(12)}`;
  const lines = [line(['outcome', 'inputs', 'done before', 'dumps']), ...rows.map(line)];
  lines.push(`${results.length} ${results.length === 1 ? 'input' : 'inputs'} in ${seconds.toFixed(1)} s`);
  const listed = results.filter(({ record }) => record && (verbose || record.outcome !== 'good'));
  for (const { job, record } of verbose ? listed : listed.slice(0, LISTED)) {
    const { outcome, exitCode, error, losses, bytes: size } = record!;
    lines.push(`${outcome} (${exitCode}) ${job.relative}: ${error?.text ?? losses[0] ?? bytes(size ?? 0)}`);
  }
  if (!verbose && listed.length > LISTED) lines.push(`… ${listed.length - LISTED} more with --verbose`);
  return lines.map((text) => `${printable(text)}\n`).join('');
}

/** Crashes that the summary lists. */
const LISTED_CRASHES = 20;

/** One line for each crash that the dumps show: how many, since when and until when by the guests' clocks, and its signature. */
function renderCrashes(groups: readonly CrashGroup[]): string {
  if (groups.length === 0) return '';
  const lines = groups.slice(0, LISTED_CRASHES).map(({ signature, results, firstSeen, lastSeen, known }) => {
    const dumps = `${results.length} ${results.length === 1 ? 'dump' : 'dumps'}`;
    return `${crashKind(known)} ${crashLine(signature, results[0]?.record)}: ${dumps}, first seen ${firstSeen ?? 'at an unknown time'}, last seen ${lastSeen ?? 'at an unknown time'}`;
  });
  if (groups.length > LISTED_CRASHES) lines.push(`… ${groups.length - LISTED_CRASHES} more crashes`);
  return lines.map((text) => `${printable(text)}\n`).join('');
}

/** Crashes that the batch fails on: like other failures they are told in any case. */
function tellNewCrashes(results: readonly JobResult[], policy: CrashPolicy, progress: 'line' | 'json'): void {
  // There each line is an object.
  if (progress === 'json') return;
  const failing = results.filter(({ record }) => failsAsNew(record, policy));
  process.stderr.write(renderCrashes(groupCrashes(failing, policy.known)));
}

/** From best to worst. Retryable failures outrank permanent ones: rerunning can help. Anything else is a crash. */
const WORSE = [
  EXIT.good,
  EXIT.losses,
  EXIT.newCrash,
  EXIT.unsupported,
  EXIT.corrupt,
  EXIT.ioPermanent,
  EXIT.usage,
  EXIT.ioTransient,
];

/** What a good dump of a new crash counts as. */
const newCrash = (record: JobResult['record']) => (record?.outcome === 'failed' ? record : { exitCode: EXIT.newCrash });

function exitCodeOf(records: readonly ({ exitCode: number } | undefined)[]): number {
  const ranks = records.map((record) => {
    const rank = record ? WORSE.indexOf(record.exitCode as (typeof WORSE)[number]) : 0;
    return rank < 0 ? WORSE.length : rank;
  });
  const worst = ranks.reduce((most, rank) => Math.max(most, rank), 0);
  return WORSE[worst] ?? EXIT.internal;
}

/** This Node and this script; of the executable in one file, just that, which is its own script. */
function ownCommand(): string[] {
  // Not every runtime has that module.
  if (process.getBuiltinModule('node:sea')?.isSea()) return [process.execPath];
  return [process.execPath, ...process.execArgv, process.argv[1]!];
}
