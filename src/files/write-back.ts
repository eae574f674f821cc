/** Starts writing to disk while a file is still being written, so that the last sync is short. */
import type { FileHandle } from 'node:fs/promises';
import { ioError } from '../core/errors.ts';
import { MIB } from '../core/units.ts';
import { lastError, loadLibc } from './libc.ts';

/** sync_file_range(2): starts writing the range. */
const WRITE = 2;

/** sync_file_range(2): waits for what is under way, starts writing the range, and waits for it. */
const WAIT_WRITE_WAIT = 1 | 2 | 4;

/** A range that is written at once. */
const STEP = 64 * MIB;

/** Bytes that may wait for the disk: what the last sync has to do at most, and what the page cache has to hold. */
export const MOST_BEHIND = 256 * MIB;

/** How a range of a file gets to the disk. Both throw `Elf2dmpError` where the disk could not take it. */
export interface RangeCalls {
  /** Starts writing a range. */
  begin(from: number, size: number): Promise<void>;
  /** Waits until a range is written. */
  end(from: number, size: number): Promise<void>;
}

/** Follows one file, which is written from its front to its end, more or less. */
export class WriteBack {
  readonly #calls: RangeCalls;
  #written = 0;
  #begun = 0;
  #onDisk = 0;
  #running: Promise<void> | undefined;
  #failure: unknown;

  /** For tests; else see `of`. */
  constructor(calls: RangeCalls) {
    this.#calls = calls;
  }

  static async of(file: FileHandle, name: string): Promise<WriteBack> {
    return new WriteBack((await rangeCalls(file, name)) ?? wholeCalls(file, name));
  }

  /**
   * Says that `size` more bytes were written; waits where the disk is too far behind. Throws `Elf2dmpError` where it
   * could not take them: a later sync need not say so again.
   */
  async wrote(size: number): Promise<void> {
    this.#written += size;
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const isFarBehind = this.#written - this.#onDisk > MOST_BEHIND;
      if (!this.#running && (isFarBehind || this.#written - this.#begun >= STEP)) this.#start();
      if (!isFarBehind) return;
      await this.#running;
    }
  }

  /** Waits for what was started. Throws as `wrote`. */
  async end(): Promise<void> {
    await this.#running;
    if (this.#failure !== undefined) throw this.#failure;
  }

  #start(): void {
    this.#running = this.#step()
      .catch((error) => {
        this.#failure = error;
      })
      .finally(() => {
        this.#running = undefined;
      });
  }

  /** Begins a range before it waits for the one before: the disk always has something to do. */
  async #step(): Promise<void> {
    const [from, to] = [this.#begun, this.#written];
    if (to > from) await this.#calls.begin(from, to - from);
    this.#begun = to;
    if (from > this.#onDisk) await this.#calls.end(this.#onDisk, from - this.#onDisk);
    this.#onDisk = from;
  }
}

/** Without ranges all that was written has to be waited for. */
const wholeCalls = (file: FileHandle, name: string): RangeCalls => ({
  begin: async () => undefined,
  end: () =>
    file.datasync().catch((cause) => {
      throw ioError('write to disk', name, cause);
    }),
});

let syncFileRange: ReturnType<typeof declare> | undefined;
const declare = (libc: Exclude<Awaited<ReturnType<typeof loadLibc>>, string>) =>
  libc.library.func('int sync_file_range(int fd, int64_t from, int64_t size, unsigned int flags)');

/** Linux's call, which writes a range and leaves the file's metadata alone; undefined where there is none. */
async function rangeCalls(file: FileHandle, name: string): Promise<RangeCalls | undefined> {
  const libc = await loadLibc();
  if (typeof libc === 'string') return undefined;
  syncFileRange ??= declare(libc);
  const call = syncFileRange;
  const sync = (from: number, size: number, flags: number) =>
    new Promise<void>((resolve, reject) => {
      call.async(file.fd, from, size, flags, (_: unknown, result: number) => {
        if (result === 0) return resolve();
        const cause = lastError(libc, 'sync_file_range');
        // The last sync does what this call can't do here.
        if (cause.code === 'ENOSYS' || cause.code === 'EINVAL') return resolve();
        reject(ioError('write to disk', name, cause));
      });
    });
  return {
    begin: (from, size) => sync(from, size, WRITE),
    end: (from, size) => sync(from, size, WAIT_WRITE_WAIT),
  };
}
