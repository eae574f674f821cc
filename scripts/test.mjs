// `npm test`: installs and builds what is missing, checks types and style, then runs the tests.
// Arguments are passed on to vitest.
import { join } from 'node:path';
import { ensureBuilt, ensureInstalled, root, run } from './setup.mjs';

ensureInstalled();
ensureBuilt();
const bin = (...path) => join(root, 'node_modules', ...path);
if (process.argv.length === 2) {
  run(process.execPath, [bin('typescript', 'bin', 'tsc'), '-p', 'tsconfig.json']);
  run(process.execPath, [bin('@biomejs', 'biome', 'bin', 'biome'), 'check', '.']);
}
run(process.execPath, [bin('vitest', 'vitest.mjs'), 'run', ...process.argv.slice(2)]);
