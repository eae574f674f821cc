/** `OUTPUT.json`: records how an output was made, so that the next run knows what is left. */

import { createHash } from 'node:crypto';
import { type BigIntStats, constants, createReadStream } from 'node:fs';
import { lstat, open, stat } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import * as z from 'zod';
import { Elf2dmpError, type ErrorCode, type ErrorKind, ioError } from '../core/errors.ts';
import { EXIT } from '../core/exit-codes.ts';
import { toJson } from '../core/json.ts';
import { MIB } from '../core/units.ts';
import { sha256OfFile } from '../files/hash.ts';
import { replaceFile } from '../files/publish.ts';
import { removeFile, removeLeftovers } from '../files/temporary.ts';
import type { HashReport } from '../report/conversion.ts';
import { SCHEMA } from '../report/schemas.ts';
import type { WindowsSummary } from '../report/windows.ts';
import { TOOL } from '../version.ts';
import { type JobOptions, sidecarOf } from './plan.ts';

/** How a job ended: one line of `--jsonl`. */
export interface JobRecord {
  /** The line's: a job gets a second line only if a rerun ended differently. */
  id: string;
  schema: (typeof SCHEMA)['batch'];
  input: string;
  output: string;
  outcome: 'good' | 'losses' | 'failed';
  /** The process's; 128 plus the signal's number if one ended it. */
  exitCode: number;
  /** null where there is no dump. */
  windows: WindowsSummary | null;
  seconds: number;
  /** The dump's size; null without a dump. */
  bytes: number | null;
  /** All losses; `losses` has only the first. */
  lossCount: number;
  losses: string[];
  error: JobError | null;
  /** Runs, retries included. */
  attempts: number;
  /** ISO 8601, UTC. */
  finished: string;
  /** With `--hash`: of the whole input and output. */
  sha256: HashReport | null;
}

/** Why a job failed. */
export interface JobError {
  code: ErrorCode;
  kind: ErrorKind;
  text: string;
  /** The end of stderr, if the process left no report. */
  stderr: string | null;
}

/** Identifies an input in later runs. */
interface InputIdentity {
  path: string;
  size: number;
  /** Nanoseconds since 1970. */
  mtime: string;
  inode: string;
  /** SHA-256 of the first 64 KiB, which hold headers and notes. */
  headSha256: string;
}

/** A sidecar's contents. */
export interface Sidecar {
  tool: { name: string; version: string };
  /** `started`: the process may have ended in any way, even with a dump. */
  state: 'started' | 'finished';
  input: InputIdentity;
  options: JobOptions;
  /** SHA-256 of the header (the first two pages) of the dump that is there; once started, of the one that comes. */
  headerSha256: string | null;
  /** Of the dump that was there before, while another is made. */
  formerHeaderSha256?: string | null | undefined;
  /** When the dump was written, nanoseconds since 1970: one that was written to since is not vouched for. */
  outputMtime?: string | undefined;
  record: JobRecord | null;
}

const hash = z.string().regex(/^[0-9a-f]{64}$/);
const hashes = z.looseObject({ input: hash.nullable(), dump: hash });

/** A line of a report, as far as batches rely on it. */
const recordSchema = z.looseObject({
  id: z.string().min(1),
  schema: z.literal(SCHEMA.batch).optional(),
  output: z.string().min(1),
  outcome: z.enum(['good', 'losses', 'failed']),
  exitCode: z.int(),
});

/** A record as a sidecar keeps it. */
const wholeRecord = recordSchema.extend({
  schema: z.literal(SCHEMA.batch),
  input: z.string().min(1),
  windows: z.looseObject({}).nullable(),
  seconds: z.number(),
  bytes: z.int().min(0).nullable(),
  lossCount: z.int().min(0),
  losses: z.array(z.string()),
  error: z
    .looseObject({ code: z.string(), kind: z.string(), text: z.string(), stderr: z.string().nullable() })
    .nullable(),
  attempts: z.int(),
  finished: z.string(),
  sha256: hashes.nullable(),
});

const sidecarSchema = z.looseObject({
  tool: z.looseObject({ name: z.literal(TOOL.name), version: z.string() }),
  state: z.enum(['started', 'finished']),
  input: z.looseObject({
    path: z.string(),
    size: z.int().min(0),
    mtime: z.string(),
    inode: z.string(),
    headSha256: z.string(),
  }),
  options: z.record(z.string(), z.union([z.string(), z.boolean()])),
  headerSha256: hash.nullable(),
  formerHeaderSha256: hash.nullable().optional(),
  outputMtime: z.string().optional(),
  record: wholeRecord.nullable(),
});

/** The record that a report's line holds; undefined if it is another program's. */
export const asRecord = (value: unknown): JobRecord | undefined =>
  recordSchema.safeParse(value).success ? (value as JobRecord) : undefined;

const EXIT_CODES = { good: EXIT.good, losses: EXIT.losses } as const;

/** A sidecar that makes sense: a job that failed has an error, one that did not has a dump, and exit codes fit. */
function asSidecar(value: unknown, output: string): Sidecar | undefined {
  if (!sidecarSchema.safeParse(value).success) return undefined;
  const sidecar = value as Sidecar;
  const { state, record } = sidecar;
  if (state === 'started') return record === null ? sidecar : undefined;
  if (record?.output !== output) return undefined;
  const { outcome, exitCode, error, bytes } = record;
  const consistent =
    outcome === 'failed'
      ? error !== null && exitCode !== EXIT.good && exitCode !== EXIT.losses
      : bytes !== null && exitCode === EXIT_CODES[outcome];
  return consistent ? sidecar : undefined;
}

