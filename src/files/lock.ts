/** flock(2): whole-file locks that end with the descriptor. */
import { loadLibc } from './libc.ts';

// sys/file.h
const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/** errno.h, on Linux: EAGAIN, as EWOULDBLOCK. */
const EWOULDBLOCK = 11;

let flock: ((fd: number, operation: number) => number) | undefined;

/** `busy`: another descriptor has a lock that excludes this one. `unavailable`: the system or file system has none. */
export async function tryLock(fd: number, how: 'shared' | 'exclusive'): Promise<'locked' | 'busy' | 'unavailable'> {
  const libc = await loadLibc();
  if (typeof libc === 'string') return 'unavailable';
  flock ??= libc.library.func('int flock(int fd, int operation)');
  if (flock(fd, (how === 'shared' ? LOCK_SH : LOCK_EX) | LOCK_NB) === 0) return 'locked';
  return libc.errno() === EWOULDBLOCK ? 'busy' : 'unavailable';
}
