// Gives damaged inputs to the product for as long as asked: `npm run fuzz -- [MINUTES] [SEED] [INPUTS] [--corpus]`; with INPUTS it
// ends after so many, if the time does not end before. Prints how many were tried and how they ended; a finding is kept in
// test/fuzz/corpus/, which every test run tries again.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Inputs, type Kind } from '../test/fuzz/inputs.ts';
import type { Recipe } from '../test/fuzz/mutate.ts';
import { pieces } from '../test/fuzz/pieces.ts';
import type { Outcome } from '../test/fuzz/run.ts';
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

/** How many of a kind, how they ended, and how long they took. */
interface Count {
  inputs: number;
  good: number;
  losses: number;
  refused: number;
  findings: number;
  seconds: number;
}

async function main(): Promise<void> {
  const [minutes = 5, first = Math.floor(Math.random() * 2 ** 30), most = Number.POSITIVE_INFINITY] = process.argv
    .slice(2)
    .filter((word) => !word.startsWith('--'))
    .map(Number);
  const all = subjects();
  const inputs = new Inputs(all, await pieces(all));
  const counts: Partial<Record<Kind, Count>> = {};
  const until = performance.now() + minutes * 60_000;
  let slowest = { seed: 0, milliseconds: 0 };
  let seed = first;
  for (; seed - first < most && performance.now() < until; seed++) {
    const input = inputs.of(seed);
    counts[input.kind] ??= { inputs: 0, good: 0, losses: 0, refused: 0, findings: 0, seconds: 0 };
    const count = counts[input.kind]!;
    count.inputs++;
    const started = performance.now();
    const outcome = await input.run();
    const milliseconds = performance.now() - started;
    count.seconds += milliseconds / 1000;
    if (milliseconds > slowest.milliseconds) slowest = { seed, milliseconds };
    if ('how' in outcome) {
      count[outcome.how]++;
      if (input.recipe && 'codes' in outcome && process.argv.includes('--corpus')) keepSmallest(input.recipe, outcome);
      continue;
    }
    count.findings++;
    if (input.recipe) keep(`found-${seed}`, input.recipe);
    console.log(`seed ${seed} (${input.kind}: ${input.name}): ${outcome.problem}`);
  }
  for (const count of Object.values(counts)) count.seconds = Math.round(count.seconds);
  console.log(
    JSON.stringify({
      seeds: [first, seed - 1],
      inputs: seed - first,
      ...counts,
      slowest,
      peakMiB: Math.round(process.resourceUsage().maxRSS / 1024),
    }),
  );
  process.exitCode = Object.values(counts).some(({ findings }) => findings > 0) ? 1 : 0;
}

void main();
