// `npm test`: installs and builds what is missing, checks types and style, then runs the tests.
// `--ring unit|cli|outer` runs one ring of them (test/rings.ts). Other arguments are passed on to vitest.
import { join } from 'node:path';
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
run(process.execPath, [bin('vitest', 'vitest.mjs'), 'run', ...args]);
