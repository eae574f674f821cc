/** What every reader is: a probe on the first bytes, and a way to open. */
import type { MemoryImage } from '../memory/image.ts';
import type { ByteSource } from '../source/source.ts';

export interface Reader {
  /** `elf-core` */
  readonly format: string;
  /** Looks at the input's first bytes (at most `PROBE_SIZE`, fewer where the file is shorter). */
  probe(head: Buffer): boolean;
  /** Takes over the source: it is closed by the image, or here on failure. */
  open(source: ByteSource): MemoryImage;
}

export const PROBE_SIZE = 4096;
