import { describe, expect, it } from 'vitest';
import { ARM64 } from '../../../src/machines/arm64/index.ts';
import type { MemoryImage } from '../../../src/memory/image.ts';
import { inspect } from '../../../src/operations/inspect.ts';
import { openSource } from '../../../src/readers/registry.ts';
import { BufferSource } from '../../../src/source/buffer.ts';
import { buildArm64Guest } from '../../guest/arm64.ts';
import { RAM_BASE } from '../../guest/arm64-memory.ts';
import { ARM64_SYSTEM, type Arm64StreamOptions, writeArm64Stream } from '../../guest/arm64-qevm.ts';
import { arm64 } from '../../support/registers.ts';

const guest = buildArm64Guest({ processors: 2, user: [1], seed: 22 });
const opened = (options: Arm64StreamOptions = {}): MemoryImage =>
  openSource(new BufferSource(writeArm64Stream(guest, options), 'vm.stream'));

describe("a migration stream of QEMU's virt", () => {
  it.each<[string, Arm64StreamOptions]>([
    ['described', {}],
    ['without a description of its devices', { withoutDescription: true }],
    ['FPCR and FPSR in words of their own', { ownWords: true }],
    ["Red Hat's machine", { machineType: 'virt-rhel9.4.0' }],
  ])('has every register of its CPUs: %s', (_, options) => {
    const image = opened(options);
    expect(image.machine).toBe(ARM64);
    expect(image.cpus.map(({ index }) => index)).toEqual([0, 1]);
    image.cpus.forEach(({ registers }, i) => {
      const { x, sp, pc, pstate, v, fpcr, fpsr } = guest.cpus[i]!;
      const { more, ...found } = arm64(registers);
      expect(found).toEqual({ x, sp, pc, pstate, vectors: { v, fpcr, fpsr } });
      const system = ARM64_SYSTEM.map(([name, , value]) => ({ name, value, bits: 64 }));
      const banked = { elr_el1: 0x11n, sp_el0: 0x20n, sp_el1: 0x21n };
      expect(more).toEqual([...system, ...Object.entries(banked).map(([name, value]) => ({ name, value, bits: 64 }))]);
    });
  });

  it('has its memory from 1 GiB on, in one block or in one for each node, and nothing of the firmware', () => {
    const [whole, nodes] = [opened(), opened({ nodes: true })];
    expect(whole.pageExtents().extents).toEqual([{ start: RAM_BASE, size: guest.ramBytes }]);
    expect(nodes.pageExtents().extents).toEqual(whole.pageExtents().extents);
    for (const [at, page] of guest.memory.pages) {
      for (const image of [whole, nodes]) expect(image.page(at as never)?.equals(page)).toBe(true);
    }
    expect(whole.diagnostics.list).toEqual([]);
  });

  it.each([-1, 4097, 0x7fff_ffff])(
    'whose list of system registers claims %i of them has no registers',
    (systemCount) => {
      for (const { registers } of opened({ systemCount }).cpus) expect(registers).toBeUndefined();
    },
  );

  it('becomes a description with its system registers', async () => {
    const report = await inspect({ input: writeArm64Stream(guest) });
    expect(JSON.stringify(report)).toContain('"ttbr1_el1":"0x40000041234800"');
  });
});
