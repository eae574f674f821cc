/**
 * Turns an ELF file into the dump without copying: room is opened at its front for header and page map,
 * and the patches are written over their pages (ext4, XFS).
 *
 * The order makes every moment safe to be killed at:
 *  1. the journal, with everything that will be overwritten, is written beside the file and synced;
 *  2. room is opened at the front. From now on the file's size shows whether that was done;
 *  3. pages are patched, header and page map written and synced, with another signature than a dump's;
 *  4. the dump's signature is written: only now is the file a dump, and the journal what can undo it.
 * Going back does the same in reverse, starting with the signature. Whoever finds a journal beside a file
 * without a signature goes back first.
 */
import { type BigIntStats, constants } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { ErrorCodeOf } from '../core/codes.ts';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { hex, PAGE_SIZE } from '../core/units.ts';
import { FILE_CALLS, type FileCalls } from '../files/file-calls.ts';
import { findWriters } from '../files/open-elsewhere.ts';
import { checkSpace } from '../files/publish.ts';
import { DUMP_SIGNATURE, UNFINISHED_SIGNATURE } from '../formats/win-dump.ts';
import type { DumpPlan } from '../plan/plan.ts';
import { positionOf } from '../plan/plan.ts';
import type { SharedPages } from '../plan/shared-pages.ts';
import { decodeJournal, encodeJournal, journalPath, MAX_JOURNAL_BYTES, type UndoJournal } from './undo-journal.ts';

const { O_RDONLY, O_RDWR, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK } = constants;

/** How `fallocate` says that the file system, or this file on it, has no such operation. */
const NO_SUCH_OPERATION = new Set(['ENOTSUP', 'EOPNOTSUPP', 'EINVAL', 'ENOSYS', 'ENODEV']);

/** A file that is, was, or will be converted in place; locked against other runs until it is closed. */
export class InPlaceFile {
  /** With links resolved. */
  readonly path: string;
  readonly #calls: FileCalls;
  /** Open for reading. */
  readonly #reader: number;
  /** As it was before this run changed it. */
  #stat: BigIntStats;
  #writer: number | undefined;
  #unseen = 0;

  private constructor(path: string, calls: FileCalls, reader: number, stat: BigIntStats) {
    this.path = path;
    this.#calls = calls;
    this.#reader = reader;
    this.#stat = stat;
  }

  /** Throws `Elf2dmpError` for what can't be changed in place, whatever is in it. */
  static async open(file: string, calls: FileCalls = FILE_CALLS): Promise<InPlaceFile> {
    const path = await realpath(file).catch((cause) => {
      throw ioError('open', file, cause);
    });
    const reader = await attempt('open', path, calls.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    try {
      const opened = new InPlaceFile(path, calls, reader, await attempt('examine', path, calls.stat(reader)));
      await opened.#check();
      return opened;
    } catch (error) {
      await calls.close(reader).catch(() => undefined);
      throw error;
    }
  }

  get journal(): string {
    return journalPath(this.path);
  }

  get #unfinishedJournal(): string {
    return `${this.journal}.part`;
  }

  /** Processes that might have the file open for writing, but can't be looked into. */
  get unseenProcesses(): number {
    return this.#unseen;
  }

