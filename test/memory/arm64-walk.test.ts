// ARM64 page tables, entry by entry.
import { describe, expect, it } from 'vitest';
import { pa } from '../../src/core/units.ts';
import { PAGING_4K_GRANULE } from '../../src/machines/arm64/paging.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { buildArm64Guest } from '../guest/arm64.ts';
import { writeArm64Elf } from '../guest/arm64-elf.ts';

const decode = (level: number, entry: bigint) =>
  PAGING_4K_GRANULE.decode(level, Number(entry & 0xffff_ffffn), Number(entry >> 32n));

describe('an ARM64 page-table entry', () => {
  it('is a table or a page with both low bits, a block with the first alone', () => {
    expect(decode(0, 0x0060_0000_4023_4f03n)).toEqual({ kind: 'table', physical: 0x4023_4000 });
    expect(decode(1, 0x4000_0701n)).toEqual({ kind: 'page', physical: 0x4000_0000, size: 2 ** 30 });
    expect(decode(2, 0x4060_0701n)).toEqual({ kind: 'page', physical: 0x4060_0000, size: 2 ** 21 });
    expect(decode(3, 0x4060_1703n)).toEqual({ kind: 'page', physical: 0x4060_1000, size: 0x1000 });
    expect([decode(0, 0x4000_0701n), decode(3, 0x4000_0701n), decode(2, 0x4000_0702n)]).toEqual(
      Array(3).fill({ kind: 'absent' }),
    );
  });

  it('has a read-only bit where x64 says how large a page is', () => {
    expect(decode(2, 0x4023_4f83n)).toEqual({ kind: 'table', physical: 0x4023_4000 });
    expect(decode(2, 0x4060_0781n)).toMatchObject({ kind: 'page', size: 2 ** 21 });
    expect(decode(3, 0x4060_1783n)).toEqual({ kind: 'page', physical: 0x4060_1000, size: 0x1000 });
  });

  it('has an address of 48 bits: what is above are attributes', () => {
    expect(decode(3, 0xff7f_8123_4567_8703n)).toEqual({ kind: 'page', physical: 0x8123_4567_8000, size: 0x1000 });
  });

  it("can be Windows' own in the last level", () => {
    expect(decode(3, 0x4123_4880n)).toMatchObject({ kind: 'transition', physical: 0x4123_4000 });
    expect(decode(3, (0xbb8e_b170_1238n << 16n) | 0x400n)).toMatchObject({
      kind: 'prototype',
      entry: 0xffff_bb8e_b170_1238n,
    });
    expect(decode(2, 0x4123_4880n)).toEqual({ kind: 'absent' });
  });
});

describe.each(['4k', '2m'] as const)(
  'the address space of an ARM64 guest with its kernel in pages of %s',
  (kernelPages) => {
    const guest = buildArm64Guest({ kernelPages, user: [1] });
    const image = openSource(new BufferSource(writeArm64Elf(guest), 'guest.elf'));
    const { truth, kernel } = guest;

    it('has all pages where they are', () => {
      const space = new AddressSpace(image, pa(truth.root), PAGING_4K_GRANULE);
      for (const { what, virtual, bytes } of truth.samples) {
        expect([what, space.read(virtual, bytes.length)]).toEqual([what, bytes]);
      }
      const { virtual } = truth.samples[0]!;
      expect(space.translate(virtual)).toBe(kernel.translate(virtual));
      expect(space.translate(0x7ff6_1234_0000n)).toBeUndefined();
      expect(space.fault(0x0001_0000_0000_0000n)?.reason).toBe('not-canonical');
      expect(space.fault(0xffff_bb8e_0000_0000n)).toMatchObject({ reason: 'not-present', level: 'level 1 entry' });
    });

    it('is the same through another process, which has user memory besides', () => {
      const space = new AddressSpace(image, pa(truth.processes[2]!.root), PAGING_4K_GRANULE);
      expect(space.read(truth.kernelBase, 2)?.toString()).toBe('MZ');
      expect(space.read(0x7ff6_1234_0000n, 4)?.readUInt32LE()).toBe(0xd503201f);
    });
  },
);
