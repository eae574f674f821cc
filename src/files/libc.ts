/** Calls of the C library that Node does not have, through koffi. */

import { getSystemErrorMap } from 'node:util';

// biome-ignore lint/suspicious/noExplicitAny: what a C function takes is in its declaration.
type CFunction = ((...args: any[]) => number) & {
  // biome-ignore lint/suspicious/noExplicitAny: as above; the last argument is called with the result.
  async(...args: any[]): void;
};

/** A koffi library; declared here because koffi is an optional dependency. */
interface Library {
  func(declaration: string): CFunction;
}

/** The C library, and errno of its last call. */
export interface Libc {
  library: Library;
  /** The last call's error number. */
  errno(): number;
  /** Where memory lies in the process. */
  addressOf(memory: Uint8Array): bigint;
}

/** The error of the last call, as Node would throw it. */
export function lastError({ errno }: Libc, action: string): NodeJS.ErrnoException {
  const number = errno();
  const [code, message] = getSystemErrorMap().get(-number) ?? [`E${number}`, `error ${number}`];
  return Object.assign(new Error(`${code}: ${message}, ${action}`), { code, errno: -number });
}

let libc: Libc | undefined;

/** @returns the reason, for people, where there is none */
export async function loadLibc(): Promise<Libc | string> {
  if (process.platform !== 'linux') return 'it needs Linux';
  if (libc) return libc;
  try {
    const { default: koffi } = await import('koffi');
    libc = { library: koffi.load(null), errno: () => koffi.errno(), addressOf: (memory) => koffi.address(memory) };
    return libc;
  } catch (error) {
    return whyNot(error);
  }
}

let fallocate: CFunction | undefined;

/** fallocate(2): descriptor, mode, offset and length in bytes. */
export function fallocateOf({ library }: Libc): CFunction {
  fallocate ??= library.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
  return fallocate;
}

/** SIG_UNBLOCK of sigprocmask(2). */
const SIG_UNBLOCK = 1;

/** Lets a signal reach this process again where it is blocked; without koffi it stays so. */
export async function unblockSignal(number: number): Promise<void> {
  const libc = await loadLibc();
  if (typeof libc === 'string') return;
  const set = Buffer.alloc(128); // sigset_t
  set.writeUInt8(1 << ((number - 1) % 8), (number - 1) >> 3);
  libc.library.func('int sigprocmask(int how, const uint8_t *set, void *old)')(SIG_UNBLOCK, set, null);
}

/** A library of the system by its name, such as `libx.so.0`; undefined where it, or koffi, is not there. */
export async function loadLibrary(name: string): Promise<Library | undefined> {
  if (process.platform !== 'linux') return undefined;
  try {
    return (await import('koffi')).default.load(name);
  } catch {
    return undefined;
  }
}

/** koffi's version, or why it does not load. */
export async function describeKoffi(): Promise<{ version: string } | { reason: string }> {
  try {
    return { version: (await import('koffi')).default.version };
  } catch (error) {
    return { reason: whyNot(error) };
  }
}

function whyNot(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  // The command's bundle is CommonJS, the library a module.
  if (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND')
    return 'the package koffi, an optional dependency, is not installed';
  return `the package koffi does not load: ${String(message).split('\n')[0]}`;
}
