import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { sourceFiles } from './house.ts';

/** Functions of Node's file system modules that can create, change or remove files. */
const WRITING =
  /^(open|write|writev|appendFile|writeFile|createWriteStream|rename|link|symlink|unlink|rm|rmdir|mkdir|mkdtemp|truncate|ftruncate|copyFile|cp|chmod|fchmod|lchmod|chown|fchown|lchown|utimes|futimes|lutimes)(Sync)?$/;

const MODULES = /from 'node:fs(?:\/promises)?'/;

/** Names that a file imports from the file system's modules, and ways to import that hide them. */
function writingCalls(text: string): { calls: string[]; hidden: boolean } {
  const imports = [...text.matchAll(/import (?!type\b)([^;]*?) from 'node:fs(?:\/promises)?';/g)].map((m) => m[1]!);
  const calls = imports
    .filter((clause) => clause.startsWith('{'))
    .flatMap((clause) => clause.slice(1, -1).split(','))
    .map((name) => name.trim().split(' as ')[0]!)
    .filter((name) => WRITING.test(name));
  const others = /(?:import|require)\(\s*'(?:node:)?fs|from '(?:fs|fs\/promises)'/.test(text);
  return { calls: [...new Set(calls)].sort(), hidden: others || imports.some((clause) => !clause.startsWith('{')) };
}

describe('files that are written', () => {
  it('are in docs/files.md, with every call that can write', () => {
    const doc = readFileSync(fileURLToPath(new URL('../../docs/files.md', import.meta.url)), 'utf8');
    const table = doc.slice(doc.indexOf('## In the source'));
    const listed = [...table.matchAll(/^\| `([^`]+)` \| ([^|]+) \|/gm)].map(([, file, calls]) => [
      file,
      calls!.split(', '),
    ]);
    const found = sourceFiles()
      .filter(({ text }) => MODULES.test(text))
      .map(({ path, text }) => [path, writingCalls(text).calls] as const)
      .filter(([, calls]) => calls.length > 0)
      .sort(([a], [b]) => (a < b ? -1 : 1));
    expect(listed).toEqual(found);
  });

  it('are written by calls that this test can see', () => {
    expect(sourceFiles().filter(({ text }) => writingCalls(text).hidden)).toEqual([]);
    expect(writingCalls("import { open as o, stat } from 'node:fs/promises';").calls).toEqual(['open']);
    for (const text of ["import * as fs from 'node:fs';", "await import('node:fs')", "import fs from 'fs'"]) {
      expect(writingCalls(text).hidden, text).toBe(true);
    }
  });
});
