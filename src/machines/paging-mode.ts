/** A machine's page-table format as data, for the walker in src/memory. */

export interface PagingLevel {
  /** Lowest virtual-address bit that indexes this level's table. */
  shift: number;
  /** Index bits. */
  bits: number;
  /** Bit 7 of an entry makes it map a page of 2^shift bytes. */
  largePages: boolean;
}

/** 64-bit entries: bit 0 present, bits 12 to 51 the next table's or the page's address. */
export interface PagingMode {
  name: string;
  /** Canonical virtual addresses have this many bits. */
  addressBits: number;
  /** From the root down. */
  levels: readonly PagingLevel[];
  /** Entry names for messages, from the root down. */
  levelNames: readonly string[];
}
