/**
 * Kernel minidumps (triage dumps, DumpType 4) of 64-bit machines: what follows the dump header. Layout: public symbol
 * types, compared with dumps that Windows wrote and with the debugger's reading of them (docs/triage.md). All offsets
 * are file offsets.
 */
import { nested, raw, struct, u32, u64 } from '../core/struct.ts';
import { MIB } from '../core/units.ts';
import { UnicodeString64 } from './win-kernel.ts';

/** TRIAGE_DUMP64, right behind the dump header. An offset of 0: there is no such part. */
export const TriageHeader64 = struct({
  name: 'TRIAGE_DUMP64',
  size: 0x80,
  fields: {
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
    /** The address of what is at CallStackOffset. */
    TopOfStack: u64(0x48),
    /** Of Itanium. */
    BStoreOffset: u32(0x50),
    BStoreSize: u32(0x54),
    BStoreLimit: u64(0x58),
    DataPageAddress: u64(0x60),
    DataPageOffset: u32(0x68),
    DataPageSize: u32(0x6c),
    DebuggerDataOffset: u32(0x70),
    DebuggerDataSize: u32(0x74),
    DataBlocksOffset: u32(0x78),
    DataBlocksCount: u32(0x7c),
  },
});

/** Counters of the memory manager; what follows its size is not read here. */
export const TriageMm64 = struct({ name: 'DUMP_MM_STORAGE64', size: 0x50, fields: { Version: u32(0), Size: u32(4) } });

/** An entry of the list of loaded modules: KLDR_DATA_TABLE_ENTRY behind the offset of the name. */
export const TriageDriver64 = struct({
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

/** UTF-16 units in an unloaded driver's entry. */
export const TRIAGE_UNLOADED_NAME = 12;

/** An entry of the list of unloaded drivers, which begins with their number as u64. The last one unloaded comes first. */
export const TriageUnloadedDriver64 = struct({
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
