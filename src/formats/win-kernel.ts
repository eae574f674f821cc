/**
 * Structures of the Windows kernel in memory. Layouts: the public headers (wdbgexts.h, ntddk.h) and
 * the types in public symbols; the offsets inside PRCB and KPCR that differ between builds come from
 * the KDBG, never from a table of builds.
 */
import { widened } from '../core/bits.ts';
import { address32, nested, raw, type StructOf, struct, u8, u16, u32, u32n, u64 } from '../core/struct.ts';
import { va } from '../core/units.ts';
import { PhysicalMemoryRun32, PhysicalMemoryRun64 } from './win-dump.ts';

/** KSYSTEM_TIME: a 64-bit time, consistent when High1Time == High2Time. */
export const SystemTimeField = struct({
  name: 'KSYSTEM_TIME',
  size: 12,
  fields: { LowPart: u32(0), High1Time: u32(4), High2Time: u32(8) },
});

/** KUSER_SHARED_DATA's address in the kernel's half, on x64 and ARM64. */
export const SHARED_USER_DATA_64 = va(0xfffff780_00000000n);

/** The same on 32-bit x86, sign-extended. */
export const SHARED_USER_DATA_32 = va(0xffffffff_ffdf0000n);

/** KUSER_SHARED_DATA: offsets are the same on every machine (ntddk.h). */
export const SharedUserData = struct({
  name: 'KUSER_SHARED_DATA',
  size: 0x3c4,
  fields: {
    TickCountMultiplier: u32(4),
    /** Units of 100 ns since boot. */
    InterruptTime: nested(0x8, SystemTimeField),
    /** FILETIME, UTC. */
    SystemTime: nested(0x14, SystemTimeField),
    TimeZoneBias: nested(0x20, SystemTimeField),
    ImageNumberLow: u16(0x2c),
    ImageNumberHigh: u16(0x2e),
    NtSystemRoot: raw(0x30, 520),
    /** Windows 10 and later; 0 before. */
    NtBuildNumber: u32(0x260),
    /** 1 workstation, 2 domain controller, 3 server. */
    NtProductType: u32(0x264),
    ProductTypeIsValid: u8(0x268),
    NativeProcessorArchitecture: u16(0x26a),
    NtMajorVersion: u32(0x26c),
    NtMinorVersion: u32(0x270),
    /** Windows 10 and later. */
    BootId: u32(0x2c4),
    SuiteMask: u32(0x2d0),
    KdDebuggerEnabled: u8(0x2d4),
    NumberOfPhysicalPages: u32(0x2e8),
    TickCount: nested(0x320, SystemTimeField),
    /** Windows 7 and later. */
    ActiveProcessorCount: u32(0x3c0),
  },
});

/** 'KDBG' as a little-endian word. */
export const KDBG_TAG = 0x4742444b;

/** Sizes of KDDEBUGGER_DATA64: Server 2003 x64 has 0x318, later ones grew; anything outside is no KDBG. */
export const KDBG_MIN_SIZE = 0x290;

/** See KDBG_MIN_SIZE. */
export const KDBG_MAX_SIZE = 0x1000;

/**
 * KDDEBUGGER_DATA64 (wdbgexts.h). Fields beyond the block's own Size do not exist: read it with
 * `readPartial`. "Address of" fields hold the address of the kernel's variable.
 */
