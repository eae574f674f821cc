import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openInput } from '../../../src/readers/input.ts';
import { buildGuest } from '../../guest/guest.ts';
import { kvmAvailable, migrateTo, qemuAvailable, runInQemu } from '../../support/qemu.ts';
import { x64 } from '../../support/registers.ts';
import { definite, samePages } from '../../support/same-memory.ts';

// Registered only where there is KVM: none is to be skipped.
if (qemuAvailable() && kvmAvailable()) {
  describe("KVM's streams", () => {
    it.each(['pc', 'q35'])(
      'have the pages and registers of the ELF of the same paused guest: %s',
      async (machineType) => {
        const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-kvm-'));
        const [elf, stream] = [join(dir, 'elf'), join(dir, 'stream')];
        const made = buildGuest({ processors: 2, seed: 12 });
        try {
          await runInQemu(made, { machineType, kvm: true }, async ({ qemu }) => {
            await qemu.command('dump-guest-memory', { paging: false, protocol: `file:${elf}` });
            await migrateTo(qemu, { to: { file: stream } });
          });
          const [a, b] = [await openInput(stream), await openInput(elf)];
          expect(samePages(a, b)).toBeGreaterThan(3900);
          expect(a.cpus.length).toBe(2);
          a.cpus.forEach(({ registers }, i) => {
            expect(registers).toMatchObject(definite(b.cpus[i]!.registers!));
            // What test/guest/stub.asm set on this CPU.
            const { debug, cr8 } = x64(registers!);
            expect([debug!.dr0, debug!.dr7, cr8]).toEqual([0x1122334455667700n + BigInt(i), 0x401n, BigInt(3 + i)]);
          });
          a.close();
          b.close();
        } finally {
          rmSync(dir, { recursive: true, force: true });
        }
      },
    );
  });
} else {
  it('is not here to be tried', () => {
    expect(qemuAvailable() && kvmAvailable()).toBe(false);
  });
}
