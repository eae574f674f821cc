/** Inflates pages: by libdeflate, in half the time, where koffi and it are there, else by Node's zlib. */
import { inflateSync } from 'node:zlib';
import { loadLibrary } from '../../files/libc.ts';

/** Fills `target`, of one page's size, from a zlib stream. False if that is damaged, or not of a page. */
export type Inflate = (source: Uint8Array, target: Uint8Array) => boolean;

/** As `Inflate`, by Node's zlib. */
export function inflateByZlib(source: Uint8Array, target: Uint8Array): boolean {
  let page: Buffer;
  try {
    // A little more than a page: zlib has to see that nothing follows, or it takes a second round.
    page = inflateSync(source, { chunkSize: target.length + 64, maxOutputLength: target.length });
  } catch {
    return false; // whatever zlib finds wrong
  }
  if (page.length !== target.length) return false;
  target.set(page);
  return true;
}

/** libdeflate.h; its name in Debian and derivatives, Fedora, Arch and openSUSE. */
const LIBDEFLATE = 'libdeflate.so.0';

/** Memory of this thread's own: a decompressor is for one thread at a time. */
let own: Promise<Inflate | undefined> | undefined;

/** As `Inflate`, by libdeflate; undefined where that, or koffi, is not there. */
export function loadLibdeflate(): Promise<Inflate | undefined> {
  own ??= prepare();
  return own;
}

async function prepare(): Promise<Inflate | undefined> {
  const library = await loadLibrary(LIBDEFLATE);
  if (!library) return undefined;
  try {
    const decompressor = library.func('void *libdeflate_alloc_decompressor(void)')();
    if (!decompressor) return undefined;
    // Without room for the actual size it takes nothing but what fills the target.
    const decompress = library.func(
      'int libdeflate_zlib_decompress(void *decompressor, const void *in, size_t inSize, void *out, size_t outSize, void *actual)',
    );
    return (source, target) =>
      decompress(decompressor, source, source.length, target, target.length, null) === 0 ||
      // A page is damaged where zlib says so: what is lost must not depend on what is installed.
      inflateByZlib(source, target);
  } catch {
    return undefined; // another library of that name
  }
}
