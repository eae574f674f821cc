/** A machine's page-table format as data, for the walker in src/memory. */

export interface PagingLevel {
  /** Lowest virtual-address bit that indexes this level's table. */
  shift: number;
  /** Index bits. */
  bits: number;
  /** Bit 7 of an entry makes it map a page of 2^shift bytes. */
  largePages: boolean;
}

export type SoftwareEntry = { kind: 'transition'; physical: number } | { kind: 'prototype'; entry: bigint };

/** 64-bit entries: bit 0 present, bits 12 to 51 the next table's or the page's address. */
export interface PagingMode {
  name: string;
  /** Canonical virtual addresses have this many bits. */
  addressBits: number;
  /** From the root down. */
  levels: readonly PagingLevel[];
  /**
   * What Windows keeps in a last-level entry that is not present: the page's address, if it is still in
   * memory (in transition), or the virtual address of a prototype entry that tells.
   */
  softwareEntry(low: number, high: number): SoftwareEntry | undefined;
  /** Entries of the root from this one on map the kernel's half. */
  kernelFrom: number;
  /** Entry names for messages, from the root down. */
  levelNames: readonly string[];
}
