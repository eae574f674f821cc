import { describe, expect, it } from 'vitest';
import { Reason } from '../../src/core/reason.ts';
import { pa } from '../../src/core/units.ts';
import { PAGING_4_LEVELS } from '../../src/machines/x64/paging.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import { readPageStates } from '../../src/windows/page-states.ts';
import { PAGE, PageTables, PhysicalMemory, random } from '../guest/memory.ts';
import { imageOf } from '../support/images.ts';

const VARIABLE = 0xfffff800_00000000n;
const DATABASE = 0xffffe280_00000000n;
const PAGES = 2048;
const [ZEROED, STANDBY, MODIFIED, BAD, ACTIVE] = [0, 2, 3, 5, 6];
/** Pages that page tables map, as far as the database is asked. */
const MAPPED = Array.from({ length: 64 }, (_, i) => (1024 + i) * PAGE);

/** Bytes of MMPFN as public symbols have them: state with its cache attribute, OriginalPte. */
const LAYOUTS = {
  'Windows 10': { stateAt: 0x22, cached: 0x40, originalPteAt: 0x10 },
  Vista: { stateAt: 0x1a, cached: 0x40, originalPteAt: 0x20 },
  'Server 2003': { stateAt: 0x19, cached: 0x10, originalPteAt: 0x20 },
} as const;

interface Entry {
  pfn: number;
  state: number;
  cached?: boolean;
  originalPte?: bigint;
  resident?: boolean;
}

function states(version: keyof typeof LAYOUTS, entries: readonly Entry[], absent: readonly number[] = []) {
  const { stateAt, cached, originalPteAt } = LAYOUTS[version];
  const memory = new PhysicalMemory(2 << 20, 1);
  const tables = new PageTables(memory);
  tables.mapNew(VARIABLE, PAGE);
  tables.mapNew(DATABASE, PAGES * 0x30);
  tables.u64(VARIABLE, DATABASE);
  const all: Entry[] = [...MAPPED.map((at) => ({ pfn: at / PAGE, state: ACTIVE })), ...entries];
  for (const { pfn, state, cached: isCached = true, originalPte = 0x80n, resident } of all) {
    const at = DATABASE + BigInt(pfn * 0x30);
    tables.u8(at + BigInt(stateAt), state | (isCached ? cached : 0));
    tables.u64(at + BigInt(originalPteAt), originalPte);
    if (resident) tables.u64(at + 0x28n, 1n << 40n);
  }
  for (const page of absent) tables.setEntry(DATABASE + BigInt(page * PAGE), 0n);
  const image = imageOf([{ start: 0, bytes: memory.flat(0, memory.bytes) }]);
  const space = new AddressSpace(image, pa(tables.root), PAGING_4_LEVELS);
  return readPageStates(image, space, VARIABLE, { mapped: MAPPED, transition: [] });
}

function believed(...args: Parameters<typeof states>) {
  const found = states(...args);
  if (found instanceof Reason) throw new Error(found.text);
  return found.states.of;
}

