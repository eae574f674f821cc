/**
 * Runs conversions in a process of their own, so that the batch survives whatever happens to it. The process stays for
 * the next job, which saves starting Node: one job at a time, and it ends with the first that leaves it in doubt.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { finished } from 'node:stream/promises';
import { Elf2dmpError, type ErrorKind, ioError } from '../core/errors.ts';
import type { Progress } from '../operations/convert.ts';
import type { ConversionReport } from '../report/conversion.ts';
import { type Answer, BATCH_JOB, type Ended, type Question, type Task } from './approval.ts';
import { type BatchJob, type JobOptions, pageOf } from './plan.ts';
import type { JobError } from './sidecar.ts';

/** How a job ended. */
export interface ChildResult {
  exitCode: number;
  /** undefined if there is an error. */
  report?: ConversionReport | undefined;
  error?: JobError | undefined;
}

interface ChildOptions {
  force: boolean;
  hash: boolean;
  /** Write an HTML report at `pageOf(output)`. */
  html: boolean;
  signal: AbortSignal;
  onProgress: (progress: Progress) => void;
  /** Asked with the file that is to become the dump, before it gets its name; rejects to refuse it. */
  approve: (file: string) => Promise<void>;
}

const STDERR_KEPT = 4096;

/** What comes from a process. */
type Message = Question | Progress | Ended;

/** How processes are started. */
interface Started {
  /** Node and elf2dmp's script, without arguments. */
  command: readonly string[];
  /** Of a process that does not start. */
  exitCodeOf: (error: Elf2dmpError) => number;
}

/** A process that takes jobs. */
class Running {
  readonly #child: ChildProcess;
  /** Its last words, of the job at hand. */
  #stderr = '';
  #onMessage: (message: Message) => void = () => undefined;
  /** The last answer; never rejects. */
  #answering: Promise<void> = Promise.resolve();
  /** When it has ended: how, or why it did not start. */
  readonly end: Promise<ChildResult>;

  constructor({ command, exitCodeOf }: Started) {
    const [program = '', ...first] = command;
    const child = spawn(program, first, {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      env: { ...process.env, [BATCH_JOB]: '1' },
      // A process group of its own: Ctrl-C reaches only the batch, which then stops its jobs.
      detached: true,
    });
    this.#child = child;
    // Without a descriptor left for it there is no stream; then the process does not start.
    const { stderr } = child as { stderr?: ChildProcess['stderr'] };
    stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_KEPT);
    });
    child.on('message', (message: Message) => this.#onMessage(message));
    const failed = new Promise<ChildResult>((resolve) => {
      child.on('error', (error) => {
        const failure = ioError('start', program, error);
        const { code, kind, message } = failure;
        resolve({ exitCode: exitCodeOf(failure), error: { code, kind, text: message, stderr: null } });
      });
    });
    // Node 20 emits no "close" if the channel was closed from this side.
    const exit = new Promise<[number | null, NodeJS.Signals | null]>((exited) => {
      child.on('exit', (...how) => exited(how));
    });
    const ended = Promise.all([exit, stderr && finished(stderr).catch(() => undefined)]);
    this.end = Promise.race([failed, ended.then(([how]) => crashed(...how, this.#stderr))]);
  }

  /** Never rejects. `again`: it takes another job. */
  async run(
    task: Task,
    { signal, onProgress, approve }: ChildOptions,
  ): Promise<{ result: ChildResult; again: boolean }> {
    this.#stderr = '';
    const answered = new Promise<{ result: ChildResult; again: boolean }>((resolve) => {
      this.#onMessage = (message) => {
        if ('ended' in message) resolve({ result: resultOf(message), again: !message.last });
        else if (signal.aborted) return;
        else if ('ready' in message) this.#answering = this.#answer(approve(message.ready));
        else onProgress(message);
      };
    });
    // When the batch ends, even by SIGKILL, the channel closes and the process stops cleanly.
    const stop = () => this.stop();
    signal.addEventListener('abort', stop);
    this.#send(task);
    if (signal.aborted) stop();
    const done = await Promise.race([answered, this.end.then((result) => ({ result, again: false }))]);
    signal.removeEventListener('abort', stop);
    // It may still be writing the record.
    await this.#answering;
    return done;
  }

  stop(): void {
    if (this.#child.connected) this.#child.disconnect();
  }

  async #answer(approval: Promise<void>): Promise<void> {
    const refusal = await approval.then(
      () => null,
      (error: unknown) => (error instanceof Elf2dmpError ? error : ioError('use', 'the output', error)).details,
    );
    // Only what survives JSON.
    const { cause: _, ...details } = refusal ?? {};
    this.#send({ refusal: refusal && details } as Answer);
  }

  #send(message: Task | Answer): void {
    if (this.#child.connected) this.#child.send(message, () => undefined);
  }
}

/** Converts inputs one after another. */
export class JobProcess {
  readonly #how: Started;
  #running: Running | undefined;
  /** Processes that take no more jobs. */
  readonly #leaving: Promise<unknown>[] = [];

  constructor(how: Started) {
    this.#how = how;
  }

  /** Converts one input. Never rejects: failures are results. */
  async run({ input, output, options }: BatchJob, o: ChildOptions): Promise<ChildResult> {
    const more = {
      ...options,
      ...(o.force ? { force: true } : {}),
      ...(o.hash ? { hash: true } : {}),
      ...(o.html ? { report: pageOf(output) } : {}),
    };
    const running = this.#running ?? new Running(this.#how);
    this.#running = running;
    const { result, again } = await running.run({ job: [...argumentsOf(more), '--', input, output] }, o);
    if (!again) this.#leave();
    return result;
  }

  /** Ends the process, and waits for it. */
  async end(): Promise<void> {
    this.#leave();
    await Promise.all(this.#leaving);
  }

  #leave(): void {
    if (!this.#running) return;
    this.#running.stop();
    this.#leaving.push(this.#running.end);
    this.#running = undefined;
  }
}

function resultOf({ ended: data, exitCode }: Ended): ChildResult {
  if (data.outcome === 'failed') {
    const { code, kind, text } = data.error;
    return { exitCode, error: { code, kind, text, stderr: null } };
  }
  const found = data.verification?.outcome ?? 'sound';
  if (found === 'sound') return { exitCode, report: data };
  const text = `the dump was written, but --verify found it ${found === 'differs' ? 'different from its input' : found}`;
  return { exitCode, error: { code: 'verification', kind: 'io-permanent', text, stderr: null } };
}

/** The result of a job whose process ended before it could say how it went. */
function crashed(code: number | null, signal: NodeJS.Signals | null, stderr: string): ChildResult {
  const exitCode = code ?? 128 + constants.signals[signal!];
  const kind: ErrorKind = 'aborted';
  const text = signal ? `its process was killed by ${signal}` : `its process exited with ${exitCode} and no report`;
  return { exitCode, error: { code: 'crashed', kind, text, stderr } };
}

/** Options as command-line words. */
const argumentsOf = (options: JobOptions): string[] =>
  Object.entries(options).map(([name, value]) => {
    if (typeof value === 'string') return `--${name}=${value}`;
    return value ? `--${name}` : `--no-${name}`;
  });
