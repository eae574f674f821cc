import { describe, expect, it } from 'vitest';
import { toJson } from '../../src/core/json.ts';
import fc from '../support/properties.ts';

describe('toJson', () => {
  it('escapes what could move the cursor, hide text or reverse it', () => {
    const text = 'a\u009b31m\u202eb\u2028c\u2029\u00ad\u007f\u{e0041}\ufeffd';
    const json = toJson({ [text]: text }, 2);
    expect(json).toMatch(/^[\n\x20-\x7e]*$/);
    expect(json).toContain('\\u009b31m\\u202e');
    expect(JSON.parse(json)).toEqual({ [text]: text });
  });

  it('means what JSON.stringify means', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(undefined, 2), (value, indent) => {
        expect(JSON.parse(toJson(value, indent))).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
    expect(toJson({ name: 'Ünïcode 中', list: [1] }, 2)).toBe(
      JSON.stringify({ name: 'Ünïcode 中', list: [1] }, null, 2),
    );
  });
});
