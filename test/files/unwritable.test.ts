import { spawnSync } from 'node:child_process';
import { appendFileSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkOutputs, type WantedOutput } from '../../src/files/publish.ts';
import { canMount, mountNew } from '../support/loop-mounts.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-unwritable-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

describe.skipIf(!canMount())('an output', () => {
  it('is refused before the work where it can not be written', async () => {
    const { path, unmount } = mountNew('ext4', dir, 8 * 2 ** 20);
    const check = (more: Partial<WantedOutput> = {}) =>
      checkOutputs([{ what: 'OUTPUT', path: join(path, 'new'), force: false, ...more }], []);
    try {
      writeFileSync(join(path, 'lines'), 'ours');
      await check();
      expect(() => {
        for (;;) appendFileSync(join(path, 'lines'), Buffer.alloc(4096));
      }).toThrow('ENOSPC');
      await expect(check()).rejects.toMatchObject({ code: 'no-space', kind: 'io-transient' });
      truncateSync(join(path, 'lines'));
      await check();
      spawnSync('mount', ['-o', 'remount,ro', path]);
      await expect(check()).rejects.toMatchObject({ code: 'io-erofs' });
      const grows = { path: join(path, 'lines'), ours: () => true, grows: true };
      await expect(check(grows)).rejects.toMatchObject({ code: 'io-erofs' });
    } finally {
      unmount();
    }
  });
});
