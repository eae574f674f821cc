// What else is in memory: an earlier boot's remains, and a Linux inside Windows.
import { describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';

const open = (guest: Guest) => openSource(new BufferSource(writeElf(guest, { withoutNotes: true }), 'guest.elf'));
const SHARED = 0xfffff780_00000000n;

/** A root below the guest's own, that leads to the same kernel and to a SharedUserData whose time is another. */
function addRival({ memory, kernel, truth }: Guest, newer: boolean): number {
  const [root, ...tables] = [0x3000, 0x4000, 0x5000, 0x6000, 0x7000] as const;
  memory.read(truth.root, 0x1000).copy(memory.page(root));
  const top = memory.page(root);
  for (let i = 256; i < 512; i++) {
    const entry = top.readBigUInt64LE(8 * i);
    if ((entry & 0xf_ffff_ffff_f000n) === BigInt(truth.root)) top.writeBigUInt64LE(BigInt(root) | 0x63n, 8 * i);
  }
  // Tables of its own down to the page.
  [39n, 30n, 21n, 12n].forEach((shift, level) => {
    const at = 8 * Number((SHARED >> shift) & 0x1ffn);
    memory.page(level === 0 ? root : tables[level - 1]!).writeBigUInt64LE(BigInt(tables[level]!) | 0x63n, at);
  });
  const page = memory.page(tables[3]);
  kernel.read(SHARED, 0x1000).copy(page);
  for (const at of [0x18, 0x1c]) page.writeInt32LE(page.readInt32LE(at) + (newer ? 1 : -1), at);
  return root;
}

describe('of two systems in memory', () => {
  it.each([
    ['an earlier one loses', false],
    ['a later one wins', true],
  ])('%s, wherever it is, and the other is named', async (_, newer) => {
    const guest = buildGuest({ ramMiB: 16, seed: 95, startBlock: false });
    const rival = addRival(guest, newer);
    const { root, kernel, diagnostics } = await locateWindows(open(guest));
    expect(kernel.base).toBe(guest.truth.kernelBase);
    expect(root).toBe(newer ? rival : guest.truth.root);
    expect(diagnostics.list.map((d) => d.code)).toContain('rival-windows');
  });

  it('none is named where there is one', async () => {
    const { diagnostics } = await locateWindows(open(buildGuest({ ramMiB: 16, seed: 95 })));
    expect(diagnostics.list.map((d) => d.code)).not.toContain('rival-windows');
  });
});

describe("a Linux kernel's text in memory", () => {
  const BANNER = 'Linux version 5.15.133.1-microsoft-standard-WSL2 (root@a) (gcc)';

  it('is a doubt where Windows left traces', async () => {
    const guest = buildGuest({ ramMiB: 16, seed: 96 });
    for (const { root } of guest.truth.processes) guest.memory.page(root).fill(0);
    guest.memory.page(0xf00000).write(BANNER, 0x100, 'latin1');
    await expect(locateWindows(open(guest))).rejects.toMatchObject({
      code: 'windows-not-found',
      message: expect.stringMatching(/like a KPCR: [1-9].*5\.15\.133\.1-microsoft-standard-WSL2, which may run inside/),
    });
  });
});

describe('a file whose header says i386', () => {
  it('has the 64-bit Windows that its contents show, with all registers', async () => {
    const guest = buildGuest({ ramMiB: 16, seed: 97 });
    const file = writeElf(guest);
    file.writeUInt16LE(3, 0x12);
    const image = openSource(new BufferSource(file, 'guest.elf'));
    const { kernel, processors, diagnostics } = await locateWindows(image);
    expect(kernel.base).toBe(guest.truth.kernelBase);
    expect(processors.every((p) => p.cpu?.registers !== undefined)).toBe(true);
    expect(diagnostics.list.map((d) => d.code)).toEqual(['machine-doubtful']);
  });
});