export const DebuggerData = struct({
  name: 'KDDEBUGGER_DATA64',
  size: 0x368,
  fields: {
    ListFlink: u64(0x0),
    ListBlink: u64(0x8),
    OwnerTag: u32(0x10),
    Size: u32(0x14),
    KernBase: u64(0x18),
    BreakpointWithStatus: u64(0x20),
    SavedContext: u64(0x28),
    /** Bit 0: page tables are those of PAE. Only 32-bit x86 has it set, and debuggers walk them by it. */
    PaeEnabled: u16(0x36),
    PsLoadedModuleList: u64(0x48),
    PsActiveProcessHead: u64(0x50),
    PspCidTable: u64(0x58),
    KiBugCheckData: u64(0x88),
    MmPfnDatabase: u64(0xc0),
    /** Older kernels keep in these variables where paged pool begins and ends. */
    MmPagedPoolStart: u64(0x120),
    MmPagedPoolEnd: u64(0x128),
    MmPageSize: u64(0x138),
    NtBuildLab: u64(0x208),
    KiProcessorBlock: u64(0x218),
    MmUnloadedDrivers: u64(0x220),
    MmLastUnloadedDriver: u64(0x228),
    CmNtCSDVersion: u64(0x268),
    MmPhysicalMemoryBlock: u64(0x270),
    OffsetKThreadTeb: u16(0x29a),
    OffsetKThreadInitialStack: u16(0x29e),
    OffsetKThreadApcProcess: u16(0x2a0),
    SizeEProcess: u16(0x2a8),
    OffsetEprocessPeb: u16(0x2aa),
    OffsetEprocessParentCID: u16(0x2ac),
    OffsetEprocessDirectoryTableBase: u16(0x2ae),
    SizePrcb: u16(0x2b0),
    /** KPRCB.DpcRoutineActive: not 0 while a DPC runs. */
    OffsetPrcbDpcRoutine: u16(0x2b2),
    OffsetPrcbCurrentThread: u16(0x2b4),
    OffsetPrcbProcStateContext: u16(0x2bc),
    OffsetPrcbNumber: u16(0x2be),
    SizeEThread: u16(0x2c0),
    SizePcr: u16(0x2e0),
    OffsetPcrSelfPcr: u16(0x2e2),
    OffsetPcrCurrentPrcb: u16(0x2e4),
    OffsetPcrContainedPrcb: u16(0x2e6),
    OffsetPrcbProcStateSpecialReg: u16(0x2f2),
    OffsetPrcbContext: u16(0x338),
    OffsetKThreadStackLimit: u32(0x340),
    OffsetKThreadStackBase: u32(0x344),
    /** Since Windows 8, as the next two. */
    OffsetPrcbIdleThread: u16(0x350),
    /** KPRCB.DpcStack and IsrStack: where the stacks begin that DPCs and interrupts run on. */
    OffsetPrcbDpcStack: u16(0x354),
    OffsetPrcbIsrStack: u16(0x356),
    /** A value, not a variable's address: where the page tables map themselves. Since 14393. */
    PteBase: u64(0x360),
  },
});

/** The fields of a block; those beyond its size are absent. */
export type DebuggerFields = Partial<StructOf<typeof DebuggerData>>;

/** A structure of 64-bit fields, which 32-bit systems have as well: its pointers as wide as the guest's. */
function withPointers<V extends object>(values: V, pointerSize: 4 | 8): V {
  if (pointerSize === 8) return values;
  const entries = Object.entries(values).map(([name, value]) => [
    name,
    typeof value === 'bigint' ? widened(value, pointerSize) : value,
  ]);
  return Object.fromEntries(entries) as V;
}

/** The fields within the first `available` bytes of a decoded block. */
export const readDebuggerData = (block: Buffer, available: number, pointerSize: 4 | 8): DebuggerFields =>
  withPointers(DebuggerData.readPartial(block, available), pointerSize);

/** KDDEBUGGER_DATA64.PaeEnabled. */
export const KDBG_PAE = 1;

/** DBGKD_GET_VERSION64 (windbgkd.h): what KdVersionBlock holds. */
export const KdVersion = struct({
  name: 'DBGKD_GET_VERSION64',
  size: 0x28,
  fields: {
    /** 0xf free, 0xc checked. */
    MajorVersion: u16(0),
    /** The build number. */
    MinorVersion: u16(2),
    ProtocolVersion: u8(4),
    KdSecondaryVersion: u8(5),
    Flags: u16(6),
    MachineType: u16(8),
    KernBase: u64(0x10),
    PsLoadedModuleList: u64(0x18),
    DebuggerDataList: u64(0x20),
  },
});

