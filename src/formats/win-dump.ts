/**
 * Windows crash dump files (DUMP_HEADER64 and DUMP_HEADER32). Layout: the public symbol types of dbgeng's
 * dump headers as kdmp-parser, Volatility 3 and QEMU have them; the fields that `.dumpdebug` prints
 * were compared with the debugger's own reading (docs/debugger.md).
 */
import { address32, address32s, nested, raw, struct, u8, u32, u32n, u64, u64s } from '../core/struct.ts';

/** Signature and ValidDump of a 64-bit dump. */
export const DUMP_SIGNATURE = Buffer.from('PAGEDU64', 'latin1');

/** Ours: stands where the signature will be, in a file that is being converted in place and is no dump yet. */
export const UNFINISHED_SIGNATURE = Buffer.from('elf2dmp?', 'latin1');

/** Windows fills the header with this before it sets fields. */
export const DUMP_FILL = Buffer.from('PAGE', 'latin1');

/** Bytes. */
export const DUMP_HEADER64_SIZE = 0x2000;

/** DUMP_HEADER64.DumpType. */
export const DumpType = {
  full: 1,
  kernelSummary: 2,
  triage: 4,
  bitmapFull: 5,
  bitmapKernel: 6,
  /** By WinDbg's `.dump /k`. */
  rangesKernel: 8,
  /** By `.dump /ka`. */
  rangesActive: 9,
  /** By `.dump /f`. */
  rangesFull: 10,
} as const;

/**
 * DUMP_FILE_ATTRIBUTES.FilterDumpFile: with it the debugger calls a bitmap dump (type 5) one of active
 * memory, without it one of all memory (seen in the engine).
 */
export const DUMP_ATTRIBUTE_FILTERED = 0x40;

/** Windows sets this where it runs beside a secure kernel (virtualisation-based security). */
export const DUMP_ATTRIBUTE_SECURE_KERNEL = 0x800;

/** Whether a bitmap dump of type 5 has only what is in use. */
export const isFiltered = ({ Attributes }: { Attributes: number }): boolean =>
  (Attributes & ~DUMP_ATTRIBUTE_SECURE_KERNEL) === DUMP_ATTRIBUTE_FILTERED;

/** Whether a dump has all memory, not only the kernel's or what is in use. Its writer may still have dropped pages. */
export const holdsAllMemory = (header: { DumpType: number; Attributes: number }): boolean =>
  header.DumpType === DumpType.full || (header.DumpType === DumpType.bitmapFull && !isFiltered(header));

/** Runs that fit the header's physical memory block: Windows' buffer is 700 bytes. */
export const MAX_HEADER_RUNS = 42;

/** The bug check of a dump of a system that did not crash. */
export const LIVE_SYSTEM_DUMP = 0x161;

/** Exception code of a dump without an exception (ntstatus.h). */
export const STATUS_BREAKPOINT = 0x80000003;

/** Exception flags of Windows' own dumps. */
export const EXCEPTION_NONCONTINUABLE = 1;

/** EXCEPTION_RECORD64 */
export const ExceptionRecord64 = struct({
  name: 'EXCEPTION_RECORD64',
  size: 152,
  fields: {
    ExceptionCode: u32(0),
    ExceptionFlags: u32(4),
    ExceptionRecord: u64(8),
    ExceptionAddress: u64(0x10),
    NumberParameters: u32(0x18),
    UnusedAlignment: u32(0x1c),
    ExceptionInformation: u64s(0x20, 15),
  },
});

/** PHYSICAL_MEMORY_RUN64 */
export const PhysicalMemoryRun64 = struct({
  name: 'PHYSICAL_MEMORY_RUN64',
  size: 16,
  fields: { BasePage: u64(0), PageCount: u64(8) },
});

/** PHYSICAL_MEMORY_RUN32 */
export const PhysicalMemoryRun32 = struct({
  name: 'PHYSICAL_MEMORY_RUN32',
  size: 8,
  fields: { BasePage: u32n(0), PageCount: u32n(4) },
});

