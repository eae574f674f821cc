import { randomBytes } from 'node:crypto';
import { constants, fstatSync } from 'node:fs';
import { type FileHandle, link, lstat, open, realpath, rename, stat, statfs, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { bytes } from '../core/units.ts';

/**
 * Safe publishing: a file gets its name when it is complete and on disk, and a crash, a kill or a full disk leaves
 * what was there before. Every file that elf2dmp writes is written here, except those that are appended to and the
 * file that is converted in place, with its journal (write/in-place.ts).
 */

/** How a finished file gets its name. */
export interface PublishOptions {
  /** Replace an existing file. Default: refuse that. */
  force?: boolean | undefined;
  signal?: AbortSignal | undefined;
  /** Called when everything is on disk, before it gets the output's name; may throw to refuse it. */
  beforePublish?: (() => void) | undefined;
  /** The file's mode, which the umask reduces. Default 0600: memory holds secrets. */
  mode?: number | undefined;
}

/** Refuses what can't become the output, before any work is done. Returns the path with links resolved. */
export async function checkOutput(output: string, input: string, force: boolean): Promise<string> {
  const directory = dirname(output);
  let resolved: string;
  try {
    resolved = join(await realpath(directory), basename(output));
  } catch (cause) {
    throw ioError('use the output directory', directory, cause);
  }
  const existing = await lstat(resolved).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw ioError('use', output, error);
  });
  if (!existing) return resolved;
  if (existing.isDirectory() || !existing.isFile()) {
    throw new Elf2dmpError({
      code: 'output-not-a-file',
      kind: 'io-permanent',
      message: existing.isDirectory() ? 'the output is a directory' : 'the output exists and is not a regular file',
      file: output,
      hint: 'name a new file for the dump',
    });
  }
  // fstat(0) for standard input: `elf2dmp - FILE < FILE`.
  const source = input === '-' ? fstatSync(0) : await stat(input).catch(() => undefined);
  if (source && source.dev === existing.dev && source.ino === existing.ino) {
    throw new Elf2dmpError({
      code: 'output-is-input',
      kind: 'usage',
      message: 'the output is the input',
      file: output,
      hint: 'name another file for the dump',
    });
  }
  if (!force) throw outputExists(output);
  return resolved;
}

/** The error for an output that must not be replaced. */
export const outputExists = (output: string) =>
  new Elf2dmpError({
    code: 'output-exists',
    kind: 'io-permanent',
    message: 'the output exists already and was left as it is',
    file: output,
    hint: 'give --force to replace it, or name another file',
  });
const temporaryFor = (output: string): string => `${output}.${randomBytes(6).toString('hex')}.part`;

/** The output whose temporary file has this name, which a killed process can leave; undefined for other names. */
export const outputOfTemporary = (name: string): string | undefined => /^(.+)\.[0-9a-f]{12}\.part$/.exec(name)?.[1];

/** Runs `write` on a new temporary file beside the output, which gets the output's name when it is on disk. */
export async function writeThenPublish(
  output: string,
  options: PublishOptions,
  write: (file: FileHandle, name: string) => Promise<void>,
): Promise<void> {
  const temporary = temporaryFor(output);
  const file = await open(
    temporary,
    constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    options.mode ?? 0o600,
  ).catch((cause) => {
    throw ioError('create', temporary, cause);
  });
  let kept = false;
  try {
    try {
      await write(file, temporary);
      await file.sync().catch((cause) => {
        throw ioError('write to disk', temporary, cause);
      });
    } finally {
      await file.close();
    }
    options.signal?.throwIfAborted();
    options.beforePublish?.();
    await publish(temporary, output, options.force ?? false);
    kept = true;
  } finally {
    if (!kept) await unlink(temporary).catch(() => undefined);
  }
}

/**
 * Writes a small file as a dump is written: whole or not at all, and never over another one without `force`.
 *
 * @param output as `checkOutput` returned it
 */
export async function writeNewFile(output: string, content: Buffer, options: PublishOptions = {}): Promise<void> {
  await writeThenPublish(output, options, (file, name) => writeAll(file, name, content, 0));
}

/**
 * Replaces a small file of ours as a whole, or creates it; readable for whom the umask allows. Throws `Elf2dmpError`.
 */
export const replaceFile = (file: string, text: string): Promise<void> =>
  writeNewFile(file, Buffer.from(text), { force: true, mode: 0o666 });

/** Writes all of `bytes`, however few the system takes at once. Throws `Elf2dmpError`. */
export async function writeAll(file: FileHandle, name: string, bytes: Buffer, position: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, bytes.length - at, position + at).catch((cause) => {
      throw ioError('write', name, cause);
    });
    at += bytesWritten;
  }
}

/** Throws `Elf2dmpError` (no-space) if `size` bytes do not fit the output's file system, where that can be known. */
export async function checkSpace(output: string, size: number): Promise<void> {
  const fs = await statfs(dirname(output)).catch(() => undefined);
  if (!fs || fs.blocks === 0) return;
  const free = fs.bavail * fs.bsize;
  if (free >= size) return;
  throw new Elf2dmpError({
    code: 'no-space',
    kind: 'io-transient',
    message: `the dump needs ${bytes(size)}, but its file system has ${bytes(free)} free`,
    file: output,
    hint: 'free space or name an output on another file system; nothing was written',
  });
}

/** Gives the complete file its name. Without `force`, never over a file that appeared meanwhile. */
async function publish(temporary: string, output: string, force: boolean): Promise<void> {
  try {
    if (force) await rename(temporary, output);
    else await renameUnlessThere(temporary, output);
  } catch (error) {
    if (error instanceof Elf2dmpError) throw error;
    throw ioError('rename the finished file to', output, error);
  }
  // The name has to survive a crash too; some file systems can't sync a directory.
  const directory = await open(dirname(output), constants.O_RDONLY).catch(() => undefined);
  await directory?.sync().catch(() => undefined);
  await directory?.close();
}

/** How file systems without hard links (FAT, some network ones) refuse them. */
const NO_HARD_LINKS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK']);

async function renameUnlessThere(temporary: string, output: string): Promise<void> {
  try {
    await link(temporary, output);
    await unlink(temporary);
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') throw outputExists(output);
    if (!NO_HARD_LINKS.has(code)) throw error;
    if (await lstat(output).catch(() => undefined)) throw outputExists(output);
    await rename(temporary, output);
  }
}
