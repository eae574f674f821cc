import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';

const BIN = fileURLToPath(new URL('../../bin/elf2dmp.js', import.meta.url));
const CRASH = { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff804_2c460004n], processor: 1 } as const;
let dir: string;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-cli-verify-'));
  writeFileSync(join(dir, 'vm.elf'), writeElf(buildGuest({ crash: CRASH, ramMiB: 8 })));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const run = (...args: string[]) => spawnSync(process.execPath, [BIN, ...args], { encoding: 'utf8', cwd: dir });

describe('elf2dmp info', () => {
  it('says what runs in a dump', () => {
    const { status, stdout, stderr } = run('info', 'vm.elf');
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^Windows: +Windows 10 2004, build 19041, .*, workstation, TerminalServer, SingleUserTS$/m);
    expect(stdout).toMatch(/^Bug check: +0xd1 DRIVER_IRQL_NOT_LESS_OR_EQUAL$/m);
    expect(stdout).toMatch(/^ {2}parameter 2: 0x0000000000000002 {2}IRQL at that time: DISPATCH_LEVEL$/m);
    expect(stdout).toMatch(
      /^ {2}parameter 4: 0xfffff8042c460004 {2}address of the instruction: demo\.sys!DemoDispatch\+0x4 \(\.text\)$/m,
    );
    expect(stdout).toMatch(/^Likely culprit: demo\.sys \(demo\.sys!DemoDispatch\+0x4\): parameter 4 has the address/m);
    expect(stdout).toMatch(/^Signature: +[0-9a-f]{12} 0xd1_0 .* \(by RVA\)$/m);
    expect(stdout).toMatch(
      /^Processor 0: +CPU \d, kernel mode, at 0xfffff8041a2c7485 \(ntoskrnl\.exe\+0x10485, PoIdle\+0x5\)/m,
    );
    expect(stdout).toMatch(/demo\.sys 1\.2\.65535\.4, stamp 0x5e0f1a2c, demo\.pdb\/[0-9A-F]{32}2\/demo\.pdb$/m);
    expect(stdout).toMatch(
      /^ +6700 {2}notepad\.exe +0x[0-9a-f]{16}, root 0x[0-9a-f]+, parent 408, PEB 0x000000d53ffff000$/m,
    );
  });

  it('prints only JSON with --json, and exits as the reason why no Windows was found has it', () => {
    const good = run('info', '--json', 'vm.elf');
    expect(JSON.parse(good.stdout)).toMatchObject({ schema: 'elf2dmp-info-1', windows: { build: 19041 } });
    const guest = buildGuest({ ramMiB: 8 });
    for (const page of guest.memory.pages.values()) page.fill(0);
    writeFileSync(join(dir, 'empty.elf'), writeElf(guest));
    const bad = run('info', '--json', 'empty.elf');
    expect(bad.status).toBe(4);
    expect(JSON.parse(bad.stdout)).toMatchObject({ windows: null, problem: { code: 'windows-not-found' } });
    expect(run('info', 'empty.elf').stdout).toMatch(/^Windows: +not found: no Windows was found in this dump/m);
    expect(run('info', 'missing.elf').status).toBe(6);
    expect(run('info').status).toBe(2);
    expect(run('info', 'vm.elf', 'more').status).toBe(2);
  });

  it('escapes what a guest could do to a terminal', () => {
    const guest = buildGuest({ ramMiB: 8, crash: CRASH });
    const { kernel, truth, build } = guest;
    const evil = '\x1b[2J\u202e\n';
    const module = kernel.read(truth.psLoadedModuleList + 8n, 8).readBigUInt64LE();
    kernel.write(module + 0x400n, Buffer.from(evil, 'utf16le'));
    kernel.write(truth.modules[2]!.base + 0x7118n, Buffer.from('\x1b]0;x\x07.pdb\0', 'latin1'));
    kernel.write(truth.modules[0]!.base + 0x4000n, Buffer.from('ntoskrnl.exe\0\x1b[2J\n', 'latin1'));
    kernel.write(truth.processes[1]!.address + BigInt(build.eprocess.name), Buffer.from('\x9b2J\0', 'latin1'));
    const ring = kernel.read(truth.kernelBase + 0x36018n, 8).readBigUInt64LE();
    kernel.write(kernel.read(ring + 8n, 8).readBigUInt64LE(), Buffer.from(evil, 'utf16le'));
    kernel.write(0xfffff780_00000030n, Buffer.from(`C:\\${evil}\0`, 'utf16le'));
    writeFileSync(join(dir, 'evil.elf'), writeElf(guest));
    const { status, stdout, stderr } = run('info', '--verbose', 'evil.elf');
    expect(status).toBe(0);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that there are none is the point.
    expect(stdout + stderr).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/);
    expect(stdout).toContain('\\u{1b}[2J');
    expect(stdout).toContain('\\u{9b}2J');
  });
});

