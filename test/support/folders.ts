/** Folders for tests that write much. */
import { existsSync, mkdtempSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const MEMORY = '/dev/shm';
/** Containers often have 64 MiB there. */
const ENOUGH = 2 ** 31;

/** A new folder for guests of true size: in memory where that has room for them. */
export function roomyFolder(prefix: string): string {
  const isRoomy = () => {
    const { bavail, bsize } = statfsSync(MEMORY);
    return bavail * bsize >= ENOUGH;
  };
  return mkdtempSync(join(existsSync(MEMORY) && isRoomy() ? MEMORY : tmpdir(), prefix));
}
