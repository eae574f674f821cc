/** Runs a batch's jobs, several at a time, and skips those that are done. */
import { randomUUID } from 'node:crypto';
import { lstat, mkdir, realpath, rm, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname, sep } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { sha256OfFile } from '../files/hash.ts';
import { readHead } from '../files/publish.ts';
import { outputExists } from '../files/temporary.ts';
import type { Progress } from '../operations/convert.ts';
import type { ConversionReport } from '../report/conversion.ts';
import { isOurPage } from '../report/page-mark.ts';
import { SCHEMA } from '../report/schemas.ts';
import { summarize } from '../report/windows.ts';
import { type ChildResult, JobProcess } from './child.ts';
import { type BatchJob, pageOf, sidecarOf } from './plan.ts';
import {
  headerSha256,
  type JobRecord,
  mtimeOf,
  outputHolds,
  readSidecar,
  type Sidecar,
  sameWork,
  startedSidecar,
  sweep,
  vouchedHeader,
  writeSidecar,
} from './sidecar.ts';

/** Conversions at a time, unless told otherwise. */
export const defaultJobs = (): number => Math.min(4, availableParallelism());

/** Retries of a job, unless told otherwise. */
export const DEFAULT_RETRIES = 2;

/** How to run a batch. */
export interface RunOptions {
  /** The command that takes jobs: Node and elf2dmp's script. */
  command: readonly string[];
  /** Jobs to run at a time. */
  jobs: number;
  /** false: the first failure stops the batch. */
  keepGoing: boolean;
  /** Retries of a job after a transient failure. */
  retries: number;
  /** Replace outputs that no batch made. */
  force: boolean;
  /** Record the SHA-256 of inputs and outputs. */
  hash: boolean;
  /** Write an HTML report beside each dump. */
  html: boolean;
  /** Read a dump before skipping it. */
  recheck: boolean;
  /** Also rerun jobs that failed permanently, for example with a corrupt input. */
  retryFailed: boolean;
  exitCodeOf: (error: Elf2dmpError) => number;
  /** The directory that outputs stay below, whatever links lead from there. Default: anywhere. */
  out?: string | undefined;
  signal?: AbortSignal | undefined;
  onEvent?: ((event: BatchEvent) => void) | undefined;
}

/** Something that happened to a job. */
export type BatchEvent =
  | { type: 'started'; job: BatchJob; attempt: number }
  | { type: 'progress'; job: BatchJob; progress: Progress }
  | { type: 'ended'; result: JobResult };

/** How a job ended. */
export interface JobResult {
  job: BatchJob;
  /** `stopped`: the batch ended before the job did; it has no record. */
  status: 'ran' | 'skipped' | 'stopped';
  record?: JobRecord;
}

/** Milliseconds before the n-th retry. */
const retryDelay = (attempt: number): number => Math.min(30_000, 1000 * 2 ** (attempt - 1));
const LISTED_LOSSES = 20;

/**
 * Runs the jobs and returns their results in the same order; failed and stopped jobs are results too.
 * Throws only what `publish` throws, when all processes have ended.
 *
 * @param publish called once with each job's record, skipped or not
 */
