// Which pages of zeros may be left out: those in which a zero says nothing.
import { beforeAll, describe, expect, it } from 'vitest';
import { pa, va } from '../../src/core/units.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import type { Extent } from '../../src/memory/runs.ts';
import type { Patch } from '../../src/plan/patches.ts';
import { withoutZeroPages } from '../../src/plan/zero-pages.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import type { Windows } from '../../src/windows/windows.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';

const PAGE = 0x1000;

describe('a dump without pages of zeros', () => {
  let guest: Guest;
  let windows: Windows;
  let all: readonly Extent[];
  beforeAll(async () => {
    guest = buildGuest({ decoys: false });
    windows = await locateWindows(openSource(new BufferSource(writeElf(guest))));
    all = windows.image.pageExtents().extents;
  });
  const keptWith = async (patches: readonly Patch[] = []) => {
    const { extents, dropped } = await withoutZeroPages(windows, all, patches);
    const isKept = (at: number) => extents.some(({ start, size }) => at >= start && at < start + size);
    return { isKept, dropped };
  };
  const isZero = (at: number) => guest.memory.read(at, PAGE).every((byte) => byte === 0);
  const pagesOf = ({ start, size }: Extent) => Array.from({ length: size / PAGE }, (_, i) => start + i * PAGE);

  it('has all others', async () => {
    const { isKept, dropped } = await keptWith();
    const pages = all.flatMap(pagesOf);
    expect(pages.filter((at) => !isKept(at) && !isZero(at))).toEqual([]);
    expect(pages.filter((at) => !isKept(at))).toHaveLength(dropped);
    expect(dropped).toBeGreaterThan(100);
  });

  it('has those of processors and of variables: there a zero says something', async () => {
    const { isKept } = await keptWith();
    const needed = windows.processors.flatMap(({ kpcr }) =>
      Array.from({ length: 0xb }, (_, i) => guest.kernel.translate(kpcr + BigInt(i * PAGE))! & ~0xfff),
    );
    expect(needed.filter(isZero).length).toBeGreaterThan(0);
    expect(needed.filter((at) => !isKept(at))).toEqual([]);
    // The guest did not crash: KiBugCheckData is all zero.
    const bugCheck = guest.kernel.translate(guest.truth.kdbgBlock.readBigUInt64LE(0x88))!;
    expect(isKept(bugCheck & ~0xfff)).toBe(true);
  });

  it('has those that are patched', async () => {
    const page = all.flatMap(pagesOf).findLast(isZero)!;
    expect((await keptWith()).isKept(page)).toBe(false);
    const bytes = Buffer.alloc(8, 1);
    const patch = { what: 'test', virtual: va(0n), physical: pa(page + 8), bytes, original: Buffer.alloc(8) };
    expect((await keptWith([patch])).isKept(page)).toBe(true);
  });
});
