import type { LocateOptions } from '../locate/locator.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { Extent } from '../memory/runs.ts';
import type { Patch } from '../plan/patches.ts';
import type { Windows } from '../windows/windows.ts';

/** What a dump should hold. */
export interface Expectation {
  /** The input. */
  image: MemoryImage;
  /** As found in the input; undefined where it was not looked for. */
  windows: Windows | undefined;
  /** Its pages, sorted. */
  extents: readonly Extent[];
  /** What differs from the input's memory, sorted. */
  patches: readonly Patch[];
  /** The file's first bytes; undefined where they are not known. */
  prefix: Buffer | undefined;
  /** false: converted without patches, so that the KDBG may be encoded and frames be old. */
  patched: boolean;
}

/** How to read the dump back; the progress of the comparison. */
export interface VerifyDumpOptions extends LocateOptions {
  /** Called with bytes compared so far and in all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}
