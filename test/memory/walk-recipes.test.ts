// Page tables as text: entries in, what addresses lead to out. `@1000 [3]=2003` is entry 3 (hexadecimal) of the table
// at physical 0x1000; `123 -> 6123` is a virtual and a physical address, and `123 -> PDE` the entry where a walk ends.
import { describe, expect, it } from 'vitest';
import { pa } from '../../src/core/units.ts';
import { ABSENT, type PageEntry, type PagingMode } from '../../src/machines/paging-mode.ts';
import { PAGING_4_LEVELS, PAGING_5_LEVELS } from '../../src/machines/x64/paging.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import { PageMap } from '../../src/memory/page-map.ts';
import { Mapped, walkTables } from '../../src/memory/table-walk.ts';
import { imageOf } from '../support/images.ts';

/**
 * Made up to be unlike x64: bit 0 valid, bit 1 a table (or page) and not a block, bit 7 read-only and nothing else.
 * Two levels of 4-byte entries, as 32-bit x86 has them.
 */
const toy = (entrySize: 4 | 8, levels: PagingMode['levels'], more: Partial<PagingMode> = {}): PagingMode => ({
  name: 'toy',
  addressBits: 32,
  levels,
  entrySize,
  decode: (level, low, high): PageEntry => {
    const physical = high * 2 ** 32 + ((low & 0xffff_f000) >>> 0);
    const last = level === levels.length - 1;
    if ((low & 1) === 0) return last && low !== 0 ? { kind: 'transition', physical } : ABSENT;
    if (last) return { kind: 'page', physical, size: 0x1000 };
    const size = 2 ** levels[level]!.shift;
    return (low & 2) === 0
      ? { kind: 'page', physical: physical - (physical % size), size }
      : { kind: 'table', physical };
  },
  kernelFrom: 512,
  selfMapLevel: 0,
  root: { address: 0xffff_f000n, reserved: 0n },
  debuggerRoot: undefined,
  ...more,
});

const SMALL = toy(4, [
  { name: 'PDE', shift: 22, bits: 10 },
  { name: 'PTE', shift: 12, bits: 10 },
]);

/** Four entries at the root, which is aligned to its 32 bytes only. */
const SHORT_ROOT = toy(
  8,
  [
    { name: 'PDPTE', shift: 30, bits: 2 },
    { name: 'PDE', shift: 21, bits: 9 },
    { name: 'PTE', shift: 12, bits: 9 },
  ],
  { kernelFrom: 2, selfMapLevel: 1, root: { address: 0xffff_ffe0n, reserved: 0n } },
);

const MEMORY = 0x40_0000;

/** The image that a recipe's tables make. */
function build(mode: PagingMode, recipe: string) {
  const memory = Buffer.alloc(MEMORY);
  let table = 0;
  for (const [, at, index, entry] of recipe.matchAll(/@([0-9a-f]+)|\[([0-9a-f]+)\]=([0-9a-f]+)/g)) {
    if (at !== undefined) table = Number.parseInt(at, 16);
    else {
      const offset = table + Number.parseInt(index!, 16) * mode.entrySize;
      if (mode.entrySize === 8) memory.writeBigUInt64LE(BigInt(`0x${entry}`), offset);
      else memory.writeUInt32LE(Number.parseInt(entry!, 16), offset);
    }
  }
  return imageOf([{ start: 0, bytes: memory }]);
}

/** What a recipe's addresses lead to, in its own form. */
function walked(mode: PagingMode, root: number, tables: string, addresses: string): string {
  const space = new AddressSpace(build(mode, tables), pa(root), mode);
  return addresses
    .trim()
    .split('\n')
    .map((line) => {
      const virtual = line.trim().split(' ')[0]!;
      const end = space.walk(BigInt(`0x${virtual}`));
      if ('reason' in end) return `${virtual} -> ${end.level ?? end.reason}`;
      const size = end.pageSize === 0x1000 ? '' : ` of ${end.pageSize.toString(16)}`;
      return `${virtual} -> ${end.physical.toString(16)}${size}`;
    })
    .join('\n');
}

const lines = (text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => line.trim())
    .join('\n');

