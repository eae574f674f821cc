/**
 * BGZF (SAM specification 4.1): gzip in members of at most 64 KiB, each of which says in its header how long it is. Any
 * gzip reads it as one file; `bgzip`, htslib and rapidgzip find members by themselves.
 */
import { Struct, u16, u32 } from '../core/struct.ts';

/** What comes before a member's deflated contents. The extra field holds the one subfield `BC`. */
export const BgzfHeader = new Struct({
  name: 'BGZF block header',
  size: 18,
  fields: {
    /** ID1, ID2, CM (deflate), FLG (FEXTRA): `BGZF_MAGIC`. */
    magic: u32(0),
    MTIME: u32(4),
    /** XFL and OS: 255 is unknown. */
    XFL_OS: u16(8),
    /** 6 */
    XLEN: u16(10),
    /** `BGZF_SUBFIELD` */
    SI: u16(12),
    /** 2 */
    SLEN: u16(14),
    /** Bytes of the whole member less 1. */
    BSIZE: u16(16),
  },
});

/** What follows a member's deflated contents (RFC 1952 2.3.1). */
export const GzipTrailer = new Struct({
  name: 'gzip trailer',
  size: 8,
  fields: {
    CRC32: u32(0),
    ISIZE: u32(4),
  },
});

export const BGZF_MAGIC = 0x04088b1f;
export const BGZF_XLEN = 6;
/** `BC` */
export const BGZF_SUBFIELD = 0x4342;
export const BGZF_SLEN = 2;
export const BGZF_UNKNOWN_OS = 0xff00;

/** A member's bytes, and its contents', at most. */
export const BGZF_MAX = 65_536;

/** An empty member: the end-of-file marker by which truncation shows (SAM specification 4.1.2). */
export const BGZF_END = Buffer.from('1f8b08040000000000ff0600424302001b0003000000000000000000', 'hex');
