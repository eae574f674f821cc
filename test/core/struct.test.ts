import { describe, expect, it } from 'vitest';
import { nested, raw, struct, u8, u16, u32, u64, u64s } from '../../src/core/struct.ts';
import fc from '../support/properties.ts';

const Inner = struct({ name: 'Inner', size: 4, fields: { x: u16(0), y: u16(2) } });
const Sample = struct({
  name: 'Sample',
  size: 0x40,
  fields: {
    a: u8(0),
    b: u16(2),
    c: u32(4),
    d: u64(8),
    e: raw(0x10, 6),
    f: u64s(0x18, 2),
    g: nested(0x28, Inner),
  },
});

describe('struct', () => {
  it('refuses fields that overlap when it is declared', () => {
    expect(() => struct({ name: 'Bad', size: 8, fields: { one: u32(0), two: u16(2) } })).toThrow(
      'Bad: two overlaps one',
    );
  });

  it('refuses fields beyond its size', () => {
    expect(() => struct({ name: 'Bad', size: 6, fields: { one: u64(0) } })).toThrow('beyond the size 6');
  });

  it('reads at the offsets given, little-endian', () => {
    const bytes = Buffer.from(Array.from({ length: 0x40 }, (_, i) => i));
    const value = Sample.read(bytes);
    expect(value.a).toBe(0);
    expect(value.b).toBe(0x0302);
    expect(value.c).toBe(0x07060504);
    expect(value.d).toBe(0x0f0e0d0c0b0a0908n);
    expect(value.e).toEqual(Buffer.from([0x10, 0x11, 0x12, 0x13, 0x14, 0x15]));
    expect(value.f).toEqual([0x1f1e1d1c1b1a1918n, 0x2726252423222120n]);
    expect(value.g).toEqual({ x: 0x2928, y: 0x2b2a });
  });

  it('reads back what it wrote, and leaves other bytes alone', () => {
    const u64Value = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    fc.assert(
      fc.property(
        fc.record({
          a: fc.nat(255),
          b: fc.nat(0xffff),
          c: fc.nat(0xffffffff),
          d: u64Value,
          e: fc.uint8Array({ minLength: 6, maxLength: 6 }).map((bytes) => Buffer.from(bytes)),
          f: fc.tuple(u64Value, u64Value),
          g: fc.record({ x: fc.nat(0xffff), y: fc.nat(0xffff) }),
        }),
        (value) => {
          const buffer = Buffer.alloc(0x50, 0xee);
          Sample.write(buffer, 0x10, value);
          expect(Sample.read(buffer, 0x10)).toEqual(value);
          expect(buffer.subarray(0, 0x10)).toEqual(Buffer.alloc(0x10, 0xee));
          expect(buffer[0x11]).toBe(0xee);
          expect(buffer.subarray(0x3c)).toEqual(Buffer.alloc(0x14, 0xee));
        },
      ),
    );
  });

  it('reads only the fields that lie within what is available', () => {
    const value = Sample.readPartial(Buffer.alloc(0x40), 0x0f);
    expect(Object.keys(value)).toEqual(['a', 'b', 'c']);
  });

  it('writes only the fields given', () => {
    const buffer = Buffer.alloc(0x40, 0xff);
    Sample.write(buffer, 0, { c: 0 });
    expect(buffer.readUInt32LE(4)).toBe(0);
    expect(buffer.readUInt8(0)).toBe(0xff);
    expect(buffer.readUInt8(8)).toBe(0xff);
  });
});
