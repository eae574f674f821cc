// Migration streams of QEMU's `virt`, against the ELF of the same paused guest.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ARM64 } from '../../../src/machines/arm64/index.ts';
import { convert } from '../../../src/operations/convert.ts';
import { openInput } from '../../../src/readers/input.ts';
import { buildArm64Guest } from '../../guest/arm64.ts';
import { arm64QemuAvailable, dumpArm64WithQemu } from '../../support/qemu-arm64.ts';
import { arm64 } from '../../support/registers.ts';
import { definite, samePages } from '../../support/same-memory.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-qevm-arm64-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const ASID = 0x40n << 48n;

describe.skipIf(!arm64QemuAvailable())("a real QEMU's stream of an ARM64 guest", () => {
  it('has the pages and registers of the ELF of the same paused guest, and its system registers', async () => {
    const guest = buildArm64Guest({ processors: 3, user: [1], neverStarted: 1, seed: 21 });
    const [elf, stream] = [join(dir, 'vm.elf'), join(dir, 'vm.stream')];
    await dumpArm64WithQemu(guest, elf, { stream });
    const [a, b] = [await openInput(elf), await openInput(stream)];
    expect(b.machine).toBe(ARM64);
    expect(samePages(b, a)).toBe(guest.ramBytes / 4096);
    expect(b.cpus.length).toBe(a.cpus.length);
    b.cpus.forEach(({ registers }, i) => {
      expect(registers).toMatchObject(definite(a.cpus[i]!.registers!));
      const cpu = guest.cpus[i]!;
      if (!cpu.started) return;
      // What test/guest/arm64-stub.s and the launch code set on this CPU.
      const more = Object.fromEntries(arm64(registers!).more!.map(({ name, value }) => [name, value]));
      expect(more).toMatchObject({
        ttbr0_el1: BigInt(cpu.root) | ASID,
        ttbr1_el1: (BigInt(guest.kernel.root) + 0x800n) | ASID,
        tcr_el1: 0x95_b551_3511n,
        mair_el1: 0x44bb00ff_44bb00ffn,
        vbar_el1: guest.vbar,
      });
    });
    a.close();
    b.close();

    const dumps = { elf: join(dir, 'elf.dmp'), stream: join(dir, 'stream.dmp') };
    const fromElf = await convert({ input: elf, output: dumps.elf, ram: 'windows' });
    const fromStream = await convert({ input: stream, output: dumps.stream });
    expect(fromStream.outcome).toBe(fromElf.outcome);
    expect(fromStream.windows).toEqual(fromElf.windows);
    expect(fromStream.diagnostics.map(({ code }) => code)).toEqual([
      ...fromElf.diagnostics.map(({ code }) => code),
      'migration-run-state',
    ]);
    expect(readFileSync(dumps.stream).equals(readFileSync(dumps.elf))).toBe(true);
  });
});
