/**
 * In the executable in one file: koffi's native part is an asset. It is loaded from a file without a name where there
 * can be one, else from one in a directory of this user's, so that nobody else can put something in its place.
 */
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getRawAsset } from 'node:sea';

/** O_TMPFILE of open(2). */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

interface Loaded {
  exports: { version: string };
}

function load(): Loaded['exports'] {
  const bytes = new Uint8Array(getRawAsset('koffi.node') as ArrayBuffer);
  const loaded: Loaded = { exports: { version: '' } };
  let last: unknown;
  // A directory may be mounted noexec.
  for (const attempt of [fromUnnamed(tmpdir()), fromUnnamed('/dev/shm'), fromUnnamed('/var/tmp'), fromNamed]) {
    try {
      attempt(bytes, (path) => process.dlopen(loaded, path));
      return loaded.exports;
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

type Open = (path: string) => void;

const fromUnnamed = (directory: string) => (bytes: Uint8Array, open: Open) => {
  const fd = openSync(directory, constants.O_RDWR | O_TMPFILE, 0o600);
  try {
    writeAll(fd, bytes);
    open(`/proc/self/fd/${fd}`);
  } finally {
    closeSync(fd);
  }
};

function fromNamed(bytes: Uint8Array, open: Open): void {
  const directory = mkdtempSync(join(tmpdir(), 'elf2dmp-'));
  try {
    const path = join(directory, 'koffi.node');
    const fd = openSync(path, 'wx', 0o600);
    writeAll(fd, bytes);
    closeSync(fd);
    open(path);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
}

export default load();
