/** Where a TOML file has a key: the parser does not say. */

/** A key or a table's header, and the line that it is in. */
interface Place {
  path: readonly string[];
  /** From 1. */
  line: number;
}

const PART = String.raw`(?:[\w-]+|"[^"\n]*"|'[^'\n]*')`;
const KEY = String.raw`${PART}(?:\s*\.\s*${PART})*`;
const HEADER = new RegExp(String.raw`^\s*(\[\[?)\s*(${KEY})\s*\]`);
const ASSIGNMENT = new RegExp(String.raw`^\s*(${KEY})\s*=`);

/** Strings of several lines, whose contents may look like keys. */
const LONG_STRINGS = /"""[\s\S]*?"""|'''[\s\S]*?'''/g;

/**
 * The line of what is nearest to a key: its own, or the one of the table or value that it is in.
 *
 * @param path of the key; numbers are the indexes of arrays of tables
 * @returns from 1; undefined where the text has nothing of the path
 */
export function lineOfKey(source: string, path: readonly PropertyKey[]): number | undefined {
  const wanted = path.map(String);
  let best: Place | undefined;
  for (const place of placesIn(source)) {
    const fits = place.path.length <= wanted.length && place.path.every((part, i) => part === wanted[i]);
    if (fits && place.path.length > (best?.path.length ?? 0)) best = place;
  }
  return best?.line;
}

function* placesIn(source: string): Generator<Place> {
  const text = source.replace(LONG_STRINGS, (string) => '\n'.repeat(string.split('\n').length - 1));
  const counts = new Map<string, number>();
  let table: readonly string[] = [];
  for (const [i, line] of text.split('\n').entries()) {
    const header = HEADER.exec(line);
    if (header) {
      table = tablePath(partsOf(header[2]!), header[1] === '[[', counts);
      yield { path: table, line: i + 1 };
      continue;
    }
    const key = ASSIGNMENT.exec(line)?.[1];
    if (key !== undefined) yield { path: [...table, ...partsOf(key)], line: i + 1 };
  }
}

/** The path of a table, with the index of the last element of each array of tables that it is in. */
function tablePath(parts: readonly string[], isElement: boolean, counts: Map<string, number>): string[] {
  const path: string[] = [];
  for (const [i, part] of parts.entries()) {
    path.push(part);
    const name = path.join('\0');
    if (isElement && i === parts.length - 1) counts.set(name, (counts.get(name) ?? -1) + 1);
    const index = counts.get(name);
    if (index !== undefined) path.push(String(index));
  }
  return path;
}

const partsOf = (key: string): string[] =>
  [...key.matchAll(new RegExp(PART, 'g'))].map(([part]) => part.replace(/^["'](.*)["']$/s, '$1'));
