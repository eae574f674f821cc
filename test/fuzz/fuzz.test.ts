import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { makeRecipe, type Recipe } from './mutate.ts';
import { run } from './run.ts';
import { type Subject, subjects } from './subjects.ts';

const CORPUS = fileURLToPath(new URL('corpus', import.meta.url));
const INPUTS = 250;

const all: Subject[] = subjects();
const subjectOf = (recipe: Recipe) => all.find((s) => s.name === recipe.subject)!;

describe('damaged inputs', () => {
  it.each(all.map((s) => [s.name, s] as const))('%s: the undamaged one is right', async (_, subject) => {
    const outcome = await run(subject, { subject: subject.name, mutations: [], oracle: true });
    expect(outcome).toMatchObject({ how: subject.name === 'ELF without notes' ? 'losses' : 'good' });
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
});
