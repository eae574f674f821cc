// `npm test`: installs and builds what is missing, checks types and style, then runs the tests.
// `--ring unit|cli|outer` runs one ring of them (test/rings.ts). Other arguments are passed on to vitest.
// With CI set, where a run decides about a change, files with failures are run once more, by themselves, and that counts.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { ensureBuilt, ensureInstalled, root, run } from './setup.mjs';

const args = process.argv.slice(2);
const all = args.length === 0;
const at = args.findIndex((word) => word === '--ring' || word.startsWith('--ring='));
if (at >= 0) {
  const [word] = args.splice(at, 1);
  const ring = word.includes('=') ? word.slice('--ring='.length) : args.splice(at, 1)[0];
  if (!['unit', 'cli', 'outer', 'all'].includes(ring)) {
    console.error(`--ring: expected unit, cli, outer or all, not ${ring}`);
    process.exit(2);
  }
  if (ring !== 'all') args.push('--project', ring);
}

ensureInstalled();
const bin = (...path) => join(root, 'node_modules', ...path);
if (all) {
  ensureBuilt();
  run(process.execPath, [bin('typescript', 'bin', 'tsc'), '-p', 'tsconfig.json']);
  run(process.execPath, [bin('@biomejs', 'biome', 'bin', 'biome'), 'check', '.']);
}
if (all && process.env.CI) process.exitCode = runTwice();
else run(process.execPath, [bin('vitest', 'vitest.mjs'), 'run', ...args]);

/** @returns the exit code */
function runTwice() {
  const first = runAndRead([]);
  const failed = first.files.filter(({ status }) => status !== 'passed').map(({ name }) => relative(root, name));
  if (first.exitCode === 0 || failed.length === 0) return first.exitCode;
  console.log(`once more, by themselves: ${failed.join(' ')}`);
  const second = runAndRead(['--no-file-parallelism', ...failed]);
  const again = new Map(second.files.map((file) => [file.name, file]));
  const tests = first.files.flatMap((file) => (again.get(file.name) ?? file).assertionResults);
  const count = (...words) => tests.filter(({ status }) => words.includes(status)).length;
  const counts = [
    [count('failed'), 'failed'],
    [count('passed'), 'passed'],
    [count('skipped', 'pending', 'todo'), 'skipped'],
  ];
  // In vitest's words, which .ci/run reads: of both runs together.
  const said = counts.filter(([n]) => n > 0).map(([n, word]) => `${n} ${word}`);
  console.log(`      Tests  ${said.join(' | ')} (${tests.length})`);
  return second.exitCode;
}

/** Runs vitest: its exit code, and what it says of each file. */
function runAndRead(words) {
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-tests-'));
  try {
    const report = join(dir, 'report.json');
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
    const vitest = [bin('vitest', 'vitest.mjs'), 'run', ...reporters, ...words];
    const { status } = spawnSync(process.execPath, vitest, { cwd: root, stdio: 'inherit' });
    const files = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')).testResults : [];
    return { exitCode: status ?? 1, files };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
