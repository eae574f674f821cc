// Which inputs have their pages as a bitmap dump has them.
import { closeSync, openSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Reason } from '../../src/core/reason.ts';
import { pa } from '../../src/core/units.ts';
import type { MemoryImage } from '../../src/memory/image.ts';
import { inPlaceFirstPage, sharedFirstPage, sharedPages } from '../../src/plan/shared-pages.ts';
import { imageOf } from '../support/images.ts';

let fd: number;
beforeAll(() => {
  fd = openSync(import.meta.filename, 'r');
});
afterAll(() => closeSync(fd));

type Run = [start: number, size: number, fileOffset: number];

function shared(runs: readonly Run[], missing: MemoryImage['missing'] = []) {
  const image = imageOf([], { missing });
  const stored = { fd, runs: runs.map(([start, size, fileOffset]) => ({ start: pa(start), size, fileOffset })) };
  return sharedPages(Object.assign(image, { stored }));
}

describe('pages of an input', () => {
  it('can be used where they lie if whole ones follow each other', () => {
    const runs: Run[] = [
      [0, 0x9f000, 0x3c8],
      [0x100000, 0x2000, 0x9f3c8],
    ];
    expect(shared(runs)).toMatchObject({ fd, offset: 0x3c8 });
    expect(sharedPages(imageOf([]))).toBeInstanceOf(Reason);
  });

  it.each<[string, Run[], RegExp]>([
    [
      'a gap between runs',
      [
        [0, 0x1000, 0x1000],
        [0x2000, 0x1000, 0x3000],
      ],
      /0x2000 does not follow the one before it/,
    ],
    [
      'runs in another order',
      [
        [0, 0x1000, 0x2000],
        [0x2000, 0x1000, 0x1000],
      ],
      /0x2000 does not follow/,
    ],
    ['a part of a page at the end', [[0, 0x1800, 0x1000]], /0x0 is not of whole pages/],
    ['a part of a page at the beginning', [[0x800, 0x1000, 0x1000]], /0x800 is not of whole pages/],
    ['no runs', [], /does not hold the pages as they are/],
  ])('cannot be used with %s', (_, runs, why) => {
    expect(`${shared(runs)}`).toMatch(why);
  });

  it('cannot be used where the file lacks some that its headers list', () => {
    const missing = { what: 'memory', how: 'never stored', bytes: 0x1000, text: 'made up' } as const;
    expect(`${shared([[0, 0x1000, 0x1000]], [missing])}`).toMatch(/lacks memory that its headers list/);
    expect(shared([[0, 0x1000, 0x1000]], [{ ...missing, what: 'notes' }])).not.toBeInstanceOf(Reason);
  });

  it('begin in a dump that shares them where they do within a block', () => {
    const pages = { fd, offset: 0x2_33c8, block: 0x1000 };
    expect([0x2001, 0x3000].map(sharedFirstPage(pages))).toEqual([0x33c8, 0x33c8]);
    expect([0x2001, 0x3000].map(inPlaceFirstPage(pages))).toEqual([0x2_63c8, 0x2_63c8]);
  });
});
