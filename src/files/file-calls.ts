/**
 * Every call by which converting in place touches a file, in one object: so that tests can make each of
 * them fail, and end the process at each.
 */
import { type BigIntStats, close, fchmod, fstat, fsync, ftruncate, open, read, rename, unlink, write } from 'node:fs';
import { promisify } from 'node:util';
import { Elf2dmpError } from '../core/errors.ts';
import { fallocateOf, lastError, loadLibc } from './libc.ts';

/** File descriptors; errors are Node's (`code: 'ENOSPC'`). */
export interface FileCalls {
  open(path: string, flags: number, mode?: number): Promise<number>;
  close(fd: number): Promise<void>;
  stat(fd: number): Promise<BigIntStats>;
  /** Bytes read; fewer than wanted at the end of the file only. */
  read(fd: number, target: Buffer, position: number): Promise<number>;
  /** All of `bytes`. */
  write(fd: number, bytes: Buffer, position: number): Promise<void>;
  sync(fd: number): Promise<void>;
  truncate(fd: number, size: number): Promise<void>;
  chmod(fd: number, mode: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** Opens room at the front; what was there follows it. `length` in whole blocks. */
  insertRange(fd: number, length: number): Promise<void>;
  /** Takes the first `length` bytes out. */
  collapseRange(fd: number, length: number): Promise<void>;
  /** Makes sure that writing to the first `length` bytes can't run out of space. */
  reserve(fd: number, length: number): Promise<void>;
  /** Sets the modification time, in nanoseconds since 1970; the access time stays. */
  setModified(fd: number, nanoseconds: bigint): Promise<void>;
  /** Locks the file against other runs of this tool, until the descriptor is closed. False if one has it. */
  lock(fd: number): Promise<boolean>;
  /**
   * Whether any process has the file open for writing, as far as the kernel will say: it does so for the
   * file's owner and root only. `fd` is open for reading.
   */
  openForWriting(fd: number): Promise<boolean | undefined>;
}

// linux/falloc.h
const FALLOC_FL_KEEP_SIZE = 0x01;
const FALLOC_FL_COLLAPSE_RANGE = 0x08;
const FALLOC_FL_INSERT_RANGE = 0x20;
// sys/file.h
const LOCK_EX = 2;
const LOCK_NB = 4;
// fcntl.h
const F_SETLEASE = 1024;
const F_RDLCK = 0;
const F_UNLCK = 2;

/** sys/stat.h: leave this time as it is. */
const UTIME_OMIT = 0x3ffffffen;

const SECOND = 1_000_000_000n;

const readOnce = promisify(read);
const writeOnce = promisify(write);
const stat = promisify(fstat);

/** The calls of the operating system that are used through koffi. */
export const FILE_CALLS: FileCalls = {
  open: promisify(open),
  close: promisify(close),
  stat: (fd) => stat(fd, { bigint: true }),
  sync: promisify(fsync),
  truncate: promisify(ftruncate),
  chmod: promisify(fchmod),
  rename: promisify(rename),
  unlink: promisify(unlink),
  async read(fd, target, position) {
    let done = 0;
    while (done < target.length) {
      const { bytesRead } = await readOnce(fd, target, done, target.length - done, position + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  },
  async write(fd, bytes, position) {
    for (let done = 0; done < bytes.length; ) {
      done += (await writeOnce(fd, bytes, done, bytes.length - done, position + done)).bytesWritten;
    }
  },
  insertRange: (fd, length) => fallocate(fd, FALLOC_FL_INSERT_RANGE, length),
  collapseRange: (fd, length) => fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, length),
  reserve: (fd, length) => fallocate(fd, FALLOC_FL_KEEP_SIZE, length),
  async setModified(fd, nanoseconds) {
    const times = Buffer.alloc(32); // struct timespec[2]
    times.writeBigInt64LE(UTIME_OMIT, 8);
    const fraction = ((nanoseconds % SECOND) + SECOND) % SECOND;
    times.writeBigInt64LE((nanoseconds - fraction) / SECOND, 16);
    times.writeBigInt64LE(fraction, 24);
    const { call, fail } = await functions();
    if (call.futimens(fd, times) !== 0) throw fail();
  },
  async lock(fd) {
    const { call, fail } = await functions();
    if (call.flock(fd, LOCK_EX | LOCK_NB) === 0) return true;
    const error = fail();
    if (error.code === 'EAGAIN') return false;
    throw error;
  },
  async openForWriting(fd) {
    const { call, fail } = await functions();
    // A lease for reading is given only on a file that nobody has open for writing.
    if (call.fcntl(fd, F_SETLEASE, 'int', F_RDLCK) === 0) {
      call.fcntl(fd, F_SETLEASE, 'int', F_UNLCK);
      return false;
    }
    return fail().code === 'EAGAIN' ? true : undefined;
  },
};

async function fallocate(fd: number, mode: number, length: number): Promise<void> {
  const { call, fail } = await functions();
  if (call.fallocate(fd, mode, 0, length) !== 0) throw fail();
}

interface Functions {
  call: Record<'fallocate' | 'flock' | 'futimens' | 'fcntl', (...args: unknown[]) => number>;
  /** The error of the last call. */
  fail(): NodeJS.ErrnoException;
}

let loaded: Functions | undefined;

async function functions(): Promise<Functions> {
  if (loaded) return loaded;
  const libc = await loadLibc();
  if (typeof libc === 'string') {
    throw new Elf2dmpError({
      code: 'in-place-unavailable',
      kind: 'unsupported',
      message: `converting in place is not possible here: ${libc}`,
      hint: 'name an OUTPUT: the dump then is a separate file',
    });
  }
  const { library } = libc;
  loaded = {
    call: {
      fallocate: fallocateOf(libc),
      flock: library.func('int flock(int fd, int operation)'),
      futimens: library.func('int futimens(int fd, const void *times)'),
      fcntl: library.func('int fcntl(int fd, int command, ...)'),
    },
    fail: () => lastError(libc, 'in place'),
  };
  return loaded;
}