/** DUMP_HEADER64: the first two pages of a 64-bit crash dump (types in public symbols; checked in the debugger). */
export const DumpHeader64 = struct({
  name: 'DUMP_HEADER64',
  size: DUMP_HEADER64_SIZE,
  fields: {
    Signature: raw(0, 8),
    /** 0xf on free builds, 0xc on checked ones. */
    MajorVersion: u32(0x8),
    /** The build number. */
    MinorVersion: u32(0xc),
    DirectoryTableBase: u64(0x10),
    /** Address of the variable MmPfnDatabase, as KDBG has it, not its value (seen in real dumps). */
    PfnDatabase: u64(0x18),
    PsLoadedModuleList: u64(0x20),
    PsActiveProcessHead: u64(0x28),
    MachineImageType: u32(0x30),
    NumberProcessors: u32(0x34),
    BugCheckCode: u32(0x38),
    BugCheckPadding: u32(0x3c),
    BugCheckParameters: u64s(0x40, 4),
    VersionUser: raw(0x60, 32),
    KdDebuggerDataBlock: u64(0x80),
    NumberOfRuns: u32(0x88),
    RunsPadding: u32(0x8c),
    NumberOfPages: u64(0x90),
    Runs: raw(0x98, MAX_HEADER_RUNS * 16),
    ContextRecord: raw(0x348, 3000),
    Exception: nested(0xf00, ExceptionRecord64),
    DumpType: u32(0xf98),
    DumpTypePadding: u32(0xf9c),
    RequiredDumpSpace: u64(0xfa0),
    /** FILETIME, UTC. */
    SystemTime: u64(0xfa8),
    Comment: raw(0xfb0, 128),
    /** Units of 100 ns. */
    SystemUpTime: u64(0x1030),
    MiniDumpFields: u32(0x1038),
    SecondaryDataState: u32(0x103c),
    ProductType: u32(0x1040),
    SuiteMask: u32(0x1044),
    WriterStatus: u32(0x1048),
    Unused1: u8(0x104c),
    KdSecondaryVersion: u8(0x104d),
    /** Levels of page tables, by its value: 4 in dumps of 22621 and later, unset before. Debuggers walk four whatever it says. */
    PagingLevels: u8(0x104e),
    Unused2: u8(0x104f),
    Attributes: u32(0x1050),
    /** That of SharedUserData; unset before Windows 10. */
    BootId: u32(0x1054),
  },
});

/** Signature and ValidDump of a 32-bit dump. */
export const DUMP_SIGNATURE_32 = Buffer.from('PAGEDUMP', 'latin1');

/** Bytes. */
export const DUMP_HEADER32_SIZE = 0x1000;

/** Runs that fit the physical memory block of a 32-bit dump, which has 700 bytes too. */
export const MAX_HEADER_RUNS_32 = 86;

/** EXCEPTION_RECORD32 */
export const ExceptionRecord32 = struct({
  name: 'EXCEPTION_RECORD32',
  size: 80,
  fields: {
    ExceptionCode: u32(0),
    ExceptionFlags: u32(4),
    ExceptionRecord: address32(8),
    ExceptionAddress: address32(0xc),
    NumberParameters: u32(0x10),
    ExceptionInformation: address32s(0x14, 15),
  },
});

/** DUMP_HEADER32: the first page of a 32-bit crash dump (types in public symbols; checked in the debugger). */
export const DumpHeader32 = struct({
  name: 'DUMP_HEADER32',
  size: DUMP_HEADER32_SIZE,
  fields: {
    Signature: raw(0, 8),
    MajorVersion: u32(0x8),
    MinorVersion: u32(0xc),
    /** With PAE the address of a PDPT, which need not be page aligned. */
    DirectoryTableBase: u32n(0x10),
    PfnDatabase: address32(0x14),
    PsLoadedModuleList: address32(0x18),
    PsActiveProcessHead: address32(0x1c),
    MachineImageType: u32(0x20),
    NumberProcessors: u32(0x24),
    BugCheckCode: u32(0x28),
    BugCheckParameters: address32s(0x2c, 4),
    VersionUser: raw(0x3c, 32),
    /** 1 where page tables are those of PAE: debuggers walk them by it. */
    PaeEnabled: u8(0x5c),
    KdSecondaryVersion: u8(0x5d),
    Unused1: raw(0x5e, 2),
    KdDebuggerDataBlock: address32(0x60),
    NumberOfRuns: u32(0x64),
    NumberOfPages: u32n(0x68),
    Runs: raw(0x6c, MAX_HEADER_RUNS_32 * 8),
    ContextRecord: raw(0x320, 1200),
    Exception: nested(0x7d0, ExceptionRecord32),
    Comment: raw(0x820, 128),
    Attributes: u32(0x8a0),
    BootId: u32(0x8a4),
    DumpType: u32(0xf88),
    MiniDumpFields: u32(0xf8c),
    SecondaryDataState: u32(0xf90),
    ProductType: u32(0xf94),
    SuiteMask: u32(0xf98),
    WriterStatus: u32(0xf9c),
    RequiredDumpSpace: u64(0xfa0),
    /** Units of 100 ns. */
    SystemUpTime: u64(0xfb8),
    /** FILETIME, UTC. */
    SystemTime: u64(0xfc0),
  },
});