  async close(): Promise<void> {
    // All is synced, so a failing close loses nothing.
    for (const fd of [this.#writer, this.#reader]) {
      if (fd !== undefined) await this.#calls.close(fd).catch(() => undefined);
    }
  }

  async #check(): Promise<void> {
    const refuse = (code: ErrorCodeOf<'io-permanent'>, message: string, hint: string) =>
      new Elf2dmpError({ code, kind: 'io-permanent', message, file: this.path, hint });
    if (!this.#stat.isFile()) throw refuse('io-not-a-file', 'not a regular file', 'name the dump file itself');
    const user = process.geteuid?.();
    if (user !== 0 && BigInt(user ?? -1) !== this.#stat.uid) {
      throw refuse(
        'in-place-not-owner',
        `the file belongs to user ${this.#stat.uid}, and only its owner and root can give it back its mode and time`,
        'run as that user or root, or name an OUTPUT: the dump then is a separate file',
      );
    }
    if (this.#stat.nlink > 1n) {
      throw refuse(
        'in-place-hard-links',
        `the file has ${this.#stat.nlink} names (hard links), and under all of them it would become another file`,
        'remove the other names, or name an OUTPUT: the dump then is a separate file',
      );
    }
    if (!(await attempt('lock', this.path, this.#calls.lock(this.#reader)))) {
      throw new Elf2dmpError({
        code: 'in-place-busy',
        kind: 'io-transient',
        message: 'another elf2dmp is at work on the file',
        file: this.path,
        hint: 'wait until it is done',
      });
    }
    const open = await attempt('examine', this.path, this.#calls.openForWriting(this.#reader));
    if (open === false) return;
    const { writers, unseen } = findWriters(this.#stat.dev, this.#stat.ino);
    if (open || writers.length > 0) {
      throw new Elf2dmpError({
        code: 'in-place-open-elsewhere',
        kind: 'io-transient',
        message: `the file is open for writing in ${writers.join(', ') || 'a process that cannot be seen from here'}`,
        file: this.path,
        hint: 'is the dump still being written? wait until it is complete',
      });
    }
    this.#unseen = unseen;
  }

  /**
   * What an earlier run left: nothing, a dump, or a beginning that `undo` takes back. Throws
   * `Elf2dmpError` where file and journal do not belong together.
   */
  async state(): Promise<'untouched' | 'begun' | 'dump'> {
    const journal = await this.#readJournal();
    if (!journal) return 'untouched';
    return (await this.#placement(journal)) === 'inserted' && (await this.#hasSignature()) ? 'dump' : 'begun';
  }

  /**
   * Makes the file the dump. Whatever fails, the file is afterwards as it was before, or the error says
   * that `undo` has to be called.
   *
   * @param plan with its pages where `inPlaceFirstPage` puts them
   * @param elf where the pages are now
   */
  async convert(plan: DumpPlan, elf: SharedPages, signal?: AbortSignal): Promise<void> {
    const { size, mtimeNs, mode } = this.#stat;
    const now = await this.#examine();
    if (now.size !== size || now.mtimeNs !== mtimeNs) {
      throw new Elf2dmpError({
        code: 'input-changed',
        kind: 'io-transient',
        message: 'the file was changed while it was read',
        file: this.path,
        hint: 'is it still being written? wait until the dump is complete, then convert again',
      });
    }
    const inserted = plan.firstPage - elf.offset;
    await checkSpace(this.path, inserted);
    const patched = plan.patches.map((patch) => ({
      at: positionOf(plan, patch.physical),
      bytes: patch.bytes,
      original: patch.original,
    }));
    const tail = Math.min(PAGE_SIZE, Number(size));
    const journal: UndoJournal = {
      inode: this.#stat.ino,
      born: this.#stat.birthtimeNs,
      size: Number(size),
      inserted,
      mode: Number(mode & 0o7777n),
      modified: mtimeNs,
      head: await this.#read(0, Math.min(PAGE_SIZE, elf.offset)),
      tail: await this.#read(Number(size) - tail, tail),
      patched: patched.map(({ at, original }) => ({ offset: at - inserted, original })),
    };
    signal?.throwIfAborted();
    await this.#writeJournal(journal);
    try {
      const writer = await this.#openWriter(journal.mode);
      // Flush the cache that the file's writer left; otherwise inserting room would wait for the disk.
      await attempt('write to disk', this.path, this.#calls.sync(writer));
      signal?.throwIfAborted();
      await this.#insert(writer, inserted);
      await attempt('reserve room', this.path, this.#calls.reserve(writer, inserted));
      await this.#write(UNFINISHED_SIGNATURE, 0);
      for (const { at, bytes } of patched) await this.#write(bytes, at);
      await this.#write(plan.prefix.subarray(DUMP_SIGNATURE.length), DUMP_SIGNATURE.length);
      await attempt('write to disk', this.path, this.#calls.sync(writer));
      signal?.throwIfAborted();
      await this.#write(plan.prefix.subarray(0, DUMP_SIGNATURE.length), 0);
      await attempt('write to disk', this.path, this.#calls.sync(writer));
    } catch (error) {
      await this.#goBack(journal).catch((second) => {
        throw new Elf2dmpError({
          code: 'in-place-stuck',
          kind: 'io-transient',
          message: 'converting in place failed half-way, and so did going back: the file is neither ELF nor dump',
          file: this.path,
          attempts: [error, second].map((e) => (e instanceof Error ? e.message : String(e))),
          hint: `nothing is lost: ${this.journal} holds what is missing. Remove the cause, then run elf2dmp --undo FILE`,
          cause: second,
        });
      });
      throw error;
    }
  }

  /** Makes the file the ELF file that it was, whatever an earlier run left, and removes the journal. */
  async undo(): Promise<UndoJournal> {
    const journal = await this.#readJournal();
    if (!journal) {
      // A run that was killed before it changed anything leaves one.
      await this.#removeIfThere(this.#unfinishedJournal);
      throw new Elf2dmpError({
        code: 'journal-missing',
        kind: 'io-permanent',
        message: 'there is nothing to undo: the file has no journal beside it',
        file: this.path,
        expected: this.journal,
        hint: 'the journal of a file converted in place has its name: if the file was renamed, rename the journal too',
      });
    }
    await this.#goBack(journal);
    this.#stat = await this.#examine();
    return journal;
  }

  async #goBack(journal: UndoJournal): Promise<void> {
    const placement = await this.#placement(journal);
    if (placement === 'inserted') {
      const writer = await this.#openWriter(journal.mode);
      if (await this.#hasSignature()) {
        // From here it must not pass for a dump.
        await this.#write(UNFINISHED_SIGNATURE, 0);
        await attempt('write to disk', this.path, this.#calls.sync(writer));
      }
      for (const { offset, original } of journal.patched) {
        const at = journal.inserted + offset;
        // A page that could not be patched for want of space can't be written now either.
        if (!(await this.#holds(at, original))) await this.#write(original, at);
      }
      await attempt('write to disk', this.path, this.#calls.sync(writer));
      await attempt('take the room at its front out', this.path, this.#calls.collapseRange(writer, journal.inserted));
    } else if (placement === 'lengthened') {
      const writer = await this.#openWriter(journal.mode);
      await attempt('shorten', this.path, this.#calls.truncate(writer, journal.size));
    }
    for (const { offset, original } of [{ offset: 0, original: journal.head }, ...journal.patched]) {
      if (!(await this.#holds(offset, original))) throw this.#unknownState(`other bytes at ${hex(offset)}`);
    }
    const { mode, mtimeNs } = await this.#examine();
    if (Number(mode & 0o7777n) !== journal.mode) {
      await attempt('set its mode', this.path, this.#calls.chmod(this.#reader, journal.mode));
    }
    if (mtimeNs !== journal.modified) {
      await attempt('set its time', this.path, this.#calls.setModified(this.#reader, journal.modified));
    }
    await attempt('write to disk', this.path, this.#calls.sync(this.#reader));
    await attempt('remove', this.journal, this.#calls.unlink(this.journal));
    await this.#syncDirectory();
  }

  /**
   * Whether room is open at the front. `lengthened`: the file has got its new size, but its bytes are where
   * they were; file systems make it longer before they move anything, and shorter after.
   */
  async #placement(journal: UndoJournal): Promise<'as-before' | 'inserted' | 'lengthened'> {
    const { size, inserted, head, tail } = journal;
    const stat = await this.#examine();
    if (stat.ino !== journal.inode || stat.birthtimeNs !== journal.born) {
      throw new Elf2dmpError({
        code: 'journal-of-another-file',
        kind: 'io-permanent',
        message: 'the undo journal beside the file is that of another file',
        file: this.path,
        expected: `inode ${journal.inode}`,
        actual: `${stat.ino}`,
        hint: `move ${this.journal} to where that file is now, under its name; remove it if the file is gone`,
      });
    }
    if (stat.size === BigInt(size)) return 'as-before';
    if (stat.size !== BigInt(size + inserted)) throw this.#unknownState(`${stat.size} bytes`);
    if (!(await this.#holds(0, head))) {
      if (await this.#holds(inserted, head)) return 'inserted';
    } else if (tail.some((byte) => byte !== 0) && (await this.#holds(size - tail.length, tail))) {
      if (await this.#isZero(size, inserted)) return 'lengthened';
    }
    throw this.#unknownState('bytes of neither at its front');
  }

  #unknownState(actual: string): Elf2dmpError {
    return new Elf2dmpError({
      code: 'in-place-unknown-state',
      kind: 'corrupt',
      message: 'the file is neither the ELF file nor the dump that its undo journal describes',
      file: this.path,
      actual,
      hint: `was it changed since? It was left as it is, and so was ${this.journal}`,
    });
  }

  async #insert(writer: number, length: number): Promise<void> {
    try {
      await this.#calls.insertRange(writer, length);
    } catch (cause) {
      if (!NO_SUCH_OPERATION.has((cause as NodeJS.ErrnoException).code ?? '')) {
        throw cause instanceof Elf2dmpError ? cause : ioError('open room at its front', this.path, cause);
      }
      throw new Elf2dmpError({
        code: 'in-place-unsupported',
        kind: 'unsupported',
        message: 'this file system cannot open room at the front of the file',
        file: this.path,
        hint: 'ext4 and XFS can; name an OUTPUT (on Btrfs with --reflink=always): the dump then is a separate file',
        cause,
      });
    }
  }

  /** QEMU makes its dumps read-only, for their owner too. */
  async #openWriter(mode: number): Promise<number> {
    if (this.#writer !== undefined) return this.#writer;
    const calls = this.#calls;
    const open = () => calls.open(this.path, O_RDWR | O_NOFOLLOW);
    const openAnyway = async (refused: NodeJS.ErrnoException) => {
      if (refused.code !== 'EACCES') throw refused;
      await calls.chmod(this.#reader, mode | 0o200).catch(() => {
        throw refused;
      });
      try {
        return await open();
      } finally {
        await calls.chmod(this.#reader, mode);
      }
    };
    const writer = await attempt('open for writing', this.path, open().catch(openAnyway));
    this.#writer = writer;
    const { dev, ino } = await attempt('examine', this.path, calls.stat(writer));
    if (dev !== this.#stat.dev || ino !== this.#stat.ino) {
      throw new Elf2dmpError({
        code: 'input-changed',
        kind: 'io-transient',
        message: 'the file was replaced by another one meanwhile',
        file: this.path,
        hint: 'run the command again',
      });
    }
    return writer;
  }

  #examine(): Promise<BigIntStats> {
    return attempt('examine', this.path, this.#calls.stat(this.#reader));
  }

  async #read(position: number, length: number): Promise<Buffer> {
    const buffer = Buffer.alloc(length);
    const count = await attempt('read', this.path, this.#calls.read(this.#reader, buffer, position));
    return buffer.subarray(0, count);
  }

  async #write(bytes: Buffer, position: number): Promise<void> {
    await attempt('write', this.path, this.#calls.write(this.#writer!, bytes, position));
  }

  async #holds(position: number, bytes: Buffer): Promise<boolean> {
    return (await this.#read(position, bytes.length)).equals(bytes);
  }

  async #isZero(position: number, length: number): Promise<boolean> {
    for (let at = 0; at < length; at += ZEROS.length) {
      const part = ZEROS.subarray(0, Math.min(ZEROS.length, length - at));
      if (!(await this.#holds(position + at, part))) return false;
    }
    return true;
  }

  #hasSignature(): Promise<boolean> {
    return this.#holds(0, DUMP_SIGNATURE);
  }

  /** Under a temporary name first: a journal that has its name is whole and on disk. */
  async #writeJournal(journal: UndoJournal): Promise<void> {
    const temporary = this.#unfinishedJournal;
    await this.#removeIfThere(temporary);
    const calls = this.#calls;
    const flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
    const fd = await attempt('create the undo journal', temporary, calls.open(temporary, flags, 0o600));
    try {
      try {
        await attempt('write', temporary, calls.write(fd, encodeJournal(journal), 0));
        await attempt('write to disk', temporary, calls.sync(fd));
      } finally {
        await attempt('write', temporary, calls.close(fd));
      }
      await attempt('rename', temporary, calls.rename(temporary, this.journal));
      await this.#syncDirectory();
    } catch (error) {
      // Nothing was changed yet.
      for (const path of [temporary, this.journal]) await this.#removeIfThere(path).catch(() => undefined);
      throw error;
    }
  }

  async #removeIfThere(path: string): Promise<void> {
    await this.#calls.unlink(path).catch((cause) => {
      if (cause.code !== 'ENOENT') throw ioError('remove', path, cause);
    });
  }

  async #readJournal(): Promise<UndoJournal | undefined> {
    const { journal: path } = this;
    const calls = this.#calls;
    let fd: number;
    try {
      fd = await calls.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw ioError('open', path, cause);
    }
    try {
      const stat = await attempt('examine', path, calls.stat(fd));
      const trusted = [0, process.geteuid?.(), Number(this.#stat.uid)].includes(Number(stat.uid));
      if (!stat.isFile() || !trusted || (stat.mode & 0o022n) !== 0n) {
        throw new Elf2dmpError({
          code: 'journal-not-trusted',
          kind: 'io-permanent',
          message: 'others could have written this undo journal',
          file: path,
          expected: "a regular file of the dump's owner that nobody else can write to",
          hint: 'check who made it; if it is yours, set its owner, and its mode to 0600',
        });
      }
      const buffer = Buffer.alloc(Math.min(Number(stat.size), MAX_JOURNAL_BYTES));
      const count = await attempt('read', path, calls.read(fd, buffer, 0));
      return decodeJournal(buffer.subarray(0, count), path);
    } finally {
      await calls.close(fd).catch(() => undefined);
    }
  }

  async #syncDirectory(): Promise<void> {
    const directory = dirname(this.path);
    const fd = await attempt('open', directory, this.#calls.open(directory, O_RDONLY));
    try {
      await attempt('write to disk', directory, this.#calls.sync(fd));
    } finally {
      await this.#calls.close(fd).catch(() => undefined);
    }
  }
}

const ZEROS = Buffer.alloc(64 * 1024);

async function attempt<T>(action: string, file: string, call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (cause) {
    throw cause instanceof Elf2dmpError ? cause : ioError(action, file, cause);
  }
}
