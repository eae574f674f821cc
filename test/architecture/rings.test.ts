import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import picomatch from 'picomatch';
import { expect, it } from 'vitest';
import { RING_FILES } from '../rings.ts';

const TEST = fileURLToPath(new URL('..', import.meta.url));
const files = readdirSync(TEST, { recursive: true, encoding: 'utf8' }).map((path) => `test/${path}`);
const filesOf = (pattern: string) => {
  const matches = picomatch(pattern);
  return files.filter((file) => matches(file));
};

it.each([...RING_FILES.cli, ...RING_FILES.outer])('a ring names files that exist: %s', (pattern) => {
  expect(filesOf(pattern)).not.toEqual([]);
});

it('no file is in two rings', () => {
  const cli = new Set(RING_FILES.cli.flatMap(filesOf));
  expect(RING_FILES.outer.flatMap(filesOf).filter((file) => cli.has(file))).toEqual([]);
});

it('a unit test that starts a process fails, and learns where it belongs', () => {
  expect(() => spawnSync('true')).toThrow(/list its file in test\/rings.ts/);
});
