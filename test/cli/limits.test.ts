import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { BIN } from '../support/batches.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-limits-'));
  writeFileSync(join(dir, 'vm.elf'), writeElf(buildGuest({ processors: 1, ramMiB: 8, decoys: false })));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe('a process that may open few files', () => {
  const limited = (...args: string[]) => {
    // Whatever this process was started with stays out of it.
    const closing = 'for fd in $(ls /proc/$$/fd); do [ "$fd" -le 2 ] || eval "exec $fd>&-"; done';
    const command = ['-c', `${closing}; ulimit -n 24; exec "$0" "$@"`, process.execPath, BIN, ...args, 'vm.elf'];
    const { status, stderr } = spawnSync('bash', command, { cwd: dir, encoding: 'utf8' });
    return { status, stderr };
  };

  it.each(['info', 'stack'])('needs hardly more than Node itself: %s', (command) => {
    expect(limited(command)).toEqual({ status: 0, stderr: '' });
  });

  it('says so where that is too few', () => {
    const { status, stderr } = limited('batch', '--out', 'out');
    expect([status, stderr]).toEqual([7, expect.stringContaining('too many open files')]);
    expect(stderr).not.toMatch(/^ +at /m);
  });
});
