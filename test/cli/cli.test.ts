import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';

const BIN = fileURLToPath(new URL('../../bin/elf2dmp.js', import.meta.url));
let dir: string;
let input: string;
let output: string;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-cli-'));
  input = join(dir, 'vm.elf');
  output = join(dir, 'out.dmp');
  writeFileSync(input, writeElf(buildGuest({ processors: 2, user: [1] })));
  // As QEMU leaves it.
  chmodSync(input, 0o400);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const run = (...args: string[]) => spawnSync(process.execPath, [BIN, ...args], { encoding: 'utf8', cwd: dir });
const clean = () => rmSync(output, { force: true });

describe('elf2dmp', () => {
  it('converts, says what it found, and exits with 0', () => {
    clean();
    const { status, stdout, stderr } = run(input, output);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^Windows: +build 19041, 19041\.1\.amd64fre/m);
    expect(stdout).toMatch(/^Processor 1: +CPU 0, user mode, at 0x00007ff612340001, stack 0x/m);
    expect(stdout).toMatch(/^Bug check: +none/m);
    expect(statSync(output).mode & 0o777).toBe(0o600);
    expect(readdirSync(dir).sort()).toEqual(['out.dmp', 'vm.elf']);
  });

  it('makes smaller dumps, and says what it left out', () => {
    clean();
    // Without a value, --compress does not take the next word for one.
    const { status, stdout, stderr } = run('--type', 'kernel', '--compress', input, output);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^Dump: .*\(kernel, .* runs, .*, gzip: /m);
    expect(stdout).toMatch(/^Kept: +kernel page tables \d+, kernel \d+ \(pages\)$/m);
    expect(stdout).toMatch(/^Left out: +user page tables \d+, user 5, not mapped \d+/m);
    expect(readFileSync(output).toString('hex', 0, 2)).toBe('1f8b');
    clean();
    const dropped = run('--drop-zero-pages', input, output);
    expect(dropped.status).toBe(3);
    expect(dropped.stderr).toMatch(/^loss: \d+ pages of zeros were left out/);
    expect(dropped.stdout).toMatch(/^Dropped: +\d+ pages of zeros$/m);
  });

  it('keeps an existing output without --force, and replaces it with', () => {
    writeFileSync(output, 'precious');
    const refused = run(input, output);
    expect(refused.status).toBe(6);
    expect(refused.stderr).toContain('exists already');
    expect(readFileSync(output, 'utf8')).toBe('precious');
    expect(run('--force', input, output).status).toBe(0);
    expect(readFileSync(output).toString('latin1', 0, 8)).toBe('PAGEDU64');
  });

  it('prints only JSON on stdout with --json, and nothing with --quiet', () => {
    clean();
    const { stdout, status } = run('--json', input, output);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      outcome: 'good',
      windows: { build: 19041 },
      dump: { bugCheckCode: '0x161' },
    });
    const quiet = run('--quiet', '--force', input, output);
    expect([quiet.status, quiet.stdout, quiet.stderr]).toEqual([0, '', '']);
  });

  it('gives errors as JSON too', () => {
    const { stdout, stderr, status } = run('--json', join(dir, 'missing.elf'), output);
    expect(status).toBe(6);
    expect(JSON.parse(stdout)).toMatchObject({
      schema: 'elf2dmp-error-1',
      outcome: 'failed',
      exitCode: 6,
      error: { code: 'io-enoent' },
    });
    expect(stderr).toContain('missing.elf: cannot open: no such file');
  });

  it('tells losses on stderr and exits with 3, or 5 with --strict', () => {
    clean();
    const lossy = join(dir, 'lossy.elf');
    writeFileSync(lossy, writeElf(buildGuest(), { withoutNote: [0] }));
    const strict = run('--strict', lossy, output);
    expect(strict.status).toBe(5);
    expect(readdirSync(dir)).not.toContain('out.dmp');
    const { status, stderr } = run('--quiet', lossy, output);
    expect(status).toBe(3);
    expect(stderr).toMatch(/^loss: CPU 0: .*is no CPU state/m);
    expect(stderr).toMatch(/^loss: no CPU state belongs to processor 1/m);
    rmSync(lossy);
  });

  it.each([
    [[], 'INPUT and OUTPUT are needed'],
    [['one.elf'], 'INPUT and OUTPUT are needed'],
    [['a', 'b', 'c'], 'unexpected argument: c'],
    [['--frobnicate', 'a', 'b'], '--frobnicate is not an option'],
    [['a', ''], 'OUTPUT is empty'],
    [['', 'b', '-q'], 'INPUT is empty'],
    [['info', ''], 'FILE is empty'],
    [['--dtb', 'xyz', 'a', 'b'], '--dtb: expected a hexadecimal address below 0x10000000000000, found "xyz"'],
    [['--kernel-base', '0x1ffffffffffffffff', 'a', 'b'], '--kernel-base'],
    [['--dtb', 'fffffffffffffff', 'a', 'b'], '--dtb'],
    [
      ['--type', 'mini', 'a', 'b'],
      '--type: expected one of "auto", "full", "bitmap", "kernel", "active", "triage", found "mini"',
    ],
    [['--in-place'], '--in-place needs a value'],
    [['--in-place', 'a', 'b'], '--in-place and INPUT and OUTPUT do not go together'],
    [['--in-place', 'a', '--undo', 'a'], '--undo and --in-place do not go together'],
    [['--in-place', 'a', '--ram', 'windows'], '--in-place and --ram windows'],
    [['--in-place', 'a', '--type', 'full'], '--in-place and --type full'],
    [['--in-place', 'a', '--type', 'kernel'], '--in-place and --type kernel'],
    [['--in-place', 'a', '--compress'], '--in-place and --compress'],
    [['--in-place', 'a', '--drop-zero-pages'], '--in-place and --drop-zero-pages'],
    [['--compress=lz4', 'a', 'b'], 'compress'],
    [['--compress', '--reflink', 'auto', 'a', 'b'], '--compress and --reflink auto do not go together'],
    [['--in-place', 'a', '--reflink', 'auto'], '--in-place and --reflink'],
    [['--undo', 'a', '--force'], '--undo and --force'],
  ])('refuses wrong arguments: %j', (args, message) => {
    const { status, stderr, stdout } = run(...args);
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toContain(message);
  });

  it('shows help and version on stdout', () => {
    const help = run('--help');
    expect([help.status, help.stderr]).toEqual([0, '']);
    expect(help.stdout).toContain('Exit codes:');
    expect(help.stdout).toContain('--kernel-base');
    const version = run('--version');
    expect(version.stdout.trim()).toMatch(/^\d+\.\d+\.\d+$/);
  });

  it('takes a root and a kernel base by hand', () => {
    const guest = buildGuest({ processors: 2, user: [1] });
    const { status, stdout } = run(
      '--force',
      '--verbose',
      '--dtb',
      guest.truth.root.toString(16),
      '--kernel-base',
      // As WinDbg prints addresses.
      `${guest.truth.kernelBase.toString(16).slice(0, 8)}\`${guest.truth.kernelBase.toString(16).slice(8)}`,
      input,
      output,
    );
    expect(status).toBe(0);
    expect(stdout).toContain('page-table root: the root given');
    expect(stdout).toContain('kernel image: the base given');
    expect(run('--force', '--dtb', '5000', input, output).status).toBe(4);
  });

  it('knows a Linux guest, by its note and by its banner', () => {
    clean();
    const linux = join(dir, 'linux.elf');
    const guest = buildGuest();
    for (const page of guest.memory.pages.values()) page.fill(0);
    const banner = 'Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org) (gcc-12)';
    guest.memory.page(0x400000).write(banner, 0x1f0, 'latin1');
    writeFileSync(linux, writeElf(guest));
    const { status, stderr } = run(linux, output);
    expect(status).toBe(4);
    expect(stderr).toContain('the guest runs Linux 6.1.0-18-amd64, not Windows');
    rmSync(linux);
  });

  it.each([
    ['cut within its ELF header', 40, 0, 0, 5],
    ['cut within its program headers', 0xd0, 0, 0, 5],
    ['of another machine', undefined, 0x12, 21, 4],
    ['of 32 bits', undefined, 4, 1, 4],
    ['that is a program', undefined, 0x10, 2, 4],
  ])('says what is wrong with a file %s', (_, length, at, value, code) => {
    const file = join(dir, 'bad.elf');
    const bytes = readFileSync(input).subarray(0, length);
    if (length === undefined) bytes.writeUInt8(value, at);
    writeFileSync(file, bytes);
    const { status, stderr } = run(file, join(dir, 'bad.dmp'));
    expect(stderr).toMatch(/^elf2dmp: .*bad\.elf: .*\(Elf(32|64)_/);
    expect(status).toBe(code);
    expect(stderr).not.toContain('    at ');
    rmSync(file);
  });

  it('says so when its output goes nowhere', () => {
    clean();
    const { status, stderr } = spawnSync(
      'sh',
      ['-c', `"${process.execPath}" "${BIN}" "${input}" "${output}" > /dev/full`],
      { encoding: 'utf8' },
    );
    expect([status, stderr]).toEqual([7, 'elf2dmp: cannot write to standard output: ENOSPC\n']);
  });

  it('refuses outputs that would cost data', () => {
    expect(run(input, input, '--force').status).toBe(2);
    expect(run(input, dir, '--force').status).toBe(6);
    expect(run(input, '/dev/null', '--force').status).toBe(6);
    expect(run(input, join(dir, 'no', 'out.dmp')).status).toBe(6);
  });

  it('escapes what a guest could do to a terminal', () => {
    clean();
    const guest = buildGuest();
    const root = 0xfffff780_00000030n;
    guest.kernel.write(root, Buffer.from('C:\\\x1b[2J\u202e\n\0', 'utf16le'));
    guest.kernel.write(guest.truth.kernelBase + 0x7118n, Buffer.from('nt\x1b]0;x\x07.pdb\0', 'latin1'));
    const file = join(dir, 'escapes.elf');
    writeFileSync(file, writeElf(guest));
    const { status, stdout, stderr } = run('--verbose', file, output);
    expect(status).toBe(0);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that there are none is the point.
    expect(stdout + stderr).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f\u202e]/);
    rmSync(file);
  });

  it('writes the dump, the page or the patches to standard output, and the text beside it', () => {
    clean();
    expect(run('-q', input, output).status).toBe(0);
    const piped = spawnSync(process.execPath, [BIN, input, '-'], { cwd: dir, maxBuffer: 1 << 30 });
    expect(piped.status).toBe(0);
    expect(piped.stdout.equals(readFileSync(output))).toBe(true);
    expect(piped.stderr.toString()).toMatch(/^Dump: +standard output \(full, /m);
    const page = run('-qf', input, output, '--report', '-');
    expect([page.status, page.stdout]).toEqual([0, expect.stringMatching(/^<!doctype html>/i)]);
    const patches = run('-qf', input, output, '--patches', '-');
    expect(JSON.parse(patches.stdout)).toMatchObject({ schema: 'elf2dmp-patches-1' });
    expect(run('info', output, '--report', '-').stdout).toMatch(/^<!doctype html>/i);
    expect(readdirSync(dir).sort()).toEqual(['out.dmp', 'vm.elf']);
  });

  it('refuses names that are not UTF-8, and takes those of 255 bytes', () => {
    const script = `"${process.execPath}" "${BIN}" "${input}" "$(printf 'caf\\351.dmp')"`;
    const { status, stderr } = spawnSync('sh', ['-c', script], { encoding: 'utf8', cwd: dir });
    expect([status, stderr]).toEqual([2, expect.stringContaining('not UTF-8')]);
    const long = join(dir, `${'x'.repeat(251)}.dmp`);
    for (const force of [[], ['-f']]) expect(run('-q', ...force, input, long).status).toBe(0);
    expect(run('-q', input, join(dir, '\uFFFD.dmp')).status).toBe(0);
    for (const name of [long, join(dir, '\uFFFD.dmp')]) rmSync(name);
    expect(readdirSync(dir).filter((name) => !['vm.elf', 'out.dmp'].includes(name))).toEqual([]);
  });

  it('prints progress as JSON for programs, one object a line', () => {
    clean();
    const { status, stderr } = run('--progress=json', '--quiet', '--verify', input, output);
    const lines = stderr
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).progress);
    expect(status).toBe(0);
    const phases = [...new Set(lines.map(({ phase }) => phase))];
    expect(phases).toEqual(expect.arrayContaining(['open', 'locate', 'write', 'sync', 'verify']));
    for (const { done, total } of lines.filter(({ phase }) => phase === 'write'))
      expect(done).toBeLessThanOrEqual(total);
    clean();
    const batch = run('batch', input, '--out', dir, '--progress=json', '-q');
    const said = batch.stderr
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(said.filter(({ progress }) => progress === undefined)).toEqual([
      {
        job: { input, output: join(dir, 'vm.dmp'), status: 'ran', outcome: 'good', exitCode: 0 },
      },
    ]);
    for (const name of ['vm.dmp', 'vm.dmp.json']) rmSync(join(dir, name));
    expect(run('--progress', input, output).status).toBe(2);
  });

  it('prints progress at SIGUSR1 and SIGUSR2; ends at SIGQUIT with 131 and leaves nothing behind', async () => {
    clean();
    // Much memory behind the guest's own, so that there is time.
    const big = join(dir, 'big.elf');
    const bytes = writeElf(buildGuest(), {
      runs: [
        [0, 0xa0000],
        [0x100000, 0x1000000],
        [0x4000_0000, 0x4000_1000],
      ],
    });
    const size = 0x6000_0000;
    bytes.writeBigUInt64LE(BigInt(size), 0xc0 + 56 * 3 + 0x20);
    bytes.writeBigUInt64LE(BigInt(size), 0xc0 + 56 * 3 + 0x28);
    const fd = openSync(big, 'w');
    writeSync(fd, bytes.subarray(0, bytes.length - 11));
    closeSync(fd);
    truncateSync(big, bytes.length - 11 - 0x1000 + size);
    const child = spawn(process.execPath, [BIN, big, output, '--sparse', 'never'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    child.stderr.on('data', (data) => {
      said += data;
    });
    const ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve([code, signal])));
    // Whether the output is being written, under whatever name.
    const fds = `/proc/${child.pid}/fd`;
    const isOutput = (fd: string) => /\.part$|\(deleted\)$/.test(readlinkSync(join(fds, fd)));
    // Often: a fast machine writes all of it in a third of a second.
    const patience = { timeout: 60_000, interval: 1 };
    await vi.waitFor(() => expect(readdirSync(fds).some(isOutput)).toBe(true), patience);
    // Progress on a signal, and no debugger on a port.
    for (const signal of ['SIGUSR1', 'SIGUSR2'] as const) {
      said = '';
      await vi.waitFor(() => {
        child.kill(signal);
        expect(said).toMatch(/^elf2dmp: (locating Windows|writing \d+% of .*|waiting for the disk)$/m);
      }, patience);
    }
    expect(said).not.toContain('Debugger');
    child.kill('SIGQUIT');
    expect(await ended).toEqual([131, null]);
    expect(readdirSync(dir).sort()).toEqual(['big.elf', 'vm.elf']);
    rmSync(big);
  });

  it('closes the debugger that SIGUSR1 opened before its first line', async () => {
    const preload = join(dir, 'signalled.cjs');
    writeFileSync(preload, "process.kill(process.pid, 'SIGUSR1');");
    // Any free port, for others may run this too.
    const child = spawn(process.execPath, ['--inspect-port=0', '--require', preload, BIN, '-', output], {
      stdio: ['pipe', 'ignore', 'pipe'],
    });
    let said = '';
    child.stderr.on('data', (data) => {
      said += data;
    });
    const ended = new Promise((resolve) => child.on('exit', (code) => resolve(code)));
    await vi.waitFor(() => expect(said).toContain('Debugger listening'), { timeout: 60_000 });
    await vi.waitFor(() => expect(listens(child.pid!)).toBe(false), { timeout: 60_000 });
    child.stdin.end();
    expect(await ended).toBe(5);
    rmSync(preload);
  });

  it('ends without taking the listeners of its signals away', () => {
    const preload = join(dir, 'exits.cjs');
    writeFileSync(
      preload,
      "const { reallyExit } = process; process.reallyExit = (code) => { process._rawDebug('exits'); reallyExit(code); };",
    );
    const { status, stderr } = spawnSync(process.execPath, ['--require', preload, BIN, '--version'], {
      encoding: 'utf8',
    });
    expect([status, stderr]).toEqual([0, 'exits\n']);
    rmSync(preload);
  });
});

/** Whether a process waits for connections (proc(5): the state in net/tcp is 0A). */
function listens(pid: number): boolean {
  const links = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return '';
    }
  });
  return ['tcp', 'tcp6'].some((protocol) =>
    readFileSync(`/proc/${pid}/net/${protocol}`, 'utf8')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .some(([, , , state, , , , , , inode]) => state === '0A' && links.includes(`socket:[${inode}]`)),
  );
}
