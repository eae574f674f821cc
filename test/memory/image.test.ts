import { describe, expect, it } from 'vitest';
import { pa } from '../../src/core/units.ts';
import { imageOf } from '../support/images.ts';
import fc, { noise } from '../support/properties.ts';

const SPAN = 0x8000;

/** Random disjoint pieces within SPAN, and the same as a byte array with holes. */
const pieces = fc
  .uniqueArray(fc.integer({ min: 0, max: SPAN }), { minLength: 2, maxLength: 16 })
  .map((cuts) => cuts.sort((a, b) => a - b))
  .map((cuts) => {
    const model: (number | undefined)[] = new Array(SPAN).fill(undefined);
    const list = [];
    for (let i = 0; i + 1 < cuts.length; i += 2) {
      const bytes = noise(cuts[i + 1]! - cuts[i]!, cuts[i]);
      list.push({ start: cuts[i]!, bytes });
      bytes.forEach((b, at) => {
        model[cuts[i]! + at] = b;
      });
    }
    return { list, model };
  });

describe('MemoryImage', () => {
  it('reads what is present, across runs that touch, and refuses what is not', () => {
    fc.assert(
      fc.property(pieces, fc.nat(SPAN - 1), fc.integer({ min: 1, max: 0x3000 }), ({ list, model }, at, length) => {
        const expected = model.slice(at, at + length);
        const present = expected.length === length && expected.every((b) => b !== undefined);
        const image = imageOf(list);
        const target = Buffer.alloc(length);
        expect(image.has(at, length)).toBe(present);
        expect(image.readSync(at, target)).toBe(present);
        if (present) expect([...target]).toEqual(expected);
      }),
    );
  });

  it('gives the parts of a range that are present, as long as they are', () => {
    fc.assert(
      fc.property(pieces, fc.nat(SPAN - 1), fc.integer({ min: 1, max: 0x3000 }), ({ list, model }, at, length) => {
        const parts = imageOf(list).presentParts(at, length);
        const end = Math.min(SPAN, at + length);
        const isIn = (byte: number) => parts.filter(({ start, size }) => byte >= start && byte < start + size).length;
        for (let byte = at; byte < end; byte++) {
          if (isIn(byte) !== Number(model[byte] !== undefined)) expect(`${byte}: ${isIn(byte)} parts`).toBe('one');
        }
        parts.slice(1).forEach(({ start }, i) => {
          expect(start).toBeGreaterThan(parts[i]!.start + parts[i]!.size);
        });
      }),
      { numRuns: 30 },
    );
  });

  it('gives the same bytes by pages as by one read', () => {
    fc.assert(
      fc.property(pieces, ({ list, model }) => {
        const image = imageOf(list);
        for (let page = 0; page < SPAN; page += 0x1000) {
          const expected = model.slice(page, page + 0x1000);
          const bytes = image.page(pa(page));
          if (expected.some((b) => b === undefined)) expect(bytes).toBeUndefined();
          else expect([...bytes!]).toEqual(expected);
          // The second time it comes from the cache.
          expect(image.page(pa(page))).toBe(bytes);
        }
      }),
    );
  });

  it('splits memory into whole pages and the rest', () => {
    fc.assert(
      fc.property(pieces, ({ list, model }) => {
        const { extents, partial } = imageOf(list).pageExtents();
        const covered = new Array(SPAN).fill(false);
        for (const { start, size } of [...extents, ...partial]) {
          for (let i = start; i < start + size; i++) {
            if (covered[i]) throw new Error(`byte ${i} is in two pieces`);
            covered[i] = true;
          }
        }
        expect(covered).toEqual(model.map((b) => b !== undefined));
        for (const { start, size } of extents) expect([start % 0x1000, size % 0x1000]).toEqual([0, 0]);
        // Every page that is wholly there is in an extent.
        for (let page = 0; page < SPAN; page += 0x1000) {
          const whole = model.slice(page, page + 0x1000).every((b) => b !== undefined);
          expect(extents.some((e) => page >= e.start && page < e.start + e.size)).toBe(whole);
        }
      }),
    );
  });

  it('joins runs that meet within a page to a whole page', () => {
    const image = imageOf([
      { start: 0x1000, bytes: Buffer.alloc(0x800, 1) },
      { start: 0x1800, bytes: Buffer.alloc(0x800, 2) },
    ]);
    expect(image.pageExtents()).toEqual({ extents: [{ start: 0x1000, size: 0x1000 }], partial: [] });
    expect(image.page(pa(0x1000))?.subarray(0x7ff, 0x801)).toEqual(Buffer.from([1, 2]));
  });

  it('keeps its cache bounded', () => {
    const bytes = Buffer.alloc(0x1000 * 3 * 4096);
    const image = imageOf([{ start: 0, bytes }]);
    for (let page = 0; page < bytes.length; page += 0x1000) image.page(pa(page));
    const before = image.bytesRead;
    image.page(pa(0));
    // The first page was dropped long ago, so it is read again.
    expect(image.bytesRead).toBe(before + 0x1000);
    image.page(pa(bytes.length - 0x1000));
    expect(image.bytesRead).toBe(before + 0x1000);
  });

  it('reads no more than is peeked at, and that from its cache where it is there', () => {
    const bytes = noise(0x3000);
    const image = imageOf([{ start: 0, bytes }]);
    const peeked = (at: number, length: number) => {
      const target = Buffer.alloc(length);
      const [before, present] = [image.bytesRead, image.peek(pa(at), target)];
      return [present && target.equals(bytes.subarray(at, at + length)), image.bytesRead - before];
    };
    expect(peeked(0x1010, 16)).toEqual([true, 16]);
    expect(peeked(0x0ff8, 16)).toEqual([true, 16]);
    image.page(pa(0x1000));
    expect(peeked(0x1010, 16)).toEqual([true, 0]);
    expect(peeked(0x2ff8, 16)[0]).toBe(false);
  });
});