export async function runBatch(
  jobs: readonly BatchJob[],
  options: RunOptions,
  publish: (record: JobRecord) => void,
): Promise<JobResult[]> {
  const { signal, onEvent } = options;
  const stop = new AbortController();
  const onAbort = () => stop.abort();
  signal?.addEventListener('abort', onAbort);
  if (signal?.aborted) onAbort();
  const results: JobResult[] = jobs.map((job) => ({ job, status: 'stopped' }));
  const entries = jobs.entries();
  const lane = async () => {
    const jobProcess = new JobProcess(options);
    try {
      for (const [i, job] of entries) {
        if (stop.signal.aborted) return;
        const result = await new JobRun(job, options, { jobProcess, stop: stop.signal }).run();
        results[i] = result;
        if (result.record) publish(result.record);
        onEvent?.({ type: 'ended', result });
        if (!options.keepGoing && result.record?.outcome === 'failed') stop.abort();
      }
    } catch (error) {
      // Without a report there is no point in continuing.
      stop.abort();
      throw error;
    } finally {
      await jobProcess.end();
    }
  };
  try {
    await sweep(jobs.map(({ output }) => output));
    const lanes = await Promise.allSettled(Array.from({ length: options.jobs }, lane));
    const failed = lanes.find((l): l is PromiseRejectedResult => l.status === 'rejected');
    if (failed) throw failed.reason;
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
  return results;
}

type Done = Pick<RunOptions, 'recheck' | 'hash' | 'retryFailed'>;

/** The record of a job that is done; undefined if it has to run. */
async function recordOfDone(
  job: BatchJob,
  before: Sidecar | undefined,
  now: Sidecar,
  { recheck, hash, retryFailed }: Done,
): Promise<JobRecord | undefined> {
  if (before?.state !== 'finished' || !before.record || !sameWork(before, now)) return undefined;
  const { record } = before;
  if (record.outcome === 'failed') return !retryFailed && isFinal(record) ? record : undefined;
  if (hash && !record.sha256) return undefined;
  if (!(await outputHolds(job.output, before, recheck))) return undefined;
  if (recheck && record.sha256 && (await sha256OfFile(job.input)) !== record.sha256.input) return undefined;
  return record;
}

/** A job's state before the batch begins. */
export interface Standing {
  job: BatchJob;
  /** `taken`: the output exists and no batch made it. `missing`: there is no such input. */
  state: 'done' | 'to do' | 'taken' | 'missing';
  /** The input's size; 0 if it is missing. */
  inputBytes: number;
}

/** Reads only sidecars and the inputs' first bytes. */
export async function standingOf(
  job: BatchJob,
  options: Omit<Done, 'recheck'> & { force: boolean },
): Promise<Standing> {
  const inputBytes = (await stat(job.input).catch(() => undefined))?.size ?? 0;
  try {
    const before = await readSidecar(job.output);
    const now = await startedSidecar(job.input, job.options).catch(() => undefined);
    if (!now) return { job, state: 'missing', inputBytes };
    if (await recordOfDone(job, before, now, { ...options, recheck: false })) return { job, state: 'done', inputBytes };
    const taken = !options.force && (await exists(job.output)) && (await vouchedHeader(job.output, before)) === null;
    return { job, state: taken ? 'taken' : 'to do', inputBytes };
  } catch {
    return { job, state: 'taken', inputBytes };
  }
}

/** The states of all jobs. Rejects with the signal's reason once that is aborted. */
export async function standingsOf(
  jobs: readonly BatchJob[],
  options: Parameters<typeof standingOf>[1],
  signal: AbortSignal | undefined,
): Promise<Standing[]> {
  const standings: Standing[] = [];
  for (const job of jobs) {
    signal?.throwIfAborted();
    standings.push(await standingOf(job, options));
  }
  return standings;
}

class JobRun {
  readonly #job: BatchJob;
  readonly #options: RunOptions;
  readonly #process: JobProcess;
  readonly #stop: AbortSignal;
  /** The sidecar as this run wrote it last. */
  #noted: Sidecar | undefined;

  constructor(job: BatchJob, options: RunOptions, { jobProcess, stop }: { jobProcess: JobProcess; stop: AbortSignal }) {
    this.#job = job;
    this.#options = options;
    this.#process = jobProcess;
    this.#stop = stop;
  }

  async run(): Promise<JobResult> {
    const job = this.#job;
    const started = performance.now();
    try {
      const before = await readSidecar(job.output);
      const now = await startedSidecar(job.input, job.options);
      const done = await recordOfDone(job, before, now, this.#options);
      if (done) return { job, status: 'skipped', record: done };
      const { out } = this.#options;
      if (out !== undefined) await refuseOutside(dirname(job.output), out);
      await this.#refuseForeign(before);
      await makeDirectory(dirname(job.output));
      const former = await vouchedHeader(job.output, before, { evenIfRewritten: true });
      await this.#note({ ...now, headerSha256: former });
      const approve = async (file: string) => {
        await this.#refuseForeign(before);
        // From now on the sidecar vouches for both, whichever of them a kill leaves.
        await this.#note({ ...now, headerSha256: await headerSha256(file), formerHeaderSha256: former });
      };
      const { result, attempts } = await this.#tryOften(approve);
      if (this.#stop.aborted && !result.report) return await this.#stopped(before);
      const record = await this.#recordOf(result, attempts, started);
      const header = result.report ? await headerSha256(job.output) : await vouchedHeader(job.output, this.#noted);
      // Where this one failed, the earlier dump may have stayed.
      const outputMtime = result.report ? await mtimeOf(job.output) : before?.outputMtime;
      await this.#note({ ...now, state: 'finished', headerSha256: header, outputMtime, record });
      return { job, status: 'ran', record };
    } catch (error) {
      const known = error instanceof Elf2dmpError ? error : ioError('use', job.output, error);
      const { code, kind, message } = known;
      const failure = { exitCode: this.#options.exitCodeOf(known), error: { code, kind, text: message, stderr: null } };
      return { job, status: 'ran', record: await this.#recordOf(failure, 1, started) };
    }
  }

  async #note(sidecar: Sidecar): Promise<void> {
    await writeSidecar(this.#job.output, sidecar);
    this.#noted = sidecar;
  }

  /** Throws `Elf2dmpError` where another program's file, or a changed dump, would be replaced. */
  async #refuseForeign(before: Sidecar | undefined): Promise<void> {
    const { force, html, recheck } = this.#options;
    if (force) return;
    const { output } = this.#job;
    const vouched = () => vouchedHeader(output, this.#noted ?? before, { evenIfRewritten: recheck });
    if ((await exists(output)) && (await vouched()) === null) {
      throw outputExists(output);
    }
    const page = pageOf(output);
    if (html && (await exists(page)) && !isOurPage(await readHead(page))) throw outputExists(page);
  }

  async #tryOften(approve: (file: string) => Promise<void>): Promise<{ result: ChildResult; attempts: number }> {
    const { retries, hash, html, onEvent } = this.#options;
    const job = this.#job;
    for (let attempts = 1; ; attempts++) {
      onEvent?.({ type: 'started', job, attempt: attempts });
      const onProgress = (progress: Progress) => onEvent?.({ type: 'progress', job, progress });
      // `#refuseForeign` said that what is there may be replaced.
      const force = (await exists(job.output)) || (html && (await exists(pageOf(job.output))));
      const result = await this.#process.run(job, { force, hash, html, signal: this.#stop, onProgress, approve });
      if (result.error?.kind !== 'io-transient' || attempts > retries || this.#stop.aborted)
        return { result, attempts };
      await wait(retryDelay(attempts), undefined, { signal: this.#stop }).catch(() => undefined);
      if (this.#stop.aborted) return { result, attempts };
    }
  }

  /** A job that never ran leaves no sidecar. */
  async #stopped(before: Sidecar | undefined): Promise<JobResult> {
    const { output } = this.#job;
    if (!before && !(await exists(output))) await rm(sidecarOf(output), { force: true });
    return { job: this.#job, status: 'stopped' };
  }

  async #recordOf({ exitCode, report, error }: ChildResult, attempts: number, started: number): Promise<JobRecord> {
    const { input, output } = this.#job;
    const losses = report ? lossesOf(report) : [];
    return {
      id: randomUUID(),
      schema: SCHEMA.batch,
      input,
      output,
      outcome: report?.outcome ?? 'failed',
      exitCode,
      windows: report ? summarize(report.windows) : null,
      seconds: Math.round(performance.now() - started) / 1000,
      bytes: report ? (await stat(output)).size : null,
      lossCount: losses.length,
      losses: losses.slice(0, LISTED_LOSSES),
      error: error ?? null,
      attempts,
      finished: new Date().toISOString(),
      sha256: report?.sha256 ?? null,
    };
  }
}

const lossesOf = ({ diagnostics }: ConversionReport): string[] =>
  diagnostics.filter((d) => d.severity === 'loss').map((d) => d.message);

/** It would fail again with the same input. */
const isFinal = ({ error }: JobRecord): boolean =>
  error?.kind === 'unsupported' || error?.kind === 'corrupt' || error?.kind === 'losses';

/** Refuses a directory that links below `out` lead elsewhere. Throws `Elf2dmpError`. */
async function refuseOutside(directory: string, out: string): Promise<void> {
  const real = await realpath(await nearestExisting(out));
  // Where `out` itself does not exist yet, nothing below it does.
  if (!(await exists(out))) return;
  const found = await realpath(await nearestExisting(directory));
  if (found === real || found.startsWith(real.endsWith(sep) ? real : `${real}${sep}`)) return;
  throw new Elf2dmpError({
    code: 'output-elsewhere',
    kind: 'io-permanent',
    message: 'a link leads from here out of the output directory',
    file: directory,
    expected: `a directory below ${real}`,
    actual: found,
    hint: 'remove the link, or choose other names for the outputs',
  });
}

async function nearestExisting(directory: string): Promise<string> {
  for (let at = directory; ; at = dirname(at)) {
    if ((await exists(at)) || at === dirname(at)) return at;
  }
}

/** Makes a directory, and those above it. Throws `Elf2dmpError`. */
export async function makeDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true }).catch((cause) => {
    throw ioError('make the directory', directory, cause);
  });
}

/** Throws what the file system throws where that can't be seen. */
const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return false;
      throw error;
    },
  );
