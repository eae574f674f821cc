/** Starts writing to disk while a file is still being written, so that the last sync is short. */
import type { FileHandle } from 'node:fs/promises';
import { ioError } from '../core/errors.ts';
import { MIB } from '../core/units.ts';
import { lastError, loadLibc } from './libc.ts';

/** sync_file_range(2): waits for what is under way, starts writing the range, and waits for it. */
const WAIT_WRITE_WAIT = 1 | 2 | 4;

/** A range that is written at once. */
const STEP = 64 * MIB;

/** Bytes that may wait for the disk: what the last sync has to do at most, and what the page cache has to hold. */
const MOST_BEHIND = 256 * MIB;

type SyncRange = (from: number, size: number) => Promise<void>;

/** Follows one file, which is written from its front to its end, more or less. */
export class WriteBack {
  readonly #sync: SyncRange;
  #written = 0;
  #onDisk = 0;
  #running: Promise<void> | undefined;
  #failure: unknown;

  private constructor(sync: SyncRange) {
    this.#sync = sync;
  }

  static async of(file: FileHandle, name: string): Promise<WriteBack> {
    return new WriteBack((await rangeSync(file, name)) ?? ((_from, _size) => wholeSync(file, name)));
  }

  /**
   * Says that `size` more bytes were written; waits where the disk is too far behind. Throws `Elf2dmpError` where it
   * could not take them: a later sync need not say so again.
   */
  async wrote(size: number): Promise<void> {
    this.#written += size;
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      if (!this.#running && this.#written - this.#onDisk >= STEP) this.#start();
      if (this.#written - this.#onDisk <= MOST_BEHIND) return;
      await this.#running;
    }
  }

  /** Waits for what was started. Throws as `wrote`. */
  async end(): Promise<void> {
    await this.#running;
    if (this.#failure !== undefined) throw this.#failure;
  }

  #start(): void {
    const [from, to] = [this.#onDisk, this.#written];
    this.#running = this.#sync(from, to - from)
      .catch((error) => {
        this.#failure = error;
      })
      .finally(() => {
        this.#onDisk = to;
        this.#running = undefined;
      });
  }
}

const wholeSync = (file: FileHandle, name: string): Promise<void> =>
  file.datasync().catch((cause) => {
    throw ioError('write to disk', name, cause);
  });

let syncFileRange: ReturnType<typeof declare> | undefined;
const declare = (libc: Exclude<Awaited<ReturnType<typeof loadLibc>>, string>) =>
  libc.library.func('int sync_file_range(int fd, int64_t from, int64_t size, unsigned int flags)');

/** Linux's call, which writes a range and leaves the file's metadata alone; undefined where there is none. */
async function rangeSync(file: FileHandle, name: string): Promise<SyncRange | undefined> {
  const libc = await loadLibc();
  if (typeof libc === 'string') return undefined;
  syncFileRange ??= declare(libc);
  const call = syncFileRange;
  return (from, size) =>
    new Promise((resolve, reject) => {
      call.async(file.fd, from, size, WAIT_WRITE_WAIT, (_: unknown, result: number) => {
        if (result === 0) return resolve();
        const cause = lastError(libc, 'sync_file_range');
        // The last sync does what this call can't do here.
        if (cause.code === 'ENOSYS' || cause.code === 'EINVAL') return resolve();
        reject(ioError('write to disk', name, cause));
      });
    });
}
