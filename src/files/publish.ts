import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { access, type FileHandle, link, lstat, open, realpath, rename, stat, statfs } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { takeSignals } from '../core/pulse.ts';
import { bytes, KIB } from '../core/units.ts';
import { memoryDumpKind } from './memory-dump.ts';
import { formerOf, LONGEST_NAME, NO_HARD_LINKS, outputExists, removeFile, TemporaryFile } from './temporary.ts';

/**
 * Safe publishing: a file gets its name when it is complete and on disk, and a crash, a kill or a full disk leaves
 * what was there before. Every file that elf2dmp writes is written here, except the file that is converted in place,
 * with its journal (write/in-place.ts). docs/files.md lists them, and a test holds it against the calls in the source.
 */

/** How a finished file gets its name. */
export interface PublishOptions {
  /** Replace an existing file. Default: refuse that. */
  force?: boolean | undefined;
  signal?: AbortSignal | undefined;
  /** Called when all is written and only the disk is waited for. */
  onSync?: (() => void) | undefined;
  /** Called when everything is on disk, before it gets the output's name; may throw to refuse it. */
  beforePublish?: (() => void) | undefined;
  /** The file's mode, which the umask reduces. Default 0600: memory holds secrets. */
  mode?: number | undefined;
  /** Publish it with these others: until then it stays under its temporary name. */
  together?: Publication | undefined;
}

/** A file that is to be written. */
export interface WantedOutput {
  /** What the user calls it: `OUTPUT`, `--report`. */
  what: string;
  path: string;
  /** Replace an existing file. */
  force: boolean;
  /** Whether an existing file with these first bytes is one of ours, which is replaced without `force`. */
  ours?: ((head: Buffer) => boolean) | undefined;
  /** It grows: an existing file is opened, and not replaced, also with `force`. */
  grows?: boolean | undefined;
}

/** Beside a file that was converted in place, `FILE.elf2dmp-undo` can restore it: no output takes such a name. */
export const UNDO_SUFFIX = '.elf2dmp-undo';

/** As `checkOutputs`, for one output and one input. */
export async function checkOutput(output: string, input: string, force: boolean): Promise<string> {
  const [resolved] = await checkOutputs([{ what: 'OUTPUT', path: output, force }], [input]);
  return resolved!;
}

/**
 * Refuses what can't become the outputs, before any work is done: inputs and other outputs under any name, directories,
 * links and devices, memory dumps, undo journals, and without `force` whatever exists and is not ours. Returns the
 * paths with links resolved. Throws `Elf2dmpError`.
 */
export async function checkOutputs(outputs: readonly WantedOutput[], inputs: readonly string[]): Promise<string[]> {
  // fstat(0) for standard input: `elf2dmp - FILE < FILE`.
  const read = inputs.map(async (input) => identityOf(input === '-' ? fstatSync(0) : await stat(input)));
  const inputFiles = new Set(
    (await Promise.allSettled(read)).map((found) => (found.status === 'fulfilled' ? found.value : '')),
  );
  const taken = new Map<string, string>();
  const paths: string[] = [];
  for (const output of outputs) {
    const { path, existing } = await checkOne(output, inputFiles);
    for (const key of existing ? [path, identityOf(existing)] : [path]) {
      const other = taken.get(key);
      if (other !== undefined) throw twice(other, output);
      taken.set(key, output.what);
    }
    paths.push(path);
  }
  return paths;
}

const identityOf = ({ dev, ino }: { dev: number; ino: number }): string => `${dev}:${ino}`;

async function checkOne(output: WantedOutput, inputFiles: ReadonlySet<string>) {
  const directory = dirname(output.path);
  const resolved = await realpath(directory).catch((cause) => {
    throw ioError('use the output directory', directory, cause);
  });
  const path = join(resolved, basename(output.path));
  if (path.endsWith(UNDO_SUFFIX) || path.endsWith(`${UNDO_SUFFIX}.part`)) {
    throw new Elf2dmpError({
      code: 'output-is-journal',
      kind: 'usage',
      message: 'the name is that of an undo journal, which a conversion in place needs',
      file: output.path,
      hint: 'name another file',
    });
  }
  const existing = await statUnlessMissing(path, output.path);
  await checkWritable(existing && output.grows ? path : resolved, output);
  if (!existing) return { path, existing };
  if (!existing.isFile()) {
    throw notAFile(
      output.path,
      existing.isDirectory() ? 'the output is a directory' : 'the output exists and is not a regular file',
    );
  }
  if (inputFiles.has(identityOf(existing))) {
    throw new Elf2dmpError({
      code: 'output-is-input',
      kind: 'usage',
      message: 'the output is the input',
      file: output.path,
      hint: 'name another file',
    });
  }
  await checkExisting(path, output);
  return { path, existing };
}

