/** PE32+ and PE32 images (Microsoft PE and COFF specification), as mapped in memory. */
import { raw, struct, u16, u32, u32n, u64 } from '../core/struct.ts';

/** IMAGE_FILE_HEADER.Machine of x64 (winnt.h). */
export const IMAGE_FILE_MACHINE_AMD64 = 0x8664;

/** IMAGE_FILE_HEADER.Machine of 32-bit x86 (winnt.h). */
export const IMAGE_FILE_MACHINE_I386 = 0x14c;

/** IMAGE_FILE_HEADER.Machine of ARM64 images; ARM64X ones too, which hold x64 code beside. */
export const IMAGE_FILE_MACHINE_ARM64 = 0xaa64;

/** IMAGE_DOS_HEADER.e_magic. */
export const MZ = 0x5a4d;

/** "PE" and two zeros. */
export const PE_SIGNATURE = 0x4550;

/** Optional header's Magic of a 64-bit image. */
const PE32PLUS = 0x20b;

/** IMAGE_DOS_HEADER: magic, and where the PE header is. */
export const DosHeader = struct({
  name: 'IMAGE_DOS_HEADER',
  size: 64,
  fields: { e_magic: u16(0), e_lfanew: u32(0x3c) },
});

/** Signature, file header and the optional header up to its data directories. */
export const PeHeader64 = struct({
  name: 'IMAGE_NT_HEADERS64',
  size: 0x88,
  fields: {
    Signature: u32(0),
    Machine: u16(4),
    NumberOfSections: u16(6),
    TimeDateStamp: u32(8),
    SizeOfOptionalHeader: u16(0x14),
    Magic: u16(0x18),
    AddressOfEntryPoint: u32(0x28),
    ImageBase: u64(0x30),
    SectionAlignment: u32(0x38),
    SizeOfImage: u32(0x50),
    SizeOfHeaders: u32(0x54),
    CheckSum: u32(0x58),
    NumberOfRvaAndSizes: u32(0x84),
  },
});

/** The same of a 32-bit image. */
const PeHeader32 = struct({
  name: 'IMAGE_NT_HEADERS32',
  size: 0x78,
  fields: {
    Signature: u32(0),
    Machine: u16(4),
    NumberOfSections: u16(6),
    TimeDateStamp: u32(8),
    SizeOfOptionalHeader: u16(0x14),
    Magic: u16(0x18),
    AddressOfEntryPoint: u32(0x28),
    ImageBase: u32n(0x34),
    SectionAlignment: u32(0x38),
    SizeOfImage: u32(0x50),
    SizeOfHeaders: u32(0x54),
    CheckSum: u32(0x58),
    NumberOfRvaAndSizes: u32(0x74),
  },
});

/** Optional header's Magic of a 32-bit image. */
const PE32 = 0x10b;

/** The form of images of a machine with pointers of `pointerSize` bytes. */
export const peForm = ({
  pointerSize,
}: {
  readonly pointerSize: 4 | 8;
}): { layout: typeof PeHeader64; magic: number } =>
  pointerSize === 8 ? { layout: PeHeader64, magic: PE32PLUS } : { layout: PeHeader32, magic: PE32 };

/** Index of a data directory. */
export const DIRECTORY_EXPORT = 0;

/** Index of a data directory. */
export const DIRECTORY_RESOURCE = 2;

/** Index of a data directory. */
export const DIRECTORY_EXCEPTION = 3;

/** Index of a data directory. */
export const DIRECTORY_DEBUG = 6;

/** Index of a data directory. */
export const DIRECTORY_IMPORT_ADDRESSES = 12;

/** IMAGE_DATA_DIRECTORY: an RVA and bytes. */
export const DataDirectory = struct({
  name: 'IMAGE_DATA_DIRECTORY',
  size: 8,
  fields: { VirtualAddress: u32(0), Size: u32(4) },
});

