/** A batch's progress: redrawn lines on a terminal, otherwise one line every 30 seconds; or JSON. */
import type { BatchJob } from '../../batch/plan.ts';
import type { BatchEvent, JobResult, Standing } from '../../batch/run.ts';
import { printable } from '../../core/errors.ts';
import { toJson } from '../../core/json.ts';
import { bytes } from '../../core/units.ts';
import type { Progress } from '../../operations/convert.ts';
import { STATUS_SIGNALS } from '../signals.ts';
import type { ProgressForm } from './progress.ts';

const REDRAW_MS = 200;
const LINE_EVERY_MS = 30_000;
const JSON_EVERY_MS = 1000;

const PHASES = {
  open: 'reading headers',
  locate: 'locating Windows',
  search: 'searching memory',
  spool: 'reading',
  write: 'writing',
  verify: 'verifying',
  sync: 'waiting for the disk',
} as const;

interface Running {
  started: number;
  attempt: number;
  progress?: Progress;
}

/** Prints the progress of one batch. */
export class BatchProgress {
  readonly #stream: NodeJS.WriteStream;
  readonly #weights: ReadonlyMap<BatchJob, number>;
  readonly #totalWeight: number;
  readonly #running = new Map<BatchJob, Running>();
  readonly #form: ProgressForm;
  readonly #started = performance.now();
  readonly #ended: JobResult[] = [];
  #weightDone = 0;
  #weightRan = 0;
  #drawn = 0;
  #timer: NodeJS.Timeout | undefined;
  readonly #onSignal = () => this.#writeTotal();

  constructor(stream: NodeJS.WriteStream, standings: readonly Standing[], form: ProgressForm) {
    this.#stream = stream;
    // A job's time grows with its input; starting it takes some too.
    this.#weights = new Map(standings.map(({ job, inputBytes }) => [job, inputBytes + 2 ** 20]));
    this.#totalWeight = [...this.#weights.values()].reduce((sum, weight) => sum + weight, 0);
    this.#form = form;
  }

  start(): void {
    for (const signal of STATUS_SIGNALS) process.on(signal, this.#onSignal);
    const { quiet, json } = this.#form;
    if (json) {
      // Here and at the end: a short batch is done before the first second is over.
      this.#writeTotal();
      this.#timer = setInterval(() => this.#writeTotal(), JSON_EVERY_MS);
    } else if (quiet) return;
    else if (this.#stream.isTTY) this.#timer = setInterval(() => this.#draw(), REDRAW_MS);
    else this.#timer = setInterval(() => this.#writeTotal(), LINE_EVERY_MS);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    for (const signal of STATUS_SIGNALS) process.removeListener(signal, this.#onSignal);
    if (this.#form.json) this.#writeTotal();
    this.#clear();
  }

  on(event: BatchEvent): void {
    if (event.type === 'started') {
      this.#running.set(event.job, { started: performance.now(), attempt: event.attempt });
    } else if (event.type === 'progress') {
      const running = this.#running.get(event.job);
      if (running) running.progress = event.progress;
    } else {
      const { job, status } = event.result;
      this.#running.delete(job);
      this.#ended.push(event.result);
      const weight = this.#weights.get(job) ?? 0;
      this.#weightDone += weight;
      if (status === 'ran') this.#weightRan += weight;
      this.#say(event.result);
    }
  }

  /** Reports failures and losses at once. */
  #say({ job, status, record }: JobResult): void {
    if (this.#form.json) {
      const { outcome, exitCode } = record ?? { outcome: 'stopped', exitCode: null };
      this.#writeJson({ job: { input: job.input, output: job.output, status, outcome, exitCode } });
      return;
    }
    if (status !== 'ran' || !record || record.outcome === 'good') return;
    const what = record.error
      ? `failed (${record.exitCode}): ${record.error.text}`
      : `${record.lossCount} ${record.lossCount === 1 ? 'loss' : 'losses'}: ${record.losses[0]}`;
    this.#clear();
    this.#stream.write(`${printable(`${job.relative}: ${what}`)}\n`);
    if (record.error?.stderr) {
      for (const line of record.error.stderr.trimEnd().split('\n').slice(-5))
        this.#stream.write(`  ${printable(line)}\n`);
    }
  }

  #counts() {
    const seconds = (performance.now() - this.#started) / 1000;
    const left = this.#weightRan > 0 ? (seconds * (this.#totalWeight - this.#weightDone)) / this.#weightRan : undefined;
    return {
      done: this.#ended.length,
      total: this.#weights.size,
      skipped: this.#ended.filter(({ status }) => status === 'skipped').length,
      failed: this.#ended.filter(({ record }) => record?.outcome === 'failed').length,
      running: this.#running.size,
      secondsLeft: left === undefined ? null : Math.ceil(left),
    };
  }

  #total(): string {
    const { done, total, skipped, failed, running, secondsLeft } = this.#counts();
    const parts = [
      `${done} of ${total} done`,
      skipped > 0 ? `${skipped} skipped` : undefined,
      failed > 0 ? `${failed} failed` : undefined,
      `${running} running`,
      secondsLeft === null ? undefined : `about ${duration(secondsLeft)} left`,
    ];
    return parts.filter(Boolean).join(', ');
  }

  #writeJson(value: object): void {
    this.#stream.write(`${toJson(value)}\n`);
  }

  #writeTotal(): void {
    if (this.#form.json) {
      this.#writeJson({ progress: { phase: 'batch', ...this.#counts() } });
      return;
    }
    this.#clear();
    this.#stream.write(`${this.#total()}\n`);
  }

  #draw(): void {
    // 0 if the terminal does not know its size.
    const width = Math.max(20, (this.#stream.columns || 80) - 1);
    const rows = Math.max(2, (this.#stream.rows || 24) - 1);
    const jobs = [...this.#running].slice(0, rows - 1).map(([job, running]) => lineOf(job, running));
    this.#clear();
    const lines = [...jobs, this.#total()].map((line) => printable(line).slice(0, width));
    this.#stream.write(`${lines.join('\n')}\n`);
    this.#drawn = lines.length;
  }

  #clear(): void {
    if (this.#drawn > 0) this.#stream.write(`\x1b[${this.#drawn}A\r\x1b[J`);
    this.#drawn = 0;
  }
}

function lineOf(job: BatchJob, { started, attempt, progress }: Running): string {
  let what = 'starting';
  if (progress) {
    what = PHASES[progress.phase];
    if ('total' in progress) {
      what +=
        progress.total > 0
          ? ` ${Math.floor((100 * progress.done) / progress.total)}% of ${bytes(progress.total)}`
          : ` ${bytes(progress.done)}`;
    }
  }
  const again = attempt > 1 ? `, attempt ${attempt}` : '';
  return `${job.relative}: ${what}, ${duration((performance.now() - started) / 1000)}${again}`;
}

function duration(seconds: number): string {
  const s = Math.ceil(seconds);
  if (s < 60) return `${s} s`;
  const minutes = Math.floor(s / 60);
  return minutes < 60 ? `${minutes} min ${s % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
