/** Plans a batch: finds the inputs, names their outputs, and selects this shard's. */
import { createHash } from 'node:crypto';
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs';
import { basename, dirname, isAbsolute, join, normalize, relative, resolve, sep } from 'node:path';
import type { ErrorCodeOf } from '../core/codes.ts';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { STANDARD_STREAM } from '../options/choices.ts';
import { PROBE_SIZE } from '../readers/reader.ts';
import { isForeign } from '../readers/registry.ts';
import { filesMatching, isGlob, matcher } from './glob.ts';

/** Options of one conversion by their command-line names, without dashes. */
export type JobOptions = Readonly<Record<string, string | boolean>>;

/** One input to convert. */
export interface BatchJob {
  input: string;
  output: string;
  /** The input's path below the directory or glob that found it, with `/`. */
  relative: string;
  options: JobOptions;
}

/** Other options or another output for some inputs. */
export interface Override {
  /** A glob that has to match all of `BatchJob.relative`. */
  match: string;
  /** A template for the output's name, as in `PlanRequest`. */
  name?: string | undefined;
  options?: JobOptions | undefined;
}

/** What to plan. */
export interface PlanRequest {
  /** Files, directories (for all files in them except hidden ones and elf2dmp's own) and globs. */
  paths: readonly string[];
  /** A file with one input per line; blank lines and lines that begin with # are ignored. */
  manifest?: string | undefined;
  /** Globs on `BatchJob.relative` of inputs to leave out. */
  exclude?: readonly string[] | undefined;
  /** The directory that relative paths start from. */
  base: string;
  out: string;
  /** The output's name below `out`, where {stem}, {name}, {dir} and {relative} stand for parts of `BatchJob.relative`. */
  name: string;
  options: JobOptions;
  overrides?: readonly Override[] | undefined;
}

/** The default template for outputs' names. */
export const DEFAULT_NAME = '{dir}/{stem}.dmp';

/** A part of the jobs; `index` counts from 0. */
export interface Shard {
  index: number;
  count: number;
}

/** Files that elf2dmp itself writes: a search of a directory skips them. */
const isOwn = matcher('**/*.{dmp,dmp.gz,dmp.zst,dmp*.json,jsonl,html,part,elf2dmp-undo,toml}', { hidden: true });

interface Found {
  input: string;
  relative: string;
  /** It lies in a directory that was named: nobody asked for this file. */
  inDirectory?: boolean;
}

/** What a batch will do, and what it leaves alone. */
export interface BatchPlan {
  /** In the order of their relative paths; at least one. */
  jobs: BatchJob[];
  /** Files in directories that are no dumps. */
  foreign: string[];
  /** Overrides that match no input. */
  unused: Override[];
}

/** Throws `Elf2dmpError`, also where there is nothing to do. */
export function planBatch(request: PlanRequest): BatchPlan {
  const { base, exclude = [], overrides = [] } = request;
  const out = resolve(base, request.out);
  const listed = request.manifest === undefined ? [] : readManifest(request.manifest, base);
  const found = [...request.paths.flatMap((path) => find(usable(path), base, out)), ...listed];
  const excluding = exclude.map((pattern) => matcher(pattern, { hidden: true }));
  const excluded = (path: string) => excluding.some((matches) => matches(path));
  const wanted = new Map<string, Found>();
  for (const one of found) {
    if (excluded(one.relative)) continue;
    const before = wanted.get(one.input);
    // One that is named is wanted, also where it lies in a directory that is named.
    if (!before) wanted.set(one.input, one);
    else if (!one.inDirectory) wanted.set(one.input, { ...before, inDirectory: false });
  }
  const matchers = overrides.map((o) => matcher(o.match, { hidden: true }));
  const used = new Set<Override>();
  const foreign: string[] = [];
  const jobs: BatchJob[] = [];
  for (const { input, relative, inDirectory } of wanted.values()) {
    const matching = overrides.filter((_, i) => matchers[i]!(relative));
    for (const override of matching) used.add(override);
    const name = matching.reduce((last, o) => o.name ?? last, request.name);
    const options = Object.assign({}, request.options, ...matching.map((o) => o.options ?? {})) as JobOptions;
    if (inDirectory && options['format'] === undefined && options['runs'] === undefined && isForeignFile(input)) {
      foreign.push(input);
    } else jobs.push({ input, relative, output: outputOf(name, relative, out), options });
  }
  if (jobs.length === 0) throw nothingToDo(request, foreign);
  jobs.sort((a, b) => compare(a.relative, b.relative) || compare(a.input, b.input));
  refuseCollisions(jobs);
  return { jobs, foreign, unused: overrides.filter((override) => !used.has(override)) };
}

function nothingToDo({ paths, manifest }: PlanRequest, foreign: readonly string[]): Elf2dmpError {
  const places = [...paths, ...(manifest === undefined ? [] : [manifest])].join(', ');
  const others =
    foreign.length === 0
      ? ''
      : `: ${foreign.length} ${foreign.length === 1 ? 'file is no dump' : 'files are no dumps'}`;
  return planError(
    'batch-no-input',
    `there is no input in ${places}${others}`,
    "a directory is searched for dumps; what a batch itself writes (.dmp), hidden files and what is excluded do not count: a glob takes crash dumps, as in 'DIR/**/*.dmp'",
  );
}

