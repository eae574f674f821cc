import { describe, expect, it } from 'vitest';
import { pa } from '../../src/core/units.ts';
import { PAGING_4_LEVELS, PAGING_5_LEVELS } from '../../src/machines/x64/paging.ts';
import { AddressSpace, describeFault } from '../../src/memory/address-space.ts';
import { imageOf } from '../support/images.ts';
import fc from '../support/properties.ts';

const TABLES = 24;

/** A naive walker, from the manual's words, in BigInt throughout. */
function naive(memory: Buffer, root: number, levels: number, virtual: bigint): bigint | undefined {
  const bits = levels === 5 ? 57n : 48n;
  const top = virtual >> (bits - 1n);
  if (top !== 0n && top !== (1n << (65n - bits)) - 1n) return undefined;
  let table = BigInt(root);
  for (let level = levels; level >= 1; level--) {
    const shift = 12n + 9n * BigInt(level - 1);
    const at = table + ((virtual >> shift) & 511n) * 8n;
    if (at + 8n > BigInt(memory.length)) return undefined;
    const entry = memory.readBigUInt64LE(Number(at));
    if ((entry & 1n) === 0n) {
      // Transition, not prototype: the page is still there.
      return level === 1 && (entry & 0xc00n) === 0x800n ? (entry & 0x1fff_ffff_f000n) | (virtual & 0xfffn) : undefined;
    }
    const address = entry & 0x000f_ffff_ffff_f000n;
    if (level === 1 || ((level === 2 || level === 3) && (entry & 0x80n) !== 0n)) {
      const mask = (1n << shift) - 1n;
      return (address & ~mask) | (virtual & mask);
    }
    table = address;
  }
  return undefined;
}

