/** The house as it is: what each file of `src` imports, and what it exports without a comment. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const SRC = fileURLToPath(new URL('../../src', import.meta.url));

/** A file of `src`. */
export interface SourceFile {
  /** From `src` on. */
  path: string;
  text: string;
}

export function sourceFiles(): SourceFile[] {
  return readdirSync(SRC, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .sort()
    .map((path) => ({ path, text: readFileSync(join(SRC, path), 'utf8') }));
}

/** The folder that a file lies in; files beside the folders are the house's own front door and tables. */
export function roomOf(path: string): string {
  const slash = path.indexOf('/');
  return slash < 0 ? path : path.slice(0, slash);
}

/** The files that a file imports, as types or values, at its start or later. */
export function importsOf({ path, text }: SourceFile): string[] {
  const found = text.matchAll(/(?:\bfrom\s+|\bimport\s*\(\s*|^import\s+)'(\.[^']*)'/gm);
  return [...found].map(([, target]) => relative(SRC, resolve(SRC, dirname(path), target!)));
}

const EXPORTED = /^export (?:declare |abstract |async )*(?:function\*?|const|let|class|interface|type|enum) ?(\w+)/;

/** Names of the exported declarations that no doc comment precedes; re-exports are documented where they come from. */
export function undocumented({ text }: SourceFile): string[] {
  const lines = text.split('\n');
  const names: string[] = [];
  let documented: string | undefined;
  let groupEnd = -1;
  for (const [i, line] of lines.entries()) {
    const name = EXPORTED.exec(line)?.[1];
    if (name === undefined) continue;
    const before = lines[i - 1] ?? '';
    // Overloads share the comment of the first, and so do constants of one line each that follow without a gap.
    const shares = documented === name || (line.startsWith('export const') && groupEnd === i - 1);
    if (!before.endsWith('*/') && !shares) {
      names.push(name);
      continue;
    }
    documented = name;
    if (/^export const .*;$/.test(line)) groupEnd = i;
  }
  return names;
}
