/** `elf2dmp batch`: many conversions. Its code is loaded only when needed. */
import { type Job, withDefaults } from '../job.ts';
import type { Given } from '../parse.ts';

/** The job that a command line for `batch` asks for. */
export const batchJob = (given: Given): Job => ({
  json: withDefaults('batch', given.values).json ?? false,
  verbose: withDefaults('batch', given.values).verbose ?? false,
  stays: 'dumps that were whole stay, and the next run makes the others',
  run: async (signal) => (await import('./batch-run.ts')).batch(given, signal),
});
