/** Calls of the C library that Node does not have, through koffi. */

/** A koffi library; declared here because koffi is an optional dependency. */
interface Library {
  // biome-ignore lint/suspicious/noExplicitAny: what a C function takes is in its declaration.
  func(declaration: string): (...args: any[]) => number;
}

/** The C library, and errno of its last call. */
export interface Libc {
  library: Library;
  /** The last call's error number. */
  errno(): number;
}

let libc: Libc | undefined;

/** @returns the reason, for people, where there is none */
export async function loadLibc(): Promise<Libc | string> {
  if (process.platform !== 'linux') return 'it needs Linux';
  if (libc) return libc;
  try {
    const { default: koffi } = await import('koffi');
    libc = { library: koffi.load(null), errno: () => koffi.errno() };
    return libc;
  } catch {
    return 'the package koffi, an optional dependency, is not installed';
  }
}
