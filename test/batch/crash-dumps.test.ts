// Crash dumps as inputs of a batch: found by content, named, recorded, and not converted twice.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Sidecar } from '../../src/batch/sidecar.ts';
import { buildGuest } from '../guest/guest.ts';
import { writeTriage, writeWinDump } from '../guest/win-dump.ts';
import { BIN } from '../support/batches.ts';

let dir: string;
const at = (...names: string[]) => join(dir, ...names);
const guest = buildGuest({
  processors: 2,
  seed: 71,
  ramMiB: 4,
  kdbg: 'plain',
  crash: { code: 0xd1, parameters: [1n, 2n, 3n, 4n], processor: 0 },
});
const full = writeWinDump(guest, 1);

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-batch-dumps-'));
  for (const sub of ['any', 'dumps']) mkdirSync(at(sub));
  writeFileSync(at('any', 'bitmap.bin'), writeWinDump(guest, 5));
  writeFileSync(at('any', 'MEMORY.DMP'), writeWinDump(guest, 5));
  writeFileSync(at('any', 'not-searched.dmp'), full);
  writeFileSync(at('any', 'ranges'), writeWinDump(guest, 10));
  for (const [program, ending] of [
    ['xz', 'xz'],
    ['zstd', 'zst'],
  ] as const) {
    const packed = execFileSync(program, ['-c', '-q', '-1'], { input: full, maxBuffer: 1 << 26 });
    writeFileSync(at('any', `packed-${ending}.dump.${ending}`), packed);
  }
  writeFileSync(at('dumps', 'full.dmp'), full);
  writeFileSync(at('dumps', 'full.dmp.gz'), gzipSync(full, { level: 1 }));
  writeFileSync(at('dumps', 'mini.dmp'), writeTriage(guest).file);
  writeFileSync(at('dumps', 'cut.dmp'), full.subarray(0, 0x2000));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const batch = (...args: string[]) => spawnSync(process.execPath, [BIN, 'batch', ...args], { encoding: 'utf8' });
const done = (stdout: string) => Number(/^good +\d+ +(\d+)/m.exec(stdout)?.[1]);

it('finds dumps by content, unpacks them, and does not convert them again', () => {
  const args = [at('any'), '--out', at('out'), '--name', '{relative}.dmp', '--type', 'full'];
  const first = batch(...args);
  expect([first.status, done(first.stdout)]).toEqual([0, 0]);
  const made = ['MEMORY.DMP', 'bitmap.bin', 'packed-xz.dump.xz', 'packed-zst.dump.zst', 'ranges'];
  expect(readdirSync(at('out')).sort()).toEqual(made.flatMap((name) => [`${name}.dmp`, `${name}.dmp.json`]).sort());
  for (const name of made.slice(2))
    expect(
      readFileSync(at('out', `${name}.dmp`))
        .subarray(0x2000)
        .equals(full.subarray(0x2000)),
    ).toBe(true);
  const sidecar = JSON.parse(readFileSync(at('out', 'bitmap.bin.dmp.json'), 'utf8')) as Sidecar;
  expect(sidecar).toMatchObject({ state: 'finished' });
  const again = batch(...args);
  expect([again.status, done(again.stdout)]).toEqual([0, made.length]);
  // Another dump under the name: the header is another.
  const other = writeWinDump(guest, 5);
  other.writeBigUInt64LE(other.readBigUInt64LE(0xfa8) + 1n, 0xfa8);
  writeFileSync(at('any', 'bitmap.bin'), other);
  const third = batch(...args);
  expect([third.status, done(third.stdout)]).toEqual([0, made.length - 1]);
  expect(readFileSync(at('out', 'bitmap.bin.dmp')).readBigUInt64LE(0xfa8)).toBe(other.readBigUInt64LE(0xfa8));
});

it('takes those named .dmp by a glob, and says why others fail', () => {
  const args = [at('dumps', '*.dmp*'), '--out', at('kernel'), '--name', '{relative}.dmp', '--type', 'kernel'];
  const { status, stdout } = batch(...args);
  expect(status).toBe(5);
  expect(stdout).toMatch(/failed \(4\) mini\.dmp: .*a triage dump holds no physical memory/);
  expect(stdout).toMatch(/failed \(5\) cut\.dmp: .*none of the memory/);
  expect(readFileSync(at('kernel', 'full.dmp.dmp')).equals(readFileSync(at('kernel', 'full.dmp.gz.dmp')))).toBe(true);
  expect(existsSync(at('kernel', 'mini.dmp.dmp'))).toBe(false);
});

it('never writes over its inputs, and says how to name dumps in a directory', () => {
  const over = batch(at('dumps', '*.dmp'), '--out', at('dumps'));
  expect([over.status, over.stderr]).toEqual([2, expect.stringContaining('would be written over the input')]);
  const none = batch(at('dumps'), '--out', at('nothing'), '--name', '{relative}.dmp');
  expect([none.status, none.stderr]).toEqual([2, expect.stringContaining("'DIR/**/*.dmp'")]);
  expect(readFileSync(at('dumps', 'full.dmp')).equals(full)).toBe(true);
});
