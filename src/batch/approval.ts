/** What a batch and its jobs' processes say to each other; a job asks before anything gets its name. */
import { Elf2dmpError, type ErrorDetails } from '../core/errors.ts';
import type { ConversionReport } from '../report/conversion.ts';
import type { FailureReport } from '../report/failure.ts';

/** In the environment of a batch's jobs: others that have a channel to their parent do not wait for an answer. */
export const BATCH_JOB = 'ELF2DMP_BATCH_JOB';

/** From the batch: the words of a conversion's command line. */
export interface Task {
  job: readonly string[];
}

/** From a process: how its job ended. */
export interface Ended {
  ended: ConversionReport | FailureReport;
  exitCode: number;
  /** The process ends too. */
  last: boolean;
}

/** From a job: the file that is to become the dump is complete. */
export interface Question {
  ready: string;
}

/** From the batch: the error with which the job ends, or null. */
export interface Answer {
  refusal: ErrorDetails | null;
}

/**
 * Asks the batch; undefined in any other process. Throws what the batch answers.
 *
 * Throws `Elf2dmpError` (kind `aborted`) where the batch has ended already: nobody would record the dump.
 */
export function approvalOfBatch(): ((file: string) => Promise<void>) | undefined {
  if (process.env[BATCH_JOB] === undefined) return undefined;
  if (!process.connected) throw gone();
  return async (file) => {
    // An idle channel does not keep the process alive; this one has to.
    process.channel?.ref();
    try {
      const { refusal } = await answerTo(file);
      if (refusal) throw new Elf2dmpError(refusal);
    } finally {
      process.channel?.unref();
    }
  };
}

const gone = () =>
  new Elf2dmpError({ code: 'aborted', kind: 'aborted', message: 'the batch ended; nothing was left behind' });

function answerTo(file: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const onGone = () => reject(gone());
    if (!process.connected) return onGone();
    process.once('disconnect', onGone);
    process.once('message', (message) => {
      process.removeListener('disconnect', onGone);
      resolve(message as Answer);
    });
    process.send?.({ ready: file } satisfies Question, undefined, undefined, (error) => error && onGone());
  });
}
