/** `OUTPUT.json`: records how an output was made, so that the next run knows what is left. */
import { createHash } from 'node:crypto';
import { type BigIntStats, createReadStream } from 'node:fs';
import { readdir, readFile, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Elf2dmpError, type ErrorCode, type ErrorKind, ioError } from '../core/errors.ts';
import { sha256OfFile } from '../files/hash.ts';
import { outputOfTemporary, replaceFile } from '../files/publish.ts';
import type { HashReport } from '../report/conversion.ts';
import type { SCHEMA } from '../report/schemas.ts';
import type { WindowsSummary } from '../report/windows.ts';
import { TOOL } from '../version.ts';
import { type JobOptions, sidecarOf } from './plan.ts';

/** How a job ended: one line of `--report`. */
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
  /** SHA-256 of the dump's header, its first two pages. */
  headerSha256: string | null;
  record: JobRecord | null;
}

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
export async function outputHolds(output: string, { record, headerSha256: header }: Sidecar, recheck: boolean) {
  const stats = await stat(output).catch(() => undefined);
  if (!stats?.isFile() || !record || stats.size !== record.bytes) return false;
  if (!recheck) return true;
  const sound = record.sha256 ? (await sha256OfFile(output)) === record.sha256.dump : true;
  return sound && (await headerSha256(output)) === header;
}

/** undefined if there is none. Throws `Elf2dmpError` if another file has its name. */
export async function readSidecar(output: string): Promise<Sidecar | undefined> {
  const file = sidecarOf(output);
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw ioError('read', file, cause);
  }
  try {
    const value = JSON.parse(text) as Sidecar;
    const known = value.tool.name === TOOL.name && (value.state === 'started' || value.record?.output === output);
    if (known && typeof value.input.path === 'string') return value;
  } catch {
    // Reported below.
  }
  throw new Elf2dmpError({
    code: 'sidecar-unknown',
    kind: 'io-permanent',
    message: 'this file exists, but it is not the record that a batch keeps beside this output',
    file,
    hint: 'choose other names for the outputs, or remove the file',
  });
}

/** Replaces the sidecar as a whole: after a kill or on a full disk the old one stays. Throws `Elf2dmpError`. */
export async function writeSidecar(output: string, sidecar: Sidecar): Promise<void> {
  await replaceFile(sidecarOf(output), `${JSON.stringify(sidecar, null, 2)}\n`);
}

/** Removes temporary files that killed processes left beside these outputs. */
export async function sweep(outputs: readonly string[]): Promise<void> {
  const names = new Set(outputs.flatMap((output) => [output, sidecarOf(output)]));
  for (const directory of new Set(outputs.map((output) => dirname(output)))) {
    for (const entry of await readdir(directory).catch(() => [])) {
      const of = outputOfTemporary(entry);
      if (of !== undefined && names.has(join(directory, of)))
        await unlink(join(directory, basename(entry))).catch(() => undefined);
    }
  }
}
