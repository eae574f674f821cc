import type { PhysicalAddress, VirtualAddress } from '../core/units.ts';

/** Where a machine dispatches exceptions and interrupts from. */
export interface InterruptTable {
  base: VirtualAddress;
  /** Bytes. */
  size: number;
}

/** A gate that is present. */
export interface InterruptGate {
  vector: number;
  handler: bigint;
}

/** What could be a page-table root. */
export interface RootClue {
  kind: 'root';
  root: PhysicalAddress;
  /** How it was found, for evidence: `self-map`. */
  how: string;
  /** Those with the lowest are tried first. 0: a processor's own data names it. */
  rank: number;
}

/** What could be a KPCR, and how it leads to the kernel's code. */
export interface KpcrClue {
  kind: 'kpcr';
  virtual: VirtualAddress;
  leadsTo: { interruptTable: InterruptTable } | { code: VirtualAddress };
}

/** Something that looks like Windows in a page of memory. */
export type PageClue = RootClue | KpcrClue;
/** A fast first look at pages in the search of all memory. */
export interface PageScan {
  /**
   * Offsets of the pages in a buffer that can have a clue or a KDBG's tag; valid until the next call of any scan of the
   * same memory.
   *
   * @param which of the memory's buffers
   * @param length bytes, whole pages
   * @param extended at least `length`: of the pages behind it only tags are looked for
   * @param physical address of the buffer's first page
   */
  scan(which: number, length: number, extended: number, physical: number): Uint32Array;
}