describe('AddressSpace', () => {
  for (const [levels, mode] of [
    [4, PAGING_4_LEVELS],
    [5, PAGING_5_LEVELS],
  ] as const) {
    it(`agrees with a naive walker on random tables of ${levels} levels`, () => {
      // Entries lead to other tables most of the time, also back to themselves, to holes, or are large.
      const entry = fc.record({
        table: fc.nat(TABLES + 1),
        present: fc.nat(9),
        large: fc.nat(5),
        high: fc.nat(0xfffff),
        nx: fc.boolean(),
        flags: fc.nat(0x7),
        software: fc.constantFrom(0n, 0n, 0x800n),
      });
      fc.assert(
        fc.property(
          fc.array(fc.tuple(fc.nat(TABLES - 1), fc.nat(511), entry), { minLength: 40, maxLength: 200 }),
          fc.array(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), { minLength: 1, maxLength: 10 }),
          fc.array(fc.array(fc.nat(1000), { minLength: levels, maxLength: levels }), { maxLength: 20 }),
          (entries, wild, paths) => {
            const memory = Buffer.alloc(TABLES * 0x1000);
            for (const [table, index, e] of entries) {
              // In an entry that is not present, bits up there are taken for those that Windows sets in all.
              const isSoft = e.present === 0 && e.software !== 0n;
              const far = e.large === 0 && e.high > 0x80000 && !isSoft ? BigInt(e.high) << 32n : 0n;
              let value = BigInt(e.table * 0x1000) | far | BigInt(e.flags << 1) | e.software;
              if (e.present > 0) value |= 1n;
              if (e.large === 0) value |= 0x80n;
              if (e.nx) value |= 1n << 63n;
              memory.writeBigUInt64LE(value, table * 0x1000 + index * 8);
            }
            // Addresses that go through entries which exist, so that walks get somewhere.
            const guided = paths.map((path) => {
              let address = 0n;
              let table = 0;
              for (const p of path) {
                const own = entries.filter(([t]) => t === table);
                const [, index, e] = own[p % Math.max(1, own.length)] ?? [0, p % 512, { table: 0 }];
                address = (address << 9n) | BigInt(index);
                table = e.table;
              }
              address = (address << 12n) | 0x123n;
              const bits = levels === 5 ? 57n : 48n;
              return (address >> (bits - 1n)) & 1n ? BigInt.asUintN(64, address | (-1n << bits)) : address;
            });
            const space = new AddressSpace(imageOf([{ start: 0, bytes: memory }]), pa(0), mode);
            for (const virtual of [...wild, ...guided]) {
              const expected = naive(memory, 0, levels, virtual);
              expect(space.translate(virtual)).toBe(expected === undefined ? undefined : Number(expected));
              expect(space.translate(virtual)).toBe(expected === undefined ? undefined : Number(expected));
            }
          },
        ),
        { numRuns: 200 },
      );
    });
  }

  const page = (...words: [number, bigint][]) => {
    const bytes = Buffer.alloc(0x1000);
    for (const [index, word] of words) bytes.writeBigUInt64LE(word, index * 8);
    return bytes;
  };

  it('reads across pages that are not contiguous, and says where a mapping ends', () => {
    const image = imageOf([
      { start: 0x1000, bytes: page([0, 0x2003n]) },
      { start: 0x2000, bytes: page([0, 0x3003n]) },
      { start: 0x3000, bytes: page([0, 0x4003n]) },
      { start: 0x4000, bytes: page([0, 0x9003n], [1, 0x7003n], [2, 0x6000n], [3, 0x5003n]) },
      { start: 0x7000, bytes: Buffer.alloc(0x1000, 7) },
      { start: 0x9000, bytes: Buffer.alloc(0x1000, 9) },
    ]);
    const space = new AddressSpace(image, pa(0x1000), PAGING_4_LEVELS);
    expect(space.read(0xffen, 4)).toEqual(Buffer.from([9, 9, 7, 7]));
    expect(space.pieces(0xff0n, 0x20)).toEqual([
      { offset: 0, length: 0x10, physical: 0x9ff0 },
      { offset: 0x10, length: 0x10, physical: 0x7000 },
    ]);
    expect(space.read(0x1ffen, 4)).toBeUndefined();
    expect(space.fault(0x2000n)).toMatchObject({ reason: 'not-present', level: 'PTE', entryAddress: 0x4010 });
    expect(describeFault(space.fault(0x2000n)!)).toBe(
      '0x0000000000002000 is not mapped: PTE at physical 0x4010 holds 0x0000000000006000',
    );
    expect(space.fault(0x3000n)).toMatchObject({ reason: 'page-missing', entryAddress: 0x5000 });
    expect(space.fault(0x40_0000n)).toMatchObject({ reason: 'not-present', level: 'PDE', region: 0x20_0000 });
    expect(space.fault(0x8000_0000_0000n)).toMatchObject({ reason: 'not-canonical' });
  });

  it('follows transition and prototype entries, but not in circles', () => {
    const prototypeAt = (address: bigint) => ((address & 0xffff_ffff_ffffn) << 16n) | 0x400n;
    const kernel = 0xffff_8000_0000_0000n;
    const image = imageOf([
      { start: 0x1000, bytes: page([256, 0x2003n]) },
      { start: 0x2000, bytes: page([0, 0x3003n]) },
      { start: 0x3000, bytes: page([0, 0x4003n]) },
      {
        start: 0x4000,
        bytes: page(
          [0, 0x5003n],
          [1, 0x6800n],
          [2, prototypeAt(kernel)],
          [3, prototypeAt(kernel + 8n)],
          [4, prototypeAt(kernel + 0x4000n)],
          [5, 0x6c00n],
          [6, prototypeAt(kernel + 16n)],
        ),
      },
      { start: 0x5000, bytes: page([0, 0x6001n], [1, 0x6800n], [2, 0x6000n]) },
      { start: 0x6000, bytes: Buffer.alloc(0x1000, 6) },
    ]);
    const space = new AddressSpace(image, pa(0x1000), PAGING_4_LEVELS);
    expect(space.translate(kernel + 0x1123n)).toBe(0x6123);
    expect(space.translate(kernel + 0x2123n)).toBe(0x6123);
    expect(space.translate(kernel + 0x3123n)).toBe(0x6123);
    expect(space.translate(kernel + 0x4123n)).toBeUndefined();
    expect(space.translate(kernel + 0x5123n)).toBeUndefined();
    expect(space.translate(kernel + 0x6123n)).toBeUndefined();
  });

  it('ignores the PAT bit in the address of a large page', () => {
    const image = imageOf([
      { start: 0x1000, bytes: page([0, 0x2003n]) },
      { start: 0x2000, bytes: page([0, 0x3003n]) },
      { start: 0x3000, bytes: page([1, 0x60_1083n]) },
    ]);
    const space = new AddressSpace(image, pa(0x1000), PAGING_4_LEVELS);
    expect(space.walk(0x20_0123n)).toEqual({ physical: 0x60_0123, pageSize: 0x20_0000 });
  });

  it('says which table is missing', () => {
    const space = new AddressSpace(
      imageOf([{ start: 0x1000, bytes: page([0, 0x5_2003n]) }]),
      pa(0x1000),
      PAGING_4_LEVELS,
    );
    expect(space.walk(0x4000_0000n)).toMatchObject({ reason: 'table-missing', level: 'PDPTE', entryAddress: 0x5_2008 });
  });
});
