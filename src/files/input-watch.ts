/** Notices when an input changes while it is read. */
import { type BigIntStats, closeSync, constants, fstatSync, openSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { Elf2dmpError } from '../core/errors.ts';
import { tryLock } from './lock.ts';
import { findWriters } from './open-elsewhere.ts';

/**
 * Locks an input against being converted in place while it is read; the lock ends when `fd` is closed. Where the system
 * has no such locks, nothing is locked. Throws `Elf2dmpError` while another run converts it.
 */
export async function lockForReading(fd: number, name: string): Promise<void> {
  if ((await tryLock(fd, 'shared')) !== 'busy') return;
  throw new Elf2dmpError({
    code: 'input-locked',
    kind: 'io-transient',
    message: 'another elf2dmp is converting this file in place',
    file: name,
    hint: 'wait until it is done',
  });
}

const sameRights = (a: BigIntStats, b: BigIntStats): boolean =>
  a.mode === b.mode && a.uid === b.uid && a.gid === b.gid && a.nlink === b.nlink;

/** An input as it was when it was opened. */
export class InputWatch {
  readonly #fd: number;
  readonly #name: string;
  readonly #path: string | undefined;
  readonly #before: BigIntStats;

  /**
   * @param fd stays the caller's, and has to stay open only where there is no path
   * @param path undefined where it has none, as standard input
   */
  constructor(fd: number, name: string, path: string | undefined) {
    this.#fd = fd;
    this.#name = name;
    this.#path = path;
    this.#before = fstatSync(fd, { bigint: true });
  }

  /** What is different now, in words; undefined if nothing is. */
  async change(): Promise<string | undefined> {
    const { size, mtimeNs, ctimeNs, dev, ino } = this.#before;
    const now =
      this.#path === undefined
        ? fstatSync(this.#fd, { bigint: true })
        : await stat(this.#path, { bigint: true }).catch(() => undefined);
    if (now?.ino !== ino || now.dev !== dev) return 'another file has its name now';
    if (now.size !== size) return `it had ${size} bytes and has ${now.size}`;
    if (now.mtimeNs !== mtimeNs) return 'it was written to';
    // A mode, an owner and links have a right to change.
    return now.ctimeNs === ctimeNs || !sameRights(now, this.#before)
      ? undefined
      : 'it was written to, and its time put back';
  }

  /** Throws `Elf2dmpError` if the input is not as it was. */
  async check(): Promise<void> {
    const change = await this.change();
    if (change === undefined) return;
    throw new Elf2dmpError({
      code: 'input-changed',
      kind: 'io-transient',
      message: `the file was changed while it was read: ${change}`,
      file: this.#name,
      hint: 'is it still being written? wait until the dump is complete, then convert again',
    });
  }

  /** Processes that have the file open for writing, as far as they can be seen: mapped memory changes without a trace. */
  writers(): readonly string[] {
    const { dev, ino } = this.#before;
    return findWriters(dev, ino).writers;
  }
}

/** Runs `work`, and throws `Elf2dmpError` if one of the files is not as it was before. What is not a file is not watched. */
export async function whileUnchanged<T>(paths: readonly string[], work: () => Promise<T>): Promise<T> {
  const open: number[] = [];
  try {
    const watches: InputWatch[] = [];
    for (const path of paths) {
      const fd = openFile(path);
      if (fd === undefined) continue;
      open.push(fd);
      if (fstatSync(fd).isFile()) watches.push(new InputWatch(fd, path, path));
    }
    const result = await work();
    for (const watch of watches) await watch.check();
    return result;
  } finally {
    for (const fd of open) closeSync(fd);
  }
}

/** undefined where that fails: who reads the file says why. */
function openFile(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return undefined;
  }
}