/** Real ones take a few KiB. */
const MAX_SIDECAR = 16 * MIB;

const HEAD = 64 * 1024;
const DUMP_HEADER = 8192;

/** The sidecar of a job that starts now. Throws `Elf2dmpError`. */
export async function startedSidecar(input: string, options: JobOptions): Promise<Sidecar> {
  const { size, mtimeNs, ino, headSha256 } = await identify(input);
  const identity = { path: input, size: Number(size), mtime: `${mtimeNs}`, inode: `${ino}`, headSha256 };
  return { tool: TOOL, state: 'started', input: identity, options, headerSha256: null, record: null };
}

async function identify(path: string): Promise<BigIntStats & { headSha256: string }> {
  try {
    const stats = await stat(path, { bigint: true });
    // Reading from a pipe would consume it.
    const headSha256 = stats.isFile() ? await sha256OfHead(path, HEAD) : '';
    return Object.assign(stats, { headSha256 });
  } catch (cause) {
    throw ioError('read', path, cause);
  }
}

/** Whether input, options and version are the same, so that the earlier result still holds. */
export const sameWork = (then: Sidecar, now: Sidecar): boolean =>
  isDeepStrictEqual([then.tool, then.input, then.options], [now.tool, now.input, now.options]);

/** SHA-256 (hex) of a file's first `limit` bytes. */
async function sha256OfHead(path: string, limit: number): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { end: limit - 1 })) hash.update(chunk);
  return hash.digest('hex');
}

/** SHA-256 of a dump's header. Throws what the file system throws. */
export const headerSha256 = (output: string): Promise<string> => sha256OfHead(output, DUMP_HEADER);

/**
 * Whether the dump still matches its sidecar.
 *
 * @param recheck read the dump instead of trusting its size
 */
export async function outputHolds(output: string, sidecar: Sidecar, recheck: boolean) {
  const { record, headerSha256: header } = sidecar;
  const stats = await stat(output, { bigint: true }).catch(() => undefined);
  if (!stats?.isFile() || !record || Number(stats.size) !== record.bytes) return false;
  if (!recheck) return true;
  const sound = record.sha256
    ? (await sha256OfFile(output)) === record.sha256.dump
    : !(await isRewritten(output, stats, sidecar));
  return sound && (await headerSha256(output)) === header;
}

/** See `Sidecar.outputMtime`. Throws what the file system throws. */
export const mtimeOf = async (output: string): Promise<string> => `${(await stat(output, { bigint: true })).mtimeNs}`;

/** Whether somebody wrote to the dump after the batch did. Its body has a hash only where that was asked for. */
async function isRewritten(
  output: string,
  { size, mtimeNs }: BigIntStats,
  { outputMtime, record }: Sidecar,
): Promise<boolean> {
  if (outputMtime === undefined || `${mtimeNs}` === outputMtime) return false;
  // One that was cut off lost nothing that is not made again.
  if (record?.bytes && size < record.bytes) return false;
  return !record?.sha256 || (await sha256OfFile(output)) !== record.sha256.dump;
}

/**
 * The header's SHA-256 of the dump that is there, if the sidecar says that a batch made it and nobody wrote to it since;
 * null for any other file. Throws what the file system throws.
 *
 * @param evenIfRewritten it is to be replaced where it does not hold (`--recheck`)
 */
export async function vouchedHeader(
  output: string,
  sidecar: Sidecar | undefined,
  { evenIfRewritten = false } = {},
): Promise<string | null> {
  const stats = await lstat(output, { bigint: true }).catch((error: NodeJS.ErrnoException) => {
    // What can't be seen must not pass for what is not there.
    if (error.code !== 'ENOENT') throw error;
  });
  if (!sidecar || !stats?.isFile()) return null;
  // A dump that was cut off is still ours.
  const { headerSha256: header, formerHeaderSha256: former } = sidecar;
  const found = await headerSha256(output);
  if (found !== header && found !== former) return null;
  return !evenIfRewritten && (await isRewritten(output, stats, sidecar)) ? null : found;
}

/** undefined if there is none. Throws `Elf2dmpError` if another file has its name. */
export async function readSidecar(output: string): Promise<Sidecar | undefined> {
  const file = sidecarOf(output);
  let text: string | undefined;
  try {
    text = await readRegular(file);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw ioError('read', file, cause);
  }
  const sidecar = text === undefined ? undefined : asSidecar(parsed(text), output);
  if (sidecar) return sidecar;
  throw new Elf2dmpError({
    code: 'sidecar-unknown',
    kind: 'io-permanent',
    message: 'this file exists, but it is not the record that a batch keeps beside this output',
    file,
    hint: 'choose other names for the outputs, or remove the file',
  });
}

/** undefined for what is not a file, or larger than any sidecar. Throws what the file system throws. */
async function readRegular(path: string): Promise<string | undefined> {
  // Not blocking: a pipe may have no writer.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stats = await file.stat();
    return stats.isFile() && stats.size <= MAX_SIDECAR ? await file.readFile('utf8') : undefined;
  } finally {
    await file.close();
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Replaces the sidecar as a whole: after a kill or on a full disk the old one stays. Throws `Elf2dmpError`. */
export async function writeSidecar(output: string, sidecar: Sidecar): Promise<void> {
  await replaceFile(sidecarOf(output), `${toJson(sidecar, 2)}\n`);
}

/** Removes temporary files that killed processes left beside these outputs. */
export const sweep = (outputs: readonly string[]): Promise<void> =>
  removeLeftovers(
    outputs.flatMap((output) => [output, sidecarOf(output)]),
    removeFile,
  );
