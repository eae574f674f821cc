import { describe, expect, it } from 'vitest';
import { pa } from '../../src/core/units.ts';
import { MACHINES } from '../../src/machines/index.ts';
import { PAGING_4_LEVELS, PAGING_5_LEVELS } from '../../src/machines/x64/paging.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import { PageMap } from '../../src/memory/page-map.ts';
import { Mapped, walkTables } from '../../src/memory/table-walk.ts';
import { PAGE, PageTables, PhysicalMemory } from '../guest/memory.ts';
import { imageOf } from '../support/images.ts';

const KERNEL = 0xfffff800_00000000n;
const USER = 0x00007ff6_00000000n;

/** Walks `roots` over a MiB of memory; `kinds` gives what a page turned out to be. */
async function walk(memory: PhysicalMemory, roots: readonly number[], levels = PAGING_4_LEVELS, bytes = memory.bytes) {
  const image = imageOf([{ start: 0, bytes: memory.flat(0, bytes) }]);
  const map = new PageMap(image);
  const result = await walkTables(new AddressSpace(image, pa(roots[0]!), levels), roots, map);
  const kinds = (physical: number) =>
    Object.entries(Mapped)
      .filter(([, bit]) => (map.bits[map.indexOf(physical)]! & bit) !== 0)
      .map(([name]) => name);
  const marked = () => [...map.runs()].reduce((sum, { pages, bits }) => sum + (bits === 0 ? 0 : pages), 0);
  return { result, kinds, marked };
}

