// What QEMU itself writes with `dump-guest-memory -w`, of guests whose driver left it a header: repaired and opened.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { askDebugger, complaints, debuggerAvailable, modules, registers, stack } from '../debugger/debugger.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { dumpWithQemu, qemuAvailable } from '../support/qemu.ts';

let dir: string;
const at = (name: string) => join(dir, name);
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-qemu-win-dump-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const HANGING = {
  ...{ processors: 4, order: [2, 0, 3, 1], user: [3], lock: { number: 7, owner: 0, waiter: 2 } },
  doing: { 0: 'driver', 1: 'dpc', 2: 'spin lock' },
} as const;
const CRASH = { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff8042c460004n], processor: 1 } as const;

/** The same paused guest by QEMU's -w and as ELF, both converted. */
async function both(guest: Guest) {
  await dumpWithQemu(guest, at('w.dmp'), { format: 'win-dmp', also: [{ path: at('vm.elf') }] });
  const of = (input: string, output: string) => convert({ input: at(input), output: at(output), force: true });
  return { byElf: await of('vm.elf', 'elf.dmp'), byW: await of('w.dmp', 'w.out.dmp') };
}

describe.skipIf(!qemuAvailable() || !debuggerAvailable())("a dump by QEMU's -w", () => {
  it('has the registers of CPUs under the numbers of processors: each goes to its own', async () => {
    const guest = buildGuest({ ...HANGING, seed: 71, vmcoreinfo: 'good' });
    const { byElf, byW } = await both(guest);
    expect(byW.dump.repairs.map(({ what }) => what)).toEqual(
      expect.arrayContaining(['KDBG', ...[0, 1, 2, 3].map((n) => `registers of processor ${n}`), 'header SystemTime']),
    );
    const codes = byW.diagnostics.map(({ code }) => code);
    expect(codes).not.toContain('registers-unconfirmed');
    expect(codes).not.toContain('processor-exchanged');
    const placed = ({ windows }: typeof byW) =>
      windows.processors.map((p) => [p.number, p.instructionPointer, p.stackPointer]);
    expect(placed(byW)).toEqual(placed(byElf));
    // All but what QEMU does not write: the special registers, without which the debugger can't look up a selector.
    const seen = async (dump: string) => {
      const { registers0, registers1, registers2, registers3, ...answers } = await askDebugger(at(dump), {
        ...{ complaints: complaints(), modules: modules(), stack: stack(1) },
        ...{ registers0: registers(0), registers1: registers(1), registers2: registers(2), registers3: registers(3) },
      });
      const general = [registers0, registers1, registers2, registers3].map((shown) =>
        ['rip', 'rsp', 'rax', 'rbx', 'r8', 'r15', 'efl', 'cs'].map((name) => [name, shown[name]]),
      );
      const others = answers.complaints.filter((line) => line !== 'CS descriptor lookup failed');
      return { ...answers, complaints: others, general };
    };
    expect(await seen('w.out.dmp')).toEqual(await seen('elf.dmp'));
  });

  it('says that nothing shows whose the registers are, where nothing does', async () => {
    const guest = buildGuest({ processors: 2, user: [1], seed: 72, vmcoreinfo: 'good' });
    const { byW } = await both(guest);
    expect(byW.diagnostics.map(({ code }) => code)).toContain('registers-unconfirmed');
  });

  it('of a crashed guest has the bug check that memory has', async () => {
    const guest = buildGuest({ processors: 2, seed: 73, vmcoreinfo: 'good', crash: CRASH });
    const { byElf, byW } = await both(guest);
    expect(byW.windows.bugCheck).toMatchObject({ code: byElf.windows.bugCheck!.code });
    expect(byW.windows.bugCheck!.parameters).toEqual(byElf.windows.bugCheck!.parameters);
    // The crashing CPU is number 0, and processor 1.
    expect(byW.windows.bugCheck!.processor === 1).toBe(false);
    expect(byW.diagnostics.map(({ message }) => message).join('\n')).toContain(
      "are their own, and processor 0's the crash",
    );
  });
});
