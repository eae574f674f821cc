/** Runs one conversion in a process of its own, so that the batch survives whatever happens to it. */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { finished } from 'node:stream/promises';
import { Elf2dmpError, type ErrorKind, ioError } from '../core/errors.ts';
import type { Progress } from '../operations/convert.ts';
import type { ConversionReport } from '../report/conversion.ts';
import type { FailureReport } from '../report/failure.ts';
import { type Answer, BATCH_JOB, type Question } from './approval.ts';
import { type BatchJob, type JobOptions, pageOf } from './plan.ts';
import type { JobError } from './sidecar.ts';

/** How the process ended. */
export interface ChildResult {
  exitCode: number;
  /** undefined if there is an error. */
  report?: ConversionReport | undefined;
  error?: JobError | undefined;
}

interface ChildOptions {
  /** The command and its first arguments: Node and elf2dmp's script. */
  command: readonly string[];
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

/** Converts one input. Never rejects: failures are results. */
export function runChild({ input, output, options }: BatchJob, o: ChildOptions): Promise<ChildResult> {
  const [program = '', ...first] = o.command;
  const more = {
    ...options,
    ...(o.force ? { force: true } : {}),
    ...(o.hash ? { hash: true } : {}),
    ...(o.html ? { report: pageOf(output) } : {}),
  };
  const args = [...first, '--json', '--quiet', ...argumentsOf(more)];
  return new Promise((resolve) => {
    const child = spawn(program, [...args, '--', input, output], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      env: { ...process.env, [BATCH_JOB]: '1' },
      // A process group of its own: Ctrl-C reaches only the batch, which then stops its jobs.
      detached: true,
    });
    const failed = (error: Error) => {
      const { code, kind, message } = ioError('start', program, error);
      finish({ exitCode: 1, error: { code, kind, text: message, stderr: null } });
    };
    // When the batch ends, even by SIGKILL, the channel closes and the child stops cleanly.
    const stop = () => child.connected && child.disconnect();
    const finish = (result: ChildResult) => {
      o.signal.removeEventListener('abort', stop);
      resolve(result);
    };
    const stdout: Buffer[] = [];
    let stderr = '';
    child.stdout!.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-STDERR_KEPT);
    });
    const answer = async ({ ready }: Question) => {
      const refusal = await o.approve(ready).then(
        () => null,
        (error: unknown) => (error instanceof Elf2dmpError ? error : ioError('use', output, error)).details,
      );
      // Only what survives JSON.
      const { cause: _, ...details } = refusal ?? {};
      if (child.connected) child.send({ refusal: refusal && details } as Answer, () => undefined);
    };
    child.on('message', (message: Question | Progress) => {
      if ('ready' in message) void answer(message);
      else o.onProgress(message);
    });
    child.on('error', failed);
    // Node 20 emits no "close" if the channel was closed from this side.
    const exit = new Promise<[number | null, NodeJS.Signals | null]>((exited) => {
      child.on('exit', (...how) => exited(how));
    });
    const ends = [child.stdout!, child.stderr!].map((stream) => finished(stream).catch(() => undefined));
    void Promise.all([exit, ...ends]).then(([[code, signal]]) =>
      finish(resultOf(code, signal, Buffer.concat(stdout).toString('utf8'), stderr)),
    );
    o.signal.addEventListener('abort', stop);
    if (o.signal.aborted) stop();
  });
}

function resultOf(code: number | null, signal: NodeJS.Signals | null, stdout: string, stderr: string): ChildResult {
  const exitCode = code ?? 128 + constants.signals[signal!];
  try {
    const data = JSON.parse(stdout) as ConversionReport | FailureReport;
    if (data.outcome !== 'failed') {
      const found = data.verification?.outcome ?? 'sound';
      if (found === 'sound') return { exitCode, report: data };
      const text = `the dump was written, but --verify found it ${found === 'differs' ? 'different from its input' : found}`;
      return { exitCode, error: { code: 'verification', kind: 'io-permanent', text, stderr: null } };
    }
    const { code: name, kind, text } = data.error;
    return { exitCode, error: { code: name, kind, text, stderr: null } };
  } catch {
    // No report: it ended early.
    const kind: ErrorKind = 'aborted';
    const text = signal ? `its process was killed by ${signal}` : `its process exited with ${exitCode} and no report`;
    return { exitCode, error: { code: 'crashed', kind, text, stderr } };
  }
}

/** Options as command-line words. */
const argumentsOf = (options: JobOptions): string[] =>
  Object.entries(options).map(([name, value]) => {
    if (typeof value === 'string') return `--${name}=${value}`;
    return value ? `--${name}` : `--no-${name}`;
  });
