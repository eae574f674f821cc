/** A machine's page-table format, for the walkers in src/memory: they know no bit of an entry. */

/** What an entry of a page table says. Addresses are physical, aligned to what they are of. */
export type PageEntry =
  | { kind: 'absent' }
  | { kind: 'table'; physical: number }
  /** Maps a page, large if it is of a level above the last. @see size bytes */
  | { kind: 'page'; physical: number; size: number }
  /** Not present to the hardware, but Windows still has the page in memory there. `swizzled`: see `PagingMode.unswizzle`. */
  | { kind: 'transition'; physical: number; swizzled?: boolean }
  /** The virtual address of Windows' own prototype entry, which says where the page is. */
  | { kind: 'prototype'; entry: bigint; swizzled?: boolean };

/** An entry that says nothing, shared since most do. */
/** An entry that is not present to the hardware, though its page may be in memory. */
export type SoftwareEntry = Extract<PageEntry, { kind: 'transition' | 'prototype' }>;

export const ABSENT: PageEntry = { kind: 'absent' };

/** A level of page tables. */
export interface PagingLevel {
  /** An entry's name in messages: `PDE`. */
  name: string;
  /** Lowest virtual-address bit that indexes this level's table. */
  shift: number;
  /** Index bits. */
  bits: number;
}

/** A way in which a machine translates addresses. */
export interface PagingMode {
  /** `4-level` */
  name: string;
  /** Canonical virtual addresses have this many bits, and are sign-extended to 64. */
  addressBits: number;
  /** From the root down; the last one's entries map pages of 4 KiB. */
  levels: readonly PagingLevel[];
  /** Bytes of an entry. */
  entrySize: 4 | 8;
  /**
   * @param level index in `levels`; transition and prototype entries exist in the last one only
   * @param low the entry's lower half
   * @param high its upper half; 0 where entries have 4 bytes
   */
  decode(level: number, low: number, high: number): PageEntry;
  /**
   * Windows may set one address bit in entries that are not present, against speculative reads of their pages (L1TF).
   * The entry without that bit, if it is one of those that can have it set. undefined: no entry has.
   *
   * @param bit undefined: not known which
   */
  unswizzle?: ((entry: SoftwareEntry, bit: number | undefined) => SoftwareEntry) | undefined;
  /** What 32-bit dump headers and the KDBG call PAE: page tables of 8-byte entries in 32-bit mode. */
  pae?: boolean | undefined;
  /** Entries of the root from this one on map the kernel's half. */
  kernelFrom: number;
  /** Windows maps its own tables by entries of this level that lead back to tables of this level. */
  selfMapLevel: number;
  /** In a register or structure that holds a root: the bits of its physical address, and those that are never set. */
  root: { address: bigint; reserved: bigint };
  /**
   * Where debuggers walk fewer levels: the name of the table behind the root's last entry, which they take for
   * the root, and what it maps. undefined: they take the root.
   */
  debuggerRoot: { table: string; maps: string } | undefined;
}

/** Bytes of a table. */
export const tableSize = (mode: PagingMode, level: number): number => 2 ** mode.levels[level]!.bits * mode.entrySize;

/** The root's physical address in a register or structure that holds one, without flags and address-space numbers. */
export const rootIn = (mode: PagingMode, value: bigint): number => Number(value & mode.root.address);

/** The entry at offset `at` of a page that holds a table of this level. */
export function entryAt(mode: PagingMode, level: number, page: Buffer, at: number): PageEntry {
  return mode.decode(level, page.readUInt32LE(at), mode.entrySize === 8 ? page.readUInt32LE(at + 4) : 0);
}

/** An entry's bytes as a number. */
export const rawEntryAt = ({ entrySize }: PagingMode, page: Buffer, at: number): bigint =>
  entrySize === 8 ? page.readBigUInt64LE(at) : BigInt(page.readUInt32LE(at));
