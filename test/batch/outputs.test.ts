import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { lockOutputs } from '../../src/batch/lock.ts';
import { startedSidecar } from '../../src/batch/sidecar.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { BIN, linesOf, runBatchCommand } from '../support/batches.ts';
import { held } from '../support/schemas.ts';

let dir: string;
let input: string;
let out: string;
const elf = writeElf(buildGuest({ processors: 1, ramMiB: 8, decoys: false }));

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-owned-'));
});
let runs = 0;
beforeEach(() => {
  const own = join(dir, `${runs++}`);
  mkdirSync(join(own, 'in'), { recursive: true });
  input = join(own, 'in', 'vm.elf');
  out = join(own, 'out');
  writeFileSync(input, elf);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const batch = (...more: string[]) => runBatchCommand([input, '--out', out, ...more]);
const dump = () => join(out, 'vm.dmp');
const write = (name: string, text: string): string => {
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, name), text);
  return join(out, name);
};

describe('a batch', () => {
  it('says the same before it runs: what is missing, taken or in the way', async () => {
    const asked = [join(dir, 'nothing.elf'), input, '--out', out];
    const dry = await runBatchCommand([...asked, '--dry-run']);
    expect([dry.code, dry.stdout]).toEqual([6, expect.stringMatching(/^missing .*nothing\.elf/m)]);
    expect(existsSync(out)).toBe(false);
    expect((await runBatchCommand(asked)).code).toBe(6);
    rmSync(out, { recursive: true });
    write('vm.dmp', 'mine');
    expect((await batch('--dry-run')).code).toBe(6);
    expect((await batch('--dry-run', '--force')).code).toBe(0);
    expect((await batch('--dry-run', '--force', '--junit', write('notes', 'mine'))).code).toBe(0);
    expect((await batch('--dry-run', '--junit', write('notes', 'mine'))).code).toBe(6);
    expect((await runBatchCommand([join(dir, '0', 'nothing'), '--out', out, '--dry-run'])).code).toBe(6);
  });

  it('says what it leaves out, what matches nothing, and what came of it, as JSON too', async () => {
    const folder = join(input, '..');
    writeFileSync(join(folder, 'README'), 'About these dumps\n');
    const file = join(folder, '..', 'batch.toml');
    writeFileSync(file, `\uFEFFinputs = ["in"]\nout = "out"\nreport = "r.jsonl"\n[[override]]\nmatch = "zzz"\n`);
    const { code, stdout, stderr } = await runBatchCommand([file, '--json']);
    expect(stderr).toContain('README: no dump, and is left out');
    expect(stderr).toContain('the override for "zzz" matches no input');
    expect(held('batch-summary', JSON.parse(stdout))).toMatchObject({ exitCode: code, inputs: 1, good: 1, failed: 0 });
    expect(linesOf(join(folder, '..', 'r.jsonl'))).toHaveLength(1);
    expect((await batch('--report', join(out, 'former.jsonl'))).code).toBe(0);
    expect(linesOf(join(out, 'former.jsonl'))).toHaveLength(1);
    const empty = join(folder, '..', 'empty');
    mkdirSync(empty);
    expect((await runBatchCommand([empty, '--out', out])).code).toBe(2);
  });
});

describe('standard streams of a batch', () => {
  const run = (stdin: string, ...args: string[]) =>
    spawnSync(process.execPath, [BIN, 'batch', '--out', out, ...args], { input: stdin, encoding: 'utf8' });

  it('take a manifest, and give JSON lines or JUnit, one thing each', () => {
    const lines = run(`${input}\n`, '--manifest', '-', '--jsonl', '-');
    expect(lines.status).toBe(0);
    expect(held('batch', JSON.parse(lines.stdout))).toMatchObject({ input, outcome: 'good' });
    expect(lines.stderr).toContain('1 input in');
    const junit = run('', input, '--junit', '-', '--quiet');
    expect([junit.status, junit.stdout]).toEqual([0, expect.stringMatching(/^<\?xml[\s\S]*<\/testsuites>\n$/)]);
    for (const wrong of [
      ['--junit', '-', '--jsonl', '-'],
      ['--json', '--jsonl', '-'],
      ['--manifest', '-', '--known', '-'],
      ['--spool', '-'],
      ['-'],
    ]) {
      const { status, stderr } = run('', input, ...wrong);
      expect([status, stderr], wrong.join(' ')).toEqual([2, expect.not.stringContaining('internal')]);
    }
    expect(existsSync('-')).toBe(false);
  });
});

