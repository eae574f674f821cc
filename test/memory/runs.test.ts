import { describe, expect, it } from 'vitest';
import { type PhysicalAddress, pa } from '../../src/core/units.ts';
import {
  append,
  endOf,
  type FileRun,
  firstEndingAfter,
  firstOverlap,
  firstWins,
  intersect,
  type PhysicalRun,
  type Range,
  sum,
  without,
} from '../../src/memory/runs.ts';
import fc from '../support/properties.ts';

const SPAN = 64;

/** Sorted, disjoint ranges within SPAN; they may touch. */
const ranges = fc
  .uniqueArray(fc.integer({ min: 0, max: SPAN }), { maxLength: 14 })
  .map((cuts) => cuts.sort((a, b) => a - b))
  .chain((cuts) =>
    fc.array(fc.boolean(), { minLength: cuts.length, maxLength: cuts.length }).map((kept) =>
      cuts.flatMap((start, i): PhysicalRun[] => {
        const next = cuts[i + 1];
        return next !== undefined && kept[i] ? [{ start: pa(start), size: next - start }] : [];
      }),
    ),
  );

/** The addresses in the ranges, one by one. */
const addresses = (list: readonly Range[]): number[] =>
  list.flatMap(({ start, size }) => Array.from({ length: size }, (_, i) => start + i));

const isDisjoint = (list: readonly Range[]): boolean =>
  list.every((range, i) => range.size > 0 && (i === 0 || endOf(list[i - 1]!) <= range.start));

describe('intersect and without', () => {
  it('agree with sets of addresses', () => {
    fc.assert(
      fc.property(ranges, ranges, (a, b) => {
        const inB = new Set(addresses(b));
        const [both, rest] = [intersect(a, b), without(a, b)];
        expect(addresses(both)).toEqual(addresses(a).filter((at) => inB.has(at)));
        expect(addresses(rest)).toEqual(addresses(a).filter((at) => !inB.has(at)));
        expect(isDisjoint(both) && isDisjoint(rest)).toBe(true);
        expect(sum(both) + sum(rest)).toBe(sum(a));
      }),
    );
  });
});

describe('firstEndingAfter', () => {
  it('finds what a walk from the front finds', () => {
    fc.assert(
      fc.property(ranges, fc.integer({ min: 0, max: SPAN }), (list, address) => {
        const walked = list.findIndex((range) => endOf(range) > address);
        expect(firstEndingAfter(list, address)).toBe(walked < 0 ? list.length : walked);
      }),
    );
  });
});

const files = fc.array(
  fc.record({
    start: fc.integer({ min: 0, max: SPAN }).map(pa),
    size: fc.integer({ min: 1, max: 12 }),
    fileOffset: fc.integer({ min: 0, max: 200 }),
  }),
  { maxLength: 8 },
);

/** Where the file has each address: of two runs with it, the earlier one's place. */
function places(runs: readonly FileRun[]): Map<number, number> {
  const found = new Map<number, number>();
  for (const { start, size, fileOffset } of runs) {
    for (let i = 0; i < size; i++) if (!found.has(start + i)) found.set(start + i, fileOffset + i);
  }
  return found;
}

describe('firstWins', () => {
  it('keeps for each address the place of the first run that has it', () => {
    fc.assert(
      fc.property(files, (list) => {
        const sorted = [...list].sort((a, b) => a.start - b.start);
        let lost = 0;
        const kept = firstWins(sorted, (_kept, _run, bytes) => {
          lost += bytes;
        });
        expect(isDisjoint(kept)).toBe(true);
        expect([...places(kept)].sort(([a], [b]) => a - b)).toEqual([...places(sorted)].sort(([a], [b]) => a - b));
        expect(sum(sorted) - sum(kept)).toBe(lost);
      }),
    );
  });
});

describe('append', () => {
  it('joins runs that go on in memory, and in the file where they lie in one', () => {
    fc.assert(
      fc.property(ranges, (list) => {
        const joined: { start: PhysicalAddress; size: number }[] = [];
        for (const run of list) append(joined, { ...run });
        expect(addresses(joined)).toEqual(addresses(list));
        expect(joined.every((run, i) => i === 0 || endOf(joined[i - 1]!) < run.start)).toBe(true);
      }),
    );
    const runs: FileRun[] = [];
    append(runs, { start: pa(0), size: 4, fileOffset: 100 });
    append(runs, { start: pa(4), size: 4, fileOffset: 104 });
    append(runs, { start: pa(8), size: 4, fileOffset: 112 });
    expect(runs).toEqual([
      { start: 0, size: 8, fileOffset: 100 },
      { start: 8, size: 4, fileOffset: 112 },
    ]);
  });
});

describe('firstOverlap', () => {
  it('finds an overlap where there is one', () => {
    fc.assert(
      fc.property(ranges, (list) => {
        expect(firstOverlap(list)).toBeUndefined();
      }),
    );
    const [before, range] = [
      { start: 4, size: 5 },
      { start: 8, size: 1 },
    ];
    expect(firstOverlap([{ start: 0, size: 4 }, before, range])).toEqual({ before, range });
  });
});