/** Less holds none of the files that are written here. */
const LEAST_SPACE = 64 * KIB;

/** What can't be written is known before the work, not after it. */
async function checkWritable(place: string, { path }: WantedOutput): Promise<void> {
  await access(place, constants.W_OK).catch((cause) => {
    throw ioError('write here', path, cause);
  });
  const fs = await statfs(place).catch(() => undefined);
  if (!fs || fs.blocks === 0 || fs.bavail * fs.bsize >= LEAST_SPACE) return;
  throw new Elf2dmpError({
    code: 'no-space',
    kind: 'io-transient',
    message: `the file system is full: ${bytes(fs.bavail * fs.bsize)} are free`,
    file: path,
    hint: 'free space or name an output on another file system; nothing was written',
  });
}

const notAFile = (file: string, message: string) =>
  new Elf2dmpError({ code: 'output-not-a-file', kind: 'io-permanent', message, file, hint: 'name a new file' });

function statUnlessMissing(path: string, name: string) {
  return lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw ioError('use', name, error);
  });
}

/** Refuses an existing file that must not be replaced. */
async function checkExisting(path: string, { path: name, force, ours, grows }: WantedOutput): Promise<void> {
  const head = await readHead(path).catch((cause) => {
    // What can't be read can't be recognised either.
    if (!force && !ours) return Buffer.alloc(0);
    throw ioError('read', name, cause);
  });
  if (ours?.(head)) return;
  if (!force) throw grows ? outputExists(name, 'name another file: this one has other contents') : outputExists(name);
  await refuseMemoryDump(path, name, head);
}

/** What no `force` replaces. */
async function refuseMemoryDump(path: string, name: string, head: Buffer): Promise<void> {
  const kind = await memoryDumpKind(head);
  if (kind === undefined && !(await hasJournal(path, name))) return;
  throw new Elf2dmpError({
    code: 'output-is-memory-dump',
    kind: 'io-permanent',
    message:
      kind === undefined
        ? 'the output was converted in place, and its undo journal can restore the guest memory dump that it was'
        : `the output is ${kind}, which may be the only copy of a guest's memory: --force does not replace it`,
    file: name,
    hint: kind === undefined ? 'restore it with `elf2dmp --undo`, or remove both first' : 'remove it first',
  });
}

/** Where the journal's name would be too long there is none. */
const hasJournal = async (path: string, name: string): Promise<boolean> =>
  Buffer.byteLength(basename(path)) + UNDO_SUFFIX.length <= LONGEST_NAME &&
  (await statUnlessMissing(path + UNDO_SUFFIX, name)) !== undefined;

function twice(other: string, { what, path }: WantedOutput): Elf2dmpError {
  return new Elf2dmpError({
    code: 'output-twice',
    kind: 'usage',
    message: `${other} and ${what} name the same file`,
    file: path,
    hint: 'name another file',
  });
}

/** The first bytes of a file, enough to recognise it. Throws what the file system throws. */
export async function readHead(path: string): Promise<Buffer> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD), 0, HEAD, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

const HEAD = 64 * KIB;

/** Runs `write` on a new temporary file, which gets the output's name when it is on disk. */
export async function writeThenPublish(
  output: string,
  options: PublishOptions,
  write: (file: FileHandle, name: string) => Promise<void>,
): Promise<void> {
  if (options.together) return options.together.write(output, options, write);
  await publishTogether(options.signal, (publication) => publication.write(output, options, write));
}

/**
 * Publishes what `work` writes: all of it or, if anything fails, nothing. Only a kill in the middle of the renames can
 * leave a part of the files; the first that was written comes last, so that it stands for all.
 */
export async function publishTogether<T>(
  signal: AbortSignal | undefined,
  work: (publication: Publication) => Promise<T>,
): Promise<T> {
  const publication = new Publication();
  try {
    const result = await work(publication);
    await takeSignals(signal);
    await publication.publish();
    return result;
  } catch (error) {
    await publication.discard();
    throw error;
  }
}

interface Staged {
  file: TemporaryFile;
  output: string;
  force: boolean;
}

