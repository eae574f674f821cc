// `npm run batch-soak`: 300 dumps of all kinds, a tenth of them broken, in batches that are killed at random moments 50
// times and run again: alone, then as two shards at once into one report. The end has to be as if undisturbed.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { endState, killAfter, linesOf, makeArchive, runBatchCommand } from '../test/support/batches.ts';

const DUMPS = 300;
const KILLS = 50;
/** Files without a dump that a batch names. */
const NAMED = 3;

const dir = mkdtempSync(join(process.argv[2] ?? tmpdir(), 'elf2dmp-soak-'));
const archive = join(dir, 'archive');
const made = makeArchive(archive, DUMPS);
let wrong = 0;
const check = (what: string, sound: boolean) => {
  console.log(`${sound ? 'ok' : 'WRONG'}: ${what}`);
  if (!sound) wrong++;
};

const argsOf = (name: string, ...more: string[]) => {
  const files = ['--out', join(dir, name), '--jsonl', join(dir, `${name}.jsonl`), '--name', '{relative}.dmp'];
  return [archive, ...files, '--jobs', '2', ...more];
};
const stateOf = (name: string) => endState(join(dir, name), join(dir, `${name}.jsonl`));

let started = performance.now();
const seconds = () => ((performance.now() - started) / 1000).toFixed(0);
const first = await runBatchCommand(argsOf('undisturbed'));
console.log(`undisturbed: exit code ${first.code} in ${seconds()} s`);
const outcomes = linesOf(join(dir, 'undisturbed.jsonl')).map(
  ({ input, outcome, exitCode }) => `${input.slice(archive.length + 1)} ${outcome} ${exitCode}`,
);
const kinds = [...made];
const leftOut = kinds.filter(([, { outcome }]) => outcome === 'left out');
const expected = kinds
  .filter((each) => !leftOut.includes(each))
  .map(([name, { outcome, exitCode }]) => `${name} ${outcome} ${exitCode}`);
check(`the right outcome for each of ${expected.length}`, isDeepStrictEqual(outcomes.sort(), expected.sort()));
check(
  `${leftOut.length} that are no dumps are named`,
  first.stderr.includes(`${leftOut.length - NAMED} more: no dumps`),
);
const undisturbed = stateOf('undisturbed');

/** Each kill comes after about a KILLS-th of the whole. @returns how many hit a running batch */
async function disturbed(name: string, kills: number, ...more: string[]): Promise<number> {
  const step = (1000 * Number(whole)) / kills;
  let hits = 0;
  for (let i = 0; i < kills; i++) {
    const { signal } = await runBatchCommand(
      argsOf(name, ...more),
      killAfter(300 + 1.5 * step * Math.random(), i % 2 === 0),
    );
    if (signal === 'SIGKILL') hits++;
  }
  await runBatchCommand(argsOf(name, ...more));
  return hits;
}

const whole = seconds();
started = performance.now();
const hits = await disturbed('killed', KILLS);
console.log(`killed: ${hits} of ${KILLS} kills hit a running batch, ${seconds()} s`);
check('the end state is as if undisturbed, no line lost or double', isDeepStrictEqual(stateOf('killed'), undisturbed));

started = performance.now();
const both = await Promise.all(['0/2', '1/2'].map((shard) => disturbed('shards', KILLS / 5, '--shard', shard)));
console.log(`two shards at once: ${both.join(' and ')} of ${KILLS / 5} kills each hit a running one, ${seconds()} s`);
check('the end state is as if undisturbed, no line lost or double', isDeepStrictEqual(stateOf('shards'), undisturbed));

rmSync(dir, { recursive: true });
process.exitCode = wrong > 0 ? 1 : 0;
