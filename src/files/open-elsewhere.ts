/** Which processes have a file open for writing, from /proc. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

const O_ACCMODE = 3;

/** Processes that hold a file open for writing. */
export interface Writers {
  /** `qemu-system-x86 (1234)` */
  writers: string[];
  /** Processes that do not let us look. */
  unseen: number;
}

/** Sees only its own process namespace, and without root its own user's processes. */
export function findWriters(device: bigint, inode: bigint): Writers {
  const result: Writers = { writers: [], unseen: 0 };
  for (const pid of list('/proc') ?? []) {
    if (!/^\d+$/.test(pid)) continue;
    const descriptors = list(join('/proc', pid, 'fd'));
    if (!descriptors) result.unseen++;
    else if (descriptors.some((fd) => writes(pid, fd, device, inode))) result.writers.push(`${nameOf(pid)} (${pid})`);
  }
  return result;
}

function writes(pid: string, fd: string, device: bigint, inode: bigint): boolean {
  try {
    const { dev, ino } = statSync(join('/proc', pid, 'fd', fd), { bigint: true });
    if (dev !== device || ino !== inode) return false;
    const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(join('/proc', pid, 'fdinfo', fd), 'latin1'))?.[1] ?? '0';
    return (Number.parseInt(flags, 8) & O_ACCMODE) !== 0;
  } catch {
    return false; // closed meanwhile
  }
}

/** undefined where access is denied; empty where the process is gone. */
function list(directory: string): string[] | undefined {
  try {
    return readdirSync(directory);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? [] : undefined;
  }
}

function nameOf(pid: string): string {
  try {
    return readFileSync(join('/proc', pid, 'comm'), 'utf8').trim();
  } catch {
    return 'a process';
  }
}
