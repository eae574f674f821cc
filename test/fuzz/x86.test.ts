// 32-bit guests whose structures are damaged at random: a typed error or a result, and no wrong value without a word.
import { describe, expect, it } from 'vitest';
import { Elf2dmpError } from '../../src/core/errors.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { planConversion } from '../../src/plan/conversion.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { walkStack } from '../../src/windows/stacks.ts';
import { writeElf } from '../guest/elf.ts';
import { random } from '../guest/memory.ts';
import { buildGuest32, type Guest32, type GuestOptions32 } from '../guest/x86/guest.ts';

/** Addresses of structures, and bytes of each. */
function places({ truth, build }: Guest32): [address: number, length: number][] {
  const variables = [0x218, 0x220, 0x270].map((at) => truth.kdbgBlock.readUInt32LE(at));
  return [
    [truth.kernelBase, 0x160],
    [truth.kernelBase + 0x1000, 40],
    [truth.kdbg, truth.kdbgBlock.length],
    [truth.psLoadedModuleList, 8],
    [truth.psActiveProcessHead, 8],
    ...variables.map((at): [number, number] => [at, 16]),
    ...truth.modules.map(({ entry }): [number, number] => [entry, 0x5c]),
    ...truth.processes.map(({ address }): [number, number] => [address, build.eprocess.size]),
    ...truth.processors.flatMap(({ kpcr, prcb, idt, gdt }): [number, number][] => [
      [kpcr, 0x120],
      [prcb, 0x40],
      [idt, 0x100],
      [gdt, 0x40],
    ]),
  ];
}

/** Some bytes of the guest's structures, page tables or notes made others. */
function damaged(options: GuestOptions32, seed: number): { guest: Guest32; file: Buffer } {
  const guest = buildGuest32(options);
  const next = random(seed);
  const below = (n: number) => Math.floor(next() * n);
  const spots = places(guest);
  for (let i = below(3); i >= 0; i--) {
    const kind = below(8);
    if (kind === 0) {
      const [directory] = [guest.kernel.directories[below(guest.kernel.directories.length)]!];
      guest.memory.page(directory).writeUInt32LE(below(2 ** 32), 4 * below(1024));
    } else if (kind > 1) {
      const [address, length] = spots[below(spots.length)]!;
      const bytes = Buffer.alloc(1 + below(8), below(256));
      guest.kernel.write(address + below(Math.max(1, length - bytes.length)), bytes);
    }
  }
  const file = writeElf(guest);
  // Headers and notes.
  if (below(6) === 0) file.writeUInt8(below(256), below(0x600));
  return { guest, file };
}

const wide = (address: number): bigint => BigInt.asUintN(64, BigInt(address | 0));

describe.each([
  ['7 with PAE', { processors: 2, user: [1] }],
  [
    'XP without PAE, crashed',
    { build: 'xp', pae: false, crash: { code: 0xd1, parameters: [1, 2, 3, 4], processor: 1 } },
  ],
] as [string, GuestOptions32][])('a damaged 32-bit guest: %s', (_, options) => {
  it('gives a typed error, or what it shows without a word is right', async () => {
    let whole = 0;
    for (let seed = 1; seed <= 25; seed++) {
      const { guest, file } = damaged(options, seed);
      try {
        const windows = await locateWindows(openSource(new BufferSource(file, 'guest.elf')));
        const { contexts } = planConversion(windows);
        for (const { processor, frame } of contexts.shown) walkStack(windows, processor, frame);
        if (windows.diagnostics.losses.length > 0) continue;
        whole++;
        expect(windows.kernel.base, `seed ${seed}`).toBe(wide(guest.truth.kernelBase));
        expect(windows.kdbg.address, `seed ${seed}`).toBe(wide(guest.truth.kdbg));
        expect(
          windows.processors.map(({ prcb }) => prcb),
          `seed ${seed}`,
        ).toEqual(guest.truth.processors.map(({ prcb }) => wide(prcb)));
      } catch (error) {
        if (!(error instanceof Elf2dmpError)) throw error;
      }
    }
    expect(whole).toBeGreaterThan(4);
  });
});
