// The long form of what test/reliability and test/fuzz do at every test run: `npm run reliability [MINUTES of fuzzing]`.
// Writes the figures into docs/reliability.md.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { convert } from '../src/index.ts';
import { makeRecipe } from '../test/fuzz/mutate.ts';
import { run } from '../test/fuzz/run.ts';
import { subjects } from '../test/fuzz/subjects.ts';
import { writeElf } from '../test/guest/elf.ts';
import { buildGuest } from '../test/guest/guest.ts';
import { flatten, kdumpOf } from '../test/guest/kdump.ts';
import { BIN, killedAfter, sha256, withFailingRead } from '../test/reliability/faults.ts';
import { mountNew } from '../test/support/loop-mounts.ts';

const PAGE = fileURLToPath(new URL('../docs/reliability.md', import.meta.url));
const [START, END] = ['<!-- figures -->', '<!-- end of figures -->'];
const minutes = Number(process.argv[2] ?? 5);
const problems: string[] = [];

async function fuzzing(): Promise<string> {
  const all = subjects();
  const counts = { good: 0, losses: 0, refused: 0 };
  const first = Math.floor(Math.random() * 2 ** 30);
  let seed = first;
  let slowest = 0;
  for (const until = performance.now() + minutes * 60_000; performance.now() < until; seed++) {
    const recipe = makeRecipe(all, seed);
    const started = performance.now();
    const outcome = await run(all.find((s) => s.name === recipe.subject)!, recipe);
    slowest = Math.max(slowest, performance.now() - started);
    if ('problem' in outcome) problems.push(`seed ${seed}: ${outcome.problem}`);
    else counts[outcome.how]++;
  }
  return `${seed - first} damaged inputs (seeds from ${first}): ${counts.good} gave a dump without losses, ${counts.losses} one with losses, ${counts.refused} a typed error; the slowest took ${Math.round(slowest)} ms; peak memory of the process ${Math.round(process.resourceUsage().maxRSS / 1024)} MiB`;
}

async function failingReads(dir: string): Promise<string> {
  const counts: string[] = [];
  for (const [name, file] of [
    ['an ELF file', writeElf(buildGuest({ seed: 96 }))],
    ['a flattened kdump', flatten(kdumpOf(buildGuest({ seed: 96 })))],
  ] as const) {
    const { reads } = await withFailingRead(file, dir, Number.POSITIVE_INFINITY);
    for (let failAt = 1; failAt <= reads; failAt++) {
      const { problem } = await withFailingRead(file, dir, failAt);
      if (problem) problems.push(problem);
    }
    counts.push(`each of the ${reads} reads of ${name}`);
  }
  return `${counts.join(' and ')} failed in turn`;
}

async function kills(dir: string): Promise<string> {
  const lines: string[] = [];
  const mount = mountNew('xfs', dir, 2 ** 30);
  try {
    for (const [args, folder] of [
      [[], dir],
      [['--reflink=always'], mount.path],
    ] as const) {
      const [input, output] = [join(folder, 'vm.elf'), join(folder, 'killed', 'out.dmp')];
      mkdirSync(join(folder, 'killed'));
      writeFileSync(input, writeElf(buildGuest({ seed: 95 })));
      await convert({ input, output, ...(args.length > 0 ? { reflink: 'always' } : {}) });
      const expected = sha256(output);
      rmSync(output);
      let killed = 0;
      for (let i = 0; i < 50; i++) {
        const how = await killedAfter(Math.random() * 260, input, output, expected, args);
        if (typeof how !== 'string') problems.push(how.problem);
        else if (how === 'killed') killed++;
      }
      const left = readdirSync(join(folder, 'killed'));
      const strange = left.filter((name) => !/\.part$/.test(name));
      if (strange.length > 0) problems.push(`left behind: ${strange.join(', ')}`);
      lines.push(
        `${args[0] ?? 'copying'}: 50 runs killed at random moments (${killed} while they ran), ${left.length} .part files left`,
      );
    }
  } finally {
    mount.unmount();
  }
  return lines.join('; ');
}

/** A guest of 1 TiB, nearly all of it holes. */
async function oneTebibyte(dir: string): Promise<string> {
  const mount = mountNew('xfs', dir, 4 * 2 ** 40);
  try {
    const input = join(mount.path, 'vm.elf');
    const elf = writeElf(buildGuest({ seed: 94 }), {
      runs: [
        [0, 0xa0000],
        [0x100000, 0x1000000],
        [0x1_0000_0000, 0x1_0000_1000],
      ],
    });
    const last = 0xc0 + 56 * 3;
    const size = 2 ** 40;
    for (const field of [0x20, 0x28]) elf.writeBigUInt64LE(BigInt(size), last + field);
    const start = Number(elf.readBigUInt64LE(last + 8));
    writeFileSync(input, elf.subarray(0, start));
    truncateSync(input, start + size);
    const lines: string[] = [];
    for (const option of ['--sparse=auto', '--reflink=always', '--in-place']) {
      const args = option === '--in-place' ? [option, input] : [option, input, join(mount.path, `${option}.dmp`)];
      const script =
        'import resource,subprocess,sys,time\nt=time.time()\nr=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL).returncode\nprint(r,round(time.time()-t,1),resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss//1024)';
      const { stdout } = spawnSync('python3', ['-c', script, process.execPath, BIN, '-q', ...args], {
        encoding: 'utf8',
      });
      const [code, seconds, peak] = stdout.trim().split(' ').map(Number);
      if (code !== 0) problems.push(`1 TiB, ${option}: exit ${code}`);
      lines.push(`${option}: ${seconds} s, ${peak} MiB`);
    }
    return `a sparse guest of 1 TiB: ${lines.join('; ')}`;
  } finally {
    mount.unmount();
  }
}

async function main(): Promise<void> {
  const figures: string[] = [];
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-reliability-'));
  try {
    for (const part of [fuzzing, failingReads, kills, oneTebibyte]) {
      const own = join(dir, part.name);
      mkdirSync(own);
      figures.push(await part(own));
      console.log(figures.at(-1));
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  for (const problem of problems) console.log(`PROBLEM: ${problem}`);
  figures.push(
    problems.length === 0 ? 'Nothing broke a promise.' : `${problems.length} promises were broken: ${problems[0]}`,
  );
  const text = readFileSync(PAGE, 'utf8');
  const [before, rest] = text.split(START);
  const after = rest!.split(END)[1];
  const lines = figures.map((figure) => `- ${figure}`).join('\n');
  writeFileSync(PAGE, `${before}${START}\n${lines}\n${END}${after}`);
  process.exitCode = problems.length > 0 ? 1 : 0;
}

void main();
