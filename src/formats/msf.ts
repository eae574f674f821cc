/**
 * MSF 7.0, the container of PDB files (LLVM's "The MSF File Format", Microsoft's microsoft-pdb): pages, and streams
 * made of them.
 */
import { raw, struct, u32 } from '../core/struct.ts';

/** How PDBs since Visual C++ 7 begin. */
export const MSF_MAGIC = Buffer.from('Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0', 'latin1');
/** How PDBs of Visual C++ 2.0 to 6.0 begin. */
export const MSF_MAGIC_2 = Buffer.from('Microsoft C/C++ program database 2.00\r\n\x1aJG', 'latin1');
/** How portable PDBs (.NET) begin. */
export const PORTABLE_PDB_MAGIC = Buffer.from('BSJB', 'latin1');
/** How compressed files of symbol stores (`.pd_`) begin: a cabinet, or what `compress` made. */
export const CABINET_MAGIC = Buffer.from('MSCF', 'latin1');
export const COMPRESS_MAGIC = Buffer.from('SZDD', 'latin1');

/**
 * The first page's header. Page numbers (u32) of the directory's page map follow it: the map lists the directory's
 * pages, and both may take more than one page.
 */
export const MsfHeader = struct({
  name: 'MSF_HDR',
  size: 0x34,
  fields: {
    Magic: raw(0, 32),
    PageSize: u32(0x20),
    FreePageMap: u32(0x24),
    /** Pages of the whole file. */
    PageCount: u32(0x28),
    /** Bytes of the directory: a count of streams, their sizes, their page numbers; u32 each. */
    DirectorySize: u32(0x2c),
  },
});

/** Bytes of a page. */
export const MSF_PAGE_SIZES: readonly number[] = [512, 1024, 2048, 4096, 8192, 16384, 32768];

/** The size of a stream that does not exist. */
export const NO_STREAM_SIZE = 0xffff_ffff;
/** The number, in 16 bits, of a stream that does not exist. */
export const NO_STREAM = 0xffff;