describe('walking page tables', () => {
  it('skips entries of zeros, which map nothing in any mode', () => {
    const modes = MACHINES.flatMap(({ pagingModes }) => pagingModes);
    for (const mode of modes) {
      for (const level of mode.levels.keys()) expect(mode.decode(level, 0, 0), mode.name).toEqual({ kind: 'absent' });
    }
  });

  it.each([4, 5] as const)('tells the halves of %i levels apart', async (levels) => {
    const memory = new PhysicalMemory(2 << 20, 1);
    const tables = new PageTables(memory, levels);
    tables.mapNew(KERNEL, PAGE);
    tables.mapNew(USER, PAGE, true);
    const { result, kinds, marked } = await walk(
      memory,
      [tables.root],
      levels === 4 ? PAGING_4_LEVELS : PAGING_5_LEVELS,
    );
    expect(kinds(tables.translate(KERNEL)!)).toEqual(['kernel']);
    expect(kinds(tables.translate(USER)!)).toEqual(['user']);
    // The root is read once for each half.
    expect(result).toMatchObject({ tables: 2 * levels, missingTables: 0, endless: false });
    expect(marked()).toBe(2 * levels - 1 + 2);
  });

  it('marks what is in transition, and what prototype entries lead to', async () => {
    const memory = new PhysicalMemory(2 << 20, 1);
    const tables = new PageTables(memory);
    tables.mapNew(KERNEL, PAGE);
    const [moved, shared, used] = [memory.allocate(), memory.allocate(), memory.allocate()];
    // Windows flips a high bit of the frame against L1TF.
    tables.setEntry(KERNEL + 0x1000n, BigInt(moved) | 0x2000_0000_0880n);
    tables.u64(KERNEL + 0x100n, BigInt(shared) | 0x880n);
    tables.setEntry(KERNEL + 0x2000n, (((KERNEL + 0x100n) << 16n) & ((1n << 64n) - 1n)) | 0x400n);
    tables.setEntry(USER, BigInt(used) | 0x880n, true);
    const { result, kinds } = await walk(memory, [tables.root]);
    expect([kinds(moved), kinds(shared), kinds(used)]).toEqual([['kernelSoft'], ['kernelSoft'], ['userSoft']]);
    expect(result.transition).toEqual([moved]);
  });

  it('marks large pages as far as they are in the image', async () => {
    const memory = new PhysicalMemory(4 << 20, 1, [{ from: 0x200000, to: 0x400000 }]);
    const tables = new PageTables(memory);
    tables.mapLarge(KERNEL, 0x200000, 2);
    // With the PAT bit, and mapped twice.
    tables.mapLarge(KERNEL + 0x200000n, 0x201000, 2);
    tables.mapLarge(KERNEL - 0x40000000n, 0x40000000, 3);
    const { kinds, marked } = await walk(memory, [tables.root]);
    expect([kinds(0x200000), kinds(0x3ff000), kinds(0x1ff000)]).toEqual([['kernel'], ['kernel'], []]);
    expect(marked()).toBe(512 + 4);
  });

  it('does not follow the self-map, of its own root or of another', async () => {
    const memory = new PhysicalMemory(2 << 20, 1);
    const [one, other] = [new PageTables(memory), new PageTables(memory)];
    one.mapNew(USER, PAGE, true);
    one.setTopEntry(300, BigInt(one.root) | 0x63n);
    one.setTopEntry(301, BigInt(other.root) | 0x63n);
    other.setTopEntry(300, BigInt(other.root) | 0x63n);
    const { result, kinds } = await walk(memory, [one.root, other.root]);
    expect(kinds(one.translate(USER)!)).toEqual(['user']);
    expect(kinds(one.root)).toEqual(['kernelTable']);
    expect(result).toMatchObject({ tables: 2 + 3 + 2, missingTables: 0 });
  });

  it('ends with entries that point back, down and out of memory', async () => {
    const memory = new PhysicalMemory(2 << 20, 1);
    const tables = new PageTables(memory);
    tables.mapNew(KERNEL, PAGE);
    const top = Number(tables.topEntry(496) & 0xffff_f000n);
    const entries: [table: number, index: number, entry: bigint][] = [
      [top, 1, BigInt(tables.root) | 0x63n],
      [top, 2, BigInt(top) | 0x63n],
      [top, 3, 0x000f_ffff_ffff_f063n],
      [top, 4, 0x63n | (1n << 40n)],
      [tables.root, 497, BigInt(top) | 0x63n],
    ];
    for (const [table, index, entry] of entries) memory.page(table).writeBigUInt64LE(entry, index * 8);
    const { result, kinds } = await walk(memory, [tables.root]);
    expect(kinds(tables.translate(KERNEL)!)).toContain('kernel');
    expect(result).toMatchObject({ missingTables: 2, endless: false });
  });

  it('reads tables that roots share once', async () => {
    const memory = new PhysicalMemory(2 << 20, 1);
    const roots = Array.from({ length: 10 }, () => new PageTables(memory));
    roots[0]!.mapNew(KERNEL, PAGE);
    for (const root of roots) root.setTopEntry(496, roots[0]!.topEntry(496));
    const { result } = await walk(
      memory,
      roots.map(({ root }) => root),
    );
    expect(result.tables).toBe(2 * roots.length + 3);
  });

  it('reads no more tables than there are pages', async () => {
    const pages = 512;
    const memory = new PhysicalMemory(pages * PAGE, 1);
    // Every entry of every page leads to another page.
    for (let page = 0; page < pages; page++) {
      const bytes = memory.page(page * PAGE);
      for (let i = 0; i < 512; i++) bytes.writeBigUInt64LE(BigInt(((page * 7 + i) % pages) * PAGE) | 0x63n, i * 8);
    }
    const { result } = await walk(memory, [0]);
    expect(result).toMatchObject({ tables: pages, endless: true });
  });

  it('survives a root that is not there', async () => {
    const memory = new PhysicalMemory(1 << 20, 1);
    expect((await walk(memory, [0x7fff_f000])).result).toMatchObject({ tables: 0, missingTables: 1 });
  });
});

describe('long walks', () => {
  const counting = () => {
    const pulse = { beats: 0, beat: async () => void pulse.beats++ };
    return pulse;
  };

  it('can be interrupted between tables', async () => {
    const memory = new PhysicalMemory(8 << 20, 1);
    const tables = new PageTables(memory);
    for (let i = 0; i < 300; i++) tables.mapNew(KERNEL + BigInt(i) * 0x20_0000n, PAGE);
    const image = imageOf([{ start: 0, bytes: memory.flat(0, memory.bytes) }]);
    const pulse = counting();
    const { tables: read } = await walkTables(
      new AddressSpace(image, pa(tables.root), PAGING_4_LEVELS),
      [tables.root],
      new PageMap(image),
      pulse,
    );
    expect(read).toBeGreaterThan(300);
    expect(pulse.beats).toBeGreaterThanOrEqual(4);
  });
});