/** @param bytes at least `KdVersion.size` */
export const readKdVersion = (bytes: Buffer, pointerSize: 4 | 8): StructOf<typeof KdVersion> =>
  withPointers(KdVersion.read(bytes), pointerSize);

/**
 * NT_TIB, with which a TEB begins, in pointers (winnt.h).
 */
export const THREAD_INFORMATION = { stackBase: 1, stackLimit: 2 } as const;

/** UNICODE_STRING of a 64-bit system: lengths in bytes. */
export const UnicodeString64 = struct({
  name: 'UNICODE_STRING',
  size: 16,
  fields: { Length: u16(0), MaximumLength: u16(2), Buffer: u64(8) },
});

/** KLDR_DATA_TABLE_ENTRY of a 64-bit system: an entry of PsLoadedModuleList. */
const LoaderEntry64 = struct({
  name: 'KLDR_DATA_TABLE_ENTRY',
  size: 0xa0,
  fields: {
    Flink: u64(0),
    Blink: u64(8),
    DllBase: u64(0x30),
    EntryPoint: u64(0x38),
    SizeOfImage: u32(0x40),
    FullDllName: nested(0x48, UnicodeString64),
    BaseDllName: nested(0x58, UnicodeString64),
    Flags: u32(0x68),
    CheckSum: u32(0x78),
    TimeDateStamp: u32(0x9c),
  },
});

/** UNICODE_STRING of a 32-bit system. */
export const UnicodeString32 = struct({
  name: 'UNICODE_STRING',
  size: 8,
  fields: { Length: u16(0), MaximumLength: u16(2), Buffer: address32(4) },
});

/** KLDR_DATA_TABLE_ENTRY of a 32-bit system. */
const LoaderEntry32 = struct({
  name: 'KLDR_DATA_TABLE_ENTRY',
  size: 0x5c,
  fields: {
    Flink: address32(0),
    Blink: address32(4),
    DllBase: address32(0x18),
    EntryPoint: address32(0x1c),
    SizeOfImage: u32(0x20),
    FullDllName: nested(0x24, UnicodeString32),
    BaseDllName: nested(0x2c, UnicodeString32),
    Flags: u32(0x34),
    CheckSum: u32(0x40),
    TimeDateStamp: u32(0x58),
  },
});

/** INVERTED_FUNCTION_TABLE of a 64-bit system, PsInvertedFunctionTable; entries follow (types in public symbols). */
export const InvertedTableHead = struct({
  name: 'INVERTED_FUNCTION_TABLE',
  size: 0x10,
  fields: { CurrentSize: u32(0), MaximumSize: u32(4) },
});

/** Its entry: where an image has its exception directory. */
export const InvertedTableEntry = struct({
  name: 'INVERTED_FUNCTION_TABLE_ENTRY',
  size: 0x18,
  fields: { FunctionTable: u64(0), ImageBase: u64(8), SizeOfImage: u32(0x10), SizeOfTable: u32(0x14) },
});

/** Entries: 160 in the oldest builds, 256 and 512 later. */
export const MAX_INVERTED_TABLE = 1024;

/** UNLOADED_DRIVERS of a 64-bit system: an entry of MmUnloadedDrivers (types in public symbols). */
const UnloadedDriver64 = struct({
  name: 'UNLOADED_DRIVERS',
  size: 0x28,
  fields: {
    Name: nested(0, UnicodeString64),
    StartAddress: u64(0x10),
    EndAddress: u64(0x18),
    /** FILETIME, UTC. */
    CurrentTime: u64(0x20),
  },
});

/** UNLOADED_DRIVERS of a 32-bit system. */
const UnloadedDriver32 = struct({
  name: 'UNLOADED_DRIVERS',
  size: 0x18,
  fields: {
    Name: nested(0, UnicodeString32),
    StartAddress: address32(8),
    EndAddress: address32(0xc),
    CurrentTime: u64(0x10),
  },
});

