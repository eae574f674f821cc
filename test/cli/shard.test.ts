import { describe, expect, it } from 'vitest';
import { shardFrom } from '../../src/cli/shard.ts';

const slurm = (id: string, count: string, min: string, max: string) => ({
  SLURM_ARRAY_TASK_ID: id,
  SLURM_ARRAY_TASK_COUNT: count,
  SLURM_ARRAY_TASK_MIN: min,
  SLURM_ARRAY_TASK_MAX: max,
});

describe('shardFrom', () => {
  it.each([
    [undefined, {}, undefined],
    ['1/4', { JOB_COMPLETION_INDEX: '0' }, { index: 1, count: 4 }],
    [undefined, { JOB_COMPLETION_INDEX: '3', ELF2DMP_SHARDS: '4' }, { index: 3, count: 4 }],
    [undefined, slurm('0', '4', '0', '3'), { index: 0, count: 4 }],
    [undefined, slurm('4', '4', '1', '4'), { index: 3, count: 4 }],
    [undefined, slurm('20', '3', '10', '30'), { index: 1, count: 3 }],
    [undefined, slurm('7', '1', '7', '7'), { index: 0, count: 1 }],
    [undefined, { ...slurm('7', '1', '7', '7'), ELF2DMP_SHARDS: '8' }, { index: 7, count: 8 }],
  ])('%s and %j tell %j', (option, env, shard) => expect(shardFrom(option, env)).toEqual(shard));

  it.each([
    ['4/4', {}, 'is not a shard'],
    ['1', {}, 'is not a shard'],
    ['-1/2', {}, 'is not a shard'],
    [undefined, { JOB_COMPLETION_INDEX: '0' }, 'the number of shards is missing'],
    [undefined, { JOB_COMPLETION_INDEX: '', ELF2DMP_SHARDS: '2' }, 'is not a shard'],
    [undefined, { ELF2DMP_SHARDS: '2' }, 'neither'],
    [undefined, { SLURM_ARRAY_TASK_ID: '0' }, 'is not a shard'],
    [undefined, slurm('2', '3', '0', '7'), 'not evenly spaced'],
    [undefined, slurm('3', '3', '0', '4'), 'is not a shard'],
  ])('%s and %j are refused: %s', (option, env, message) => expect(() => shardFrom(option, env)).toThrow(message));
});
