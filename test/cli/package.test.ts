import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
let dir: string;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-package-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const run = (command: string, args: string[], cwd = dir) => {
  const result = spawnSync(command, args, { encoding: 'utf8', cwd });
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.stderr}${result.stdout}`);
  return result.stdout;
};

describe('the package', () => {
  it('installs elsewhere and runs, as a command and as a library', () => {
    run('npm', ['pack', '--ignore-scripts', '--pack-destination', dir], ROOT);
    const [tarball] = readdirSync(dir).filter((name) => name.endsWith('.tgz'));
    const prefix = join(dir, 'prefix');
    run('npm', ['install', '--global', '--prefix', prefix, '--no-audit', '--no-fund', join(dir, tarball!)]);
    const command = join(prefix, 'bin', 'elf2dmp');
    expect(run(command, ['--version'])).toMatch(/^\d+\.\d+\.\d+\n$/);
    expect(readFileSync(join(prefix, 'share', 'man', 'man1', 'elf2dmp.1'), 'utf8')).toMatch(/^\.TH ELF2DMP 1/);
    writeFileSync(join(dir, 'vm.elf'), writeElf(buildGuest()));
    expect(run(command, ['vm.elf', 'vm.dmp'])).toContain('build 19041');

    const library = join(prefix, 'lib', 'node_modules', 'elf2dmp', 'dist', 'index.js');
    writeFileSync(
      join(dir, 'use.mjs'),
      `import { convert, Elf2dmpError, locate, open } from ${JSON.stringify(library)};
      const image = await open('vm.elf');
      const windows = await locate(image);
      image.close();
      const report = await convert({ input: 'vm.elf', output: 'library.dmp' });
      const failed = await convert({ input: 'none', output: 'x' }).catch((e) => e instanceof Elf2dmpError && e.code);
      console.log(JSON.stringify([windows.version.build, report.processors.length, failed]));`,
    );
    expect(JSON.parse(run(process.execPath, ['use.mjs']))).toEqual([19041, 2, 'io-enoent']);
  });
});
