import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DoctorReport } from '../../src/operations/doctor.ts';
import { VERSION } from '../../src/version.ts';
import { canMount, type FileSystem, mountNew } from '../support/loop-mounts.ts';
import { held } from '../support/schemas.ts';

const BIN = fileURLToPath(new URL('../../bin/elf2dmp.js', import.meta.url));
let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-doctor-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const run = (...args: string[]) => spawnSync(process.execPath, [BIN, ...args], { encoding: 'utf8', cwd: dir });
const examine = (directory: string) =>
  held('doctor', JSON.parse(run('doctor', directory, '--json').stdout) as DoctorReport);
const working = ({ checks }: DoctorReport) => checks.filter(({ works }) => works).map(({ name }) => name);

describe('doctor', () => {
  it('says what works here, as text and as data, and leaves nothing', () => {
    const { status, stdout } = run('doctor');
    expect(status).toBe(0);
    expect(stdout).toMatch(/^elf2dmp \S+, Node\.js \S+, koffi \S+\n/);
    expect(stdout).toMatch(/^works {2}writing here /m);
    const report = examine('.');
    expect(report.outcome).toBe('good');
    expect(report.host).toMatchObject({ node: process.versions.node, platform: `${process.platform} ${process.arch}` });
    expect(report.host.openFiles).toBeGreaterThan(0);
    expect(working(report)).toEqual(expect.arrayContaining(['node', 'write', 'koffi']));
    expect(readdirSync(dir)).toEqual([]);
  });

  it.skipIf(!canMount()).each([
    ['xfs', 320, ['unnamed-files', 'reflink', 'in-place']],
    ['btrfs', 128, ['unnamed-files', 'reflink']],
    ['ext4', 32, ['unnamed-files', 'in-place']],
  ] as const satisfies readonly (readonly [FileSystem, number, readonly string[]])[])(
    'tries what %s can do',
    (kind, mib, can) => {
      const { path, unmount } = mountNew(kind, mkdtempSync(join(dir, 'mount-')), mib * 2 ** 20);
      try {
        const report = examine(path);
        expect(report.directory.fileSystem.toLowerCase()).toBe(kind);
        expect(working(report).filter((name) => ['unnamed-files', 'reflink', 'in-place'].includes(name))).toEqual(can);
      } finally {
        unmount();
      }
    },
  );

  it('has another exit code where nothing can be written, and where there is no such directory', () => {
    const nowhere = run('doctor', '/proc', '--json');
    expect(nowhere.status).toBe(6);
    const report = held('doctor', JSON.parse(nowhere.stdout) as DoctorReport);
    expect(report.outcome).toBe('problems');
    expect(report.checks.find(({ name }) => name === 'reflink')?.detail).toBe('nothing can be written there');
    writeFileSync(join(dir, 'file'), '');
    for (const path of ['none', 'file']) {
      const { status, stderr } = run('doctor', path);
      expect([path, status]).toEqual([path, 6]);
      expect(stderr).toContain(`${path}: cannot examine`);
    }
  });

  it('says why koffi does not load', () => {
    const hook = join(dir, 'broken.cjs');
    writeFileSync(
      hook,
      `const Module = require('node:module'), load = Module._load;
      Module._load = (name, ...more) => {
        if (name === 'koffi') throw new Error('libffi is broken');
        return load(name, ...more);
      };`,
    );
    const { stdout, status } = spawnSync(process.execPath, ['--require', hook, BIN, 'doctor'], {
      encoding: 'utf8',
      cwd: dir,
    });
    expect(status).toBe(0);
    expect(stdout).toContain('the package koffi does not load: libffi is broken');
    expect(stdout).toMatch(/^no {5}shared blocks .*does not load/m);
  });
});

it('--version --verbose says what a bug report should have', () => {
  expect(run('--version').stdout).toBe(`${VERSION}\n`);
  for (const args of [
    ['--version', '--verbose'],
    ['-v', '--version'],
    ['info', '--version', '-v'],
  ]) {
    expect(run(...args).stdout).toMatch(
      /^elf2dmp \S+, Node\.js \S+, koffi \S+\n\S+ \S+, kernel .*\n\d+ CPUs?, .* of memory/,
    );
  }
});
