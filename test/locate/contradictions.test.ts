// Two sources that both look true, and say different things.
import { describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest, type GuestOptions } from '../guest/guest.ts';

async function locate(options: GuestOptions, change: (guest: Guest) => void, file: (bytes: Buffer) => void = () => {}) {
  const guest = buildGuest(options);
  change(guest);
  const bytes = writeElf(guest);
  file(bytes);
  const windows = await locateWindows(openSource(new BufferSource(bytes)));
  return { windows, guest, codes: windows.diagnostics.list.map((d) => d.code) };
}

describe('a copy of the encoded KDBG before the real one', () => {
  const copy = ({ kernel, truth: { kdbg, kdbgBlock } }: Guest) =>
    kernel.write(kdbg - 0x1000n, kernel.read(kdbg, kdbgBlock.length));

  it('loses against the one that the list of blocks leads to', async () => {
    const { windows, guest, codes } = await locate({ decoys: false }, (guest) => {
      copy(guest);
      const head = guest.truth.kdbgBlock.readBigUInt64LE();
      for (const link of [head, head + 8n]) guest.kernel.u64(link, guest.truth.kdbg);
    });
    expect([windows.kdbg.address, codes]).toEqual([guest.truth.kdbg, []]);
  });

  it('loses against the one that KdVersionBlock leads to', async () => {
    const { windows, guest, codes } = await locate({ decoys: false, build: 'server2003' }, copy);
    expect([windows.kdbg.address, codes]).toEqual([guest.truth.kdbg, []]);
  });

  it('is a loss that names both where nothing decides', async () => {
    const { windows, codes } = await locate({ decoys: false }, copy);
    expect(codes).toEqual(['kdbg-ambiguous']);
    expect(windows.diagnostics.list[0]!.message).toMatch(/can be at 0xfffff8041a2e8040 or 0xfffff8041a2e9040/);
  });
});

describe('a KDBG whose KiProcessorBlock was overwritten, beside one that is wrong in nothing but its', () => {
  const all = ({ kernel, truth }: Guest) =>
    kernel.write(truth.kdbgBlock.readBigUInt64LE(0x218), Buffer.alloc(8 * truth.processors.length));

  it('wins where KdVersionBlock leads to it, in a KPCR that a CPU has loaded', async () => {
    const { windows, guest, codes } = await locate({ build: 'server2003' }, all);
    expect(windows.kdbg.address).toBe(guest.truth.kdbg);
    expect(codes).toEqual(['no-processors', 'cpu-without-processor', 'cpu-without-processor']);
  });

  it('wins where one entry is left', async () => {
    const { windows, guest, codes } = await locate({ processors: 3 }, ({ kernel, truth }) =>
      kernel.write(truth.kdbgBlock.readBigUInt64LE(0x218), Buffer.alloc(16)),
    );
    expect([windows.kdbg.address, codes]).toEqual([guest.truth.kdbg, []]);
    expect(windows.processors.map(({ prcb }) => prcb)).toEqual(guest.truth.processors.map(({ prcb }) => prcb));
  });

  it('is doubted where nothing decides, and neither block gets an entry', async () => {
    const { windows, codes } = await locate({}, all);
    expect(codes).toEqual(['kdbg-ambiguous', 'no-processors', 'cpu-without-processor', 'cpu-without-processor']);
    expect(planConversion(windows).plan.patches.filter(({ what }) => what.includes('KiProcessorBlock'))).toEqual([]);
  });
});

it('a build number that two other sources contradict is not used', async () => {
  const { windows, codes } = await locate({}, ({ kernel, truth }) =>
    kernel.u32(truth.kernelBase + 0x36200n, 0xf0001234),
  );
  expect([windows.version.build, codes]).toEqual([19041, ['build-disagrees']]);
});

it('bug check data of all ones is no bug check', async () => {
  const { windows, codes } = await locate({}, ({ kernel, truth }) =>
    kernel.write(truth.kdbgBlock.readBigUInt64LE(0x88), Buffer.alloc(40, 0xff)),
  );
  expect([windows.crash, codes]).toEqual([undefined, ['bug-check-implausible']]);
});

it.each([
  ['of version 9', (bytes: Buffer, at: number) => bytes.writeUInt32LE(9, at)],
  ['of 0xffff bytes', (bytes: Buffer, at: number) => bytes.writeUInt32LE(0xffff, at + 4)],
])('a QEMU note %s is not believed unseen', async (_, damage) => {
  const { codes } = await locate(
    {},
    () => {},
    (bytes) => damage(bytes, bytes.indexOf('QEMU\0', 0, 'latin1') + 8),
  );
  expect(codes).toEqual(['cpu-note-doubtful']);
});
