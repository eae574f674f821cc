/** SHA-256 of whole files, for custody. */
import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import { MIB } from '../core/units.ts';
import { STANDARD_STREAM } from '../options/choices.ts';
import { FileSource } from '../source/file.ts';

/** Read in pieces. Throws `Elf2dmpError` on an I/O error, and what the signal holds when it is aborted. */
export async function sha256OfFile(path: string, signal?: AbortSignal): Promise<string> {
  const source = FileSource.open(path);
  try {
    const hash = createHash('sha256');
    const buffer = Buffer.allocUnsafe(MIB);
    for (let at = 0; at < source.size; at += MIB) {
      signal?.throwIfAborted();
      const piece = buffer.subarray(0, Math.min(MIB, source.size - at));
      await source.read(at, piece);
      hash.update(piece);
    }
    return hash.digest('hex');
  } finally {
    source.close();
  }
}

/** As `sha256OfFile`; null for a pipe and standard input, which are gone when they were read. */
export async function sha256OfInput(path: string, signal?: AbortSignal): Promise<string | null> {
  const isFile = path !== STANDARD_STREAM && statSync(path, { throwIfNoEntry: false })?.isFile();
  return isFile ? sha256OfFile(path, signal) : null;
}