describe('elf2dmp verify', () => {
  it('verifies in one go, hashes, and saves the patches', () => {
    const { status, stdout, stderr } = run('vm.elf', 'one.dmp', '--verify', '--hash', '--patches', 'one.json');
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^Verified: +one\.dmp is sound$/m);
    expect(stdout).toMatch(/^Compared: +1952 pages with vm\.elf: 0 differ, 3 changes by the conversion$/m);
    expect(stdout).toMatch(/^SHA-256: +input {2}[0-9a-f]{64}\n +dump {3}[0-9a-f]{64}$/m);
    expect(readdirSync(dir)).toEqual(expect.arrayContaining(['one.dmp', 'one.json']));
    // Neither is put over another file.
    expect(run('vm.elf', 'two.dmp', '--patches', 'one.json').status).toBe(6);
    expect(readdirSync(dir)).not.toContain('two.dmp');
    expect(run('--force', 'vm.elf', 'one.dmp', '--patches', 'one.json', '--quiet').status).toBe(0);
    expect(run('verify', 'one.dmp').status).toBe(0);
    expect(run('verify', 'one.dmp', '--against', 'vm.elf', '--patches', 'one.json', '--hash').status).toBe(0);
  });

  it('exits with 8 and says what it expected where, and what it found', () => {
    run('--force', 'vm.elf', 'bad.dmp', '--quiet');
    const bytes = readFileSync(join(dir, 'bad.dmp'));
    bytes[0x38]! ^= 1;
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(join(dir, 'bad.dmp'), bytes);
    const { status, stdout, stderr } = run('verify', 'bad.dmp', '--against', 'vm.elf');
    expect([status, stderr.split('\n')]).toEqual([
      8,
      [
        'error: DUMP_HEADER64.BugCheckCode does not agree with the input (DUMP_HEADER64.BugCheckCode, offset 0x38: expected 0xd1, found 0xd0)',
        "error: a page is not the input's (bytes that differ: 1) (physical 0x7fffff: expected bytes 00, found bytes 01)",
        '',
      ],
    ]);
    expect(stdout).toMatch(/^Verified: +bad\.dmp DIFFERS/m);
    const json = run('verify', 'bad.dmp', '--json');
    expect(json.status).toBe(8);
    expect(JSON.parse(json.stdout)).toMatchObject({
      schema: 'elf2dmp-verify-1',
      outcome: 'unsound',
      findings: [{ code: 'header-field', where: { field: 'BugCheckCode' } }],
    });
  });

  it('has the other exit codes as everywhere', () => {
    expect(run('verify', 'missing.dmp').status).toBe(6);
    expect(run('verify', 'one.dmp', '--against', 'missing.elf').status).toBe(6);
    expect(run('verify', 'one.dmp', '--patches', 'one.json').status).toBe(2);
    expect(run('verify', 'one.dmp', '--against', 'vm.elf', '--patches', 'vm.elf').status).toBe(5);
    expect(run('verify', 'one.dmp', '--against', 'empty.elf').status).toBe(4);
    expect(run('one.dmp', 'again.dmp').status).toBe(0);
  });
});
