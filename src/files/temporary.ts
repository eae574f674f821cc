/**
 * Files on their way to their names. Where Linux and the file system have it (O_TMPFILE in open(2)), such a file has no
 * name until it is whole, so that whatever ends the process leaves nothing. Elsewhere it has a name of its own beside
 * the output's.
 */

import { randomBytes } from 'node:crypto';
import { constants, unlinkSync } from 'node:fs';
import { copyFile, type FileHandle, link, lstat, open, readdir, rename, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { ON_SUDDEN_END } from '../core/sudden-end.ts';
import { type Libc, loadLibc } from './libc.ts';
import { tryLock } from './lock.ts';

const temporaryFor = (output: string): string => beside(output, 'part');

/** A name for what the output was until now: no leftover that a later run would remove. */
export const formerOf = (output: string): string => beside(output, 'former');

/** Bytes that a name may have (NAME_MAX). */
export const LONGEST_NAME = 255;

/** A new name beside the output; one without the output's where both together would be too long. */
function beside(output: string, ending: string): string {
  const suffix = `.${randomBytes(6).toString('hex')}.${ending}`;
  const isShort = Buffer.byteLength(basename(output)) + suffix.length <= LONGEST_NAME;
  return isShort ? output + suffix : join(dirname(output), `elf2dmp${suffix}`);
}

/** The output whose temporary file has this name, which a killed process can leave; undefined for other names. */
export const outputOfTemporary = (name: string): string | undefined => /^(.+)\.[0-9a-f]{12}\.part$/.exec(name)?.[1];

/** Removes a file if it is there. */
export const removeFile = (path: string): Promise<void> => unlink(path).catch(() => undefined);

/** The error for an output that must not be replaced. */
export const outputExists = (output: string, hint = 'give --force to replace it, or name another file') =>
  new Elf2dmpError({
    code: 'output-exists',
    kind: 'io-permanent',
    message: 'the output exists already and was left as it is',
    file: output,
    hint,
  });

/** A complete file, or one that becomes one. */
export class TemporaryFile {
  readonly handle: FileHandle;
  /** Where it can be opened until it has its name, by other processes too. */
  readonly path: string;
  /** Its name so far. */
  #name: string | undefined;

  private constructor(handle: FileHandle, name: string | undefined) {
    this.handle = handle;
    this.path = name ?? `/proc/${process.pid}/fd/${handle.fd}`;
    if (name !== undefined) this.#take(name);
  }

  /** Throws `Elf2dmpError`. */
  static async create(output: string, mode: number): Promise<TemporaryFile> {
    const libc = await loadLibc();
    if (typeof libc !== 'string') {
      const unnamed = await open(dirname(output), constants.O_RDWR | O_TMPFILE, mode).catch(() => undefined);
      if (unnamed) return new TemporaryFile(unnamed, undefined);
    }
    const name = temporaryFor(output);
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    const handle = await open(name, flags, mode).catch((cause) => {
      throw ioError('create', name, cause);
    });
    // Says that its writer lives; see `removeLeftovers`.
    await tryLock(handle.fd, 'exclusive');
    return new TemporaryFile(handle, name);
  }

  /** Gives it the output's name; without `force` never over a file that is there. Throws `Elf2dmpError`. */
  async giveName(output: string, force: boolean): Promise<void> {
    try {
      if (this.#name === undefined && !force && (await linkUnnamed(this.handle.fd, output))) return;
      const name = this.#name ?? (await this.#nameBeside(output));
      if (force) await rename(name, output);
      else await renameUnlessThere(name, output);
      this.#forget();
    } catch (error) {
      if (error instanceof Elf2dmpError) throw error;
      throw ioError('rename the finished file to', output, error);
    }
  }

  async #nameBeside(output: string): Promise<string> {
    const name = temporaryFor(output);
    this.#take(name);
    if (await linkUnnamed(this.handle.fd, name)) return name;
    // The file system creates files without a name and then can't name them.
    await copyFile(this.path, name, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
    const copy = await open(name, constants.O_RDWR);
    await copy.sync().finally(() => copy.close());
    return name;
  }

  close(): Promise<void> {
    return this.handle.close();
  }

  /** Closes it and, unless it has got the output's name, removes it. */
  async discard(): Promise<void> {
    await this.handle.close().catch(() => undefined);
    if (this.#name !== undefined) await removeFile(this.#name);
    this.#forget();
  }

  readonly #remove = () => {
    try {
      unlinkSync(this.#name!);
    } catch {
      // It is gone already, or nobody can remove it.
    }
  };

  #take(name: string): void {
    this.#name = name;
    ON_SUDDEN_END.add(this.#remove);
  }

  #forget(): void {
    this.#name = undefined;
    ON_SUDDEN_END.delete(this.#remove);
  }
}

/** open(2), asm-generic/fcntl.h: the flag includes O_DIRECTORY, whose value depends on the machine. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

// fcntl.h and errno.h, on Linux
const AT_FDCWD = -100;
const AT_SYMLINK_FOLLOW = 0x400;
const EEXIST = 17;

let linkat: ((from: number, path: string, to: number, name: string, flags: number) => number) | undefined;

/** @returns false where it can't be done. Throws `Elf2dmpError` (output-exists) where the name is taken. */
async function linkUnnamed(fd: number, name: string): Promise<boolean> {
  const libc = (await loadLibc()) as Libc;
  linkat ??= libc.library.func('int linkat(int from, const char *path, int to, const char *name, int flags)');
  if (linkat(AT_FDCWD, `/proc/self/fd/${fd}`, AT_FDCWD, name, AT_SYMLINK_FOLLOW) === 0) return true;
  if (libc.errno() === EEXIST) throw outputExists(name);
  return false;
}

/** How file systems without hard links (FAT, some network ones) refuse them. */
export const NO_HARD_LINKS: ReadonlySet<string> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK']);

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

/** A temporary file that was just created may not be locked yet. */
const NEW_MS = 10_000;

/**
 * Removes temporary files of these outputs.
 *
 * @param remove removes one; by default those whose writers were killed, where locks tell that
 */
export async function removeLeftovers(outputs: Iterable<string>, remove = removeIfLeft): Promise<void> {
  const names = new Set(outputs);
  for (const directory of new Set([...names].map((output) => dirname(output)))) {
    for (const entry of await readdir(directory).catch(() => [])) {
      const of = outputOfTemporary(entry);
      if (of !== undefined && names.has(join(directory, of))) await remove(join(directory, entry));
    }
  }
}

async function removeIfLeft(path: string): Promise<void> {
  const file = await open(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(() => undefined);
  if (!file) return;
  try {
    const stats = await file.stat();
    const old = stats.isFile() && Date.now() - stats.mtimeMs > NEW_MS;
    if (old && (await tryLock(file.fd, 'exclusive')) === 'locked') await removeFile(path);
  } finally {
    await file.close();
  }
}
