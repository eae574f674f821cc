/** The crashes of a batch, grouped by what they are known by, and those that a list calls known. */
import { readFileSync } from 'node:fs';
import { codeName } from '../core/code-name.ts';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { STANDARD_STREAM } from '../options/choices.ts';
import type { Signature } from '../windows/signature.ts';
import type { JobResult } from './run.ts';
import type { JobRecord } from './sidecar.ts';

/** Hashes of signatures that are known. */
export type KnownCrashes = ReadonlySet<string>;

/** One crash, and the dumps that show it. */
export interface CrashGroup {
  signature: Signature;
  results: readonly JobResult[];
  /** Earliest and latest time in the guests, ISO 8601; null where none is known. */
  firstSeen: string | null;
  lastSeen: string | null;
  /** null without a list. */
  known: boolean | null;
}

/** A line of a list: a hash, and whatever follows it. */
const LINE = /^([0-9a-f]{12})(?:\s|$)/;

/**
 * Reads a list of known crashes: one hash on each line, by symbols or by RVA, with any text behind it; `#` begins a
 * comment. Throws `Elf2dmpError` for any other line: a list that is read in part would call a known crash new.
 */
export function readKnownCrashes(file: string): KnownCrashes {
  let text: string;
  try {
    text = readFileSync(file === STANDARD_STREAM ? 0 : file, 'utf8');
  } catch (cause) {
    throw ioError('read the known crashes', file, cause);
  }
  const known = new Set<string>();
  for (const [i, line] of text.split('\n').entries()) {
    const content = line.trim();
    if (content === '' || content.startsWith('#')) continue;
    const hash = LINE.exec(content)?.[1];
    if (hash === undefined) {
      throw new Elf2dmpError({
        code: 'known-line',
        kind: 'usage',
        message: 'a list of known crashes has a line that does not begin with a signature',
        file,
        structure: `line ${i + 1}`,
        expected: '12 hex digits in lower case, then a blank or the end of the line',
        actual: content.slice(0, 40),
        hint: 'take the hash from `signatures` of a report, or begin the line with # if it is a comment',
      });
    }
    known.add(hash);
  }
  return known;
}

/** What a crash is shown by: its signature by symbols, or else by RVA. undefined for a guest that did not crash. */
export function signatureOf(record: JobRecord | undefined): Signature | undefined {
  const windows = record?.windows;
  // A record of an earlier build has no signatures.
  return windows?.bugCheck ? (windows.signatures?.symbols ?? windows.signatures?.rva) : undefined;
}

/** A crash in a line: hash, text and, where a driver is suspected, the code that it is suspected for. */
export function crashLine(signature: Signature, record: JobRecord | undefined): string {
  const culprit = record?.windows?.culprit;
  const place = culprit?.at ? codeName(culprit.at) : culprit?.module;
  return `${signature.hash} ${signature.text}${place === undefined ? '' : `, likely culprit ${place}`}`;
}

/** Whether a list has one of the crash's signatures; null for a guest that did not crash, and without a list. */
export function isKnown(record: JobRecord | undefined, known: KnownCrashes | undefined): boolean | null {
  if (!known || !signatureOf(record)) return null;
  const { symbols, rva } = record!.windows!.signatures;
  return known.has(rva.hash) || (symbols !== null && known.has(symbols.hash));
}

/**
 * The crashes among the results, new ones first, then those that most dumps show. Signatures by symbols and by RVA are
 * never one.
 */
export function groupCrashes(results: readonly JobResult[], known: KnownCrashes | undefined): CrashGroup[] {
  const groups = new Map<string, { signature: Signature; results: JobResult[] }>();
  for (const result of results) {
    const signature = signatureOf(result.record);
    if (!signature) continue;
    const group = groups.get(signature.hash);
    if (group) group.results.push(result);
    else groups.set(signature.hash, { signature, results: [result] });
  }
  return [...groups.values()]
    .map((group) => ({ ...group, ...timesOf(group.results), known: knownGroup(group.results, known) }))
    .sort(
      (a, b) =>
        isNew(b) - isNew(a) || b.results.length - a.results.length || (a.signature.text < b.signature.text ? -1 : 1),
    );
}

const isNew = ({ known }: { known: boolean | null }): number => Number(known === false);

function timesOf(results: readonly JobResult[]): Pick<CrashGroup, 'firstSeen' | 'lastSeen'> {
  const times = results.flatMap(({ record }) => record?.windows?.systemTime ?? []).sort();
  return { firstSeen: times[0] ?? null, lastSeen: times.at(-1) ?? null };
}

/** Dumps of one signature by symbols may have several by RVA: one that is new makes the group new. */
function knownGroup(results: readonly JobResult[], known: KnownCrashes | undefined): boolean | null {
  return known ? results.every(({ record }) => isKnown(record, known) === true) : null;
}

/** How a crash counts for whoever waits for the batch. */
export interface CrashPolicy {
  known: KnownCrashes | undefined;
  /** A crash that no list has is a failure. */
  failOnNew: boolean;
}

/** Whether a crash is one that `failOnNew` fails on. Without a list every crash is new. */
export const failsAsNew = (record: JobRecord | undefined, { known, failOnNew }: CrashPolicy): boolean =>
  failOnNew && signatureOf(record) !== undefined && isKnown(record, known) !== true;
