// One bit off in a field of the KDBG: nothing of it reaches the header or says where to write.
import { describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { withoutDamagedFields } from '../../src/windows/kdbg-fields.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type GuestOptions } from '../guest/guest.ts';
import { knownGuest } from '../support/known-guest.ts';

const BLOCK = { kdbg: 'plain', decoys: false } as const;

async function planWith(at: number, change: (block: Buffer) => void, options: GuestOptions = {}) {
  const guest = buildGuest({ ...BLOCK, ...options });
  const block = Buffer.from(guest.truth.kdbgBlock);
  change(block);
  guest.kernel.write(guest.truth.kdbg + BigInt(at), block.subarray(at, at + 8));
  const windows = await locateWindows(openSource(new BufferSource(writeElf(guest))));
  const planned = planConversion(windows);
  const list = [...windows.diagnostics.list, ...planned.diagnostics];
  return { guest, windows, plan: planned.plan, losses: list.filter((d) => d.severity === 'loss') };
}

const flip = (at: number, bit: number) => (block: Buffer) => {
  block[at + (bit >> 3)]! ^= 1 << (bit & 7);
};

/** Patches outside the places that the guest has for them. */
const strays = ({ guest, plan }: Awaited<ReturnType<typeof planWith>>) => {
  const { kdbg, processors } = guest.truth;
  const places = [
    { from: kdbg, size: 0x400n },
    ...processors.map((p) => ({ from: p.context, size: 0x4d0n })),
    ...processors.map((p) => ({ from: p.specialRegisters, size: 0xe0n })),
  ];
  return plan.patches.filter(
    ({ virtual, bytes }) =>
      !places.some(({ from, size }) => virtual >= from && virtual + BigInt(bytes.length) <= from + size),
  );
};

describe('a damaged field of the KDBG', () => {
  it.each([
    ['PsActiveProcessHead', 0x50, 0x28],
    ['MmPfnDatabase', 0xc0, 0x18],
  ])('%s: no bit off reaches the header silently', async (name, at, inHeader) => {
    for (let bit = 0; bit < 48; bit += 1) {
      const { plan, losses, guest } = await planWith(at, flip(at, bit));
      expect(
        losses.map((d) => d.code),
        `bit ${bit}`,
      ).toContain('kdbg-field-damaged');
      expect(
        losses.some((d) => d.message.startsWith(name)),
        `bit ${bit}`,
      ).toBe(true);
      expect(plan.prefix.readBigUInt64LE(inHeader), `bit ${bit}`).toBe(0n);
      expect(guest.truth.psActiveProcessHead).not.toBe(0n);
    }
  });

  it('KiBugCheckData that the kernel exports elsewhere: whether the guest crashed is unknown', async () => {
    const crash = { code: 0xd1, parameters: [1n, 2n, 3n, 4n] as const, processor: 0 };
    const { losses } = await planWith(0x88, flip(0x88, 3), { crash });
    expect(losses.map((d) => d.message)).toContainEqual(expect.stringContaining('the kernel exports it at 0x'));
  });

  it.each([
    ['win10', 7],
    ['win10', 10],
    ['win10', 5],
    ['win10', 3],
    ['win11', 5],
    ['win11', 3],
    ['win7', 6],
    ['win7', 5],
    ['win7', 4],
    ['server2003', 3],
    ['server2003', 4],
  ] as const)('Size of %s with bit %i off: no known build has such a block', async (build, bit) => {
    const { windows } = await planWith(0x10, flip(0x14, bit), { build });
    expect(windows.diagnostics.list.map((d) => d.code)).toContain('kdbg-size-doubtful');
  });

  it('KiBugCheckData outside the kernel: whether the guest crashed is unknown', async () => {
    const crash = { code: 0xd1, parameters: [1n, 2n, 3n, 4n] as const, processor: 0 };
    const { losses } = await planWith(0x88, flip(0x88, 30), { crash });
    expect(losses.map((d) => d.code)).toEqual(expect.arrayContaining(['kdbg-field-damaged', 'bug-check-unreadable']));
  });

  it.each(['win10', 'win7', 'server2003'] as const)(
    'special registers of %s: no bit off leads the writer elsewhere',
    async (build) => {
      for (let bit = 0; bit < 16; bit++) {
        const found = await planWith(0x2f0, flip(0x2f2, bit), { build });
        expect(strays(found), `bit ${bit}`).toEqual([]);
        expect(
          found.losses.map((d) => d.code),
          `bit ${bit}`,
        ).toContain('kdbg-field-damaged');
      }
    },
  );

  it('a CONTEXT in the PRCB: no bit off leads the writer elsewhere', async () => {
    for (let bit = 0; bit < 16; bit++) {
      const found = await planWith(0x2b8, flip(0x2bc, bit), { build: 'server2003' });
      expect(strays(found), `bit ${bit}`).toEqual([]);
      expect(found.losses, `bit ${bit}`).not.toEqual([]);
    }
  });

  it('no offset of the pointer to the CONTEXT: the PRCB has no frame to write to', async () => {
    const found = await planWith(0x338, (block) => block.writeUInt16LE(0, 0x338));
    expect(strays(found)).toEqual([]);
    expect(found.losses.map((d) => d.code)).toContain('no-context-frame');
  });

  it('two variables at one address: neither is believed', () => {
    const { space, kernel, kdbg, fields } = knownGuest(BLOCK);
    const damaged = { ...kdbg, fields: { ...fields, MmLastUnloadedDriver: fields.NtBuildLab! } };
    const { kdbg: kept, losses } = withoutDamagedFields(space, kernel, damaged);
    expect([kept.fields.MmLastUnloadedDriver, kept.fields.NtBuildLab]).toEqual([undefined, undefined]);
    expect(losses.map(({ message }) => message.split('but ')[1])).toEqual([
      'NtBuildLab is the same: it was not used',
      'MmLastUnloadedDriver is the same: it was not used',
    ]);
  });

  it('leaves a sound block as it is', async () => {
    const { losses, windows, guest } = await planWith(0, () => {});
    expect(losses).toEqual([]);
    expect(windows.kdbg.fields.MmPfnDatabase).toBe(guest.truth.pfnDatabaseVariable);
  });
});
