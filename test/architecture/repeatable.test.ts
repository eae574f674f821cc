import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const TEST = fileURLToPath(new URL('..', import.meta.url));

/** What is different in every run, and where it may be. */
const CHANGING = /\bfrom 'fast-check'|\bMath\.random\b|\brandom(?:Bytes|UUID|Int|FillSync)\b|\bgetRandomValues\b/;
const ALLOWED = [
  // Marks what the debugger says, which no dump can then imitate.
  'debugger/debugger.ts',
  // Where the seed is.
  'support/properties.ts',
];

it('tests draw nothing at random but from test/support/properties.ts: each run says the same', () => {
  const drawing = readdirSync(TEST, { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.(ts|mjs)$/.test(path))
    .filter((path) => CHANGING.test(readFileSync(join(TEST, path), 'utf8')));
  expect(drawing.sort()).toEqual(ALLOWED);
});
