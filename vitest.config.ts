import { defineConfig } from 'vitest/config';
import { RING_FILES } from './test/rings.ts';

const ALL = 'test/**/*.test.ts';
const shared = {
  // Only a test that hangs gets there, however busy the machine is.
  testTimeout: 600_000,
  hookTimeout: 600_000,
};
const { cli, outer } = RING_FILES;
/**
 * Once more where a machine that others keep busy got in the way: signals, disks, emulators, Wine and mounts. Where a run
 * decides about a change, every test gets one chance more.
 */
const [retryUnit, retry] = process.env['CI'] ? [1, 2] : [0, 1];

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      {
        test: {
          ...shared,
          name: 'unit',
          include: [ALL],
          exclude: [...cli, ...outer],
          setupFiles: ['test/support/no-processes.ts'],
          retry: retryUnit,
        },
      },
      { test: { ...shared, name: 'cli', include: [...cli], globalSetup: 'scripts/fresh-bundle.mjs', retry } },
      { test: { ...shared, name: 'outer', include: [...outer], globalSetup: 'scripts/fresh-bundle.mjs', retry } },
    ],
  },
});
