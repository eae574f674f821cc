// Patches as they are collected: all of one or nothing of it, and never two for one byte.
import { describe, expect, it } from 'vitest';
import { Diagnostics } from '../../src/core/errors.ts';
import { pa } from '../../src/core/units.ts';
import { PAGING_4_LEVELS } from '../../src/machines/x64/paging.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import { PatchSet } from '../../src/plan/patches.ts';
import { PageTables, PhysicalMemory } from '../guest/memory.ts';
import { imageOf } from '../support/images.ts';

const BASE = 0xfffff800_00000000n;
const PAGE = 0x1000n;

/** Two pages in the other order in physical memory, one that nothing maps, and one more. */
function patchSet() {
  const memory = new PhysicalMemory(1 << 20, 1);
  const tables = new PageTables(memory);
  const [first, second] = [memory.allocate(), memory.allocate()].sort((a, b) => b - a);
  tables.map(BASE, first!);
  tables.map(BASE + PAGE, second!);
  tables.mapNew(BASE + 3n * PAGE, 0x1000);
  // Another address of the first page.
  tables.map(BASE + 4n * PAGE, tables.translate(BASE)!);
  tables.write(BASE, Buffer.alloc(0x1000, 0x11));
  const image = imageOf([{ start: 0, bytes: memory.flat(0, memory.bytes) }]);
  const diagnostics = new Diagnostics();
  const patches = new PatchSet(new AddressSpace(image, pa(tables.root), PAGING_4_LEVELS), diagnostics);
  const list = () => patches.list.map(({ what, physical, bytes }) => [what, physical, bytes.length]);
  const said = () => diagnostics.list.map(({ severity, code, message }) => `${severity} ${code}: ${message}`);
  return { patches, list, said, physicalOf: (at: bigint) => tables.translate(at)! };
}

describe('patches', () => {
  it('are in the order of physical memory, a piece for each page', () => {
    const { patches, list, said, physicalOf } = patchSet();
    expect(patches.add('a', BASE + PAGE - 4n, Buffer.alloc(8, 0x22))).toBe(true);
    const [first, second] = [physicalOf(BASE + PAGE), physicalOf(BASE + PAGE - 4n)];
    expect(first).toBeLessThan(second);
    expect([list(), said()]).toEqual([
      [
        ['a', first, 4],
        ['a', second, 4],
      ],
      [],
    ]);
  });

  it('are only those that change something', () => {
    const { patches, list } = patchSet();
    expect(patches.add('as it is', BASE, Buffer.alloc(16, 0x11))).toBe(true);
    expect(patches.add('other', BASE + 0x100n, Buffer.alloc(16, 0x22))).toBe(true);
    expect(list().map(([what]) => what)).toEqual(['other']);
  });

  it('are refused as a whole, as a loss, where a byte is not in the dump', () => {
    const { patches, list, said } = patchSet();
    expect(patches.add('cut', BASE + 2n * PAGE - 8n, Buffer.alloc(16, 0x22))).toBe(false);
    expect([list(), said()]).toEqual([
      [],
      ['loss patch-impossible: cut could not be set: its memory at 0xfffff80000002000 is not in the dump'],
    ]);
  });

  it('are refused as a whole, as a loss, where another one has a byte, by whatever address', () => {
    const { patches, list, said } = patchSet();
    patches.add('first', BASE + 0x10n, Buffer.alloc(16, 0x22));
    const together = [
      { what: 'b', virtual: BASE + 3n * PAGE, bytes: Buffer.alloc(8, 0x22) },
      { what: 'c', virtual: BASE + 4n * PAGE + 0x1fn, bytes: Buffer.alloc(8, 0x22) },
    ];
    expect(patches.addTogether(together)).toBe(false);
    expect(list().map(([what]) => what)).toEqual(['first']);
    expect(said()).toEqual([
      'loss patch-impossible: c could not be set: its memory at 0xfffff8000000401f is also that of first',
    ]);
    // Right behind it there is room.
    expect(patches.add('next', BASE + 4n * PAGE + 0x20n, Buffer.alloc(8, 0x22))).toBe(true);
  });
});
