/** The command: arguments in, exit code out. The only place that prints. */

import { constants } from 'node:os';
import { Elf2dmpError } from '../core/errors.ts';
import { EXIT } from '../core/exit-codes.ts';
import { toJson } from '../core/json.ts';
import { LISTENED_SIGNALS, ON_SUDDEN_END } from '../core/sudden-end.ts';
import { parseArguments } from './arguments.ts';
import { asKnown, exitCodeOfError, renderFailure } from './failure.ts';
import type { Job } from './job.ts';
import { refuseMangled } from './mangled.ts';
import { hearStatusSignals, STATUS_SIGNALS } from './signals.ts';

const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM'] as const;

/** A run that takes longer to end says that it does. */
const SAY_AFTER_MS = 500;

/** A batch starts its processes without arguments, and sends them their jobs. */
async function jobOfBatch(argv: readonly string[]): Promise<{ job: Job } | undefined> {
  if (argv.length > 0 || !process.channel) return undefined;
  const job = (await import('./commands/batch-worker.ts')).batchWorkerJob();
  return job && { job };
}

/** Runs the command and sets the process's exit code. */
export async function main(argv: readonly string[]): Promise<void> {
  // EPIPE is not an error: `| head` has read enough.
  let failed = false;
  // Without a listener SIGUSR1 opens Node's debugger on a port, and SIGUSR2 ends the process.
  for (const signal of STATUS_SIGNALS) process.on(signal, () => undefined);
  hearStatusSignals();
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
  // Node would take the listeners away before it ends: a SIGUSR1 or SIGUSR2 then ended a run that was done.
  process.once('exit', () => process.exit());
}

async function run(argv: readonly string[]): Promise<number> {
  let job: Job;
  try {
    refuseMangled(argv);
    const parsed = (await jobOfBatch(argv)) ?? (await parseArguments(argv));
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
        message: `ended by ${signal}; ${job.stays ?? 'nothing was left behind'}`,
        file: job.output,
      }),
    );
  };
  for (const s of SIGNALS) process.on(s, onSignal);
  LISTENED_SIGNALS.push(...SIGNALS);
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

/** @param ended exit code of a run that a signal ended */
async function reportFailure(error: unknown, json: boolean, verbose: boolean, ended?: number): Promise<number> {
  const known = asKnown(error);
  const aborted = known.code === 'aborted' ? ended : undefined;
  const code = aborted ?? exitCodeOfError(known);
  process.stderr.write(renderFailure(known, verbose));
  if (json) {
    // Loaded when it is needed: most runs do not fail.
    const { reportFailure: report } = await import('../report/failure.ts');
    process.stdout.write(`${toJson(report(known, code), 2)}\n`);
  }
  return code;
}
