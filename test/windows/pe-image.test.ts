// Images of which pages are missing, as they are in a guest's memory.
import { describe, expect, it } from 'vitest';
import { pa } from '../../src/core/units.ts';
import { PAGING_4_LEVELS } from '../../src/machines/x64/paging.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import { findExport, nearestExport, type PeImage, readExports, readPeImage } from '../../src/windows/pe-image.ts';
import { PageTables, PhysicalMemory } from '../guest/memory.ts';
import { buildPe } from '../guest/pe.ts';
import { imageOf } from '../support/images.ts';

const BASE = 0xfffff800_00000000n;
const COUNT = 400;
const FUNCTIONS = Array.from({ length: COUNT }, (_, i) => ({
  name: `NtFunction${`${i}`.padStart(4, '0')}`,
  rva: 0x10000 + 0x20 * i,
  code: Buffer.from([0xc3]),
}));

/** An image with 400 exports without the page at `missing`: addresses are at 0x2000, names' at 0x2800, names from 0x4000. */
function imageWithout(missing: number): { space: AddressSpace; image: PeImage } {
  const bytes = buildPe({
    name: 'test.sys',
    pdb: 'test.pdb',
    guid: Buffer.alloc(16, 7),
    age: 1,
    size: 0x20000,
    imageBase: BASE,
    timeDateStamp: 1,
    functions: FUNCTIONS.map((f) => ({ ...f })),
  });
  const memory = new PhysicalMemory(1 << 21, 1);
  const tables = new PageTables(memory);
  for (let rva = 0; rva < bytes.length; rva += 0x1000) {
    if (rva === missing) continue;
    tables.mapNew(BASE + BigInt(rva), 0x1000);
    tables.write(BASE + BigInt(rva), bytes.subarray(rva, rva + 0x1000));
  }
  const space = new AddressSpace(
    imageOf([{ start: 0, bytes: memory.flat(0, memory.bytes) }]),
    pa(tables.root),
    PAGING_4_LEVELS,
  );
  return { space, image: readPeImage(space, BASE, 0x8664) as PeImage };
}

const found = ({ space, image }: ReturnType<typeof imageWithout>) =>
  FUNCTIONS.filter(({ name, rva }) => findExport(space, image, name) === BASE + BigInt(rva)).length;

describe('exports', () => {
  it('are all found where all pages are present', () => {
    const whole = imageWithout(-1);
    expect(found(whole)).toBe(COUNT);
    expect(readExports(whole.space, whole.image)?.entries).toHaveLength(COUNT);
  });

  it('are found by the names that are present, and an address has no other name', () => {
    // Names have 15 bytes with their NUL, and the first page begins with the image's: 8 characters and a NUL.
    const lost = FUNCTIONS.filter((_, i) => 9 + 15 * (i + 1) > 0x1000).length;
    const partial = imageWithout(0x5000);
    expect(found(partial)).toBe(COUNT - lost);
    const { space, image } = partial;
    const table = readExports(space, image)!;
    const nameOf = (i: number) => nearestExport(space, table, BASE + BigInt(FUNCTIONS[i]!.rva + 4));
    expect(nameOf(0)).toEqual({ name: FUNCTIONS[0]!.name, offset: 4 });
    expect(nameOf(COUNT - 1)).toBeUndefined();
  });

  it('have no addresses without their page', () => {
    const partial = imageWithout(0x2000);
    expect(found(partial)).toBe(0);
    expect(readExports(partial.space, partial.image)).toBeUndefined();
  });
});
