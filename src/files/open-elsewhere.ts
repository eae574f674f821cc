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
    else if (descriptors.some((fd) => writes(pid, fd, device, inode)) || maps(pid, device, inode))
      result.writers.push(`${nameOf(pid)} (${pid})`);
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

/** Whether a process has the file mapped so that it can write to it, perhaps with its descriptor closed. */
function maps(pid: string, device: bigint, inode: bigint): boolean {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
  try {
    // 7f1c2a000000-7f1c2b000000 rw-s 00000000 fd:01 1234 /path
    return readFileSync(join('/proc', pid, 'maps'), 'latin1')
      .split('\n')
      .some((line) => {
        const [, flags = '', , where = '', number = ''] = line.split(/ +/);
        if (!/^.w.s$/.test(flags) || number !== `${inode}`) return false;
        const [first = '', second = ''] = where.split(':');
        return BigInt(`0x${first}`) === major && BigInt(`0x${second}`) === minor;
      });
  } catch {
    return false; // gone, or not ours to see
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
