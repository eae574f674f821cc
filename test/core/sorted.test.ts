import { describe, expect, it } from 'vitest';
import { findIndex, firstIndex } from '../../src/core/sorted.ts';
import fc from '../support/properties.ts';

const sorted = fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 30 }).map((list) => list.sort((a, b) => a - b));

describe('firstIndex', () => {
  it('finds what a walk from the front finds', () => {
    fc.assert(
      fc.property(sorted, fc.integer({ min: -1, max: 41 }), (list, least) => {
        const walked = list.findIndex((value) => value >= least);
        expect(firstIndex(list.length, (i) => list[i]! >= least)).toBe(walked < 0 ? list.length : walked);
      }),
    );
  });

  it('asks a few times, also of more than 2^32 places', () => {
    let asked = 0;
    const at = firstIndex(2 ** 52, (i) => {
      asked++;
      return i >= 2 ** 40 + 12_345;
    });
    expect(at).toBe(2 ** 40 + 12_345);
    expect(asked).toBeLessThanOrEqual(53);
  });
});

describe('findIndex', () => {
  it('finds a value where there is one, and undefined where there is none', () => {
    fc.assert(
      fc.property(sorted, fc.integer({ min: -1, max: 41 }), (list, wanted) => {
        const at = findIndex(list.length, (i) => wanted - list[i]!);
        if (list.includes(wanted)) expect(list[at!]).toBe(wanted);
        else expect(at).toBeUndefined();
      }),
    );
  });

  it('ends where a place cannot be compared', () => {
    expect(findIndex(9, () => undefined)).toBeUndefined();
    expect(findIndex(9, (i) => (i === 4 ? 1 : undefined))).toBeUndefined();
  });
});
