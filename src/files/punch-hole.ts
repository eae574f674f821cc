/** fallocate(2): gives a range of a file no blocks, so that it reads as zeros. */
import type { FileHandle } from 'node:fs/promises';
import { MIB } from '../core/units.ts';
import { fallocateOf, loadLibc } from './libc.ts';
import { writeAll } from './publish.ts';

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const ZEROS = Buffer.alloc(MIB);

/** Makes a range of a file zeros; writes them where it can have no hole. Throws `Elf2dmpError`. Name for messages. */
export async function clearRange(file: FileHandle, name: string, from: number, to: number): Promise<void> {
  const libc = await loadLibc();
  if (typeof libc !== 'string') {
    const fallocate = fallocateOf(libc);
    if (fallocate(file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, to - from) === 0) return;
  }
  for (let at = from; at < to; at += MIB) await writeAll(file, name, ZEROS.subarray(0, to - at), at);
}
