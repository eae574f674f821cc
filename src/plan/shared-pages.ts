/** Whether a dump can use the input's pages where they lie. */
import { fstatSync } from 'node:fs';
import { alignUp } from '../core/bits.ts';
import { because, type Reason } from '../core/reason.ts';
import { PAGE_SIZE } from '../core/units.ts';
import type { MappedRuns, MemoryImage } from '../memory/image.ts';

/**
 * A bitmap dump holds its pages in ascending order without gaps, at any byte. So the input's must lie like
 * that too: whole pages, one run right after the other, all stored.
 *
 * @returns the reason why not, for people, or where the pages are
 */
export function sharedPages(image: MemoryImage): SharedPages | Reason {
  const { stored } = image;
  const [first] = stored?.runs ?? [];
  if (!stored || !first) return because('the input does not hold the pages as they are');
  if (image.missing.some(({ what, how }) => what === 'memory' && how === 'never stored')) {
    return because('the input lacks memory that its headers list');
  }
  let next = first.fileOffset;
  for (const run of stored.runs) {
    if (run.start % PAGE_SIZE !== 0 || run.size % PAGE_SIZE !== 0) {
      return because(`the run at physical 0x${run.start.toString(16)} is not of whole pages`);
    }
    if (run.fileOffset !== next) {
      return because(`the run at physical 0x${run.start.toString(16)} does not follow the one before it in the file`);
    }
    next += run.size;
  }
  return { fd: stored.fd, offset: first.fileOffset, block: fstatSync(stored.fd).blksize };
}

/**
 * As `sharedPages`, for runs that need not follow each other in the file, and with pages that are zeros whatever lies
 * there: the dump gets them part by part.
 */
export function sharedParts({ mapped }: MemoryImage): SharedParts | undefined | Reason {
  const [first] = mapped?.runs ?? [];
  if (!mapped || !first) return undefined;
  const block = fstatSync(mapped.fd).blksize;
  let pages = 0;
  for (const { fileOffset, size } of mapped.runs) {
    if ((fileOffset - pages - first.fileOffset) % block !== 0) {
      return because('its parts do not begin at the same place within a block');
    }
    pages += size;
  }
  if (first.fileOffset % block !== 0) return because("its pages do not begin at the file system's blocks");
  return { ...mapped, offset: first.fileOffset, block };
}

/** Parts of the input that become the dump's pages one after another. */
export interface SharedParts extends SharedPages, Omit<MappedRuns, 'fd'> {}

/** The part of the input that becomes the dump's pages as it is. */
export interface SharedPages {
  /** Opened for reading. */
  fd: number;
  /** File offset of the first page in the input. */
  offset: number;
  /** The file system's block size: what can be shared begins and ends at its multiples. */
  block: number;
}

/** FirstPage of a dump that shares its pages: in the same place within a block as in the input. */
export const sharedFirstPage =
  ({ offset, block }: SharedPages) =>
  (prefix: number): number =>
    alignUp(prefix, block) + (offset % block);
/** Where the pages begin in the dump that an ELF file becomes in place. */
export const inPlaceFirstPage =
  ({ offset, block }: SharedPages) =>
  (prefix: number): number =>
    Math.ceil(prefix / block) * block + offset;
