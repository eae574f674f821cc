/** The command: arguments in, exit code out. The only place that prints. */

import { constants } from 'node:os';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { toJson } from '../core/json.ts';
import { ON_SUDDEN_END } from '../core/sudden-end.ts';
import { parseArguments } from './arguments.ts';
import { EXIT, EXIT_OF_KIND } from './exit-codes.ts';
import type { Job } from './job.ts';
import { STATUS_SIGNALS } from './signals.ts';
import { renderError } from './text/render.ts';

const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM'] as const;

/** A run that takes longer to end says that it does. */
const SAY_AFTER_MS = 500;

/** Runs the command and sets the process's exit code. */
export async function main(argv: readonly string[]): Promise<void> {
  // EPIPE is not an error: `| head` has read enough.
  let failed = false;
  // Without a listener SIGUSR1 opens Node's debugger on a port, and SIGUSR2 ends the process.
  for (const signal of STATUS_SIGNALS) process.on(signal, () => undefined);
  process.stderr.on('error', () => undefined);
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') return;
    failed = true;
    process.exitCode = EXIT.ioTransient;
    process.stderr.write(`elf2dmp: cannot write to standard output: ${error.code ?? error.message}\n`);
  });
  const code = await run(argv);
  // A failure after this point sets the exit code itself.
  process.exitCode = failed ? EXIT.ioTransient : code;
}

async function run(argv: readonly string[]): Promise<number> {
  let job: Job;
  try {
    const parsed = await parseArguments(argv);
    if ('print' in parsed) {
      process.stdout.write(`${parsed.print}\n`);
      return EXIT.good;
    }
    job = parsed.job;
  } catch (error) {
    return await reportFailure(error, argv.includes('--json'), false);
  }
  const abort = new AbortController();
  let signalled: (typeof SIGNALS)[number] | undefined;
  let waiting: NodeJS.Timeout | undefined;
  const onSignal = (signal: (typeof SIGNALS)[number]) => {
    // The second one ends the process at once, by the system if nothing is to be done first.
    if (signalled || ON_SUDDEN_END.size === 0) for (const s of SIGNALS) process.removeListener(s, onSignal);
    if (signalled) {
      for (const act of ON_SUDDEN_END) act();
      process.kill(process.pid, signal);
      return;
    }
    signalled = signal;
    waiting = setTimeout(() => process.stderr.write(`elf2dmp: ${signal}: stopping\n`), SAY_AFTER_MS);
    waiting.unref();
    abort.abort(
      new Elf2dmpError({
        code: 'aborted',
        kind: 'aborted',
        message: `ended by ${signal}; nothing was left behind`,
        file: job.output,
      }),
    );
  };
  for (const s of SIGNALS) process.on(s, onSignal);
  // A batch closes the channel to stop its job, or by ending. After a real signal this is not a second one.
  const onDisconnect = () => signalled ?? onSignal('SIGTERM');
  process.once('disconnect', onDisconnect);
  process.channel?.unref();
  try {
    return await job.run(abort.signal);
  } catch (error) {
    return await reportFailure(error, job.json, job.verbose, signalled && 128 + constants.signals[signalled]);
  } finally {
    clearTimeout(waiting);
    for (const s of SIGNALS) process.removeListener(s, onSignal);
    process.removeListener('disconnect', onDisconnect);
  }
}

const bug = (error: unknown) =>
  new Elf2dmpError({
    code: 'internal',
    kind: 'aborted',
    message: `internal error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
    hint: 'this is a bug in elf2dmp: please report it with the text above',
  });

/** How V8 and WebAssembly say that there is no memory. */
const NO_MEMORY = /allocation failed|could not allocate|out of memory|array buffer|typed array length/i;

/** The error where the process ran into a limit (`ulimit -n`, `ulimit -v`), which can happen anywhere. */
function exhausted(error: unknown): Elf2dmpError | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code = '', path } = error as NodeJS.ErrnoException;
  if (code === 'EMFILE' || code === 'ENFILE') return ioError('open', path ?? 'a file', error);
  if (code !== 'ENOMEM' && code !== 'ERR_MEMORY_ALLOCATION_FAILED' && !NO_MEMORY.test(error.message)) return undefined;
  return new Elf2dmpError({
    code: 'out-of-memory',
    kind: 'io-transient',
    message: `there is not enough memory: ${error.message}`,
    hint: 'raise the limit (`ulimit -v`) or free memory, then run it again',
    cause: error,
  });
}

/** @param ended exit code of a run that a signal ended */
async function reportFailure(error: unknown, json: boolean, verbose: boolean, ended?: number): Promise<number> {
  const known = error instanceof Elf2dmpError ? error : (exhausted(error) ?? bug(error));
  const aborted = known.code === 'aborted' ? ended : undefined;
  const code = aborted ?? (known.code === 'internal' ? EXIT.internal : EXIT_OF_KIND[known.kind]);
  // `printable` would escape the line breaks of a stack trace.
  process.stderr.write(
    known.code === 'internal'
      ? `elf2dmp: ${known.message}\n  hint: ${known.details.hint}\n`
      : renderError(known, verbose),
  );
  if (json) {
    // Loaded when it is needed: most runs do not fail.
    const { reportFailure: report } = await import('../report/failure.ts');
    process.stdout.write(`${toJson(report(known, code), 2)}\n`);
  }
  return code;
}
