/** One conversion in a process of its own: whatever it does, the batch goes on. */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { finished } from 'node:stream/promises';
import { type ErrorKind, ioError } from '../core/errors.ts';
import type { Progress } from '../operations/convert.ts';
import type { ConversionReport } from '../report/conversion.ts';
import { type BatchJob, type JobOptions, pageOf } from './plan.ts';
import type { JobError } from './sidecar.ts';

export interface ChildResult {
  exitCode: number;
  /** undefined where there is an error. */
  report?: ConversionReport | undefined;
  error?: JobError | undefined;
}

interface ChildOptions {
  /** The command with its first arguments: Node and elf2dmp's script. */
  command: readonly string[];
  force: boolean;
  hash: boolean;
  /** Make a report for people, at `pageOf(output)`. */
  html: boolean;
  signal: AbortSignal;
  onProgress: (progress: Progress) => void;
}

const STDERR_KEPT = 4096;

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
      // In a group of its own: Ctrl-C at a terminal is for the batch, which then asks its jobs to stop.
      detached: true,
    });
    const failed = (error: Error) => {
      const { code, kind, message } = ioError('start', program, error);
      finish({ exitCode: 1, error: { code, kind, text: message } });
    };
    // When the batch is gone, also by SIGKILL, the child sees the channel closed and stops cleanly.
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
    child.on('message', (message) => o.onProgress(message as unknown as Progress));
    child.on('error', failed);
    // Its "close" does not come on Node 20 when the channel was closed from here.
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
    const data = JSON.parse(stdout) as ConversionReport | { outcome: 'failed'; error: JobError };
    if (data.outcome !== 'failed') {
      const found = data.verification?.outcome ?? 'sound';
      if (found === 'sound') return { exitCode, report: data };
      const text = `the dump was written, and --verify found that it is not as it should be: ${found}`;
      return { exitCode, error: { code: 'verification', kind: 'io-permanent', text } };
    }
    const { code: name, kind, text } = data.error;
    return { exitCode, error: { code: name, kind, text } };
  } catch {
    // No report: it did not come to its end.
    const kind: ErrorKind = 'aborted';
    const text = signal
      ? `its process was ended by ${signal}`
      : `its process ended with ${exitCode} and without a report`;
    return { exitCode, error: { code: 'crashed', kind, text, stderr } };
  }
}

/** As on the command line. */
const argumentsOf = (options: JobOptions): string[] =>
  Object.entries(options).map(([name, value]) => {
    if (typeof value === 'string') return `--${name}=${value}`;
    return value ? `--${name}` : `--no-${name}`;
  });
