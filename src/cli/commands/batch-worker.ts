/** A process that takes a batch's jobs one after another: `elf2dmp` without arguments, started by a batch. */
import { BATCH_JOB, type Ended, type Task } from '../../batch/approval.ts';
import { EXIT } from '../../core/exit-codes.ts';
import { MIB } from '../../core/units.ts';
import { reportFailure } from '../../report/failure.ts';
import { asKnown, exitCodeOfError, renderFailure } from '../failure.ts';
import type { Job } from '../job.ts';
import { parseWords } from '../parse.ts';
import { convertForBatch, exitCodeOf } from './convert.ts';

/** Jobs that one process takes at most: whatever they leave behind ends with it. */
const MAX_JOBS = 100;

/** Memory that it may hold on to; a conversion takes less than 100 MiB, decompressing more. */
const MAX_MEMORY = 300 * MIB;

/** The job of such a process, which ends when its batch closes the channel, or ends; undefined in any other process. */
export const batchWorkerJob = (): Job | undefined =>
  process.env[BATCH_JOB] === undefined ? undefined : { json: false, verbose: false, run: work };

async function work(signal: AbortSignal): Promise<number> {
  for (let jobs = 1; ; jobs++) {
    const task = await nextTask(signal);
    if (!task) return EXIT.good;
    const ended = await convert(task, signal, jobs === MAX_JOBS);
    if (signal.aborted) throw signal.reason;
    process.send?.(ended, undefined, undefined, () => undefined);
    if (ended.last) return EXIT.good;
  }
}

/** undefined when there will be none. */
function nextTask(signal: AbortSignal): Promise<Task | undefined> {
  return new Promise((resolve) => {
    const finish = (task?: Task) => {
      process.channel?.unref();
      signal.removeEventListener('abort', onAbort);
      process.removeListener('message', onMessage);
      resolve(task);
    };
    const onAbort = () => finish();
    const onMessage = (message: Task) => finish(message);
    if (signal.aborted || !process.connected) return finish();
    // An idle channel does not keep the process alive; this one has to.
    process.channel?.ref();
    signal.addEventListener('abort', onAbort);
    process.on('message', onMessage);
  });
}

/** Bytes; 0 where the system does not say, as without /proc. */
function memoryInUse(): number {
  try {
    return process.memoryUsage.rss();
  } catch {
    return 0;
  }
}

async function convert({ job }: Task, signal: AbortSignal, isLast: boolean): Promise<Ended> {
  try {
    const report = await convertForBatch(parseWords(job), signal);
    const last = isLast || memoryInUse() > MAX_MEMORY;
    return { ended: report, exitCode: exitCodeOf(report), last };
  } catch (error) {
    const known = asKnown(error);
    const exitCode = exitCodeOfError(known);
    if (known.code === 'internal') process.stderr.write(renderFailure(known, false));
    // What the system lacks, or a bug, may be the process's own doing.
    const doubtful = known.kind === 'io-transient' || known.kind === 'aborted';
    return { ended: reportFailure(known, exitCode), exitCode, last: isLast || doubtful };
  }
}
