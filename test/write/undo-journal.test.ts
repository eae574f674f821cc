import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { decodeJournal, encodeJournal, type UndoJournal } from '../../src/write/undo-journal.ts';
import fc from '../support/properties.ts';

const bytes = (constraints: fc.IntArrayConstraints = {}) =>
  fc.uint8Array(constraints).map((array) => Buffer.from(array));

const journals = fc.record({
  inode: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  born: fc.bigInt({ min: 0n, max: 2n ** 62n }),
  size: fc.integer({ min: 4096, max: 2 ** 52 }),
  inserted: fc.nat({ max: 2 ** 30 }),
  mode: fc.nat({ max: 0o7777 }),
  modified: fc.bigInt({ min: -(2n ** 60n), max: 2n ** 62n }),
  head: bytes({ minLength: 1, maxLength: 100 }),
  tail: bytes({ maxLength: 100 }),
  patched: fc.array(fc.record({ offset: fc.integer({ min: 100, max: 4000 }), original: bytes({ maxLength: 96 }) })),
}) satisfies fc.Arbitrary<UndoJournal>;

describe('the undo journal', () => {
  it('says again what it was told', () => {
    fc.assert(
      fc.property(journals, (j) => {
        expect(decodeJournal(encodeJournal(j), 'journal')).toEqual(j);
      }),
    );
  });

  it('is not believed with any byte changed, or cut', () => {
    const [journal] = fc.sample(journals, { numRuns: 1, seed: 1 });
    const whole = encodeJournal(journal!);
    fc.assert(
      fc.property(fc.nat({ max: whole.length - 2 }), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const bad = Buffer.from(whole);
        bad[at]! ^= flip;
        expect(() => decodeJournal(bad, 'journal')).toThrow(expect.objectContaining({ code: 'journal-damaged' }));
        const cut = whole.subarray(0, at);
        expect(() => decodeJournal(cut, 'journal')).toThrow(expect.objectContaining({ code: 'journal-damaged' }));
      }),
    );
  });

  // With a checksum that is right: by hand, or by another program.
  it.each([
    ['no JSON', '{'],
    ['a list', '[]', 'journal-version'],
    ['another version', { version: 2 }, 'journal-version'],
    ['a size below zero', { size: -1 }],
    ['a size that is no number', { size: '4096' }],
    ['no inode', { inode: undefined }],
    ['a mode with more than permissions', { mode: 0o100400 }],
    ['an empty head', { head: '' }],
    ['a head longer than the file', { head: Buffer.alloc(5000).toString('base64') }],
    ['no patches', { patched: null }],
    ['a patch that is none', { patched: [null] }],
    ['a patch of the head', { patched: [{ offset: 0, original: 'AAAA' }] }],
    ['a patch beyond the end', { patched: [{ offset: 4095, original: 'AAAA' }] }],
  ] as const)('is refused with %s', (_, change: string | object, code: string = 'journal-damaged') => {
    const good: UndoJournal = {
      inode: 1n,
      born: 2n,
      size: 4096,
      inserted: 8192,
      mode: 0o400,
      modified: 3n,
      head: Buffer.alloc(8, 1),
      tail: Buffer.alloc(8, 2),
      patched: [{ offset: 100, original: Buffer.from('old') }],
    };
    const [line] = encodeJournal(good).toString('latin1').split('\n');
    const text = typeof change === 'string' ? change : JSON.stringify({ ...JSON.parse(line!), ...change });
    const checksum = createHash('sha256').update(text).digest('hex');
    expect(() => decodeJournal(Buffer.from(`${text}\n${checksum}\n`), 'journal')).toThrow(
      expect.objectContaining({ code }),
    );
  });
});
