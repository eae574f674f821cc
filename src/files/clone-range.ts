/** FICLONERANGE (linux/fs.h): makes a range of one file share the blocks of another, on XFS and Btrfs. */
import { Elf2dmpError } from '../core/errors.ts';
import { loadLibc } from './libc.ts';

const FICLONERANGE = 0x4020940d;

let ioctl: ((fd: number, request: number, type: 'void *', argument: Buffer) => number) | undefined;

/** Names of the errors that mean "not here", by number on Linux. */
const REASONS: Record<number, string> = {
  18: 'the input and the output are on different file systems',
  22: 'the file system refuses to share these blocks',
  25: 'the file system cannot share blocks',
  95: 'the file system cannot share blocks',
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
  const libc = await loadLibc();
  if (typeof libc === 'string') return libc;
  const range = Buffer.alloc(32);
  range.writeBigInt64LE(BigInt(source.fd), 0);
  range.writeBigUInt64LE(BigInt(source.offset), 8);
  range.writeBigUInt64LE(BigInt(source.length), 16);
  range.writeBigUInt64LE(BigInt(target.offset), 24);
  ioctl ??= libc.library.func('int ioctl(int fd, unsigned long request, ...)');
  if (ioctl(target.fd, FICLONERANGE, 'void *', range) === 0) return undefined;
  const errno = libc.errno();
  const reason = REASONS[errno];
  if (reason) return reason;
  throw new Elf2dmpError({
    code: 'clone-range-failed',
    kind: 'io-transient',
    message: `sharing blocks failed with error ${errno}`,
    hint: 'convert with --reflink=never',
  });
}
