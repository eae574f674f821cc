import { defineConfig } from 'vitest/config';
import { RING_FILES } from './test/rings.ts';

const ALL = 'test/**/*.test.ts';
const shared = {
  // Only a test that hangs gets there, however busy the machine is.
  testTimeout: 600_000,
  hookTimeout: 600_000,
};
const { cli, outer } = RING_FILES;

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
        },
      },
      // Once more where a machine that others keep busy got in the way: signals, disks, emulators, Wine and mounts.
      { test: { ...shared, name: 'cli', include: [...cli], globalSetup: 'scripts/fresh-bundle.mjs', retry: 1 } },
      { test: { ...shared, name: 'outer', include: [...outer], globalSetup: 'scripts/fresh-bundle.mjs', retry: 1 } },
    ],
  },
});
