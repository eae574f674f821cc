import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { makeContradiction } from './contradict.ts';
import { makeRecipe, type Recipe } from './mutate.ts';
import { run } from './run.ts';
import { type Subject, subjects } from './subjects.ts';

const CORPUS = fileURLToPath(new URL('corpus', import.meta.url));
const INPUTS = 250;
const CONTRADICTIONS = 150;

const all: Subject[] = subjects();
const subjectOf = (recipe: Recipe) => all.find((s) => s.name === recipe.subject)!;

/** Around the edges of the headers, at those of what lies in memory, and here and there. */
function cuts({ file, places }: Subject): Set<number> {
  const edges = places.flatMap(({ offset, length }) => [offset, offset + length]);
  const headers = places.filter((p) => p.offset < 0x2000).flatMap(({ offset, length }) => [offset, offset + length]);
  const some = [...new Set(edges)].filter((_, i, unique) => i % Math.ceil(unique.length / 24) === 0);
  const near = headers.flatMap((edge) => [edge - 1, edge, edge + 1]);
  return new Set([...near, ...some].filter((length) => length >= 0 && length < file.length));
}

describe('damaged inputs', () => {
  it.each(all.map((s) => [s.name, s] as const))('%s: the undamaged one is right', async (_, subject) => {
    const outcome = await run(subject, { subject: subject.name, mutations: [], oracle: true });
    expect(outcome).toMatchObject({ how: subject.name === 'ELF without notes' ? 'losses' : 'good' });
  });

  it.each(all.map((s) => [s.name, s] as const))('%s: cut at the edges of its structures', async (_, subject) => {
    for (const length of cuts(subject)) {
      const outcome = await run(subject, { subject: subject.name, mutations: [], length, oracle: false });
      expect(outcome, `${length} bytes`).not.toHaveProperty('problem');
    }
  });

  // Named after the error or the diagnostic that they lead to.
  it.each(readdirSync(CORPUS))('%s', async (name) => {
    const recipe = JSON.parse(readFileSync(join(CORPUS, name), 'utf8')) as Recipe;
    const outcome = await run(subjectOf(recipe), recipe);
    expect(outcome).not.toHaveProperty('problem');
    const code = name.replace(/\.json$/, '');
    if (code === 'good') expect(outcome).toMatchObject({ how: 'good', codes: [] });
    else if (!code.startsWith('found-')) expect(outcome).toMatchObject({ codes: expect.arrayContaining([code]) });
  });

  it(`${INPUTS} at random end in a right dump, one with losses, or a typed error`, async () => {
    for (let seed = 1; seed <= INPUTS; seed++) {
      const recipe = makeRecipe(all, seed);
      expect(await run(subjectOf(recipe), recipe), `seed ${seed}`).not.toHaveProperty('problem');
    }
  });

  it(`${CONTRADICTIONS} contradictions: what is shown without a word is what was built`, async () => {
    for (let seed = 1; seed <= CONTRADICTIONS; seed++) {
      const recipe = makeContradiction(all, seed);
      expect(await run(subjectOf(recipe), recipe), `seed ${seed}`).not.toHaveProperty('problem');
    }
  });
});