/** A file that can't be read is left to its job, which says why. */
function isForeignFile(path: string): boolean {
  const head = Buffer.alloc(PROBE_SIZE);
  let fd: number | undefined;
  try {
    fd = openSync(path, 'r');
    const read = readSync(fd, head, 0, PROBE_SIZE, 0);
    return isForeign(head.subarray(0, read), statSync(path).size);
  } catch {
    return false;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** The jobs of one shard. An input stays in its shard when others are added or removed. */
export const shardOf = (jobs: readonly BatchJob[], { index, count }: Shard): BatchJob[] =>
  jobs.filter((job) => {
    const hash = createHash('sha256').update(job.relative).digest().readBigUInt64BE(0);
    return hash % BigInt(count) === BigInt(index);
  });

/** Throws `Elf2dmpError` for a path that no system has, as in a manifest by `find -print0`. */
function usable(path: string): string {
  if (!path.includes('\0')) return path;
  const shown = JSON.stringify(path.slice(0, 60));
  throw planError('batch-no-input', `${shown} is not a path: it contains a NUL`, 'a manifest has one path a line');
}

function find(path: string, base: string, out: string): Found[] {
  const full = resolve(base, path);
  const stats = statSync(full, { throwIfNoEntry: false });
  if (stats?.isDirectory()) {
    // Skip the last run's outputs, whatever their names.
    return filesBelow(full)
      .map((name) => ({ input: join(full, name), relative: name, inDirectory: true }))
      .filter(({ input }) => out === full || !input.startsWith(`${out}${sep}`));
  }
  if (stats || !isGlob(path)) return [{ input: full, relative: basename(full) }];
  const { root, pattern } = splitGlob(path, base);
  const names = filesMatching(root, pattern);
  if (names.length > 0) return names.map((name) => ({ input: join(root, name), relative: name }));
  throw planError(
    'batch-no-input',
    `nothing matches "${path}"`,
    'globs are relative to the current directory, or to the configuration that lists them',
  );
}

/** Names of files below a directory. globSync would silently skip directories that can't be read. */
function filesBelow(directory: string): string[] {
  try {
    return readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => relative(directory, join(entry.parentPath, entry.name)).split(sep).join('/'))
      .filter((name) => !/(^|\/)\./.test(name) && !isOwn(name));
  } catch (cause) {
    throw ioError('search the directory', directory, cause);
  }
}

/** The directories before the first special character, and the rest. */
function splitGlob(path: string, base: string): { root: string; pattern: string } {
  const parts = path.split('/');
  const first = parts.findIndex((part) => isGlob(part));
  return {
    root: resolve(base, parts.slice(0, first).join('/') || (isAbsolute(path) ? '/' : '.')),
    pattern: parts.slice(first).join('/'),
  };
}

/** Paths are relative to the manifest's directory (of standard input: to `base`), and so are the outputs' names. */
function readManifest(path: string, base: string): Found[] {
  const isStream = path === STANDARD_STREAM;
  const file = isStream ? 'standard input' : resolve(base, path);
  let text: string;
  try {
    text = readFileSync(isStream ? 0 : file, 'utf8');
  } catch (cause) {
    throw ioError('read the manifest', file, cause);
  }
  const directory = isStream ? base : dirname(file);
  return text
    .split(/\r?\n/)
    .filter((line) => line.trim() !== '' && !line.startsWith('#'))
    .map((line) => {
      const input = resolve(directory, usable(line));
      const below = relative(directory, input).split(sep).join('/');
      return { input, relative: below.startsWith('../') ? basename(input) : below };
    });
}

function outputOf(template: string, path: string, out: string): string {
  const name = basename(path);
  const dir = dirname(path);
  const values: Record<string, string> = { name, stem: stemOf(name), dir, relative: path };
  const filled = template.replace(/\{([^{}]*)\}/g, (_, key: string) => {
    const value = Object.hasOwn(values, key) ? values[key] : undefined;
    if (value !== undefined) return value;
    throw planError(
      'batch-template',
      `the output name "${template}" contains {${key}}`,
      'use {stem}, {name}, {dir}, {relative}',
    );
  });
  const output = normalize(join(out, filled));
  const below = relative(out, output);
  if (!isAbsolute(filled) && below !== '' && below !== '..' && !below.startsWith(`..${sep}`) && !output.endsWith(sep)) {
    return output;
  }
  throw planError(
    'batch-template',
    `the output name "${template}" gives "${filled}", which is not a file below ${out}`,
  );
}

/** `vm.elf.zst` and `vm.elf` are `vm`. */
function stemOf(name: string): string {
  const plain = name.replace(/(?<=.)\.(gz|zst|xz)$/i, '');
  return plain.replace(/(?<=.)\.[^.]+$/, '');
}

function refuseCollisions(jobs: readonly BatchJob[]): void {
  const taken = new Map<string, string>();
  for (const { input } of jobs) taken.set(input, input);
  for (const { input, output } of jobs) {
    for (const file of [output, sidecarOf(output), pageOf(output)]) {
      const other = taken.get(file);
      if (other !== undefined) {
        throw planError(
          'batch-two-for-one',
          other === file
            ? `${input} would be written over the input ${file}`
            : `${other} and ${input} would both be written to ${file}`,
          'use a template with more of the name: --name "{dir}/{name}.dmp"',
        );
      }
      taken.set(file, input);
    }
  }
}

/** The sidecar's path: what a batch knows about an output, beside it. */
export const sidecarOf = (output: string): string => `${output}.json`;

/** The path of a dump's HTML report, with `--html`. */
export const pageOf = (output: string): string => `${output}.html`;

const planError = (code: ErrorCodeOf<'usage'>, message: string, hint?: string) =>
  new Elf2dmpError({ code, kind: 'usage', message, hint });

/** Order by code units, whatever the locale. */
function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
