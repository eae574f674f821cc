/** `elf2dmp batch`: many conversions. What it does is loaded when it is asked for. */
import { type Job, withDefaults } from '../job.ts';
import type { Given } from '../parse.ts';

export const batchJob = (given: Given): Job => ({
  json: false,
  verbose: withDefaults('batch', given.values).verbose ?? false,
  run: async (signal) => (await import('./batch-run.ts')).batch(given, signal),
});