/** A file of a publication that is being written. */
export interface BegunFile {
  handle: FileHandle;
  /** Where it can be opened until it has its name. */
  path: string;
  /** Syncs it: now it can be published. Throws `Elf2dmpError`. */
  finish(options: Pick<PublishOptions, 'signal' | 'onSync' | 'beforePublish'>): Promise<void>;
  /** Closes and removes it. */
  abandon(): Promise<void>;
}

/** Files that are complete and on disk, and get their names together. */
export class Publication {
  readonly #staged: Staged[] = [];

  /** Writes a file of the publication. Throws `Elf2dmpError`. */
  async write(
    output: string,
    options: PublishOptions,
    write: (file: FileHandle, name: string) => Promise<void>,
  ): Promise<void> {
    const begun = await this.begin(output, options);
    try {
      await write(begun.handle, output);
      await begun.finish(options);
    } catch (error) {
      await begun.abandon();
      throw error;
    }
  }

  /** Creates a file of the publication, for callers that write it in several steps. Throws `Elf2dmpError`. */
  async begin(output: string, { force = false, mode = 0o600 }: PublishOptions): Promise<BegunFile> {
    const file = await TemporaryFile.create(output, mode);
    const staged = { file, output, force };
    this.#staged.push(staged);
    return {
      handle: file.handle,
      path: file.path,
      finish: async ({ signal, onSync, beforePublish }) => {
        signal?.throwIfAborted();
        onSync?.();
        await file.handle.sync().catch((cause) => {
          throw ioError('write to disk', output, cause);
        });
        signal?.throwIfAborted();
        beforePublish?.();
      },
      abandon: async () => {
        this.#staged.splice(this.#staged.indexOf(staged), 1);
        await file.discard();
      },
    };
  }

  /** Where an output's bytes are until it is published. */
  fileOf(output: string): string {
    return this.#staged.find((staged) => staged.output === output)?.file.path ?? output;
  }

  /** Gives all files their names, or none. Throws `Elf2dmpError`. */
  async publish(): Promise<void> {
    const back: (() => Promise<void>)[] = [];
    const former: string[] = [];
    const files = this.#staged.toReversed();
    // Nobody knows what has got the name since it was checked.
    for (const { output, force } of files) {
      const head = force ? await readHead(output).catch(() => undefined) : undefined;
      if (head) await refuseMemoryDump(output, output, head);
    }
    try {
      for (const [i, { file, output, force }] of files.entries()) {
        // Nothing can fail after the last.
        const kept = force && i < files.length - 1 ? await keepFormer(output) : undefined;
        if (kept !== undefined) former.push(kept);
        await file.giveName(output, force);
        await syncDirectory(output);
        back.push(() => (kept === undefined ? removeFile(output) : rename(kept, output).catch(() => undefined)));
      }
    } catch (error) {
      for (const undo of back.reverse()) await undo();
      throw error;
    } finally {
      for (const file of former) await removeFile(file);
    }
    for (const { file } of this.#staged.splice(0)) await file.close();
  }

  /** Removes what was not published. */
  async discard(): Promise<void> {
    for (const { file } of this.#staged.splice(0)) await file.discard();
  }
}

/** A second name for the file that is about to be replaced; undefined if there is none. */
async function keepFormer(output: string): Promise<string | undefined> {
  const kept = formerOf(output);
  try {
    await link(output, kept);
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    if (!NO_HARD_LINKS.has(code)) throw ioError('keep', output, error);
    await rename(output, kept).catch((cause) => {
      throw ioError('keep', output, cause);
    });
  }
  return kept;
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
 * Replaces a small file of ours as a whole, or creates it; readable for whom the umask allows. The caller knows that it
 * is ours: by `checkOutputs`, or because it was read. Throws `Elf2dmpError`.
 */
export const replaceFile = (file: string, text: string): Promise<void> =>
  writeNewFile(file, Buffer.from(text), { force: true, mode: 0o666 });

/**
 * Opens a file that grows, or creates it, without changing it yet: the caller looks whether it is ours. It is a regular
 * file. Throws `Elf2dmpError`.
 */
export function openForAppending(path: string): number {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK, 0o666);
    if (fstatSync(fd).isFile()) return fd;
  } catch (cause) {
    throw ioError('use', path, cause);
  }
  closeSync(fd);
  throw notAFile(path, 'the output exists and is not a regular file');
}

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

/** A name has to survive a crash too; some file systems can't sync a directory. */
async function syncDirectory(output: string): Promise<void> {
  const directory = await open(dirname(output), constants.O_RDONLY).catch(() => undefined);
  await directory?.sync().catch(() => undefined);
  await directory?.close();
}
