/** Page descriptors: where each page's data lies, how it is stored, and what can be wrong with it. */
import {
  DUMP_DH_COMPRESSED_LZO,
  DUMP_DH_COMPRESSED_SNAPPY,
  DUMP_DH_COMPRESSED_ZLIB,
  PageDescriptor,
} from '../../formats/kdump.ts';
import type { ByteSource } from '../../source/source.ts';
import { FlattenedSource } from './flattened.ts';
import type { PageIndex } from './page-index.ts';

/** A file whose header and bitmap are read. */
export interface PagedFile {
  source: ByteSource;
  pages: PageIndex;
  /** Bytes of a page. */
  blockSize: number;
}

/** Where a page's bytes lie. The size is 1 to that of a block. */
export interface PageData {
  offset: number;
  size: number;
  flags: number;
}

/** `cut`: its data or descriptor is not in the file. `bad`: impossible values. `unknown`: an unknown compression. */
export type PageProblem = 'cut' | 'bad' | 'unknown';

/**
 * The checks of descriptors, the same for all in a file: the data lies after the descriptors and within
 * the file, and has a size that fits how it is stored.
 */
export class DescriptorRules {
  readonly #fileEnd: number;
  readonly #dataStart: number;
  readonly #blockSize: number;
  readonly #covers: ((offset: number, size: number) => boolean) | undefined;

  constructor({ source, pages, blockSize }: PagedFile) {
    this.#fileEnd = source.size;
    this.#dataStart = pages.descriptorAt(pages.count);
    this.#blockSize = blockSize;
    this.#covers =
      source instanceof FlattenedSource && source.hasHolesFrom(pages.descriptorAt(0))
        ? (offset, size) => source.covers(offset, size)
        : undefined;
  }

  /**
   * What is wrong with a page; undefined where nothing is.
   *
   * @param at file offset of the descriptor
   */
  problem(at: number, { offset, size, flags }: PageData): PageProblem | undefined {
    if (this.#covers && !this.#covers(at, PageDescriptor.size)) return 'cut';
    switch (flags) {
      case 0:
        if (size !== this.#blockSize) return 'bad';
        break;
      case DUMP_DH_COMPRESSED_ZLIB:
      case DUMP_DH_COMPRESSED_LZO:
      case DUMP_DH_COMPRESSED_SNAPPY:
        if (size === 0 || size > this.#blockSize) return 'bad';
        break;
      default:
        return 'unknown';
    }
    if (offset < this.#dataStart || offset > Number.MAX_SAFE_INTEGER) return 'bad';
    if (offset + size > this.#fileEnd) return 'cut';
    return this.#covers && !this.#covers(offset, size) ? 'cut' : undefined;
  }
}

/** Reads one descriptor into `into`, which saves an object for each of millions of pages. */
export function parseDescriptor(buffer: Buffer, from: number, into: PageData): PageData {
  into.offset = buffer.readUInt32LE(from) + buffer.readUInt32LE(from + 4) * 2 ** 32;
  into.size = buffer.readUInt32LE(from + 8);
  into.flags = buffer.readUInt32LE(from + 12);
  return into;
}
