import { describe, expect, it } from 'vitest';
import { byKey } from '../../src/core/by-key.ts';
import { RangesFound } from '../../src/core/ranges-found.ts';
import fc from '../support/properties.ts';

const range = fc.record({ from: fc.bigInt({ min: 0n, max: 64n }), size: fc.nat({ max: 12 }) });

describe('ranges found by address', () => {
  it('are those that a search of their list finds, in its order', () => {
    fc.assert(
      fc.property(
        fc.array(range),
        fc.bigInt({ min: 0n, max: 80n }),
        fc.integer({ min: 1, max: 9 }),
        (list, at, size) => {
          const slow = list.filter((r) => at < r.from + BigInt(r.size) && r.from < at + BigInt(size));
          const found = new RangesFound(list);
          expect(found.all(at, size)).toEqual(slow);
          expect(found.first(at, size)).toBe(slow[0]);
          expect(found.first(at)).toBe(list.find((r) => at >= r.from && at < r.from + BigInt(r.size)));
        },
      ),
    );
  });
});

describe('values by key', () => {
  it('are those that a search of their list finds', () => {
    const value = fc.record({ key: fc.nat({ max: 5 }), what: fc.nat() });
    fc.assert(
      fc.property(fc.array(value), fc.nat({ max: 5 }), (list, key) => {
        expect(byKey(list, (each) => each.key).get(key)).toBe(list.find((each) => each.key === key));
      }),
    );
    expect(byKey(undefined, String).size).toBe(0);
  });
});