/** MI_UNLOADED_DRIVERS: a ring; MmLastUnloadedDriver is the index of the entry that is used next, or this. */
export const MAX_UNLOADED_DRIVERS = 50;

/** Head of PHYSICAL_MEMORY_DESCRIPTOR of a 64-bit system; runs follow. */
const PhysicalMemoryDescriptor64 = struct({
  name: 'PHYSICAL_MEMORY_DESCRIPTOR',
  size: 0x10,
  fields: { NumberOfRuns: u32(0), NumberOfPages: u64(8) },
});

/** The same of a 32-bit system. */
const PhysicalMemoryDescriptor32 = struct({
  name: 'PHYSICAL_MEMORY_DESCRIPTOR',
  size: 8,
  fields: { NumberOfRuns: u32(0), NumberOfPages: u32n(4) },
});

/** KiProcessorBlock's length on the largest x64 systems; far more than QEMU's 4096 CPUs never run. */
export const MAX_PROCESSORS = 4096;

/**
 * KSPIN_LOCK_QUEUE (wdm.h): what a processor has to do with a queued spin lock. KPCR.LockArray leads to one for each
 * number.
 */
export const SpinLockQueue64 = struct({
  name: 'KSPIN_LOCK_QUEUE',
  size: 16,
  fields: { Next: u64(0), Lock: u64(8) },
});
/** LOCK_QUEUE_WAIT and LOCK_QUEUE_OWNER, in the lock's address. */
export const LOCK_QUEUE_WAIT = 1n;
export const LOCK_QUEUE_OWNER = 2n;
/** KSPIN_LOCK_QUEUE_NUMBER: null is not used, or not the same lock in all versions. */
export const SPIN_LOCK_NAMES: readonly (string | null)[] = [
  ...[null, null, null, null, 'VacbLock', 'MasterLock', 'NonPagedPoolLock', 'IoCancelLock', null, 'IoVpbLock'],
  ...['IoDatabaseLock', 'IoCompletionLock', 'NtfsStructLock', 'AfdWorkQueueLock', 'BcbLock', null, null],
];

/**
 * POOL_HEADER of a 64-bit system: what precedes each block of a page of pool. Sizes are in units of its own size; they
 * lead on to the next block and back to the one before (types in public symbols; Volatility's pool headers).
 */
export const PoolHeader64 = struct({
  name: 'POOL_HEADER',
  size: 16,
  fields: {
    PreviousSize: u8(0),
    PoolIndex: u8(1),
    BlockSize: u8(2),
    PoolType: u8(3),
    PoolTag: raw(4, 4),
  },
});

/** POOL_HEADER of a 32-bit system: two words of 9 and 7 bits, sizes in units of 8 bytes. */
export const PoolHeader32 = struct({
  name: 'POOL_HEADER',
  size: 8,
  fields: {
    /** PreviousSize in bits 0 to 8, PoolIndex above. */
    PreviousSizeAndIndex: u16(0),
    /** BlockSize in bits 0 to 8, PoolType above. */
    BlockSizeAndType: u16(2),
    PoolTag: raw(4, 4),
  },
});

/** From this build on pool is in segment heaps, whose headers do not lead from block to block (Windows 10 1903). */
export const SEGMENT_HEAP_BUILD = 18362;

/** IRP, IO_STACK_LOCATION, DEVICE_OBJECT and DRIVER_OBJECT, as far as they lead from a request to a driver (wdm.h). */
interface RequestStructures {
  readonly irp: typeof Irp64;
  readonly stackLocation: typeof IoStackLocation64;
  /** DEVICE_OBJECT.DriverObject. */
  readonly deviceDriver: number;
  /** DRIVER_OBJECT.DriverStart: base of its image. */
  readonly driverStart: number;
}

const IRP_COMMON = { Type: u16(0) };

