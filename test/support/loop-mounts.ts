/** Small file systems on loop devices, to test what only some of them can do. Needs root. */
import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';

export type FileSystem = 'xfs' | 'btrfs' | 'ext4';

let told = false;

/** For `describe.skipIf(!canMount())`. With ELF2DMP_REQUIRE_TOOLS=1 that it can't is an error. */
export function canMount(): boolean {
  const missing = ['mkfs.xfs', 'mkfs.btrfs', 'mkfs.ext4', 'losetup'].filter((tool) => spawnSync(tool, ['-V']).error);
  const root = process.getuid?.() === 0;
  if (missing.length === 0 && root) return true;
  const message = root
    ? `${missing.join(', ')} not found (Debian: apt-get install xfsprogs btrfs-progs e2fsprogs)`
    : 'mounting loop devices needs root';
  if (process.env['ELF2DMP_REQUIRE_TOOLS'] === '1') throw new Error(message);
  if (!told) console.warn(`skipping the tests on other file systems: ${message}`);
  told = true;
  return false;
}

function run(command: string, ...args: string[]): string {
  const { status, stderr, stdout, error } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stderr}`);
  return stdout;
}

/** Mounts a new, sparse file system of `bytes` in `dir`; `unmount` has to be called. */
export function mountNew(kind: FileSystem, dir: string, bytes: number): { path: string; unmount: () => void } {
  const image = join(dir, `${kind}.img`);
  const path = join(dir, kind);
  const fd = openSync(image, 'w');
  ftruncateSync(fd, bytes);
  closeSync(fd);
  // No blocks that only root may use: else a full one is not full.
  run(`mkfs.${kind}`, '-q', ...(kind === 'ext4' ? ['-m', '0'] : []), image);
  mkdirSync(path);
  run('mount', '-o', 'loop', image, path);
  return { path, unmount: () => void run('umount', path) };
}
