/** `OUTPUT.json`: what a batch did for an output, so that the next run knows what is left to do. */
import { createHash, randomBytes } from 'node:crypto';
import { type BigIntStats, createReadStream } from 'node:fs';
import { open, readdir, readFile, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Elf2dmpError, type ErrorCode, type ErrorKind, ioError } from '../core/errors.ts';
import { sha256OfFile } from '../files/hash.ts';
import type { ConversionReport } from '../report/conversion.ts';
import { TOOL } from '../version.ts';
import { type JobOptions, sidecarOf } from './plan.ts';

/** How a job ended: a line of `--report`. */
export interface JobRecord {
  /** Of this line: a job has a second one only if it was run again and ended differently. */
  id: string;
  input: string;
  output: string;
  outcome: 'good' | 'losses' | 'failed';
  /** Of the job's process; 128 and the signal's number where one ended it. */
  exitCode: number;
  build: number | null;
  /** `0xd1`; null where the guest did not crash, and where there is no dump. */
  bugCheck: string | null;
  seconds: number;
  /** The dump's; null where there is none. */
  bytes: number | null;
  /** How many, and the first of them. */
  lossCount: number;
  losses: string[];
  error: JobError | null;
  /** How often it was run. */
  attempts: number;
  /** ISO 8601, UTC. */
  finished: string;
  /** With `--hash`: of all the input and all the output. */
  sha256: ConversionReport['sha256'] | null;
}

export interface JobError {
  code: ErrorCode;
  kind: ErrorKind;
  text: string;
  /** The end of what a process without a report said on stderr. */
  stderr?: string;
}

/** By what an input is known again. */
interface InputIdentity {
  path: string;
  size: number;
  /** Nanoseconds since 1970. */
  mtime: string;
  inode: string;
  /** Of its first 64 KiB, which hold headers and notes. */
  headSha256: string;
}

export interface Sidecar {
  tool: { name: string; version: string };
  /** `started`: its process may have ended in any way, also with a dump. */
  state: 'started' | 'finished';
  input: InputIdentity;
  options: JobOptions;
  /** SHA-256 of the dump's first two pages, which are its header. */
  headerSha256: string | null;
  record: JobRecord | null;
}

const HEAD = 64 * 1024;
const DUMP_HEADER = 8192;

/** What is known when a job starts. Throws `Elf2dmpError`. */
export async function startedSidecar(input: string, options: JobOptions): Promise<Sidecar> {
  const { size, mtimeNs, ino, headSha256 } = await identify(input);
  const identity = { path: input, size: Number(size), mtime: `${mtimeNs}`, inode: `${ino}`, headSha256 };
  return { tool: TOOL, state: 'started', input: identity, options, headerSha256: null, record: null };
}

async function identify(path: string): Promise<BigIntStats & { headSha256: string }> {
  try {
    const stats = await stat(path, { bigint: true });
    // To read from a pipe would take from it.
    const headSha256 = stats.isFile() ? await sha256OfHead(path, HEAD) : '';
    return Object.assign(stats, { headSha256 });
  } catch (cause) {
    throw ioError('read', path, cause);
  }
}

/** The same input, options and version: what it came to holds for `now` too. */
export const sameWork = (then: Sidecar, now: Sidecar): boolean =>
  isDeepStrictEqual([then.tool, then.input, then.options], [now.tool, now.input, now.options]);

/** Hex, of a file's first `limit` bytes. */
async function sha256OfHead(path: string, limit: number): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { end: limit - 1 })) hash.update(chunk);
  return hash.digest('hex');
}

/** Of a dump. Throws what the file system throws. */
export const headerSha256 = (output: string): Promise<string> => sha256OfHead(output, DUMP_HEADER);

/**
 * Whether the dump is what its sidecar says.
 *
 * @param recheck read it, instead of trusting its size
 */
export async function outputHolds(output: string, { record, headerSha256: header }: Sidecar, recheck: boolean) {
  const stats = await stat(output).catch(() => undefined);
  if (!stats?.isFile() || !record || stats.size !== record.bytes) return false;
  if (!recheck) return true;
  const sound = record.sha256 ? (await sha256OfFile(output)) === record.sha256.output : true;
  return sound && (await headerSha256(output)) === header;
}

/** undefined where there is none. Throws `Elf2dmpError` where there is another file of that name. */
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
    // Said below.
  }
  throw new Elf2dmpError({
    code: 'sidecar-unknown',
    kind: 'io-permanent',
    message: 'a file of this name is there, and it is not what a batch writes beside this output',
    file,
    hint: 'name the outputs differently, or remove it',
  });
}

/** Replaces it as a whole: a kill or a full disk leaves the old one. Throws `Elf2dmpError`. */
export async function writeSidecar(output: string, sidecar: Sidecar): Promise<void> {
  await replaceFile(sidecarOf(output), `${JSON.stringify(sidecar, null, 2)}\n`);
}

/** Writes beside it first, and to disk. Throws `Elf2dmpError`. */
export async function replaceFile(file: string, text: string): Promise<void> {
  const temporary = `${file}.${randomBytes(6).toString('hex')}.part`;
  try {
    const handle = await open(temporary, 'wx');
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (cause) {
    await unlink(temporary).catch(() => undefined);
    throw ioError('write', file, cause);
  }
}

/** Removes the temporary files that killed processes left beside these outputs. */
export async function sweep(outputs: readonly string[]): Promise<void> {
  const names = new Set(outputs.flatMap((output) => [output, sidecarOf(output)]));
  for (const directory of new Set(outputs.map((output) => dirname(output)))) {
    for (const entry of await readdir(directory).catch(() => [])) {
      const of = /^(.+)\.[0-9a-f]{12}\.part$/.exec(entry)?.[1];
      if (of !== undefined && names.has(join(directory, of)))
        await unlink(join(directory, basename(entry))).catch(() => undefined);
    }
  }
}
