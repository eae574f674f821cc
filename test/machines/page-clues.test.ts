import { describe, expect, it } from 'vitest';
import { searchMemory } from '../../src/locate/memory-search.ts';
import { X64 } from '../../src/machines/x64/index.ts';
import { buildTrueGuest } from '../guest/true-guest.ts';
import { imageOf } from '../support/images.ts';

describe('KPCRs in a search of memory', () => {
  it.each(['7', '2008', '2004', '11 24H2'] as const)('are all found in %s', async (generation) => {
    const guest = buildTrueGuest({ generation });
    const image = imageOf([{ start: 0, bytes: guest.memory.flat(0, guest.ramBytes) }]);
    const { kpcrs } = await searchMemory(image);
    expect(kpcrs.map(({ virtual }) => virtual).sort()).toEqual(guest.truth.processors.map((p) => p.kpcr).sort());
  });

  it('are told from what only resembles them', () => {
    const page = Buffer.alloc(0x1000);
    const words = new Uint32Array(page.buffer, page.byteOffset, 1024);
    const place = (at: number, self: bigint) => {
      page.writeBigUInt64LE(self, at + 0x18);
      page.writeBigUInt64LE(self + 0x180n, at + 0x20);
      page.writeBigUInt64LE(0xfffff804_00002000n, at + 0x38);
    };
    const clues = () => [...X64.pageClues(words, 0, 0x20_0000)].map((clue) => clue.kind);
    // Not where it says that it is.
    place(0xd00, 0xfffff800_02a4ad40n);
    expect(clues()).toEqual([]);
    place(0xd00, 0xfffff800_02a4ad00n);
    expect(clues()).toEqual(['kpcr']);
    // It leads to an interrupt table, and to its PRCB.
    page.writeBigUInt64LE(0x2000n, 0xd38);
    expect(clues()).toEqual([]);
    place(0xd00, 0xfffff800_02a4ad00n);
    page.writeBigUInt64LE(0xfffff801_02a4ae80n, 0xd20);
    expect(clues()).toEqual([]);
  });
});
