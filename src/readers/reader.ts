/** What every reader is: a probe on the first bytes, and a way to open. */
import type { MemoryImage } from '../memory/image.ts';
import type { ByteSource } from '../source/source.ts';

/** How much there will be, as an input's first bytes tell. */
export interface Estimate {
  /** Bytes of the input file; undefined where only its end would tell. */
  file: number | undefined;
  /** Bytes of guest memory, at most. */
  memory: number;
}

/** Recognises and opens one format. */
export interface Reader {
  /** `elf-core` */
  readonly format: string;
  /** Whether what `open` reads comes before the memory: then a stream's first bytes say where all of it will be. */
  readonly headersFirst?: true;
  /** Looks at the input's first bytes (at most `PROBE_SIZE`, fewer where the file is shorter). */
  probe(head: Buffer): boolean;
  /** @param head the first `ESTIMATE_SIZE` bytes, or all there are; undefined when they do not tell */
  estimate(head: Buffer): Estimate | undefined;
  /** Takes over the source: it is closed by the image, or here on failure. */
  open(source: ByteSource, also?: OpenAlso): MemoryImage;
}

/** Closes the source where `open` throws. */
export function closing(source: ByteSource, open: () => MemoryImage): MemoryImage {
  try {
    return open();
  } catch (error) {
    source.close();
    throw error;
  }
}

/** What the caller knows besides, for the readers that need it. */
export interface OpenAlso {
  /** Path of the file with memory that a migration stream does not hold. */
  ramFile?: string | undefined;
}

/** Bytes that probes look at. */
export const PROBE_SIZE = 4096;

/** Bytes that estimates look at. */
export const ESTIMATE_SIZE = 65_536;
