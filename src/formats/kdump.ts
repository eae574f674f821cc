/**
 * Kdump-compressed files, header version 6, and the flattened form around them, as QEMU's
 * dump-guest-memory writes them. Layouts from makedumpfile (IMPLEMENTATION, diskdump_mod.h, makedumpfile.h)
 * and QEMU (include/sysemu/dump.h); checked on files of QEMU 7.2 and 10.0. All integers are
 * little-endian, except in the flattened form's own headers.
 */
import { type Field, raw, struct, u32, u64 } from '../core/struct.ts';

/** disk_dump_header.signature. */
export const KDUMP_SIGNATURE = Buffer.from('KDUMP   ', 'latin1');

/** The only version that knows 64-bit page numbers; QEMU has never written another. */
export const KDUMP_VERSION = 6;

/**
 * struct disk_dump_header where `long` has 64 bits, also of 32-bit PC guests. QEMU sets `machine` to
 * its own name for the guest's processor, or leaves "Unknown": it says nothing.
 */
export const KdumpHeader64 = struct({
  name: 'disk_dump_header',
  size: 464,
  fields: {
    signature: raw(0, 8),
    header_version: u32(0x8),
    status: u32(0x1a8),
    block_size: u32(0x1ac),
    sub_hdr_size: u32(0x1b0),
    bitmap_blocks: u32(0x1b4),
    max_mapnr: u32(0x1b8),
    nr_cpus: u32(0x1cc),
  },
});

/** The same where `long` has 32 bits: 32-bit Arm. Only to be told apart. */
export const KdumpHeader32 = struct({
  name: 'disk_dump_header',
  size: 452,
  fields: { status: u32(0x19c), block_size: u32(0x1a0) },
});

/** struct kdump_sub_header, at block 1. */
export const KdumpSubHeader64 = struct({
  name: 'kdump_sub_header',
  size: 104,
  fields: {
    phys_base: u64(0x0),
    dump_level: u32(0x8),
    /** Not 0 in one of several files that hold a part of the memory each (makedumpfile --split). */
    split: u32(0xc),
    offset_vmcoreinfo: u64(0x20),
    size_vmcoreinfo: u64(0x28),
    offset_note: u64(0x30),
    note_size: u64(0x38),
    max_mapnr_64: u64(0x60),
  },
});

/** struct page_desc: one per page that the file holds, in their order. */
export const PageDescriptor = struct({
  name: 'page_desc',
  size: 24,
  fields: { offset: u64(0), size: u32(8), flags: u32(0xc), page_flags: u64(0x10) },
});

/** `page_desc.flags`; `disk_dump_header.status` has the same for the whole file. 0: stored as it is. */
export const DUMP_DH_COMPRESSED_ZLIB = 0x1;

/** lzo1x. */
export const DUMP_DH_COMPRESSED_LZO = 0x2;

/** Snappy. */
export const DUMP_DH_COMPRESSED_SNAPPY = 0x4;

/** makedumpfile only. */
export const DUMP_DH_COMPRESSED_ZSTD = 0x20;

/** sizeof(struct elf_prstatus), whose notes tell the machine: the header's own name for it does not. */
export const PRSTATUS_SIZES: Record<number, string> = {
  144: 'i386',
  148: '32-bit Arm',
  336: 'x86-64',
  392: 'AArch64',
};

const i64be = (offset: number): Field<bigint> => ({
  offset,
  size: 8,
  read: (b, at) => b.readBigInt64BE(at),
  write: (b, at, v) => void b.writeBigInt64BE(v, at),
});

/** makedumpfile_header.signature. */
export const FLATTENED_SIGNATURE = Buffer.from('makedumpfile\0\0\0\0', 'latin1');

/** Records begin here. */
export const FLATTENED_HEADER_SIZE = 4096;

/** struct makedumpfile_header. */
export const FlattenedHeader = struct({
  name: 'makedumpfile_header',
  size: 32,
  fields: { signature: raw(0, 16), type: i64be(0x10), version: i64be(0x18) },
});

/** struct makedumpfile_data_header: `size` bytes follow, which belong at `offset`. Both -1: the end. */
export const FlattenedRecord = struct({
  name: 'makedumpfile_data_header',
  size: 16,
  fields: { offset: i64be(0), size: i64be(8) },
});
