import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { COMMAND_NAMES } from '../../src/cli/command-table.ts';
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

describe('a clean clone', () => {
  it('packs, and until it is built its command says what to do', () => {
    const clone = join(dir, 'clone');
    for (const file of run('git', ['ls-files', '-z'], ROOT).split('\0')) {
      if (file && existsSync(join(ROOT, file))) cpSync(join(ROOT, file), join(clone, file));
    }
    const unbuilt = spawnSync(process.execPath, [join(clone, 'bin', 'elf2dmp.js'), '--version'], { encoding: 'utf8' });
    expect(unbuilt.status).toBe(2);
    expect(unbuilt.stderr).toBe(
      'elf2dmp is not built: run `npm run build` in its folder, which installs what it needs\n',
    );
    expect(run('npm', ['pack'], clone)).toMatch(/^elf2dmp-\d+\.\d+\.\d+\.tgz$/m);
    expect(run(process.execPath, [join(clone, 'bin', 'elf2dmp.js'), '--version'])).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it('has no link in its documents to a file that the package lacks', () => {
    const packed: string[] = JSON.parse(
      run('npm', ['pack', '--ignore-scripts', '--dry-run', '--json'], ROOT),
    )[0].files.map((file: { path: string }) => file.path);
    const documents = packed.filter((path) => path.endsWith('.md'));
    expect(documents.length).toBeGreaterThan(5);
    for (const path of documents) {
      const links = [...readFileSync(join(ROOT, path), 'utf8').matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)];
      for (const [, link] of links) {
        const target = join(dirname(path), link!);
        const found = packed.some((file) => file === target || file.startsWith(`${target.replace(/\/$/, '')}/`));
        expect(found, `${path} links to ${link}`).toBe(true);
      }
    }
  });
});

describe('the package', () => {
  it('installs elsewhere and runs, as a command and as a library', () => {
    run('npm', ['pack', '--ignore-scripts', '--pack-destination', dir], ROOT);
    const [tarball] = readdirSync(dir).filter((name) => name.endsWith('.tgz'));
    const prefix = join(dir, 'prefix');
    run('npm', ['install', '--global', '--prefix', prefix, '--no-audit', '--no-fund', join(dir, tarball!)]);
    const command = join(prefix, 'bin', 'elf2dmp');
    expect(run(command, ['--version'])).toMatch(/^\d+\.\d+\.\d+\n$/);
    const manuals = COMMAND_NAMES.map((name) => `elf2dmp${name === 'convert' ? '' : `-${name}`}.1`);
    expect(readdirSync(join(prefix, 'share', 'man', 'man1')).sort()).toEqual(manuals.sort());
    expect(readFileSync(join(prefix, 'share', 'man', 'man1', 'elf2dmp.1'), 'utf8')).toMatch(/^\.TH ELF2DMP 1/);
    writeFileSync(join(dir, 'vm.elf'), writeElf(buildGuest()));
    expect(run(command, ['vm.elf', 'vm.dmp'])).toContain('build 19041');

    run('npm', ['install', '--no-audit', '--no-fund', '--omit=optional', join(dir, tarball!)]);
    // The package needs no other.
    expect(readdirSync(join(dir, 'node_modules')).filter((name) => !name.startsWith('.'))).toEqual(['elf2dmp']);
    writeFileSync(
      join(dir, 'use.mjs'),
      `import { batch, convert, Elf2dmpError, locate, open } from 'elf2dmp';
      const image = await open('vm.elf');
      const windows = await locate(image);
      image.close();
      const report = await convert({ input: 'vm.elf', output: 'library.dmp' });
      const failed = await convert({ input: 'none', output: 'x' }).catch((e) => e instanceof Elf2dmpError && e.code);
      const { results } = await batch({ inputs: ['vm.elf'], out: 'dumps', options: { type: 'bitmap' } });
      const outcomes = results.map(({ record }) => record.outcome);
      console.log(JSON.stringify([windows.version.build, report.windows.processors.length, failed, outcomes]));`,
    );
    expect(JSON.parse(run(process.execPath, ['use.mjs']))).toEqual([19041, 2, 'io-enoent', ['good']]);
    expect(readdirSync(join(dir, 'dumps')).sort()).toEqual(['vm.dmp', 'vm.dmp.json']);
  });
});
