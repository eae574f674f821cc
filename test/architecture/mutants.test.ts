import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { MUTANTS, testsOf } from '../../scripts/mutants.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** The list goes stale silently otherwise: `npm run mutants` takes hours and runs rarely. */
describe('the list of mutants', () => {
  it('breaks lines that are in the source, each at one place', () => {
    const texts = new Map(MUTANTS.map(({ file }) => [file, readFileSync(join(ROOT, 'src', file), 'utf8')]));
    const places = MUTANTS.map(({ what, file, find }) => [file, what, texts.get(file)!.split(find).length - 1]);
    expect(places.filter(([, , count]) => count !== 1)).toEqual([]);
  });

  it('names tests that are there, and changes something', () => {
    expect(MUTANTS.filter((mutant) => !existsSync(join(ROOT, testsOf(mutant)))).map(({ what }) => what)).toEqual([]);
    expect(MUTANTS.filter(({ find, replace }) => find === replace)).toEqual([]);
  });
});
