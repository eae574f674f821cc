/** Locks on a directory that end with the process that holds them, however it ends. */
import { constants } from 'node:fs';
import { type FileHandle, open, stat, unlink } from 'node:fs/promises';
import { setTimeout as wait } from 'node:timers/promises';
import { ioError } from '../core/errors.ts';
import { tryLock } from './lock.ts';

/** A lock that is held. */
export interface HeldLock {
  /** Removes its file too, unless others hold it. */
  release(): Promise<void>;
}

/** How long one that shares waits, in ms: whoever shared it and is about to leave has it alone for a moment. */
const LEAVING_MS = 500;
const RETRY_MS = 10;

/**
 * Takes a lock whose name is a file's; undefined if others hold it. Where the system has no such locks, it is free.
 * Throws `Elf2dmpError`.
 */
export async function takeLock(path: string, how: 'shared' | 'exclusive'): Promise<HeldLock | undefined> {
  const until = how === 'shared' ? performance.now() + LEAVING_MS : 0;
  for (;;) {
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
    const file = await open(path, flags, 0o666).catch((cause) => {
      throw ioError('use the lock', path, cause);
    });
    try {
      if ((await tryLock(file.fd, how)) === 'busy') {
        await file.close();
        if (performance.now() >= until) return undefined;
        await wait(RETRY_MS);
        continue;
      }
      // Whoever held it may have removed the file meanwhile: then this lock is on nothing.
      if (await isAt(file, path)) return { release: () => release(file, path) };
    } catch (error) {
      await file.close();
      throw error;
    }
    await file.close();
  }
}

async function isAt(file: FileHandle, path: string): Promise<boolean> {
  const [held, named] = [await file.stat(), await stat(path).catch(() => undefined)];
  return held.ino === named?.ino && held.dev === named.dev;
}

async function release(file: FileHandle, path: string): Promise<void> {
  try {
    // Only the last one removes it.
    if ((await tryLock(file.fd, 'exclusive')) !== 'busy' && (await isAt(file, path))) await unlink(path);
  } catch {
    // It stays, and nobody holds it.
  } finally {
    await file.close();
  }
}