describe('files of a batch', () => {
  it('refuses a file for JUnit that is not ours, and with --force too an input and a memory dump', async () => {
    const notes = write('notes.txt', 'mine');
    const refused = await batch('--junit', notes);
    expect([refused.code, refused.stderr]).toEqual([6, expect.stringContaining('exists already')]);
    expect([readFileSync(notes, 'utf8'), existsSync(dump())]).toEqual(['mine', false]);
    expect((await batch('--junit', notes, '--force')).code).toBe(0);
    expect(readFileSync(notes, 'utf8')).toContain('<testsuites>');
    // Ours now.
    expect((await batch('--junit', notes)).code).toBe(0);

    const linked = join(out, 'linked');
    linkSync(input, linked);
    for (const path of [input, linked]) expect((await batch('--junit', path, '--force')).code).toBe(2);
    const other = join(out, 'other.elf');
    writeFileSync(other, elf);
    expect((await batch('--junit', other, '--force')).stderr).toContain('remove it first');
    expect([readFileSync(input).equals(elf), readFileSync(other).equals(elf)]).toEqual([true, true]);
  });

  it('leaves a file alone that is not a report', async () => {
    for (const text of ['#!/bin/sh\nrm x', '{"id":7,"by":"others"}\n', '{"id":"a","kind":"x"}\n']) {
      const path = write('report.txt', text);
      const { code } = await batch('--jsonl', path);
      expect([code, readFileSync(path, 'utf8')]).toEqual([6, text]);
    }
    expect((await batch('--jsonl', input)).code).toBe(2);
    expect(readFileSync(input).equals(elf)).toBe(true);
    expect((await batch('--jsonl', join(out, 'vm.dmp.elf2dmp-undo'))).code).toBe(2);
    expect(existsSync(dump())).toBe(false);
  });

  it('is not held up by a pipe that has the name of a sidecar', async () => {
    mkdirSync(out);
    spawnSync('mkfifo', [join(out, 'vm.dmp.json')]);
    const { code, stderr } = await batch('--force');
    expect([code, stderr]).toEqual([6, expect.stringContaining('not the record that a batch keeps')]);
  });

  it('does not look into a pipe that is an input: what is read from it is gone', async () => {
    const pipe = join(dir, `${runs}-pipe`);
    spawnSync('mkfifo', [pipe]);
    expect((await startedSidecar(pipe, {})).input).toMatchObject({ path: pipe, size: 0, headSha256: '' });
  });

  it('refuses its lock and the PDBs that it reads as reports', async () => {
    const lock = write('.elf2dmp-batch.lock', '');
    expect((await batch('--jsonl', lock)).stderr).toContain('names a file that batches lock');
    expect((await batch('--junit', join(out, '.elf2dmp-batch-0-of-2.lock'))).code).toBe(2);
    const pdb = write('nt.pdb', 'symbols');
    const { code, stderr } = await batch('--symbols', pdb, '--junit', pdb, '--force');
    expect([code, stderr]).toEqual([2, expect.stringContaining('the output is the input')]);
    expect(readFileSync(pdb, 'utf8')).toBe('symbols');
  });

  it('refuses two files of one name, through links too, and names of jobs', async () => {
    mkdirSync(out);
    symlinkSync(out, join(dir, `${runs}-same`));
    const same = join(dir, `${runs}-same`, 'x');
    expect((await batch('--jsonl', join(out, 'x'), '--junit', same)).stderr).toContain('name the same file');
    for (const name of ['vm.dmp', 'vm.dmp.json', 'vm.dmp.html']) {
      expect((await batch('--junit', join(out, name))).code).toBe(2);
    }
    expect(readdirSync(out)).toEqual([]);
  });

  it('replaces only a dump that its sidecar vouches for, and only pages of ours', async () => {
    expect((await batch('--html')).code).toBe(0);
    const good = readFileSync(dump());
    writeFileSync(dump(), 'not a dump any more');
    expect((await batch('--html', '--retry-failed')).code).toBe(6);
    expect(readFileSync(dump(), 'utf8')).toBe('not a dump any more');
    expect((await batch('--html', '--force')).code).toBe(0);
    expect(readFileSync(dump()).equals(good)).toBe(true);
    // An own dump is replaced where the options change, unless the page is another's.
    expect((await batch('--html', '--type', 'bitmap')).code).toBe(0);
    writeFileSync(`${dump()}.html`, '<!doctype html>mine');
    expect((await batch('--html')).code).toBe(6);
    expect(readFileSync(`${dump()}.html`, 'utf8')).toBe('<!doctype html>mine');
    writeFileSync(join(out, 'elf2dmp-index.html'), 'mine');
    expect((await batch('--html')).code).toBe(6);
    expect(readFileSync(join(out, 'elf2dmp-index.html'), 'utf8')).toBe('mine');
  });

  it('leaves no dump, and records none, where its page can not be written', async () => {
    mkdirSync(join(out, 'vm.dmp.html'), { recursive: true });
    expect((await batch('--html', '--force', '--retries', '0')).code).toBe(6);
    expect(readdirSync(out).sort()).toEqual(['elf2dmp-index.html', 'vm.dmp.html', 'vm.dmp.json']);
    rmSync(join(out, 'vm.dmp.html'), { recursive: true });
    expect((await batch('--html')).code).toBe(0);
  });

  it('does not follow links out of the output directory', async () => {
    const elsewhere = join(dir, `${runs}-elsewhere`);
    mkdirSync(elsewhere);
    mkdirSync(out);
    symlinkSync(elsewhere, join(out, 'sub'));
    const { code, stdout } = await batch('--name', 'sub/{stem}.dmp');
    expect([code, stdout]).toEqual([6, expect.stringContaining('out of the output directory')]);
    expect(readdirSync(elsewhere)).toEqual([]);
    // The directory itself may be a link.
    const link = join(dir, `${runs}-link`);
    symlinkSync(elsewhere, link);
    expect((await runBatchCommand([input, '--out', link])).code).toBe(0);
    expect(readdirSync(elsewhere).sort()).toEqual(['vm.dmp', 'vm.dmp.json']);
  });

  it('believes no sidecar that is incomplete or contradicts itself', async () => {
    const report = join(out, 'r.jsonl');
    await batch('--jsonl', report);
    const sidecar = `${dump()}.json`;
    const good = JSON.parse(readFileSync(sidecar, 'utf8'));
    const broken: unknown[] = [
      { ...good, record: { ...good.record, outcome: 'splendid' } },
      { ...good, record: { ...good.record, losses: undefined } },
      { ...good, record: { ...good.record, bytes: null } },
      { ...good, record: { ...good.record, exitCode: 5 } },
      { ...good, record: null },
      { ...good, options: undefined },
      { ...good, headerSha256: 7 },
      { tool: good.tool, state: 'finished', input: { path: input }, record: { output: dump() } },
      null,
    ];
    for (const value of broken) {
      writeFileSync(sidecar, JSON.stringify(value));
      const { code, stdout } = await batch();
      expect([code, stdout], JSON.stringify(value)).toEqual([
        6,
        expect.stringContaining('not the record that a batch'),
      ]);
    }
    writeFileSync(sidecar, JSON.stringify(good));
    expect((await batch()).stdout).toMatch(/^good +1 +1 /m);
    expect(linesOf(report)).toHaveLength(1);
  });
});

describe('two batches over one output directory', () => {
  it('are kept apart by a lock that ends with its process', async () => {
    mkdirSync(out);
    const held = await lockOutputs(out, undefined);
    const second = await batch();
    expect([second.code, second.stderr]).toEqual([7, expect.stringContaining('another batch is at work')]);
    expect((await batch('--shard', '0/1')).code).toBe(7);
    expect((await batch('--dry-run')).code).toBe(0);
    expect(existsSync(dump())).toBe(false);
    await held.release();
    // A process that was killed leaves the file, but no lock.
    const file = join(out, '.elf2dmp-batch.lock');
    writeFileSync(file, '');
    const dead = spawn('flock', ['--no-fork', file, 'sh', '-c', 'echo held; exec sleep 600'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await once(dead.stdout, 'data');
    expect((await batch()).code).toBe(7);
    dead.kill('SIGKILL');
    await once(dead, 'exit');
    expect((await batch()).code).toBe(0);
    expect(readdirSync(out).filter((name) => name.endsWith('.lock'))).toEqual([]);
  });
});
