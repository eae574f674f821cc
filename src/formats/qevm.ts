/**
 * QEMU's migration stream (QEMU's migration/savevm.c, ram.c and vmstate.c; docs/devel/migration): all numbers are
 * big-endian. `virsh save`, `virsh dump` without --memory-only, memory snapshots and `savevm` hold one.
 */

export const QEVM_MAGIC = Buffer.from('QEVM', 'latin1');
/** Behind the magic; the only one since QEMU 0.10. */
export const QEVM_VERSION = 3;

/** What each section begins with. */
export const Section = {
  /** Ends the sections; a description may follow. */
  eof: 0x00,
  /** Of state that takes several passes, such as `ram`. */
  start: 0x01,
  part: 0x02,
  end: 0x03,
  /** A device's state, whole, without a length. */
  full: 0x04,
  subsection: 0x05,
  /** JSON that names every field of the `full` sections, with sizes. */
  description: 0x06,
  configuration: 0x07,
  command: 0x08,
  footer: 0x7e,
} as const;

/** Low bits of a `ram` record's first word; the others are the page's offset in its block. */
export const RamFlag = {
  zero: 0x02,
  blockSizes: 0x04,
  page: 0x08,
  endOfSection: 0x10,
  /** The block is that of the record before. */
  sameBlock: 0x20,
  /** A difference to what the page held. */
  xbzrle: 0x40,
  hook: 0x80,
  compressed: 0x100,
  multifdFlush: 0x200,
} as const;

/** Version of the `ram` sections: the only one since QEMU 0.14. */
export const RAM_VERSION = 4;

/** Header in each block's entry with mapped-ram (MappedRamHeader, QEMU 9.0): version, page size, two file offsets. */
export const MAPPED_RAM_HEADER_SIZE = 28;
export const MAPPED_RAM_VERSION = 1;

/** `struct _virQEMUSaveHeader` in libvirt's qemu_saveimage.h: written in the host's byte order. */
export const LIBVIRT_SAVE_MAGIC = 'LibvirtQemudSave';
/** A save that was never finished. */
export const LIBVIRT_PART_MAGIC = 'LibvirtQemudPart';
export const LIBVIRT_HEADER_SIZE = 92;
/** virQEMUSaveFormat. */
export const LIBVIRT_FORMATS = ['raw', 'gzip', 'bzip2', 'xz', 'lzop', 'zstd', 'sparse'] as const;
