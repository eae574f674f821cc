// Gives damaged inputs to the product for as long as asked: `npm run fuzz -- [MINUTES] [SEED] [--corpus]`. Prints how many were
// tried and how they ended; a finding is kept in test/fuzz/corpus/, which every test run tries again.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeContradiction } from '../test/fuzz/contradict.ts';
import { makeRecipe, type Recipe } from '../test/fuzz/mutate.ts';
import { type Outcome, run } from '../test/fuzz/run.ts';
import { subjects } from '../test/fuzz/subjects.ts';

const CORPUS = fileURLToPath(new URL('../test/fuzz/corpus', import.meta.url));

const smallest = new Map<string, number>();

/** With --corpus: for each way to end, the smallest recipe that leads there. */
function keepSmallest(recipe: Recipe, { how, codes }: Outcome): void {
  const size = JSON.stringify(recipe).length;
  for (const code of how === 'good' && codes.length === 0 ? ['good'] : codes) {
    if (size >= (smallest.get(code) ?? 4096)) continue;
    smallest.set(code, size);
    keep(code, recipe);
  }
}

function keep(name: string, recipe: Recipe): void {
  mkdirSync(CORPUS, { recursive: true });
  writeFileSync(join(CORPUS, `${name}.json`), `${JSON.stringify(recipe, null, 2)}\n`);
}

async function main(): Promise<void> {
  const minutes = Number(process.argv[2] ?? 5);
  const first = Number(process.argv[3] ?? Math.floor(Math.random() * 2 ** 30));
  const all = subjects();
  const counts: Record<string, number> = { good: 0, losses: 0, refused: 0, problem: 0 };
  const until = performance.now() + minutes * 60_000;
  let slowest = { seed: 0, milliseconds: 0 };
  let seed = first;
  for (; performance.now() < until; seed++) {
    // Every third is a contradiction, the others are damage.
    const recipe = seed % 3 === 0 ? makeContradiction(all, seed) : makeRecipe(all, seed);
    const started = performance.now();
    const outcome = await run(all.find((s) => s.name === recipe.subject)!, recipe);
    const milliseconds = performance.now() - started;
    if (milliseconds > slowest.milliseconds) slowest = { seed, milliseconds };
    if ('how' in outcome) {
      counts[outcome.how]!++;
      if (process.argv.includes('--corpus')) keepSmallest(recipe, outcome);
      continue;
    }
    counts['problem']!++;
    keep(`found-${seed}`, recipe);
    console.log(`seed ${seed} (${recipe.subject}): ${outcome.problem}`);
  }
  console.log(
    JSON.stringify({
      seeds: [first, seed - 1],
      inputs: seed - first,
      ...counts,
      slowest,
      peakMiB: Math.round(process.resourceUsage().maxRSS / 1024),
    }),
  );
  process.exitCode = counts['problem']! > 0 ? 1 : 0;
}

void main();
