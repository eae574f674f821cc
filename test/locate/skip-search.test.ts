import { describe, expect, it } from 'vitest';
import { SkipSearch } from '../../src/locate/skip-search.ts';
import fc from '../support/properties.ts';

describe('SkipSearch', () => {
  it('finds what Buffer.indexOf finds', () => {
    // A small alphabet makes partial matches and overlaps frequent.
    const text = fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 300 }).map((a) => Buffer.from(a));
    const pattern = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 6 }).map((a) => Buffer.from(a));
    fc.assert(
      fc.property(text, pattern, (buffer, needle) => {
        const expected = [];
        for (let at = buffer.indexOf(needle); at >= 0; at = buffer.indexOf(needle, at + 1)) expected.push(at);
        expect([...new SkipSearch(needle).all(buffer)]).toEqual(expected);
      }),
      { numRuns: 1000 },
    );
  });

  it('refuses an empty pattern', () => {
    expect(() => new SkipSearch(Buffer.alloc(0))).toThrow(RangeError);
  });
});
