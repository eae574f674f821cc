/** `elf2dmp batch`: many conversions. What it does is loaded when it is asked for. */
import type { Argv, Options } from 'yargs';
import { CONVERSION_OPTIONS } from '../conversion-options.ts';
import { type AddCommand, PARSER_CONFIGURATION } from '../job.ts';

/** Without defaults: what is not given may be in the configuration. */
const conversionOptions = Object.fromEntries(
  Object.entries<Options>(CONVERSION_OPTIONS).map(([name, { default: _, ...option }]) => [name, option]),
) as Record<keyof typeof CONVERSION_OPTIONS, Options>;

const options = (y: Argv) =>
  y
    // Else yargs keeps the last path only.
    .parserConfiguration({ ...PARSER_CONFIGURATION, 'duplicate-arguments-array': true })
    .positional('paths', {
      type: 'string',
      array: true,
      default: [] as string[],
      describe: 'a configuration (CONFIG.toml); or files, directories and globs, with --out',
    })
    .option('out', { type: 'string', requiresArg: true, describe: 'directory for the dumps' })
    .option('name', {
      type: 'string',
      requiresArg: true,
      describe: "a dump's name below --out: {stem}, {name}, {dir}, {relative} of its input (default: {dir}/{stem}.dmp)",
    })
    .option('manifest', { type: 'string', requiresArg: true, describe: 'file with one input on each line' })
    .option('jobs', {
      type: 'string',
      requiresArg: true,
      describe: 'how many at a time (default: one per CPU, at most 4)',
    })
    .option('keep-going', { type: 'boolean', describe: 'go on after failures (the default)' })
    .option('fail-fast', { type: 'boolean', describe: 'stop at the first failure' })
    .option('retries', {
      type: 'string',
      requiresArg: true,
      describe: 'how often to try again what may pass, as a full disk (default: 2)',
    })
    .option('force', { alias: 'f', type: 'boolean', describe: 'replace dumps that no batch made' })
    .option('hash', { type: 'boolean', describe: 'record the SHA-256 of all inputs and dumps' })
    .option('recheck', { type: 'boolean', describe: 'read the dumps that are there, instead of trusting their sizes' })
    .option('retry-failed', { type: 'boolean', describe: 'try again what failed for good, as with a corrupt input' })
    .option('shard', {
      type: 'string',
      requiresArg: true,
      describe: 'i/n, i from 0: only this part (default: as Kubernetes or Slurm tells)',
    })
    .option('report', {
      type: 'string',
      requiresArg: true,
      describe: 'append one line of JSON for each dump to this file; to one for each shard where it is a directory',
    })
    .option('html', {
      type: 'boolean',
      describe: 'write a report for people beside each dump (OUTPUT.html), and an index of them below --out',
    })
    .option('junit', { type: 'string', requiresArg: true, describe: "write the results to this file in JUnit's XML" })
    .option('dry-run', { type: 'boolean', default: false, describe: 'print what would be done' })
    .option('space-check', {
      type: 'boolean',
      default: true,
      describe: '--no-space-check starts also where the disk looks too small',
    })
    .options(conversionOptions)
    .option('quiet', { alias: 'q', type: 'boolean', default: false, describe: 'print failures and losses only' })
    .option('verbose', { alias: 'v', type: 'boolean', default: false, describe: 'print each dump at the end' });

export type BatchArguments = Awaited<ReturnType<typeof options>['argv']>;

export const addBatch: AddCommand = (yargs, chosen) =>
  yargs.command('batch [paths..]', 'Converts many dumps; run again, it does what is left.', options, (args) =>
    chosen({
      json: false,
      verbose: lastOfEach(args).verbose,
      run: async (signal) => (await import('./batch-run.ts')).batch(lastOfEach(args), signal),
    }),
  );

/** Of an option that is given twice the last counts, as elsewhere. */
const lastOfEach = (args: BatchArguments): BatchArguments =>
  Object.fromEntries(
    Object.entries(args).map(([name, value]) => [
      name,
      Array.isArray(value) && name !== 'paths' ? value.at(-1) : value,
    ]),
  ) as BatchArguments;