const Irp64 = struct({
  name: 'IRP',
  size: 0xd0,
  fields: { ...IRP_COMMON, StackCount: u8(0x42), CurrentLocation: u8(0x43), CurrentStackLocation: u64(0xb8) },
});
const Irp32 = struct({
  name: 'IRP',
  size: 0x70,
  fields: { ...IRP_COMMON, StackCount: u8(0x22), CurrentLocation: u8(0x23), CurrentStackLocation: address32(0x60) },
});
const IoStackLocation64 = struct({
  name: 'IO_STACK_LOCATION',
  size: 0x48,
  fields: { MajorFunction: u8(0), MinorFunction: u8(1), DeviceObject: u64(0x28) },
});
const IoStackLocation32 = struct({
  name: 'IO_STACK_LOCATION',
  size: 0x24,
  fields: { MajorFunction: u8(0), MinorFunction: u8(1), DeviceObject: address32(0x14) },
});

/** By bytes of a pointer. */
export const REQUEST_STRUCTURES: Readonly<Record<4 | 8, RequestStructures>> = {
  8: { irp: Irp64, stackLocation: IoStackLocation64, deviceDriver: 8, driverStart: 0x18 },
  4: { irp: Irp32, stackLocation: IoStackLocation32, deviceDriver: 8, driverStart: 0xc },
};

/** Types of I/O objects, in their first two bytes, and IRP_MJ_POWER (wdm.h). */
export const IO_TYPE = { device: 3, driver: 4, irp: 6 } as const;
/** See IO_TYPE. */
export const IRP_MJ_POWER = 0x16;

/** KDPC.DeferredRoutine of a 64-bit system (wdm.h): the DPC's function. */
export const KDPC_ROUTINE = 0x18;

/** The kernel's structures that differ by the width of a pointer alone, and the way from a thread to its modules. */
export interface KernelStructures {
  readonly loaderEntry: typeof LoaderEntry64;
  readonly unloadedDriver: typeof UnloadedDriver64;
  readonly physicalMemoryDescriptor: typeof PhysicalMemoryDescriptor64;
  readonly physicalMemoryRun: typeof PhysicalMemoryRun64;
  /** TEB.ProcessEnvironmentBlock (winternl.h, public symbols). */
  readonly tebPeb: number;
  /** PEB.Ldr: PEB_LDR_DATA's address. */
  readonly pebLdr: number;
  /** PEB_LDR_DATA.InLoadOrderModuleList: LDR_DATA_TABLE_ENTRYs, which begin like the kernel's. */
  readonly loadOrderList: number;
}

const STRUCTURES: Readonly<Record<4 | 8, KernelStructures>> = {
  8: {
    loaderEntry: LoaderEntry64,
    unloadedDriver: UnloadedDriver64,
    physicalMemoryDescriptor: PhysicalMemoryDescriptor64,
    physicalMemoryRun: PhysicalMemoryRun64,
    tebPeb: 0x60,
    pebLdr: 0x18,
    loadOrderList: 0x10,
  },
  4: {
    loaderEntry: LoaderEntry32,
    unloadedDriver: UnloadedDriver32,
    physicalMemoryDescriptor: PhysicalMemoryDescriptor32,
    physicalMemoryRun: PhysicalMemoryRun32,
    tebPeb: 0x30,
    pebLdr: 0xc,
    loadOrderList: 0xc,
  },
};

/** Those of a system with pointers of `pointerSize` bytes. */
export const kernelStructures = ({ pointerSize }: { readonly pointerSize: 4 | 8 }): KernelStructures =>
  STRUCTURES[pointerSize];

/** MMLISTS: MMPFNENTRY.PageLocation of a page of RAM. */
export const PageLocation = {
  zeroed: 0,
  free: 1,
  standby: 2,
  modified: 3,
  modifiedNoWrite: 4,
  bad: 5,
  active: 6,
  transition: 7,
} as const;
