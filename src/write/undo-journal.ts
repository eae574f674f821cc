/**
 * The former state of a file converted in place, kept beside it: two lines, a JSON object and its SHA-256.
 * Nobody but the file's owner and root may have written it, and it is checked before it is believed.
 */
import { createHash } from 'node:crypto';
import { Elf2dmpError } from '../core/errors.ts';
import { UNDO_SUFFIX } from '../files/publish.ts';
import { VERSION } from '../version.ts';

export interface UndoJournal {
  /** Inode number and time of birth (ns) of the file: device numbers do not survive a reboot, these do. */
  inode: bigint;
  born: bigint;
  /** Bytes of the ELF file. */
  size: number;
  /** Bytes of room opened at its front. */
  inserted: number;
  /** Permission bits. */
  mode: number;
  /** Nanoseconds since 1970. */
  modified: bigint;
  /** The file's first bytes, none of them guest memory. */
  head: Buffer;
  /** The file's last bytes. */
  tail: Buffer;
  /** What was there before each patch, by offset in the ELF file. */
  patched: readonly { offset: number; original: Buffer }[];
}

export const journalPath = (file: string): string => `${file}${UNDO_SUFFIX}`;

const FORMAT = 'elf2dmp-undo';
const FORMAT_VERSION = 1;

/** More than any conversion patches: 2048 processors take 4 MiB. */
export const MAX_JOURNAL_BYTES = 64 * 1024 * 1024;

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

export function encodeJournal(j: UndoJournal): Buffer {
  const text = JSON.stringify({
    format: FORMAT,
    version: FORMAT_VERSION,
    tool: VERSION,
    inode: `${j.inode}`,
    born: `${j.born}`,
    size: j.size,
    inserted: j.inserted,
    mode: j.mode,
    modified: `${j.modified}`,
    head: j.head.toString('base64'),
    tail: j.tail.toString('base64'),
    patched: j.patched.map(({ offset, original }) => ({ offset, original: original.toString('base64') })),
  });
  return Buffer.from(`${text}\n${sha256(text)}\n`, 'latin1');
}

/** Throws `Elf2dmpError` for anything that `encodeJournal` did not write. */
export function decodeJournal(bytes: Buffer, path: string): UndoJournal {
  const damaged = (what: string) =>
    new Elf2dmpError({
      code: 'journal-damaged',
      kind: 'corrupt',
      message: `the undo journal is damaged: ${what}`,
      file: path,
      hint: 'without it the ELF file cannot be restored; the file beside it was left as it is',
    });
  const [text = '', checksum] = bytes.toString('latin1').split('\n');
  if (checksum !== sha256(text)) throw damaged('its checksum is wrong');
  let j: Record<string, unknown>;
  try {
    j = Object(JSON.parse(text));
  } catch {
    throw damaged('it is not JSON');
  }
  if (j['format'] !== FORMAT || j['version'] !== FORMAT_VERSION) {
    throw new Elf2dmpError({
      code: 'journal-version',
      kind: 'unsupported',
      message: 'the undo journal is of another version of elf2dmp',
      file: path,
      expected: `${FORMAT} ${FORMAT_VERSION}`,
      actual: `${j['format']} ${j['version']}, by elf2dmp ${j['tool']}`,
      hint: 'use that version',
    });
  }
  const count = (name: string, value: unknown, limit = Number.MAX_SAFE_INTEGER): number => {
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= limit) return value;
    throw damaged(`${name} is ${JSON.stringify(value)}`);
  };
  const large = (name: string, value: unknown): bigint => {
    if (typeof value === 'string' && /^-?\d{1,20}$/.test(value)) return BigInt(value);
    throw damaged(`${name} is ${JSON.stringify(value)}`);
  };
  const base64 = (name: string, value: unknown): Buffer => {
    if (typeof value === 'string') return Buffer.from(value, 'base64');
    throw damaged(`${name} is ${JSON.stringify(value)}`);
  };
  const size = count('size', j['size']);
  const head = base64('head', j['head']);
  if (head.length === 0 || head.length > size) throw damaged('head is empty or too long');
  if (!Array.isArray(j['patched'])) throw damaged('patched is not a list');
  return {
    inode: large('inode', j['inode']),
    born: large('born', j['born']),
    size,
    inserted: count('inserted', j['inserted']),
    mode: count('mode', j['mode'], 0o7777),
    modified: large('modified', j['modified']),
    head,
    tail: base64('tail', j['tail']),
    patched: j['patched'].map((p: { offset?: unknown; original?: unknown } | null, i) => {
      const original = base64(`patched[${i}].original`, p?.original);
      const offset = count(`patched[${i}].offset`, p?.offset, size - original.length);
      if (offset < head.length) throw damaged(`patched[${i}].offset is ${offset}`);
      return { offset, original };
    }),
  };
}
