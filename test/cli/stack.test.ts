import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';

const BIN = fileURLToPath(new URL('../../bin/elf2dmp.js', import.meta.url));
let dir: string;
let input: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-stack-command-'));
  input = join(dir, 'vm.elf');
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const hex = (value: bigint) => `0x${value.toString(16).padStart(16, '0')}`;

describe('elf2dmp stack', () => {
  const run = (...args: string[]) => spawnSync(process.execPath, [BIN, 'stack', ...args], { encoding: 'utf8' });

  it('prints stacks, and which of it is guessed', () => {
    const guest = buildGuest();
    guest.kernel.setEntry(guest.truth.kernelBase + 0x8000n, 0n);
    writeFileSync(input, writeElf(guest));
    const { status, stdout, stderr } = run('--cpu', '1', '-v', input);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^Names are the nearest exports.*guesses/);
    expect(stdout).not.toMatch(/^Processor 0/m);
    const [rsp] = [guest.cpus[0]!.regs.rsp];
    expect(stdout).toContain(`\nProcessor 1, registers: CPU 0\n`);
    expect(stdout).toContain(`\n   0 ${hex(rsp)} unknown            ntoskrnl.exe!PoIdle+0x5\n`);
    expect(stdout).toContain(`\n?  1 ${hex(rsp + 0x30n)} unknown            ntoskrnl.exe!KiIdleLoop+0x9\n`);
    expect(stdout).toMatch(/^ +guessed: 0x\w+ in ntoskrnl\.exe: its exception directory is not in memory$/m);
  });

  it('says by its exit code that something is missing', () => {
    writeFileSync(input, writeElf(buildGuest(), { withoutNote: [0] }));
    const { status, stdout, stderr } = run(input);
    expect(status).toBe(3);
    expect(stdout).toContain('Processor 1, registers: unknown\n     end: its registers are unknown\n');
    expect(stderr).toMatch(/^loss: /);
  });

  it('prints JSON, and says what is wrong with its arguments', () => {
    writeFileSync(input, writeElf(buildGuest()));
    const report = JSON.parse(run('--json', input).stdout);
    expect(report).toMatchObject({ tool: { name: 'elf2dmp' }, windows: { build: 19041 } });
    const functions = (stack: { frames: { at: { nearestExport: { name: string } } }[] }) =>
      stack.frames.map((frame) => frame.at.nearestExport.name);
    const waiting = ['PoIdle', 'KiIdleLoop', 'KeWaitForSingleObject', 'NtWaitForSingleObject'];
    expect(report.stacks.map(functions)).toEqual([waiting, waiting]);
    for (const [args, message] of [
      [[], /stack needs FILE/],
      [[input, '--cpu', 'x'], /--cpu: expected a whole number/],
      [[input, '--cpu', '9'], /no processor 9/],
    ] as const) {
      const { status, stderr } = run(...args);
      expect([status, stderr]).toEqual([2, expect.stringMatching(message)]);
    }
  });
});