/** IMAGE_EXPORT_DIRECTORY; addresses are RVAs. */
export const ExportDirectory = struct({
  name: 'IMAGE_EXPORT_DIRECTORY',
  size: 40,
  fields: {
    Name: u32(0xc),
    Base: u32(0x10),
    NumberOfFunctions: u32(0x14),
    NumberOfNames: u32(0x18),
    AddressOfFunctions: u32(0x1c),
    AddressOfNames: u32(0x20),
    AddressOfNameOrdinals: u32(0x24),
  },
});

/** IMAGE_DEBUG_DIRECTORY; AddressOfRawData is an RVA. */
export const DebugDirectory = struct({
  name: 'IMAGE_DEBUG_DIRECTORY',
  size: 28,
  fields: { Type: u32(0xc), SizeOfData: u32(0x10), AddressOfRawData: u32(0x14) },
});

/** IMAGE_DEBUG_DIRECTORY.Type of the record that names the PDB. */
export const IMAGE_DEBUG_TYPE_CODEVIEW = 2;

/** CodeView record of PDB 7.0; the zero-terminated PDB name follows. */
export const RSDS = 0x53445352;

/** RUNTIME_FUNCTION of x64: an entry of the exception directory, sorted by BeginAddress. */
export const RuntimeFunction = struct({
  name: 'RUNTIME_FUNCTION',
  size: 12,
  fields: { BeginAddress: u32(0), EndAddress: u32(4), UnwindInfo: u32(8) },
});

/** IMAGE_RESOURCE_DIRECTORY; its entries follow, those with names first. */
export const ResourceDirectory = struct({
  name: 'IMAGE_RESOURCE_DIRECTORY',
  size: 16,
  fields: { NumberOfNamedEntries: u16(0xc), NumberOfIdEntries: u16(0xe) },
});

/** Offsets count from the start of the resources; with bit 31 set they lead to another directory. */
export const ResourceDirectoryEntry = struct({
  name: 'IMAGE_RESOURCE_DIRECTORY_ENTRY',
  size: 8,
  fields: { Name: u32(0), OffsetToData: u32(4) },
});

/** Bit of OffsetToData: the entry leads to another directory. */
export const RESOURCE_SUBDIRECTORY = 0x8000_0000;

/** OffsetToData is an RVA. */
export const ResourceDataEntry = struct({
  name: 'IMAGE_RESOURCE_DATA_ENTRY',
  size: 16,
  fields: { OffsetToData: u32(0), Size: u32(4) },
});

/** Type of a version resource. */
export const RT_VERSION = 16;

/** VS_VERSIONINFO with the VS_FIXEDFILEINFO that is its value (verrsrc.h). */
export const VersionInfo = struct({
  name: 'VS_VERSIONINFO',
  size: 0x5c,
  fields: {
    wLength: u16(0),
    wValueLength: u16(2),
    szKey: raw(6, 32),
    dwSignature: u32(0x28),
    dwFileVersionMS: u32(0x30),
    dwFileVersionLS: u32(0x34),
    dwProductVersionMS: u32(0x38),
    dwProductVersionLS: u32(0x3c),
  },
});

/** VS_VERSIONINFO.szKey, with its zero. */
export const VERSION_INFO_KEY = Buffer.from('VS_VERSION_INFO\0', 'utf16le');

/** VS_FIXEDFILEINFO.dwSignature. */
export const FIXED_FILE_INFO_SIGNATURE = 0xfeef04bd;

/** Bytes of VS_FIXEDFILEINFO. */
export const FIXED_FILE_INFO_SIZE = 0x34;

/** Of `Characteristics` of a section: it can be written to. */
export const IMAGE_SCN_MEM_WRITE = 0x8000_0000;

/** A section as linked; those of the image's header, of an object file, and of a PDB. */
export const SectionHeader = struct({
  name: 'IMAGE_SECTION_HEADER',
  size: 40,
  fields: { Name: raw(0, 8), VirtualSize: u32(8), VirtualAddress: u32(12), Characteristics: u32(36) },
});
