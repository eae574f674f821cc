import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import {
  askDebugger,
  attempt,
  bugCheck,
  complaints,
  debuggerAvailable,
  modules,
  openInDebugger,
  registers,
  stack,
  virtualMemory,
} from '../debugger/debugger.ts';
import { buildGuest, type Guest, type GuestOptions } from '../guest/guest.ts';
import { PAGE } from '../guest/memory.ts';
import { type AddedMemory, addMemoryManager, IN_TRANSITION, SESSION } from '../guest/memory-manager.ts';
import { dumpWithQemu, qemuAvailable } from '../support/qemu.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-smaller-debugger-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Of Windows 7: its page frame database has its state in byte 0x1a. */
const GUEST: GuestOptions = { build: 'win7', processors: 2, user: [1], seed: 31 };

function made(options: GuestOptions = GUEST, stateAt?: number): { guest: Guest; added: AddedMemory } {
  const guest = buildGuest(options);
  return { guest, added: addMemoryManager(guest, stateAt) };
}

describe.skipIf(!debuggerAvailable() || !qemuAvailable())('smaller dumps in the real debugger', () => {
  it('answer as the full one does, but for what was left out', async () => {
    const { guest, added } = made();
    const input = await dumpWithQemu(guest, join(dir, 'qemu.elf'));
    const user = guest.cpus[guest.truth.processors[1]!.cpu]!.regs.rip - 1n;
    const same = {
      bugCheck: bugCheck(),
      modules: modules(),
      registers0: registers(0),
      registers1: registers(1),
      stack0: stack(0),
      kdbg: virtualMemory(guest.truth.kdbg, guest.truth.kdbgBlock.length),
      pool: virtualMemory(guest.truth.samples[0]!.virtual, 64),
      image: virtualMemory(guest.truth.kernelBase, 0x1000),
      modified: virtualMemory(IN_TRANSITION.modified, PAGE),
    };
    const answers = async (type: 'full' | 'bitmap' | 'kernel' | 'active') => {
      const output = join(dir, `${type}.dmp`);
      const report = await convert({ input, output, type });
      expect(report.outcome).toBe('good');
      const { opening } = await openInDebugger(output, ['r rip']);
      const seen = await askDebugger(output, {
        ...same,
        complaints: complaints(),
        user: attempt(`db 0x${user.toString(16)} L4`, 1),
        session: attempt(`.context ${added.root.toString(16)}; db 0x${SESSION.toString(16)} L4`),
      });
      return { report, opening, ...seen };
    };
    const full = await answers('full');
    const bitmap = await answers('bitmap');
    const kernel = await answers('kernel');
    const active = await answers('active');
    for (const name of Object.keys(same) as (keyof typeof same)[]) {
      expect(bitmap[name], name).toEqual(full[name]);
      expect(kernel[name], name).toEqual(full[name]);
      expect(active[name], name).toEqual(full[name]);
    }
    expect([bitmap.complaints, kernel.complaints, active.complaints]).toEqual([[], [], []]);
    expect(bitmap.opening).toContain('Full address space is available');
    expect(kernel.opening).toContain('Kernel address space is available');
    expect(active.opening).toContain('Active memory is available');
    expect(full.user.output).toMatch(/90 eb fe 90/);
    expect(active.user.output).toEqual(full.user.output);
    expect(kernel.user.output).toMatch(/\?\? \?\? \?\? \?\?/);
    for (const seen of [full, bitmap, kernel, active]) {
      expect(seen.session.output).toContain(added.fill(added.session).toString('hex', 0, 1));
    }
    expect(kernel.report.dump.pages).toBeLessThan(active.report.dump.pages);
    expect(active.report.dump.pages).toBeLessThan(full.report.dump.pages / 2);
  });
});
