/**
 * Kernel minidumps (triage dumps, DumpType 4): what follows the dump header. Layout: public symbol types and wdbgexts.h,
 * compared with dumps that Windows wrote (of 64-bit machines) and with the debugger's reading of them (docs/triage.md). All
 * offsets are file offsets.
 */
import { address32, nested, raw, struct, u32, u32n, u64 } from '../core/struct.ts';
import { MIB } from '../core/units.ts';
import { UnicodeString32, UnicodeString64 } from './win-kernel.ts';

/** What both forms of the header begin with. An offset of 0: there is no such part. */
const HEAD = {
  ServicePackBuild: u32(0x00),
  /** Bytes up to and with the valid mark. What follows are other programs' data. */
  SizeOfDump: u32(0x04),
  ValidOffset: u32(0x08),
  ContextOffset: u32(0x0c),
  ExceptionOffset: u32(0x10),
  MmOffset: u32(0x14),
  UnloadedDriversOffset: u32(0x18),
  PrcbOffset: u32(0x1c),
  ProcessOffset: u32(0x20),
  ThreadOffset: u32(0x24),
  CallStackOffset: u32(0x28),
  CallStackSize: u32(0x2c),
  DriverListOffset: u32(0x30),
  DriverCount: u32(0x34),
  StringPoolOffset: u32(0x38),
  StringPoolSize: u32(0x3c),
  BrokenDriverOffset: u32(0x40),
  TriageOptions: u32(0x44),
};

/** TRIAGE_DUMP64, right behind the dump header. */
const TriageHeader64 = struct({
  name: 'TRIAGE_DUMP64',
  size: 0x80,
  fields: {
    ...HEAD,
    /** The address of what is at CallStackOffset. */
    TopOfStack: u64(0x48),
    // Between them is what Itanium has.
    DataPageAddress: u64(0x60),
    DataPageOffset: u32(0x68),
    DataPageSize: u32(0x6c),
    DebuggerDataOffset: u32(0x70),
    DebuggerDataSize: u32(0x74),
    DataBlocksOffset: u32(0x78),
    DataBlocksCount: u32(0x7c),
  },
});

/** TRIAGE_DUMP32. */
const TriageHeader32 = struct({
  name: 'TRIAGE_DUMP32',
  size: 0x68,
  fields: {
    ...HEAD,
    TopOfStack: address32(0x48),
    DataPageAddress: address32(0x4c),
    DataPageOffset: u32(0x50),
    DataPageSize: u32(0x54),
    DebuggerDataOffset: u32(0x58),
    DebuggerDataSize: u32(0x5c),
    DataBlocksOffset: u32(0x60),
    DataBlocksCount: u32(0x64),
  },
});

/** Counters of the memory manager; what follows its size is not read here. */
const TriageMm64 = struct({ name: 'DUMP_MM_STORAGE64', size: 0x50, fields: { Version: u32(0), Size: u32(4) } });
const TriageMm32 = struct({ name: 'DUMP_MM_STORAGE32', size: 0x30, fields: { Version: u32(0), Size: u32(4) } });

/** An entry of the list of loaded modules: KLDR_DATA_TABLE_ENTRY behind the offset of the name. */
const TriageDriver64 = struct({
  name: 'DUMP_DRIVER_ENTRY64',
  size: 0x90,
  fields: {
    /** Of the string with the module's path: characters as u32, then UTF-16. */
    NameOffset: u32(0x00),
    DllBase: u64(0x38),
    SizeOfImage: u32(0x48),
    CheckSum: u32(0x80),
    TimeDateStamp: u32(0x88),
  },
});

const TriageDriver32 = struct({
  name: 'DUMP_DRIVER_ENTRY32',
  size: 0x4c,
  fields: {
    NameOffset: u32(0x00),
    DllBase: address32(0x1c),
    SizeOfImage: u32(0x24),
    CheckSum: u32(0x44),
    TimeDateStamp: u32(0x48),
  },
});

/** UTF-16 units in an unloaded driver's entry. */
export const TRIAGE_UNLOADED_NAME = 12;

/** An entry of the list of unloaded drivers. The last one unloaded comes first. */
const TriageUnloadedDriver64 = struct({
  name: 'DUMP_UNLOADED_DRIVERS64',
  size: 0x38,
  fields: {
    /** Its length holds; its text is in `NameBuffer`. */
    Name: nested(0, UnicodeString64),
    NameBuffer: raw(0x10, 2 * TRIAGE_UNLOADED_NAME),
    StartAddress: u64(0x28),
    EndAddress: u64(0x30),
  },
});

const TriageUnloadedDriver32 = struct({
  name: 'DUMP_UNLOADED_DRIVERS32',
  size: 0x28,
  fields: {
    Name: nested(0, UnicodeString32),
    NameBuffer: raw(0x8, 2 * TRIAGE_UNLOADED_NAME),
    StartAddress: address32(0x20),
    EndAddress: address32(0x24),
  },
});

/** The number of unloaded drivers, which their list begins with. */
const Count64 = struct({ name: 'number of unloaded drivers', size: 8, fields: { Count: u64(0) } });
const Count32 = struct({ name: 'number of unloaded drivers', size: 4, fields: { Count: u32n(0) } });

/** The structures of a triage dump. */
export interface TriageForm {
  header: typeof TriageHeader64;
  mm: typeof TriageMm64;
  driver: typeof TriageDriver64;
  unloadedCount: typeof Count64;
  unloadedDriver: typeof TriageUnloadedDriver64;
}

const FORMS: Readonly<Record<4 | 8, TriageForm>> = {
  8: {
    header: TriageHeader64,
    mm: TriageMm64,
    driver: TriageDriver64,
    unloadedCount: Count64,
    unloadedDriver: TriageUnloadedDriver64,
  },
  4: {
    header: TriageHeader32,
    mm: TriageMm32,
    driver: TriageDriver32,
    unloadedCount: Count32,
    unloadedDriver: TriageUnloadedDriver32,
  },
};

/** By bytes of a pointer. */
export const triageForm = (pointerSize: 4 | 8): TriageForm => FORMS[pointerSize];

/** Memory at a virtual address. Blocks may overlap, also with other parts. */
export const TriageDataBlock = struct({
  name: 'TRIAGE_DATA_BLOCK',
  size: 0x10,
  fields: { Address: u64(0), Offset: u32(8), Size: u32(0xc) },
});

/** What is at ValidOffset: the dump was completed. */
export const TRIAGE_VALID = Buffer.from('TRGD', 'latin1');

/** DUMP_HEADER64.MiniDumpFields: the parts that a dump has, as Windows sets it (bits 0 to 7; 0x400 KDBG, 0x800 data blocks). */
export const TRIAGE_FIELDS = 0xcff;

/** The largest that we write; Windows' own are of this size at most too. */
export const TRIAGE_LIMIT = 2 * MIB;
