import { describe, expect, it } from 'vitest';
import { pa, va } from '../../src/core/units.ts';
import { applyPatches, type Patch, patchAt } from '../../src/plan/patches.ts';
import fc from '../support/properties.ts';

const REACH = 64;

/** Sorted and disjoint, as plans have them. */
const patchesOf = (parts: readonly { gap: number; length: number }[]): Patch[] => {
  let at = 0;
  return parts.map(({ gap, length }, i) => {
    const physical = at + gap;
    at = physical + length;
    return {
      what: `patch ${i}`,
      virtual: va(0n),
      physical: pa(physical),
      bytes: Buffer.alloc(length, i + 1),
      original: Buffer.alloc(length),
    };
  });
};

const part = fc.record({ gap: fc.nat({ max: 5 }), length: fc.integer({ min: 1, max: 6 }) });

describe('sorted patches', () => {
  it('are applied to a part of memory as to all of it', () => {
    fc.assert(
      fc.property(
        fc.array(part, { maxLength: 12 }),
        fc.nat({ max: REACH }),
        fc.nat({ max: 20 }),
        (parts, at, length) => {
          const patches = patchesOf(parts);
          const all = Buffer.alloc(2 * REACH + 20);
          for (const { physical, bytes } of patches) bytes.copy(all, physical);
          const some = Buffer.alloc(length);
          applyPatches(patches, at, some);
          expect(some).toEqual(all.subarray(at, at + length));
        },
      ),
    );
  });

  it('are found by address', () => {
    fc.assert(
      fc.property(fc.array(part, { maxLength: 12 }), fc.nat({ max: REACH }), (parts, at) => {
        const patches = patchesOf(parts);
        const slow = patches.find(({ physical, bytes }) => at >= physical && at < physical + bytes.length);
        expect(patchAt(patches, at)).toBe(slow);
      }),
    );
  });
});
