/** The streams of a PDB (LLVM's "The PDB File Format", Microsoft's microsoft-pdb). */
import { raw, struct, u8, u16, u32 } from '../core/struct.ts';

/** Streams with numbers of their own. */
export const STREAM_INFO = 1;
export const STREAM_TPI = 2;
export const STREAM_DBI = 3;
export const STREAM_IPI = 4;

/** Its map of named streams follows: see `NamedStreamMap` in symbols/pdb.ts. */
export const InfoHeader = struct({
  name: 'PDBStream70',
  size: 28,
  fields: { Version: u32(0), Signature: u32(4), Age: u32(8), Guid: raw(12, 16) },
});

/** `/names`: strings that are named by their offset. */
export const NamesHeader = struct({
  name: 'NMT header',
  size: 12,
  fields: { Signature: u32(0), Version: u32(4), Size: u32(8) },
});
/** How `/names` begins. */
export const NAMES_SIGNATURE = 0xeffe_effe;

/** How the DBI stream begins. */
export const DbiHeader = struct({
  name: 'NewDBIHdr',
  size: 64,
  fields: {
    /** 0xffffffff: this header, and not the one of older files. */
    Signature: u32(0),
    Version: u32(4),
    Age: u32(8),
    GlobalsStream: u16(12),
    PublicsStream: u16(16),
    SymbolRecordsStream: u16(20),
    /** Sizes of the parts that follow, in this order. */
    ModulesSize: u32(24),
    SectionContributionsSize: u32(28),
    SectionMapSize: u32(32),
    SourceFilesSize: u32(36),
    TypeServerMapSize: u32(40),
    DebugHeaderSize: u32(48),
    /** This part comes before the debug header. */
    EditAndContinueSize: u32(52),
    Flags: u16(56),
    Machine: u16(58),
  },
});
/** Signature of that header. */
export const DBI_SIGNATURE = 0xffff_ffff;

/** A module of the DBI stream; its name and its object file's, zero-terminated, follow; then padding to 4 bytes. */
export const ModuleInfo = struct({
  name: 'MODI_60_Persist',
  size: 64,
  fields: { Stream: u16(34), SymbolsSize: u32(36), C11LinesSize: u32(40), C13LinesSize: u32(44) },
});

/** Versions of the section contributions, a u32 before them. */
export const SECTION_CONTRIBUTIONS_60 = 0xf12e_ba2d;
export const SECTION_CONTRIBUTIONS_2 = 0xf13151e4;

/** Code or data that a module contributed to a section. Version 2 has 4 more bytes. */
export const SectionContribution = struct({
  name: 'SC',
  size: 28,
  fields: { Section: u16(0), Offset: u32(4), Size: u32(8), Module: u16(16) },
});
/** Bytes of an entry of version 2. */
export const SECTION_CONTRIBUTION_2_SIZE = 32;

/** Slots of the debug header: u16 stream numbers. */
export const DEBUG_OMAP_TO_SOURCE = 3;
export const DEBUG_OMAP_FROM_SOURCE = 4;
export const DEBUG_SECTIONS = 5;
export const DEBUG_ORIGINAL_SECTIONS = 10;

/** Sorted by From; To is 0 for what has no counterpart. */
export const OmapEntry = struct({ name: 'OMAP', size: 8, fields: { From: u32(0), To: u32(4) } });

/** The header of the TPI and IPI streams; records follow at HeaderSize. */
export const TypesHeader = struct({
  name: 'TPI HDR',
  size: 56,
  fields: { Version: u32(0), HeaderSize: u32(4), FirstIndex: u32(8), EndIndex: u32(12), RecordsSize: u32(16) },
});

/** One of `/names`' users: a file of a C13 checksums subsection; the checksum follows, padded to 4 bytes. */
export const FileChecksum = struct({
  name: 'CV_FileCheckSum',
  size: 6,
  fields: { Name: u32(0), ChecksumSize: u8(4) },
});
