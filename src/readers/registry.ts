/** Finds the reader for an input, or says what the input is instead. */
import { Elf2dmpError } from '../core/errors.ts';
import type { MemoryImage } from '../memory/image.ts';
import { FileSource } from '../source/file.ts';
import { type ByteSource, readUpTo } from '../source/source.ts';
import { elfCore } from './elf-core.ts';
import { kdump } from './kdump.ts';
import { identifyNeighbour } from './neighbours.ts';
import { PROBE_SIZE, type Reader } from './reader.ts';

const READERS: readonly Reader[] = [elfCore, kdump];

/** Opens a file. Throws `Elf2dmpError`. The image has to be closed. */
export function openImage(path: string): MemoryImage {
  return openSource(FileSource.open(path));
}

/** As `openImage`, for any source; takes it over. */
export function openSource(source: ByteSource): MemoryImage {
  let head: Buffer;
  try {
    head = readUpTo(source, 0, PROBE_SIZE);
    const reader = READERS.find((r) => r.probe(head));
    if (reader) return reader.open(source);
  } catch (error) {
    source.close();
    throw error;
  }
  source.close();
  const neighbour = identifyNeighbour(head);
  const shown = head.subarray(0, 8).toString('hex').replace(/../g, '$& ').trim();
  throw new Elf2dmpError({
    code: neighbour?.code ?? (head.length === 0 ? 'input-empty' : 'input-unknown'),
    kind: head.length === 0 ? 'corrupt' : 'unsupported',
    message:
      neighbour?.what ?? (head.length === 0 ? 'the file is empty' : 'not a guest memory dump that elf2dmp knows'),
    file: source.name,
    structure: 'signature',
    offset: 0,
    expected: 'an ELF core file (7f 45 4c 46) or a kdump-compressed file ("KDUMP   ", "makedumpfile")',
    actual: head.length === 0 ? 'no bytes' : shown,
    hint: neighbour?.hint ?? HOW_TO_DUMP,
  });
}

export const HOW_TO_DUMP =
  'make the dump with `virsh dump --memory-only DOMAIN FILE`, or `dump-guest-memory FILE` in the QEMU monitor';
