import { describe, expect, it } from 'vitest';
import { searchMemory } from '../../src/locate/memory-search.ts';
import { createScanMemory } from '../../src/machines/page-scan.ts';
import { X64 } from '../../src/machines/x64/index.ts';
import { X86 } from '../../src/machines/x86/index.ts';
import { buildTrueGuest } from '../guest/true-guest.ts';
import { imageOf } from '../support/images.ts';
import fc from '../support/properties.ts';

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

describe('the first look at pages of 32-bit Windows', () => {
  const PAGE = 0x1000;
  const { buffers, ...memory } = createScanMemory(9 * PAGE, 1);
  const buffer = buffers[0]!;
  const scan = X86.createPageScan({ buffers, ...memory })!;
  const words = new Uint32Array(buffer.buffer, buffer.byteOffset, buffer.length / 4);
  const cluesIn = (page: number, physical: number) => [
    ...X86.pageClues(words, (page * PAGE) / 4, physical + page * PAGE),
  ];

  const WHAT = [
    'self-map',
    'large page',
    'directories',
    'same directories',
    'entry with more',
    'kpcr',
    'stray kpcr',
    'tag',
    'noise',
  ] as const;
  const marks = fc.array(fc.record({ page: fc.nat(8), place: fc.nat(127), what: fc.constantFrom(...WHAT) }), {
    maxLength: 12,
  });
  const place = (what: (typeof WHAT)[number], page: number, within: number, physical: number) => {
    const at = page * PAGE + within;
    const own = (physical + page * PAGE) % 2 ** 32;
    const lines = page * PAGE + (within & ~63);
    const entry = (i: number, value: bigint) => buffer.writeBigUInt64LE(value, at + 8 * i);
    if (what === 'self-map') buffer.writeUInt32LE(own + 0x63, page * PAGE + 0xc00);
    else if (what === 'large page') buffer.writeUInt32LE(own + 0xe3, page * PAGE + 0xc00);
    else if (what === 'directories') for (let i = 0; i < 4; i++) entry(i, 0xf_1234_5021n + BigInt(i * PAGE));
    else if (what === 'same directories') for (let i = 0; i < 4; i++) entry(i, 0x5001n);
    else if (what === 'entry with more') for (let i = 0; i < 4; i++) entry(i, 0x10_0000_0001n + BigInt(i * PAGE));
    else if (what === 'tag') buffer.write('KDBG', at, 'latin1');
    else if (what === 'noise') buffer.writeUInt32LE(0x1001, at);
    else {
      const self = 0x8293_0000 + (within & ~63) + (what === 'kpcr' ? 0 : 8);
      buffer.writeUInt32LE(self, lines + 0x1c);
      buffer.writeUInt32LE(self + 0x120, lines + 0x20);
      buffer.writeUInt32LE(0x8083_0000, lines + 0x38);
    }
  };

  it('leaves out no page that has a clue or a tag, and passes over what nothing is in', () => {
    const kinds = new Set<string>();
    fc.assert(
      fc.property(marks, fc.constantFrom(0, 0x10_0000, 0xffff_8000, 0x1_2345_6000), (made, physical) => {
        buffer.fill(0);
        for (const { page, place: within, what } of made) place(what, page, 32 * within, physical);
        const found = new Set(scan.scan(0, 8 * PAGE, 9 * PAGE, physical));
        for (let page = 0; page < 9; page++) {
          const clues = page < 8 ? cluesIn(page, physical) : [];
          for (const clue of clues) kinds.add(clue.kind === 'root' ? clue.how : clue.kind);
          const here = made.filter((mark) => mark.page === page).map(({ what }) => what);
          const tagged = Array.from({ length: PAGE / 8 }, (_, i) => words[(page * PAGE) / 4 + 2 * i]).includes(
            0x4742_444b,
          );
          if (clues.length > 0 || tagged) expect(found.has(page * PAGE), here.join()).toBe(true);
          else if (here.every((what) => ['large page', 'entry with more', 'stray kpcr', 'noise'].includes(what)))
            expect(found.has(page * PAGE), here.join()).toBe(false);
        }
      }),
      { numRuns: 400 },
    );
    expect([...kinds].sort()).toEqual(['four page directories', 'kpcr', 'self-map']);
  });
});
