/**
 * Globs, matched without regular expressions: those of common libraries take time that grows with a power of the name's
 * length, here it grows with its product with the pattern's. `*` and `?` stand for characters of one name, `**` for any
 * number of directories, `[a-z]` and `[!a-z]` for one character, `{a,b}` for either, and `\` takes the next one as it is.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Elf2dmpError } from '../core/errors.ts';

/** Whether a path with `/` matches. */
export type Matcher = (path: string) => boolean;

/** What one character may be; `star` is any number of them. */
type Token = 'star' | ((character: string) => boolean);

/** One name of a path; `directories` is `**`. */
type Segment = 'directories' | { tokens: readonly Token[]; hidden: boolean };

/** `{a,b}{c,d}…` multiplies. */
const MAX_ALTERNATIVES = 1000;

/** Whether a path has characters that make it a glob. */
export const isGlob = (path: string): boolean => /[*?[{]/.test(path.replace(/\\./g, ''));

/**
 * Throws `Elf2dmpError` for a pattern that is none.
 *
 * @param options.hidden names that begin with a dot match too; otherwise only where the pattern has the dot
 */
export function matcher(pattern: string, options: { hidden: boolean }): Matcher {
  const alternatives = segmentsOf(pattern);
  return (path) => {
    const names = path.split('/');
    return alternatives.some((segments) => matchesSegments(segments, names, options.hidden));
  };
}

/** Paths of files below `root` that match, hidden ones only where the pattern has the dot. Follows no links. */
export function filesMatching(root: string, pattern: string): string[] {
  const alternatives = segmentsOf(pattern);
  const depth = Math.max(
    ...alternatives.map((segments) => (segments.includes('directories') ? Number.POSITIVE_INFINITY : segments.length)),
  );
  const matches = matcher(pattern, { hidden: false });
  const found: string[] = [];
  const search = (names: readonly string[]) => {
    for (const entry of entriesOf(join(root, ...names))) {
      const path = [...names, entry.name];
      if (entry.isDirectory() && path.length < depth) search(path);
      else if (entry.isFile() && matches(path.join('/'))) found.push(path.join('/'));
    }
  };
  search([]);
  return found.sort();
}

function entriesOf(directory: string) {
  try {
    return readdirSync(directory, { withFileTypes: true });
  } catch {
    // A glob names what is wanted, and this can't be seen to be.
    return [];
  }
}

const globError = (pattern: string, message: string) =>
  new Elf2dmpError({
    code: 'batch-glob',
    kind: 'usage',
    message: `the glob "${pattern}" ${message}`,
    hint: 'a glob has *, **, ?, [a-z], [!a-z] and {a,b}; a backslash takes the next character as it is',
  });

function segmentsOf(pattern: string): Segment[][] {
  const alternatives = expanded(pattern, pattern);
  return alternatives.map((each) =>
    each
      .split('/')
      .filter((name) => name !== '.')
      .map((name) =>
        name === '**' ? 'directories' : { tokens: tokensOf(name, pattern), hidden: name.startsWith('.') },
      ),
  );
}

/** The pattern without `{a,b}`, in all its forms. */
function expanded(text: string, pattern: string): string[] {
  let done = [''];
  for (let at = 0; at < text.length; ) {
    const braces = text[at] === '{' ? bracesAt(text, at) : undefined;
    const step = text[at] === '\\' ? 2 : 1;
    const parts = braces ? braces.parts.flatMap((part) => expanded(part, pattern)) : [text.slice(at, at + step)];
    if (done.length * parts.length > MAX_ALTERNATIVES) throw globError(pattern, 'has too many alternatives in braces');
    done = done.flatMap((before) => parts.map((part) => before + part));
    at = braces ? braces.end : at + step;
  }
  return done;
}

/** The alternatives in braces, and what follows them; undefined if they are ordinary characters. */
function bracesAt(text: string, start: number): { parts: string[]; end: number } | undefined {
  const parts: string[] = [];
  let depth = 0;
  let from = start + 1;
  for (let at = start; at < text.length; at++) {
    const c = text[at];
    if (c === '\\') at++;
    else if (c === '{') depth++;
    else if (c === ',' && depth === 1) {
      parts.push(text.slice(from, at));
      from = at + 1;
    } else if (c === '}') {
      depth--;
      if (depth > 0) continue;
      return parts.length === 0 ? undefined : { parts: [...parts, text.slice(from, at)], end: at + 1 };
    }
  }
  return undefined;
}

function tokensOf(name: string, pattern: string): Token[] {
  const characters = [...name];
  const tokens: Token[] = [];
  for (let at = 0; at < characters.length; at++) {
    const c = characters[at]!;
    if ('?*+@!'.includes(c) && characters[at + 1] === '(') throw globError(pattern, `has ${c}(…), which is not known`);
    if (c === '*') {
      if (tokens.at(-1) !== 'star') tokens.push('star');
    } else if (c === '?') tokens.push(() => true);
    else if (c === '[') {
      const end = characters.indexOf(']', at + 2);
      if (end < 0) throw globError(pattern, 'has a [ without its ]');
      tokens.push(setOf(characters.slice(at + 1, end)));
      at = end;
    } else {
      const literal = c === '\\' ? (characters[++at] ?? c) : c;
      tokens.push((other) => other === literal);
    }
  }
  return tokens;
}

/** `a-z0-9`, perhaps with a `!` or `^` before it. */
function setOf(inside: readonly string[]): (character: string) => boolean {
  const negated = inside[0] === '!' || inside[0] === '^';
  const members = negated ? inside.slice(1) : inside;
  const ranges: [string, string][] = [];
  for (let at = 0; at < members.length; at++) {
    const isRange = members[at + 1] === '-' && at + 2 < members.length;
    ranges.push([members[at]!, members[isRange ? at + 2 : at]!]);
    if (isRange) at += 2;
  }
  return (c) => ranges.some(([from, to]) => from <= c && c <= to) !== negated;
}

/** As `matchesName`, with names for characters and `**` for `*`. */
function matchesSegments(segments: readonly Segment[], names: readonly string[], hidden: boolean): boolean {
  return wildcard(
    segments.length,
    names.length,
    (i) => segments[i] === 'directories',
    (i, at) => {
      const segment = segments[i]!;
      const name = names[at]!;
      if (segment === 'directories') return hidden || !name.startsWith('.');
      return (hidden || segment.hidden || !name.startsWith('.')) && matchesName(segment.tokens, [...name]);
    },
  );
}

const matchesName = (tokens: readonly Token[], characters: readonly string[]): boolean =>
  wildcard(
    tokens.length,
    characters.length,
    (i) => tokens[i] === 'star',
    (i, at) => {
      const token = tokens[i]!;
      return token === 'star' || token(characters[at]!);
    },
  );

/**
 * Whether a pattern of `length` parts matches `size` items, where some parts take any number of items. Only the last
 * such part is ever tried again: what an earlier one could take instead, it can take too.
 *
 * @param accepts whether part `i` takes the item at `at`
 */
function wildcard(
  length: number,
  size: number,
  isMany: (i: number) => boolean,
  accepts: (i: number, at: number) => boolean,
): boolean {
  let i = 0;
  let at = 0;
  let many = -1;
  let resume = 0;
  while (at < size) {
    if (i < length && isMany(i)) {
      many = i++;
      resume = at;
    } else if (i < length && accepts(i, at)) {
      i++;
      at++;
    } else if (many >= 0 && accepts(many, resume)) {
      i = many + 1;
      at = ++resume;
    } else return false;
  }
  while (i < length && isMany(i)) i++;
  return i === length;
}