/**
 * Header of bitmap dumps (types 5 and 6), at DUMP_HEADER64_SIZE or DUMP_HEADER32_SIZE; the bitmap follows it at once, bit n
 * (least significant first) stands for PFN n. The pages of set bits lie in PFN order from FirstPage, a
 * file offset that need not be page aligned (checked in the debugger).
 */
export const BitmapDumpHeader = struct({
  name: 'BITMAP_DUMP',
  size: 0x38,
  fields: {
    Signature: raw(0, 4),
    ValidDump: raw(4, 4),
    DumpOptions: u32(8),
    FirstPage: u64(0x20),
    TotalPresentPages: u64(0x28),
    /** Bits in the map. */
    Pages: u64(0x30),
  },
});

/** BITMAP_DUMP.Signature of a dump of all memory. */
export const BITMAP_SIGNATURE_FULL = Buffer.from('FDMP', 'latin1');

/** BITMAP_DUMP.Signature of a kernel dump. */
export const BITMAP_SIGNATURE_KERNEL = Buffer.from('SDMP', 'latin1');

/** BITMAP_DUMP.ValidDump. */
export const BITMAP_VALID = Buffer.from('DUMP', 'latin1');

/**
 * Header of a kernel summary dump (type 2), at DUMP_HEADER64_SIZE; the bitmap follows it at once, as in bitmap dumps.
 * `.dumpdebug` names the fields, and the engine reads memory by them (docs/debugger.md).
 */
export const SummaryDumpHeader = struct({
  name: 'SUMMARY_DUMP64',
  size: 0x28,
  fields: {
    Signature: raw(0, 4),
    ValidDump: raw(4, 4),
    DumpOptions: u32(8),
    /** File offset of the first page. */
    HeaderSize: u32(0xc),
    /** Bits in the map. */
    BitmapSize: u32(0x10),
    /** Set bits. */
    Pages: u32(0x14),
    /** Again: the start of an RTL_BITMAP. */
    SizeOfBitMap: u32(0x18),
  },
});

/** SUMMARY_DUMP64.Signature. */
export const SUMMARY_SIGNATURE = Buffer.from('SDMP', 'latin1');

/**
 * Header of the dumps that WinDbg writes (types 8, 9 and 10), at DUMP_HEADER64_SIZE; ranges follow it at once, and
 * their pages lie in the ranges' order from FirstPage on. Layout: kdmp-parser, and files by the engine's own `.dump`.
 */
export const RangeDumpHeader = struct({
  name: 'RDMP_HEADER64',
  size: 0x30,
  fields: {
    /** RANGE_MARKER: where the ranges' part of the header begins. */
    Marker: u32(0),
    Signature: raw(4, 4),
    ValidDump: raw(8, 4),
    /** Bytes from NumberOfRanges to the end of the ranges. */
    MetadataSize: u64(0x10),
    /** File offset; need not be page aligned. */
    FirstPage: u64(0x18),
    NumberOfRanges: u64(0x20),
    TotalPages: u64(0x28),
  },
});

/** RDMP_HEADER64.Marker. */
export const RANGE_MARKER = 0x40;

/** RDMP_HEADER64.Signature. */
export const RANGE_SIGNATURE = Buffer.from('RDMP', 'latin1');

/** A range of a dump by WinDbg. */
export const DumpRange = struct({
  name: 'RDMP_RANGE',
  size: 16,
  fields: { BasePage: u64(0), PageCount: u64(8) },
});
