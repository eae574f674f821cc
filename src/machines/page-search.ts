import type { PhysicalAddress, VirtualAddress } from '../core/units.ts';

/** Something that looks like Windows in a page of memory. */
export type PageClue =
  | { kind: 'root'; root: PhysicalAddress; how: 'processor start block' | 'self-map' }
  | { kind: 'kpcr'; virtual: VirtualAddress; idtBase: VirtualAddress };
/** A fast first look at pages in the search of all memory. */
export interface PageScan {
  /** To be filled and scanned in turn. */
  readonly buffers: readonly [Buffer, Buffer];
  /**
   * Offsets of the pages in a buffer that can have a clue or a KDBG's tag; valid until the next call.
   *
   * @param which buffer
   * @param length bytes, whole pages
   * @param extended at least `length`: of the pages behind it only tags are looked for
   * @param physical address of the buffer's first page
   */
  scan(which: 0 | 1, length: number, extended: number, physical: number): Uint32Array;
}
