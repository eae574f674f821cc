/**
 * Zstandard's Seekable Format 0.1.0 (facebook/zstd, contrib/seekable_format/zstd_seekable_compression_format.md):
 * independent frames, and a table of their sizes in a skippable frame at the end, which every zstd passes over.
 */
import { Struct, u8, u32 } from '../core/struct.ts';

/** What comes before the entries: a skippable frame (RFC 8878 3.1.2). */
export const SeekTableHead = new Struct({
  name: 'Seek_Table',
  size: 8,
  fields: {
    Skippable_Magic_Number: u32(0),
    /** Bytes that follow: entries and footer. */
    Frame_Size: u32(4),
  },
});

/** An entry; `Checksum` follows where the descriptor says so. */
export const SeekTableEntry = new Struct({
  name: 'Seek_Table_Entry',
  size: 8,
  fields: {
    Compressed_Size: u32(0),
    Decompressed_Size: u32(4),
  },
});

/** The file's last bytes. */
export const SeekTableFooter = new Struct({
  name: 'Seek_Table_Footer',
  size: 9,
  fields: {
    Number_Of_Frames: u32(0),
    Seek_Table_Descriptor: u8(4),
    Seekable_Magic_Number: u32(5),
  },
});

export const SEEK_TABLE_SKIPPABLE = 0x184d2a5e;
export const SEEKABLE_MAGIC = 0x8f92eab1;

/** Seek_Table_Descriptor: Checksum_Flag, and the bits that have to be 0. */
export const SEEK_TABLE_CHECKSUMS = 0x80;
export const SEEK_TABLE_RESERVED = 0x7c;

/** Of an entry that has one. */
export const SEEK_TABLE_CHECKSUM_SIZE = 4;
