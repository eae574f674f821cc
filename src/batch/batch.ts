/** The library's batch: what `elf2dmp batch` does, with its results as data. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Elf2dmpError } from '../core/errors.ts';
import { EXIT_OF_KIND } from '../core/exit-codes.ts';
import { checkJobOptions, checkTogether, found } from '../options/check.ts';
import { ROWS } from '../options/table.ts';
import { asText, type CallOptions, type JobCallOptions, wrongValue } from '../options/values.ts';
import { type CrashGroup, groupCrashes } from './crashes.ts';
import { lockOutputs } from './lock.ts';
import { DEFAULT_NAME, type JobOptions, planBatch, type Shard, shardOf } from './plan.ts';
import {
  type BatchEvent,
  DEFAULT_RETRIES,
  defaultJobs,
  type JobResult,
  makeDirectory,
  runBatch,
  standingsOf,
} from './run.ts';
import { noSpace, spaceNeeds } from './space.ts';

/** What to convert, and how. Relative paths start from the current directory. */
export interface BatchOptions extends CallOptions<'batch'> {
  /** Files, directories (for all dumps in them) and globs. */
  inputs: readonly string[];
  /** The directory for the dumps, each with its record `OUTPUT.json`: a later batch makes only what is missing. */
  out: string;
  /** Globs of inputs to leave out, by their paths below the directory or glob that found them. */
  exclude?: readonly string[] | undefined;
  /** Options of the conversions. */
  options?: JobCallOptions | undefined;
  /** Other options or another name for some inputs; later ones win. */
  overrides?: readonly BatchOverride[] | undefined;
  /** Convert only this part of the inputs, for example on one of several machines. */
  shard?: Shard | undefined;
  /** The command that converts: Node and elf2dmp's script. Default: this Node and the script of this package. */
  command?: readonly string[] | undefined;
  /** Called when a job starts, with its progress, and when it has ended. */
  onEvent?: ((event: BatchEvent) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** Other options or another name for some inputs. */
export interface BatchOverride {
  /** A glob that has to match all of an input's path below the directory or glob that found it. */
  match: string;
  /** As the batch's own `name`. */
  name?: string | undefined;
  options?: JobCallOptions | undefined;
}

/** What became of a batch. */
export interface BatchReport {
  /** By the inputs' relative paths. A job that failed is a result too, with its error. */
  results: readonly JobResult[];
  /** Crashes that the dumps show, by signature, those of most dumps first. */
  crashes: readonly CrashGroup[];
  /** Files in directories that are no dumps. */
  leftOut: readonly string[];
  /** `match` of overrides that match no input. */
  unusedOverrides: readonly string[];
}

/**
 * Converts many inputs, each in a process apart. Jobs that an earlier batch has done are not done again.
 *
 * Throws `Elf2dmpError` where the batch can't start, and where it was aborted, after all its processes have ended.
 */
export async function batch(options: BatchOptions): Promise<BatchReport> {
  const { inputs, out: directory, exclude, shard, signal, onEvent } = options;
  checkOwn(options);
  const jobOptions = textOf('batch: options', options.options);
  const overrides = (options.overrides ?? []).map(({ match, name, options: own }, i) => ({
    ...{ match, name },
    options: textOf(`batch: overrides[${i}].options`, own),
  }));
  const out = resolve(directory);
  const {
    jobs: all,
    foreign,
    unused,
  } = planBatch({
    paths: inputs,
    base: process.cwd(),
    name: options.name ?? DEFAULT_NAME,
    ...{ exclude, out, options: jobOptions, overrides },
  });
  for (const { options: together, relative } of all) checkTogether(together, `these are the options for ${relative}`);
  const jobs = shard ? shardOf(all, shard) : all;
  const { force = false, hash = false, retryFailed = false, recheck = false, keepGoing = true } = options;
  const standings = await standingsOf(jobs, { force, hash, retryFailed }, signal);
  const lacking = (await spaceNeeds(standings)).find(({ needed, free }) => needed > free);
  if (lacking && options.spaceCheck !== false) throw noSpace(lacking);
  const command = options.command ?? ownCommand();
  await makeDirectory(out);
  const lock = await lockOutputs(out, shard);
  const stop = new AbortController();
  let thrown: { error: unknown } | undefined;
  const tell = (event: BatchEvent) => {
    try {
      onEvent?.(event);
    } catch (error) {
      thrown ??= { error };
      stop.abort();
    }
  };
  try {
    const results = await runBatch(
      jobs,
      {
        ...{ command, force, hash, recheck, retryFailed, keepGoing, out, onEvent: tell },
        signal: signal ? AbortSignal.any([signal, stop.signal]) : stop.signal,
        jobs: options.jobs ?? defaultJobs(),
        retries: options.retries ?? DEFAULT_RETRIES,
        html: false,
        exitCodeOf: ({ kind }) => EXIT_OF_KIND[kind],
      },
      () => undefined,
    );
    if (thrown) throw thrown.error;
    signal?.throwIfAborted();
    return {
      results,
      crashes: groupCrashes(results, undefined),
      leftOut: foreign,
      unusedOverrides: unused.map(({ match }) => match),
    };
  } finally {
    await lock.release();
  }
}

/** Checks what the table of options does not have. Throws `Elf2dmpError`. */
function checkOwn({ inputs, exclude, overrides, shard, command }: BatchOptions): void {
  if (inputs === undefined) {
    throw new Elf2dmpError({ code: 'option-missing', kind: 'usage', message: 'batch: inputs is missing' });
  }
  const lists = { inputs, ...(exclude && { exclude }), ...(command && { command }) };
  for (const [name, list] of Object.entries(lists)) {
    const isList = Array.isArray(list) && (list.length > 0 || name === 'exclude') && list.every(isText);
    if (!isList) throw wrongValue(`batch: ${name}`, 'an array of texts that are not empty', found(list));
  }
  if (overrides !== undefined && !(Array.isArray(overrides) && overrides.every(isOverride))) {
    throw wrongValue('batch: overrides', 'an array of { match, name, options }', found(overrides));
  }
  if (shard !== undefined && !isShard(shard)) {
    throw wrongValue('batch: shard', 'an { index, count } with an index from 0 to count - 1', found(shard));
  }
}

const isText = (value: unknown): boolean => typeof value === 'string' && value !== '' && !value.includes('\0');

function isOverride(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { match, name, options: _, ...others } = value as Record<string, unknown>;
  return isText(match) && (name === undefined || isText(name)) && Object.keys(others).length === 0;
}

function isShard(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { index, count } = value as Record<string, unknown>;
  const isIndex = (n: unknown): n is number => typeof n === 'number' && Number.isInteger(n) && n >= 0;
  return isIndex(index) && isIndex(count) && index < count;
}

/** Options of conversions as their command line has them. Throws `Elf2dmpError`. */
function textOf(name: string, given: unknown): JobOptions {
  if (given === undefined) return {};
  const values = checkJobOptions(name, given);
  const rows = ROWS.filter(([option]) => values[option] !== undefined);
  return Object.fromEntries(
    rows.map(([option, row]) => {
      const text = asText(row, values[option]);
      const isPath = row.kind === 'file' || row.kind === 'directory';
      return [option, isPath ? resolve(String(text)) : text];
    }),
  );
}

/** The script lies beside the bundle, and two levels above the source. Throws `Elf2dmpError`. */
function ownCommand(): string[] {
  const places = ['../bin/elf2dmp.js', '../../bin/elf2dmp.js'].map((at) => fileURLToPath(new URL(at, import.meta.url)));
  const script = places.find((place) => existsSync(place));
  if (script !== undefined) return [process.execPath, script];
  throw new Elf2dmpError({
    code: 'option-missing',
    kind: 'usage',
    message: "batch: command is missing, and elf2dmp's script is not where its package has it",
    hint: 'name it: command: [process.execPath, ".../elf2dmp/bin/elf2dmp.js"]',
  });
}
