/** FICLONERANGE (linux/fs.h): makes a range of one file share the blocks of another, on XFS and Btrfs. */
import { Elf2dmpError } from '../core/errors.ts';

const FICLONERANGE = 0x4020940d;

interface Ioctl {
  call(fd: number, request: number, argument: Buffer): number;
  errno(): number;
}

let ioctl: Ioctl | undefined;

/** koffi is an optional dependency: without it there is no way to make the call. */
async function loadIoctl(): Promise<Ioctl> {
  if (ioctl) return ioctl;
  const { default: koffi } = await import('koffi');
  const call = koffi.load(null).func('int ioctl(int fd, unsigned long request, ...)');
  ioctl = { call: (fd, request, argument) => call(fd, request, 'void *', argument), errno: () => koffi.errno() };
  return ioctl;
}

/** Names of the errors that mean "not here", by number on Linux. */
const REASONS: Record<number, string> = {
  18: 'the input and the output are on different file systems',
  22: 'the file system refuses to share these blocks',
  25: 'the file system can not share blocks',
  95: 'the file system can not share blocks',
};

/**
 * Shares `length` bytes (0: up to the source's end). Offsets are multiples of the file system's block
 * size, and so is `length` unless it reaches the source's end.
 *
 * @returns undefined, or the reason why it can't be done here
 */
export async function cloneRange(
  source: { fd: number; offset: number; length: number },
  target: { fd: number; offset: number },
): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'sharing blocks needs Linux';
  let io: Ioctl;
  try {
    io = await loadIoctl();
  } catch {
    return 'the package koffi, an optional dependency, is not installed';
  }
  const range = Buffer.alloc(32);
  range.writeBigInt64LE(BigInt(source.fd), 0);
  range.writeBigUInt64LE(BigInt(source.offset), 8);
  range.writeBigUInt64LE(BigInt(source.length), 16);
  range.writeBigUInt64LE(BigInt(target.offset), 24);
  if (io.call(target.fd, FICLONERANGE, range) === 0) return undefined;
  const errno = io.errno();
  const reason = REASONS[errno];
  if (reason) return reason;
  throw new Elf2dmpError({
    code: 'clone-range-failed',
    kind: 'io-transient',
    message: `sharing blocks failed with error ${errno}`,
    hint: 'convert with --reflink=never',
  });
}