const RECIPES: readonly [string, PagingMode, number, string, string][] = [
  [
    'x64, four levels: pages, large pages, a table and a page that are missing',
    PAGING_4_LEVELS,
    0x1000,
    `@1000 [0]=2003 [1f0]=2003 [1ff]=f0000003
     @2000 [0]=3003 [1]=80000083
     @3000 [0]=4003 [1]=6010e3 [2]=0
     @4000 [0]=9003 [1]=8000000000007003 [2]=6000 [3]=5880 [4]=5c00`,
    `123 -> 9123
     1fff -> 7fff
     2000 -> PTE
     3010 -> 5010
     4000 -> PTE
     200123 -> 600123 of 200000
     400000 -> PDE
     40000005 -> 80000005 of 40000000
     80000000 -> PDPTE
     fffff80000000123 -> 9123
     ffffff8000000000 -> PDPTE
     800000000000 -> not-canonical`,
  ],
  [
    'x64, five levels',
    PAGING_5_LEVELS,
    0x1000,
    `@1000 [0]=2003 [1ff]=2003
     @2000 [0]=3003 [1f0]=3003
     @3000 [0]=4003
     @4000 [0]=5003
     @5000 [0]=9003`,
    `123 -> 9123
     fffff80000000123 -> 9123
     ff00000000000000 -> PML5E
     fe00000000000000 -> not-canonical`,
  ],
  [
    'entries of 4 bytes, blocks, and bit 7 of no importance',
    SMALL,
    0x1000,
    `@1000 [0]=2083 [1]=c00081 [200]=2003 [3ff]=1083
     @2000 [0]=9083 [1]=7003 [2]=6000 [3ff]=8001`,
    `123 -> 9123
     1fff -> 7fff
     2123 -> 6123
     3000 -> PTE
     3ff010 -> 8010
     400123 -> c00123 of 400000
     800000 -> PDE
     ffffffff80000123 -> 9123
     fffffffffffff123 -> 1123
     80000123 -> not-canonical`,
  ],
  [
    'a root that is not aligned to a page, with neighbours',
    SHORT_ROOT,
    0x1ac0,
    `@1aa0 [0]=ffff003 [1]=ffff003 [2]=ffff003 [3]=ffff003
     @1ac0 [0]=2003 [2]=3003
     @1ae0 [0]=ffff003
     @2000 [0]=4003
     @3000 [1ff]=4003
     @4000 [0]=9003 [1ff]=100009003`,
    `123 -> 9123
     40000000 -> PDPTE
     ffffffffbfe00123 -> 9123
     ffffffffbffff123 -> 100009123
     ffffffffc0000000 -> PDPTE`,
  ],
];

describe('page tables as text', () => {
  it.each(RECIPES)('%s', (_, mode, root, tables, addresses) => {
    expect(walked(mode, root, tables, addresses)).toBe(lines(addresses));
  });
});

describe('walking all tables', () => {
  const marked = async (mode: PagingMode, roots: readonly number[], tables: string) => {
    const image = build(mode, tables);
    const map = new PageMap(image);
    const result = await walkTables(new AddressSpace(image, pa(roots[0]!), mode), roots, map);
    const kinds = [...map.runs()].flatMap(({ start, pages, bits }) => {
      const names = Object.entries(Mapped).filter(([, bit]) => (bits & bit) !== 0);
      const addresses = names.length > 0 ? Array.from({ length: pages }, (_, i) => start + i * 0x1000) : [];
      return addresses.map((address) => `${address.toString(16)} ${names.map(([name]) => name).join(' ')}`);
    });
    return { result, kinds };
  };

  it('takes entries of 4 bytes, and what bit 7 means from the mode', async () => {
    const { result, kinds } = await marked(
      SMALL,
      [0x1000],
      `@1000 [0]=2083 [200]=3083 [300]=1003
       @2000 [0]=9083 [1]=a000
       @3000 [0]=b083 [1]=c000`,
    );
    expect(kinds).toEqual([
      '1000 kernelTable',
      '2000 userTable',
      '3000 kernelTable',
      '9000 user',
      'a000 userSoft',
      'b000 kernel',
      'c000 kernelSoft',
    ]);
    expect(result).toMatchObject({ tables: 4, missingTables: 0, transition: [0xc000] });
  });

  it('follows each of the roots that share a page, and not a self-map below the root', async () => {
    const { result, kinds } = await marked(
      SHORT_ROOT,
      [0x1000, 0x1020],
      `@1000 [0]=2003 [2]=3003
       @1020 [0]=4003 [2]=3003
       @2000 [0]=5003
       @3000 [0]=6003 [1f0]=2003 [1f1]=4003 [1f2]=3003
       @4000 [0]=7003
       @5000 [0]=9003
       @6000 [0]=a003
       @7000 [0]=b003`,
    );
    expect(kinds).toEqual([
      '1000 kernelTable',
      '2000 userTable',
      '3000 kernelTable',
      '4000 userTable',
      '5000 userTable',
      '6000 kernelTable',
      '7000 userTable',
      '9000 user',
      'a000 kernel',
      'b000 user',
    ]);
    expect(result).toMatchObject({ missingTables: 0, endless: false });
  });
});
