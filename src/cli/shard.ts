/** The part of a batch that this process does, from `--shard` or from the engine that started it. */
import type { Shard } from '../batch/plan.ts';
import { usage as wrong } from './usage.ts';

const usage = (message: string, hint?: string) => wrong(message, 'batch', hint);

/** Set by Kubernetes' Indexed Jobs and Slurm's job arrays; ELF2DMP_SHARDS is ours. */
type Environment = Readonly<Record<string, string | undefined>>;

/**
 * @param option `i/n`, i from 0
 * @returns undefined if the batch has no shards. Throws `Elf2dmpError` (kind `usage`).
 */
export function shardFrom(option: string | undefined, env: Environment): Shard | undefined {
  if (option !== undefined) {
    const [, index, count] = /^(\d{1,9})\/(\d{1,9})$/.exec(option) ?? [];
    return checked(`--shard ${option}`, Number(index), Number(count));
  }
  const { JOB_COMPLETION_INDEX: completion, SLURM_ARRAY_TASK_ID: task, ELF2DMP_SHARDS: shards } = env;
  if (completion !== undefined) {
    if (shards === undefined) {
      throw usage(
        'JOB_COMPLETION_INDEX is set, but the number of shards is missing',
        "set ELF2DMP_SHARDS to the Job's completions, or use --shard 0/1 to convert everything",
      );
    }
    return checked('JOB_COMPLETION_INDEX', number(completion), number(shards));
  }
  if (task === undefined) {
    if (shards === undefined) return undefined;
    throw usage('ELF2DMP_SHARDS is set, but neither JOB_COMPLETION_INDEX nor SLURM_ARRAY_TASK_ID', 'use --shard I/N');
  }
  // Allows a single task of the array to be submitted again.
  if (shards !== undefined) return checked('SLURM_ARRAY_TASK_ID', number(task), number(shards));
  const { SLURM_ARRAY_TASK_COUNT: count, SLURM_ARRAY_TASK_MIN: min, SLURM_ARRAY_TASK_MAX: max } = env;
  const step = (number(max) - number(min)) / (number(count) - 1);
  if (number(count) > 1 && !Number.isInteger(step)) {
    throw usage(
      "the array's indices are not evenly spaced, so the shard is unclear",
      'submit the array as 0-N, or set ELF2DMP_SHARDS to the number of shards: indices then count from 0',
    );
  }
  return checked('SLURM_ARRAY_TASK_ID', number(count) > 1 ? (number(task) - number(min)) / step : 0, number(count));
}

const number = (text: string | undefined): number => (/^\d{1,9}$/.test(text ?? '') ? Number(text) : Number.NaN);

function checked(from: string, index: number, count: number): Shard {
  if (Number.isInteger(index) && Number.isInteger(count) && index < count) return { index, count };
  throw usage(
    `${from} is not a shard: it needs an index from 0 and a larger number of shards`,
    'four shards are --shard 0/4 to --shard 3/4',
  );
}
