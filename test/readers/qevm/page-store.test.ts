import { describe, expect, it } from 'vitest';
import { type PagePlace, PageStore } from '../../../src/readers/qevm/page-store.ts';
import { applyDelta } from '../../../src/readers/qevm/ram.ts';
import fc from '../../support/properties.ts';

type Set = [page: number, kind: 'fill' | 'raw' | 'compressed' | 'delta', value: number];

const place = (kind: Set[1], value: number): PagePlace => {
  if (kind === 'fill') return { kind, byte: value };
  return kind === 'delta' ? { kind, delta: value } : { kind, offset: value };
};

describe('PageStore', () => {
  it('says of each page what was said last', () => {
    const set = fc.oneof(
      fc.tuple(
        fc.nat(1299),
        fc.constantFrom('raw', 'compressed', 'delta' as const),
        fc.maxSafeNat().map((n) => n % 2 ** 44),
      ),
      fc.tuple(fc.nat(1299), fc.constant('fill' as const), fc.nat(255)),
    ) as fc.Arbitrary<Set>;
    fc.assert(
      fc.property(fc.array(set, { maxLength: 200 }), (sets) => {
        const store = new PageStore(1300);
        const naive = new Map<number, PagePlace>();
        for (const [page, kind, value] of sets) {
          store.set(page, kind, value);
          naive.set(page, place(kind, value));
        }
        store.close();
        for (let page = 0; page < 1300; page++) {
          expect(store.get(page)).toEqual(naive.get(page) ?? { kind: 'absent' });
        }
        for (let page = 0; page < 1300; ) {
          const run = store.run(page);
          for (let i = 0; i < run.pages; i++) expect(naive.has(page + i)).toBe(!run.absent);
          if (page + run.pages < 1300) expect(naive.has(page + run.pages)).toBe(run.absent);
          page += run.pages;
        }
      }),
    );
  });

  it('steps over what a damaged stream claims to have, however large', () => {
    const store = new PageStore(2 ** 40);
    store.set(2 ** 39, 'fill', 1);
    store.set(3, 'fill', 1);
    store.close();
    const runs: number[] = [];
    for (let page = 0; page < store.pages; ) {
      const { absent, pages } = store.run(page);
      runs.push(absent ? -pages : pages);
      page += pages;
    }
    expect(runs).toEqual([-3, 1, -(2 ** 39 - 4), 1, -(2 ** 39 - 1)]);
  });

  it('keeps a first pass, and what replaces some of it', () => {
    fc.assert(
      fc.property(
        fc.array(fc.boolean(), { minLength: 1024, maxLength: 1024 }),
        fc.array(fc.nat(1023), { maxLength: 30 }),
        (raw, again) => {
          const store = new PageStore(1024);
          const naive: PagePlace[] = [];
          let at = 1000;
          raw.forEach((isRaw, page) => {
            store.set(page, isRaw ? 'raw' : 'fill', isRaw ? at + 8 : 0);
            naive[page] = isRaw ? { kind: 'raw', offset: at + 8 } : { kind: 'fill', byte: 0 };
            at += isRaw ? 4104 : 9;
          });
          for (const page of again) {
            store.set(page, 'raw', at);
            naive[page] = { kind: 'raw', offset: at };
            at += 4104;
          }
          store.close();
          naive.forEach((expected, page) => {
            expect(store.get(page)).toEqual(expected);
          });
        },
      ),
    );
  });
});

describe('applyDelta', () => {
  it('takes no difference that goes beyond the page or itself', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (delta) => {
        const page = Buffer.alloc(4096, 1);
        applyDelta(page, Buffer.from(delta));
        expect(page.length).toBe(4096);
      }),
    );
    expect(applyDelta(Buffer.alloc(4096), Buffer.from([0xff, 0x1f, 2, 1, 2]))).toBe(false);
    expect(applyDelta(Buffer.alloc(4096), Buffer.from([0, 5, 1, 2]))).toBe(false);
  });
});