describe('the page frame database', () => {
  it.each(Object.keys(LAYOUTS) as (keyof typeof LAYOUTS)[])('is read as %s has it', (version) => {
    const state = believed(version, [
      { pfn: 1, state: STANDBY, originalPte: 0x480n },
      { pfn: 2, state: MODIFIED },
      { pfn: 3, state: ACTIVE, cached: false },
    ]);
    expect(state(1 * PAGE)).toEqual({ location: STANDBY, cached: true, isPrivate: false });
    expect(state(2 * PAGE)).toEqual({ location: MODIFIED, cached: true, isPrivate: true });
    expect(state(3 * PAGE)).toEqual({ location: ACTIVE, cached: false, isPrivate: true });
  });

  it('says what a page within a large free one is by the first entry', () => {
    const within = (from: number, pages: number): Entry[] =>
      Array.from({ length: pages - 1 }, (_, i) => ({ pfn: from + 1 + i, state: BAD, resident: true }));
    const state = believed('Windows 10', [
      { pfn: 512, state: ZEROED },
      ...within(512, 512),
      { pfn: 32, state: 1 },
      ...within(32, 16),
      { pfn: 48, state: BAD },
    ]);
    expect([513, 600, 528, 1023].map((pfn) => state(pfn * PAGE)?.location)).toEqual([ZEROED, ZEROED, ZEROED, ZEROED]);
    expect([33, 47].map((pfn) => state(pfn * PAGE)?.location)).toEqual([1, 1]);
    // Without the bit, bad memory.
    expect(state(48 * PAGE)?.location).toBe(BAD);
  });

  it('says nothing where an entry is not present, in part neither', () => {
    // Entry 85 begins in the first page and ends in the second.
    const state = believed('Windows 10', [{ pfn: 84, state: ACTIVE }], [1]);
    expect([84, 85, 90].map((pfn) => state(pfn * PAGE)?.location)).toEqual([ACTIVE, undefined, undefined]);
  });

  it('says how many pages have no entry, at most up to the next that has one', () => {
    const absent = [1, 2, 3];
    const found = states('Windows 10', [], absent);
    if (found instanceof Reason) throw new Error(found.text);
    const { of, pagesWithout } = found.states;
    for (let pfn = 85; of(pfn * PAGE) === undefined; pfn += pagesWithout(pfn * PAGE)) {
      const without = pagesWithout(pfn * PAGE);
      expect(without).toBeGreaterThan(0);
      for (let i = 0; i < without; i++) expect(of((pfn + i) * PAGE)).toBeUndefined();
      expect(pfn).toBeLessThan(4 * 86);
    }
  });

  it.each(Object.keys(LAYOUTS) as (keyof typeof LAYOUTS)[])(
    'says of runs of pages what it says of each, as %s has it',
    (version) => {
      const next = random(7);
      const entries: Entry[] = [];
      for (let pfn = 0; pfn < 1024; ) {
        const like = {
          state: Math.floor(next() * 8),
          cached: next() < 0.7,
          originalPte: next() < 0.5 ? 0x480n : 0x80n,
          resident: next() < 0.5,
        };
        for (let left = Math.floor(next() * 40); left >= 0 && pfn < 1024; left--) entries.push({ pfn: pfn++, ...like });
      }
      // Some pages of the database are missing, and it ends before the window does.
      const found = states(version, entries, [3, 4, 9]);
      if (found instanceof Reason) throw new Error(found.text);
      const { of, run } = found.states;
      let runs = 0;
      for (let pfn = 0; pfn < PAGES; runs++) {
        const { state, pages } = run(pfn * PAGE, Math.min(PAGES - pfn, 300));
        expect(pages).toBeGreaterThan(0);
        for (let i = 0; i < pages; i++) expect(of((pfn + i) * PAGE)).toEqual(state);
        pfn += pages;
      }
      expect(runs).toBeLessThan(PAGES);
    },
  );

  it('has no run that goes on into another large free page', () => {
    const within = (from: number, to: number): Entry[] =>
      Array.from({ length: to - from }, (_, i) => ({ pfn: from + i, state: BAD, resident: true }));
    // One of 2 MiB in which one of 64 KiB has its own state.
    const entries = [{ pfn: 0, state: ZEROED }, ...within(1, 32), { pfn: 32, state: 1 }, ...within(33, 64)];
    const found = states('Windows 10', entries);
    if (found instanceof Reason) throw new Error(found.text);
    const { of, run } = found.states;
    expect([47, 48].map((pfn) => of(pfn * PAGE)?.location)).toEqual([1, ZEROED]);
    expect(run(33 * PAGE, 64)).toMatchObject({ state: { location: 1 }, pages: 15 });
  });

  it('is not believed where it contradicts the page tables', () => {
    const wrong = MAPPED.slice(0, 4).map((at) => ({ pfn: at / PAGE, state: STANDBY }));
    expect(String(states('Windows 10', wrong))).toContain('does not agree with the page tables');
  });
});
