/**
 * A made-up Windows guest: the structures that debuggers and elf2dmp look for, by literal offsets from
 * public headers and symbols, in memory that a real QEMU can run. Nothing here comes from src/.
 */
import { BUILDS, type Build, type BuildName } from './builds.ts';
import type { CompiledImages } from './compiled.ts';
import { PAGE, PageTables, PhysicalMemory, random } from './memory.ts';
import {
  AFTER_CALL,
  AFTER_HLT,
  AT_FAULT,
  AT_SPIN,
  buildPe,
  callingFunction,
  faultingFunction,
  idleFunction,
  type PeFunction,
  spinningFunction,
} from './pe.ts';

/**
 * What keeps a processor busy: a DPC of demo.sys that does not end, on the DPC stack, over the idle thread or, nested,
 * over one of System's; a spin lock that demo.sys waits for in a thread of System; demo.sys itself, in such a thread.
 */
export type Doing = 'dpc' | 'dpc in idle' | 'spin lock' | 'driver';

export interface GuestOptions {
  build?: BuildName;
  seed?: number;
  ramMiB?: number;
  /** So much RAM from 4 GiB on, half of what the guest uses in it, and low memory up to 2 GiB (as QEMU's q35). */
  highMiB?: number;
  /** Windows processors. */
  processors?: number;
  /** order[i] is the processor that QEMU's CPU i runs. Default: reversed. */
  order?: readonly number[];
  /** Default: as the build keeps it in a running system, plain in a crashed one. */
  kdbg?: 'plain' | 'encoded';
  kernelPages?: '4k' | '2m' | '1g';
  /** Processors caught in user mode. */
  user?: readonly number[];
  /** Processors caught in 32-bit code of user mode (WoW64). */
  wow64?: readonly number[];
  /** The start block of the other processors, in low memory. Default true. */
  startBlock?: boolean;
  /** KVA shadow: CPUs in user mode have the shadow root loaded, and the kernel's is at this offset of the KPCR. */
  kernelRootAt?: number;
  la57?: boolean;
  crash?: {
    code: number;
    parameters: readonly [bigint, bigint, bigint, bigint];
    processor: number;
    /** A frame that Windows captured in KeBugCheckEx is in the crashing processor's PRCB. Default true. */
    captured?: boolean;
    /** The code as Windows keeps it, sign-extended. */
    signExtended?: boolean;
    /**
     * A page fault led to it: on the stack are KeBugCheckEx, KiBugCheckDispatch, KiPageFault and, interrupted, this
     * function of demo.sys. Parameter 4 is to be `FAULT_AT` of it.
     */
    fault?: keyof typeof FAULT_AT;
  };
  /** Stale and false KDBGs in the image and elsewhere. Default true. */
  decoys?: boolean | 'stale';
  /** What virtio-win's fwcfg driver leaves for QEMU's vmcoreinfo device; `stale`: of an earlier boot. */
  vmcoreinfo?: 'good' | 'stale' | undefined;
  /** CPUs after the others that the kernel never started. */
  neverStarted?: number;
  /** The first CPU is none of Windows', and in 32-bit code: QEMU then takes the guest for an i386 one. */
  firstIn32Bit?: boolean;
  /** Processors whose CPU is caught outside Windows (a hypervisor's address space). */
  foreign?: readonly number[];
  /**
   * Kernel, driver and program from a real compiler, in place of the handmade ones. Then CPUs begin at a thread's
   * first function (of the program for those in `user`), run, and end where the code takes them: only a real QEMU
   * can dump that.
   */
  compiled?: CompiledImages;
  /**
   * What processors do, with what Windows notes of it: threads with their ids, DPC state and stacks, numbered spin
   * locks. Those that are not named, and not in `user`, idle. Only with the offsets of 19041 and later.
   */
  doing?: Readonly<Record<number, Doing>>;
  /** A queued spin lock by its number: who has it, and who waits. With `doing`. */
  lock?: { number: number; owner: number; waiter: number };
  /** Interrupts are off on these processors, and on on all others. With `doing`. */
  masked?: readonly number[];
}

export interface GuestSegment {
  selector: number;
  limit: number;
  /** As QEMU's notes have them. */
  flags: number;
  base: bigint;
}

/** In the order of QEMU's notes. */
export const GPRS = [
  'rax',
  'rbx',
  'rcx',
  'rdx',
  'rsi',
  'rdi',
  'rsp',
  'rbp',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
  'rip',
  'rflags',
] as const;
type Gpr = (typeof GPRS)[number];

/** A CPU as QEMU is to have it. */
export interface GuestCpu {
  started: boolean;
  /** It begins with `regs`, runs, and is dumped when its RIP is here: [from, to). */
  ends?: { from: bigint; to: bigint };
  /** In the kernel, and not asleep. */
  spins?: boolean;
  regs: Record<Gpr, bigint>;
  cs: number;
  ss: number;
  ds: number;
  es: number;
  fs: number;
  gs: number;
  tr: number;
  gdt: { base: bigint; limit: number };
  idt: { base: bigint; limit: number };
  cr0: bigint;
  cr3: bigint;
  cr4: bigint;
  gsBase: bigint;
  kernelGsBase: bigint;
  fsBase: bigint;
  /** Base of the TSS, which QEMU reads from the GDT. */
  trBase: bigint;
}

export interface GuestProcessor {
  number: number;
  /** QEMU's CPU index. */
  cpu: number;
  kpcr: bigint;
  prcb: bigint;
  /** Where the CONTEXT frame for the debugger is. */
  context: bigint;
  specialRegisters: bigint;
  idt: bigint;
  gdt: bigint;
  /** Return addresses on its stack, from the innermost; the debugger's `k` shows them. */
  returns: readonly bigint[];
}

export interface GuestModule {
  name: string;
  base: bigint;
  size: number;
  pdb: string;
  guid: string;
  /** In session space: System's page tables do not map it. */
  session?: boolean;
}

export interface Guest {
  options: GuestOptions;
  build: Build;
  memory: PhysicalMemory;
  /** All of it, without holes. */
  ramBytes: number;
  pages: ReadonlyMap<number, Buffer>;
  /** The kernel's address space. */
  kernel: PageTables;
  /** The ELF note with a crash dump header that the guest offers, and where it is in memory. */
  vmcoreinfo: { physical: number; note: Buffer } | undefined;
  cpus: readonly GuestCpu[];
  launch: { virtual: bigint; physical: number[] };
  truth: {
    root: number;
    kernelBase: bigint;
    kernelSize: number;
    exports: ReadonlyMap<string, bigint>;
    kdbg: bigint;
    /** Decoded. */
    kdbgBlock: Buffer;
    kdbgEncoded: boolean;
    psLoadedModuleList: bigint;
    psActiveProcessHead: bigint;
    pfnDatabaseVariable: bigint;
    physicalMemory: readonly { basePage: number; pageCount: number }[];
    modules: readonly GuestModule[];
    processors: readonly GuestProcessor[];
    processes: readonly {
      name: string;
      pid: number;
      parent: number;
      /** 0: none. */
      peb: bigint;
      address: bigint;
      root: number;
    }[];
    /** The last one first. */
    unloaded: readonly { name: string; from: bigint; to: bigint; time: bigint }[];
    bugCheck: { code: number; parameters: readonly bigint[] } | undefined;
    /** RIP and RSP of the captured frame of the crashing processor. */
    captured: { processor: number; rip: bigint; rsp: bigint; rax: bigint } | undefined;
    /** FILETIME and 100 ns units. */
    systemTime: bigint;
    upTime: bigint;
    productType: number;
    suiteMask: number;
    /** Places to compare memory at: addresses in pool, kernel text, and a page shared by two mappings. */
    samples: readonly { virtual: bigint; bytes: Buffer }[];
  };
}

/** The drivers of guests that nothing compiled. */
const HAL_BASE = 0xfffff804_1c1f0000n;
const DEMO_BASE = 0xfffff804_2c450000n;

/** Where functions of demo.sys fault. */
export const FAULT_AT = {
  DemoDispatch: DEMO_BASE + 0x10000n + BigInt(AT_FAULT),
  DemoRead: DEMO_BASE + 0x10040n + BigInt(AT_FAULT),
} as const;

/** The function of demo.sys that does not return, with `doing`. */
const DEMO_DPC = DEMO_BASE + 0x10040n;

const SHARED_USER_DATA = 0xfffff780_00000000n;
const POOL = 0xffffa58f_12340000n;
const IMAGE_SIZE = 0x80000;
const DRIVER_SIZE = 0x20000;
const MASK64 = 2n ** 64n - 1n;

/** The kernel's variables, by RVA. */
export const RVA = {
  launch: 0x28000,
  KdDebuggerDataBlock: 0x32040,
  KdVersionBlock: 0x33000,
  PsLoadedModuleList: 0x34010,
  PsActiveProcessHead: 0x34120,
  KiBugCheckData: 0x34200,
  KiProcessorBlock: 0x35000,
  MmPfnDatabase: 0x36008,
  MmPhysicalMemoryBlock: 0x36010,
  MmUnloadedDrivers: 0x36018,
  MmLastUnloadedDriver: 0x36020,
  NtBuildLab: 0x36100,
  NtBuildNumber: 0x36200,
  KiWaitNever: 0x37000,
  KiWaitAlways: 0x37010,
  KdpDataBlockEncoded: 0x37020,
  KdpDebuggerDataListHead: 0x37030,
  DebuggerDataListEntry: 0x37040,
  handlers: 0x20000,
} as const;

const LAUNCH_PAGES = 8;

const bswap = (x: bigint): bigint => Buffer.from(x.toString(16).padStart(16, '0'), 'hex').readBigUInt64LE();
const ror = (x: bigint, n: bigint): bigint => ((x >> n) | (x << (64n - n))) & MASK64;

/** One word of the encoding that Windows 8 and later keep the KDBG in. */
export const encodeWord = (x: bigint, never: bigint, always: bigint, address: bigint): bigint =>
  ror(bswap(x ^ always) ^ address, never & 63n) ^ never;

/** @param faults with what leads from a page fault to the bug check */
function kernelFunctions({ faults, spins }: { faults: boolean; spins: boolean }): PeFunction[] {
  const at = (i: number) => 0x10000 + 0x40 * i;
  const names = [
    'HalRequestIpi',
    'KeDelayExecutionThread',
    'KiIdleLoop',
    'KeBugCheck',
    'KeWaitForSingleObject',
    'ExAcquireFastMutex',
    'IoCallDriver',
    'IofCompleteRequest',
    'KeInsertQueueDpc',
    'KiSystemServiceExit',
    'MmMapIoSpace',
    'NtWaitForSingleObject',
    'ObfDereferenceObject',
    'PsGetCurrentProcess',
    'RtlCaptureContext',
    'ZwClose',
    'KdPollBreakIn',
    'KeBugCheckEx',
    'PoIdle',
    ...(faults ? ['KiPageFault', 'KiBugCheckDispatch'] : []),
    ...(spins ? ['KeAcquireSpinLockRaiseToDpc'] : []),
  ];
  const rvaOf = (name: string) => at(names.indexOf(name));
  const idle = new Set(['PoIdle', 'KdPollBreakIn', 'RtlCaptureContext']);
  const calls: Record<string, string> = {
    KeBugCheckEx: 'RtlCaptureContext',
    KiIdleLoop: 'PoIdle',
    KeBugCheck: 'KeBugCheckEx',
    KiPageFault: 'KiBugCheckDispatch',
    KiBugCheckDispatch: 'KeBugCheckEx',
  };
  const codeOf = (name: string) => {
    if (name === 'KeAcquireSpinLockRaiseToDpc') return spinningFunction();
    return idle.has(name) ? idleFunction() : callingFunction(rvaOf(name), rvaOf(calls[name] ?? 'PoIdle'));
  };
  return names.map((name) => ({ name, rva: rvaOf(name), code: codeOf(name), trap: name === 'KiPageFault' }));
}

function driverFunctions(driver: { name: string; export: string }, { crash, doing }: GuestOptions): PeFunction[] {
  const plain = { name: driver.export, rva: 0x10000, code: callingFunction(0x10000, 0x10000) };
  if (driver.name !== 'demo.sys') return [plain];
  if (doing) return [plain, { name: 'DemoDpc', rva: Number(DEMO_DPC - DEMO_BASE), code: spinningFunction() }];
  if (!crash?.fault) return [plain];
  return Object.entries(FAULT_AT).map(([name, at]) => ({
    name,
    rva: Number(at - DEMO_BASE) - AT_FAULT,
    code: faultingFunction(),
  }));
}

/** Page aligned only, as kernels before Windows 10 2004 can be; else aligned as the mapping needs it. */
const KERNEL_BASES = { '4k': 0xfffff804_1a2b7000n, '2m': 0xfffff804_1a200000n, '1g': 0xfffff804_40600000n };

export function buildGuest(options: GuestOptions = {}): Guest {
  const build: Build = BUILDS[options.build ?? 'win10'];
  const seed = options.seed ?? 1;
  const next = random(seed);
  const word = () => (BigInt(Math.floor(next() * 2 ** 32)) << 32n) | BigInt(Math.floor(next() * 2 ** 32));
  const count = options.processors ?? 2;
  const order = options.order ?? Array.from({ length: count }, (_, i) => count - 1 - i);
  const highBytes = (options.highMiB ?? 0) * 2 ** 20;
  const lowBytes = highBytes > 0 ? 2 ** 31 : (options.ramMiB ?? 16) * 2 ** 20;
  const ramBytes = lowBytes + highBytes;
  const kernelPages = options.kernelPages ?? '4k';
  const crashed = options.crash !== undefined;

  // Memory and the kernel's address space.
  const large = { from: 0x600000, to: 0x800000 };
  const memory = new PhysicalMemory(
    highBytes > 0 ? 2 ** 24 : lowBytes,
    seed,
    kernelPages === '4k' ? [] : [large],
    highBytes,
  );
  const kernel = new PageTables(memory, options.la57 ? 5 : 4);
  const { compiled } = options;
  const kernelBase = compiled?.kernel.base ?? KERNEL_BASES[kernelPages];
  const kernelSize = compiled?.kernel.bytes.length ?? IMAGE_SIZE;
  if (kernelPages === '4k') kernel.mapNew(kernelBase, kernelSize);
  else if (kernelPages === '2m') kernel.mapLarge(kernelBase, large.from, 2);
  else kernel.mapLarge(kernelBase - BigInt(large.from), 0, 3);
  const selfMapSlot = 256 + Math.floor(next() * 128) + 1;
  kernel.setTopEntry(selfMapSlot, BigInt(kernel.root) | 0x63n);
  kernel.mapNew(SHARED_USER_DATA, PAGE);
  let poolNext = POOL;
  /** Zeroed, page-aligned non-paged pool. */
  const pool = (bytes: number): bigint => {
    const at = poolNext;
    const size = Math.ceil(bytes / PAGE) * PAGE;
    kernel.mapNew(at, size);
    poolNext += BigInt(size) + 0x1000n;
    return at;
  };
  const k = (rva: number) => kernelBase + BigInt(rva);

  // Images.
  const guid = Buffer.from('a1b2c3d4e5f60718293a4b5c6d7e8f90', 'hex');
  const { fault } = options.crash ?? {};
  const { doing } = options;
  const functions = kernelFunctions({ faults: fault !== undefined, spins: doing !== undefined });
  const exportsByName = compiled?.kernel.exports ?? new Map(functions.map((f) => [f.name, k(f.rva)]));
  kernel.write(
    kernelBase,
    compiled?.kernel.bytes ??
      buildPe({
        name: 'ntoskrnl.exe',
        pdb: 'ntkrnlmp.pdb',
        guid,
        age: 1,
        size: IMAGE_SIZE,
        imageBase: 0x140000000n,
        timeDateStamp: 0x5e0f1a2b,
        functions,
        version: {
          file: [build.ntMajor, build.ntMinor, build.build, 1],
          product: [build.ntMajor, build.ntMinor, build.build, 7],
        },
        data: [
          { name: 'KiBugCheckData', rva: RVA.KiBugCheckData },
          { name: 'NtBuildNumber', rva: RVA.NtBuildNumber },
        ],
      }),
  );
  for (let vector = 0; vector < 256; vector++) {
    // push VECTOR; hlt; jmp $-1: a CPU that faults stays to be looked at.
    kernel.write(k(RVA.handlers + 8 * vector), Buffer.from([0x6a, vector, 0xf4, 0xeb, 0xfd, 0xcc, 0xcc, 0xcc]));
  }
  const drivers: { name: string; base: bigint; export: string; image?: Buffer; version?: readonly number[] }[] =
    compiled
      ? compiled.drivers.map((d) => ({ name: d.name, base: d.base, export: '', image: d.bytes }))
      : [
          { name: 'hal.dll', base: HAL_BASE, export: 'HalSendNMI' },
          { name: 'demo.sys', base: DEMO_BASE, export: 'DemoDispatch', version: [1, 2, 65535, 4] },
        ];
  for (const driver of drivers) {
    kernel.mapNew(driver.base, driver.image?.length ?? DRIVER_SIZE);
    kernel.write(
      driver.base,
      driver.image ??
        buildPe({
          name: driver.name,
          pdb: driver.name.replace(/\..*/, '.pdb'),
          guid: Buffer.from(guid).fill(driver.name.length, 0, 2),
          age: 2,
          size: DRIVER_SIZE,
          imageBase: driver.base,
          timeDateStamp: 0x5e0f1a2c,
          ...(driver.version ? { version: { file: driver.version, product: [1, 2, 0, 0] } } : {}),
          functions: driverFunctions(driver, options),
        }),
    );
  }
  const asGuid = (b: Buffer) =>
    (
      b.readUInt32LE(0).toString(16).padStart(8, '0') +
      b.readUInt16LE(4).toString(16).padStart(4, '0') +
      b.readUInt16LE(6).toString(16).padStart(4, '0') +
      b.toString('hex', 8)
    ).toUpperCase();
  const modules: GuestModule[] = [
    { name: 'ntoskrnl.exe', base: kernelBase, size: kernelSize, pdb: 'ntkrnlmp.pdb', guid: asGuid(guid) },
    ...drivers.map((d) => ({
      name: d.name,
      base: d.base,
      size: d.image?.length ?? DRIVER_SIZE,
      pdb: d.name.replace(/\..*/, '.pdb'),
      guid: asGuid(Buffer.from(guid).fill(d.name.length, 0, 2)),
    })),
  ];

  // Lists.
  const linkAll = (head: bigint, entries: readonly bigint[]) => linkIn(kernel, head, entries);
  const ldrPages = pool(modules.length * PAGE);
  const ldr = modules.map((_, i) => ldrPages + BigInt(i * PAGE));
  linkAll(k(RVA.PsLoadedModuleList), ldr);
  modules.forEach((module, i) => {
    const entry = ldr[i]!;
    kernel.u64(entry + 0x30n, module.base);
    kernel.u64(entry + 0x38n, module.base + 0x10000n);
    kernel.u32(entry + 0x40n, module.size);
    const path = `\\SystemRoot\\system32\\${module.name}`;
    for (const [offset, text, at] of [
      [0x48n, path, 0x200n],
      [0x58n, module.name, 0x400n],
    ] as const) {
      const bytes = Buffer.from(text, 'utf16le');
      kernel.write(entry + at, bytes);
      kernel.u16(entry + offset, bytes.length);
      kernel.u16(entry + offset + 2n, bytes.length + 2);
      kernel.u64(entry + offset + 8n, entry + at);
    }
    kernel.u32(entry + 0x78n, 0x12345);
    kernel.u32(entry + 0x9cn, i === 0 ? 0x5e0f1a2b : 0x5e0f1a2c);
  });

  const { eprocess } = build;
  const processes = [
    { name: 'System', pid: 4, parent: 0, peb: 0n },
    { name: 'smss.exe', pid: 0x198, parent: 4, peb: 0xd5_3fff_e000n },
    { name: 'notepad.exe', pid: 0x1a2c, parent: 0x198, peb: 0xd5_3fff_f000n },
  ].map((p) => ({ ...p, address: pool(eprocess.size) }));
  linkAll(
    k(RVA.PsActiveProcessHead),
    processes.map((p) => p.address + BigInt(eprocess.links)),
  );

  // A process's user half, and with KVA shadow the root that user mode runs on.
  const userRoot = new PageTables(memory, options.la57 ? 5 : 4);
  for (let slot = 256; slot < 512; slot++) userRoot.setTopEntry(slot, kernel.topEntry(slot));
  userRoot.setTopEntry(selfMapSlot, BigInt(userRoot.root) | 0x63n);
  const USER_CODE = 0x00007ff6_12340000n;
  const USER_STACK = 0x000000d5_43210000n;
  const TEB = 0x000000d5_40000000n;
  for (const at of [USER_STACK, TEB, ...(compiled ? [] : [USER_CODE])]) userRoot.mapNew(at, PAGE, true);
  if (compiled) placeProgram(userRoot, compiled, TEB);
  else userRoot.write(USER_CODE, Buffer.from('90ebfe90', 'hex'));
  // What a 32-bit process has below 4 GiB.
  const CODE_32 = 0x0040_1000n;
  const STACK_32 = 0x0019_f000n;
  for (const at of [CODE_32, STACK_32]) userRoot.mapNew(at, PAGE, true);
  userRoot.write(CODE_32, Buffer.from('90ebfe90', 'hex'));
  const shadowRoot = options.kernelRootAt === undefined ? undefined : new PageTables(memory, options.la57 ? 5 : 4);
  const shadow = (virtual: bigint, bytes: number) => {
    for (let at = 0n; at < BigInt(bytes); at += BigInt(PAGE))
      shadowRoot?.map(virtual + at, kernel.translate(virtual + at)!);
  };
  if (shadowRoot) {
    for (const at of [USER_CODE, USER_STACK, TEB]) shadowRoot.map(at, userRoot.translate(at)!, true);
    shadowRoot.setTopEntry(selfMapSlot, BigInt(shadowRoot.root) | 0x63n);
    shadow(k(RVA.handlers), PAGE);
    shadow(k(RVA.launch), LAUNCH_PAGES * PAGE);
  }
  processes.forEach((p) => {
    // DISPATCHER_HEADER: a process.
    kernel.u8(p.address, 3);
    kernel.u64(p.address + BigInt(eprocess.parent), BigInt(p.parent));
    kernel.u64(p.address + BigInt(eprocess.peb), p.peb);
    kernel.u64(p.address + 0x28n, BigInt(p.name === 'notepad.exe' ? userRoot.root : kernel.root));
    kernel.u64(p.address + BigInt(eprocess.pid), BigInt(p.pid));
    kernel.write(p.address + BigInt(eprocess.name), Buffer.from(`${p.name}\0`, 'latin1'));
    // ImageFileName has 16 bytes, since Windows 7 15 with PriorityClass behind them.
    if (build.ntMajor > 5) kernel.u8(p.address + BigInt(eprocess.name + 15), 2);
  });

  // Idle threads belong to a process that is on no list.
  const idleProcess = pool(eprocess.size);
  kernel.u8(idleProcess, 3);
  kernel.u64(idleProcess + 0x28n, BigInt(kernel.root));
  kernel.write(idleProcess + BigInt(eprocess.name), Buffer.from('Idle\0', 'latin1'));

  const system = processes[0]!;
  const threads = doing && new Threads(kernel, pool);
  // Those that wait: not all that a process has run.
  for (const process of threads ? processes : []) for (let i = 0; i < 3; i++) threads?.add(process);
  const lockAt = k(0x36400);

  // Processors.
  const prcbOffset = 0x180n;
  const kpcrBytes = 0xc000;
  const functionAt = (name: string, offset = 0) => exportsByName.get(name)! + BigInt(offset);
  const cpus: GuestCpu[] = [];
  const processors: GuestProcessor[] = [];
  const cr4 = 0x6f8n | (options.la57 ? 0x1000n : 0n);
  let captured: Guest['truth']['captured'];
  // So many do not fit between the data around their table, nor below the kernel.
  const isCrowd = count > 500;
  const processorBlock = k(isCrowd ? 0x50000 : RVA.KiProcessorBlock);
  const firstKpcr = isCrowd ? 0xfffff80a_05670000n : 0xfffff804_05670000n;
  for (let number = 0; number < count; number++) {
    const kpcr = firstKpcr + BigInt(number) * 0x20000n;
    kernel.mapNew(kpcr, kpcrBytes);
    const prcb = kpcr + prcbOffset;
    // As 19041 has them: 0x5000 bytes, the GDT behind the IDT and its page of stacks.
    const tables = pool(5 * PAGE);
    const [idt, tss, gdt] = [tables, tables + 0x1000n, tables + 0x2fb0n];
    const stack = pool(6 * PAGE);
    const stackTop = stack + BigInt(6 * PAGE) - 0x80n;
    const frame =
      build.prcbContext === undefined ? prcb + BigInt(build.processorState + build.specialSize) : pool(PAGE) + 0x340n;

    for (let vector = 0; vector < 256; vector++) {
      const handler =
        compiled?.handlers.get(vector) ??
        (fault && vector === 14 ? functionAt('KiPageFault') : k(RVA.handlers + vector * 8));
      const gate = Buffer.alloc(16);
      gate.writeUInt16LE(Number(handler & 0xffffn), 0);
      gate.writeUInt16LE(0x10, 2);
      gate.writeUInt8(vector === 3 || (compiled && vector === 0x2e) ? 0xee : 0x8e, 5);
      gate.writeUInt16LE(Number((handler >> 16n) & 0xffffn), 6);
      gate.writeUInt32LE(Number(handler >> 32n), 8);
      kernel.write(idt + BigInt(16 * vector), gate);
    }
    const descriptors: [offset: number, value: bigint][] = [
      [0x10, 0x00209b00_00000000n],
      [0x18, 0x00409300_00000000n],
      [0x20, 0x00cffb00_0000ffffn],
      [0x28, 0x00cff300_0000ffffn],
      [0x30, 0x0020fb00_00000000n],
      // Busy, as LTR leaves it.
      [0x40, 0x00008b00_00000067n | ((tss & 0xffffffn) << 16n) | (((tss >> 24n) & 0xffn) << 56n)],
      [0x48, tss >> 32n],
      [0x50, 0x0040f300_00003c00n],
    ];
    for (const [offset, value] of descriptors) kernel.u64(gdt + BigInt(offset), value);
    kernel.u64(tss + 4n, stackTop);

    kernel.u64(kpcr, gdt);
    kernel.u64(kpcr + 8n, tss);
    kernel.u64(kpcr + 0x18n, kpcr);
    kernel.u64(kpcr + 0x20n, prcb);
    kernel.u64(kpcr + 0x38n, idt);
    kernel.u16(kpcr + 0x60n, 1);
    kernel.u16(kpcr + 0x62n, 1);
    // Null on x64, but in the oldest kernels.
    if (number === 0 && build.kpcrVersionBlock) kernel.u64(kpcr + 0x108n, k(RVA.KdVersionBlock));
    const task = doing?.[number];
    const inUserMode = (options.user?.includes(number) || options.wow64?.includes(number)) ?? false;
    const busy = inUserMode ? processes[2]! : system;
    const idleThread = threads?.idle(stack, stackTop) ?? pool(PAGE);
    const runs = threads !== undefined && (inUserMode || (task !== undefined && task !== 'dpc in idle'));
    const thread = runs ? threads.add(busy, inUserMode ? TEB : 0n, { stack, stackTop }) : idleThread;
    kernel.u32(prcb, 0x1f80);
    kernel.u8(prcb + 4n, number);
    kernel.u64(prcb + 8n, thread);
    kernel.u64(prcb + 0x18n, idleThread);
    // KTHREAD.ApcState.Process: the debugger takes a CPU's user memory from that process.
    const inProcess = inUserMode || runs ? busy.address : idleProcess;
    kernel.u64(thread + 0xb8n, inProcess);
    const dpcTop = threads ? placeActivity({ kernel, pool, kpcr, task, number, lock: options.lock, lockAt }) : 0n;
    kernel.u32(prcb + BigInt(build.prcbNumber), number);
    // What an earlier freeze left there.
    kernel.write(prcb + BigInt(build.processorState), Buffer.alloc(0xd8, 0x5a));
    kernel.write(frame, Buffer.alloc(0x4d0, 0xa5));
    kernel.u32(frame + 0x30n, 0x10001f);
    kernel.u32(frame + 0x34n, 0x1f80);
    if (build.prcbContext !== undefined) {
      kernel.u64(prcb + BigInt(build.prcbContext), frame);
      kernel.u32(prcb + BigInt(build.prcbContext) + 8n, 0x10004b);
    }
    if (options.kernelRootAt !== undefined) {
      // No flush, and a PCID.
      kernel.u64(kpcr + BigInt(options.kernelRootAt), BigInt(userRoot.root) | (1n << 63n) | 2n);
    }
    kernel.u64(processorBlock + BigInt(8 * number), prcb);
    shadow(tables, 5 * PAGE);
    // Of the KPCR and PRCB, just the page that the entry code reads.
    if (options.kernelRootAt !== undefined) shadow(kpcr + BigInt(options.kernelRootAt & ~0xfff), PAGE);

    // Stacks: frames of 0x30 bytes, innermost first.
    const in32 = options.wow64?.includes(number) ?? false;
    const inUser = in32 || (options.user?.includes(number) ?? false);
    const crashing = options.crash?.processor === number;
    const faulted = crashing ? fault : undefined;
    const path = task ? BUSY_PATHS[task] : pathOf(crashing, faulted);
    const depth = path.length;
    // Between the error code and the interrupted stack lie RIP, CS, RFLAGS, RSP and SS.
    const machineFrame = 0x28n;
    const onDpcStack = task === 'dpc';
    const rsp = (onDpcStack ? dpcTop : stackTop) - BigInt(0x30 * depth) - (faulted ? machineFrame : 0n);
    const returns = compiled
      ? []
      : path.slice(1).map((name) => {
          if (name === 'DemoDispatch') return DEMO_BASE + 0x10000n + BigInt(AFTER_CALL);
          return name === FAULT ? FAULT_AT[faulted!] : functionAt(name, AFTER_CALL);
        });
    returns.forEach((address, i) => {
      const at = rsp + BigInt(0x28 + 0x30 * i);
      const trap = path.indexOf(FAULT) - 1;
      if (trap < 0 || i < trap) kernel.u64(at, address);
      else if (i > trap) kernel.u64(at + machineFrame, address);
      else {
        const interrupted = at + 8n + machineFrame;
        [0n, address, 0x10n, 0x10246n, interrupted, 0x18n].forEach((word, n) => {
          kernel.u64(at + BigInt(8 * n), word);
        });
      }
    });
    if (crashing && options.crash && options.crash.captured !== false) {
      // KeBugCheckEx's first byte, and RSP as it was there: its return address is on top.
      captured = {
        processor: number,
        rip: functionAt('KeBugCheckEx'),
        rsp: rsp + 0x58n,
        rax: 0xc0ffee00n + BigInt(number),
      };
      const context = Buffer.alloc(0x4d0);
      context.writeUInt32LE(0x10000f, 0x30);
      context.writeUInt32LE(0x1f80, 0x34);
      context.writeUInt16LE(0x10, 0x38);
      [0x2b, 0x2b, 0x53, 0x2b].forEach((s, i) => {
        context.writeUInt16LE(s, 0x3a + 2 * i);
      });
      context.writeUInt16LE(0x18, 0x42);
      context.writeUInt32LE(0x40246, 0x44);
      context.writeBigUInt64LE(captured.rax, 0x78);
      // What it was called with: the code and the first parameters.
      [BigInt(options.crash.code), ...options.crash.parameters.slice(0, 3)].forEach((value, i) => {
        context.writeBigUInt64LE(value, [0x80, 0x88, 0xb8, 0xc0][i]!);
      });
      context.writeBigUInt64LE(captured.rsp, 0x98);
      context.writeBigUInt64LE(captured.rip, 0xf8);
      context.writeUInt32LE(0x1f80, 0x118);
      kernel.write(frame, context);
    }

    const regs = Object.fromEntries(GPRS.map((name) => [name, word()])) as Record<Gpr, bigint>;
    const userRip = (in32 ? CODE_32 : USER_CODE) + 1n;
    const userRsp = (in32 ? STACK_32 : USER_STACK) + 0xe00n;
    const busyAt = path[0] === 'DemoDpc' ? DEMO_DPC : exportsByName.get(path[0]!)!;
    const kernelRip = task ? busyAt + BigInt(AT_SPIN) : 0n;
    regs.rip = inUser ? userRip : kernelRip || (compiled ? 0n : functionAt(path[0]!, AFTER_HLT));
    regs.rsp = inUser ? userRsp : rsp;
    // Kernel CPUs sleep with interrupts off, so that nothing wakes them; with `doing` there is nothing that would.
    const masked = doing ? (options.masked?.includes(number) ?? false) : !inUser;
    regs.rflags = masked ? 0x46n : 0x246n;
    let ends: GuestCpu['ends'];
    if (compiled) {
      // As if called: a return address of 0 on an aligned stack.
      const top = inUser ? USER_STACK + BigInt(0x10000 * number) + 0x1f00n : stackTop;
      if (inUser && number > 0) userRoot.mapNew(top & ~0xffffn, 2 * PAGE, true);
      const start = inUser ? compiled.userThread(number) : compiled.kernelThread(number);
      Object.assign(regs, { ...start.regs, rsp: top - 0x28n });
      ends = start.ends;
    }
    const nativeCs = inUser ? 0x33 : 0x10;
    const cpu: GuestCpu = {
      started: true,
      ...(ends ? { ends } : {}),
      ...(task ? { spins: true } : {}),
      regs,
      cs: in32 ? 0x23 : nativeCs,
      ss: inUser ? 0x2b : 0x18,
      ds: 0x2b,
      es: 0x2b,
      fs: 0x53,
      gs: 0x2b,
      tr: 0x40,
      gdt: { base: gdt, limit: 0x57 },
      idt: { base: idt, limit: 0xfff },
      cr0: 0x80050033n,
      cr3: BigInt(inUser ? (shadowRoot ?? userRoot).root : kernel.root),
      cr4,
      gsBase: inUser ? TEB : kpcr,
      kernelGsBase: inUser ? kpcr : 0x000000d5_40002000n,
      fsBase: 0n,
      trBase: tss,
    };
    const index = order.indexOf(number);
    cpus[index] = cpu;
    processors.push({
      number,
      cpu: index,
      kpcr,
      prcb,
      context: frame,
      specialRegisters: prcb + BigInt(build.processorState),
      idt,
      gdt,
      returns: inUser ? [] : returns,
    });
  }
  for (let i = 0; i < (options.neverStarted ?? 0); i++) cpus.push(firmwareCpu());
  if (options.firstIn32Bit) {
    cpus.unshift(firmwareCpu());
    for (const processor of processors) processor.cpu++;
  }
  for (const number of options.foreign ?? []) {
    const cpu = cpus[order.indexOf(number)]!;
    // Another system's tables that map its own code in the kernel's half.
    const other = new PageTables(memory, options.la57 ? 5 : 4);
    other.mapNew(0xfffff900_00000000n, PAGE);
    other.write(0xfffff900_00000000n, Buffer.from('90f4ebfd', 'hex'));
    for (let at = 0; at < LAUNCH_PAGES * PAGE; at += PAGE)
      other.map(k(RVA.launch + at), kernel.translate(k(RVA.launch + at))!);
    cpu.cr3 = BigInt(other.root);
    cpu.gsBase = 0xfffff900_00000800n;
    cpu.kernelGsBase = 0n;
    cpu.regs.rip = 0xfffff900_00000002n;
  }

  // Versions, bug check, memory description.
  kernel.u16(k(RVA.KdVersionBlock), 0xf);
  kernel.u16(k(RVA.KdVersionBlock) + 2n, build.build);
  kernel.write(k(RVA.KdVersionBlock) + 4n, Buffer.from([6, 2, 0x47, 0]));
  kernel.u16(k(RVA.KdVersionBlock) + 8n, 0x8664);
  kernel.u64(k(RVA.KdVersionBlock) + 0x10n, kernelBase);
  kernel.u64(k(RVA.KdVersionBlock) + 0x18n, k(RVA.PsLoadedModuleList));
  kernel.u64(k(RVA.KdVersionBlock) + 0x20n, k(RVA.DebuggerDataListEntry));
  kernel.u64(k(RVA.DebuggerDataListEntry), k(RVA.KdDebuggerDataBlock));
  kernel.u32(compiled?.kernel.exports.get('NtBuildNumber') ?? k(RVA.NtBuildNumber), 0xf0000000 + build.build);
  kernel.write(k(RVA.NtBuildLab), Buffer.from(`${build.lab}\0`, 'latin1'));
  kernel.u64(k(RVA.MmPfnDatabase), 0xffffe000_00000000n);
  const physicalMemory = [
    { basePage: 0x1, pageCount: 0x9f - 1 },
    { basePage: 0x100, pageCount: lowBytes / PAGE - 0x100 },
    ...(highBytes > 0 ? [{ basePage: 2 ** 32 / PAGE, pageCount: highBytes / PAGE }] : []),
  ];
  const descriptor = pool(PAGE);
  kernel.u64(k(RVA.MmPhysicalMemoryBlock), descriptor);
  kernel.u32(descriptor, physicalMemory.length);
  kernel.u64(descriptor + 8n, BigInt(physicalMemory.reduce((n, r) => n + r.pageCount, 0)));
  physicalMemory.forEach((run, i) => {
    kernel.u64(descriptor + BigInt(0x10 + 16 * i), BigInt(run.basePage));
    kernel.u64(descriptor + BigInt(0x18 + 16 * i), BigInt(run.pageCount));
  });
  if (options.crash) {
    const { code, parameters, signExtended } = options.crash;
    kernel.u64(k(RVA.KiBugCheckData), signExtended ? BigInt.asUintN(64, BigInt(code | 0)) : BigInt(code));
    parameters.forEach((p, i) => {
      kernel.u64(k(RVA.KiBugCheckData) + BigInt(8 + 8 * i), p);
    });
  } else {
    // Leftovers: only the code says whether it crashed.
    kernel.u64(k(RVA.KiBugCheckData) + 8n, 0x1234n);
  }

  if (options.startBlock ?? true) {
    // PROCESSOR_START_BLOCK: a jump, the completion flag, the kernel's entry, CR3.
    const block = memory.page(0x2000);
    block.writeBigUInt64LE(0x0000_0001_0006_4de9n, 0);
    block.writeBigUInt64LE(functionAt('KiIdleLoop'), 0x70);
    block.writeBigUInt64LE(BigInt(kernel.root), 0xa0);
  }

  // SharedUserData.
  const systemTime = 0x01d9_5000_1234_5678n;
  const upTime = 0x5_1234_5678n;
  const setTime = (offset: bigint, value: bigint) => {
    kernel.u64(SHARED_USER_DATA + offset, value);
    kernel.u32(SHARED_USER_DATA + offset + 8n, Number(value >> 32n));
  };
  kernel.u32(SHARED_USER_DATA + 4n, 0xfa00000);
  setTime(0x8n, upTime);
  setTime(0x14n, systemTime);
  kernel.u16(SHARED_USER_DATA + 0x2cn, 0x8664);
  kernel.u16(SHARED_USER_DATA + 0x2en, 0x8664);
  kernel.write(SHARED_USER_DATA + 0x30n, Buffer.from('C:\\Windows\0', 'utf16le'));
  if (build.sharedBuild) kernel.u32(SHARED_USER_DATA + 0x260n, build.build);
  kernel.u32(SHARED_USER_DATA + 0x264n, 1);
  kernel.u8(SHARED_USER_DATA + 0x268n, 1);
  kernel.u16(SHARED_USER_DATA + 0x26an, 9);
  kernel.u32(SHARED_USER_DATA + 0x26cn, build.ntMajor);
  kernel.u32(SHARED_USER_DATA + 0x270n, build.ntMinor);
  kernel.u32(SHARED_USER_DATA + 0x2d0n, 0x110);
  kernel.u32(SHARED_USER_DATA + 0x2e8n, ramBytes / PAGE);
  setTime(0x320n, 0x1234567n);

  // KDBG.
  const kdbg = k(RVA.KdDebuggerDataBlock);
  const block = Buffer.alloc(build.kdbgSize);
  const set64 = (offset: number, value: bigint) => {
    if (offset + 8 <= block.length) block.writeBigUInt64LE(value, offset);
  };
  const set16 = (offset: number, value: number) => {
    if (offset + 2 <= block.length) block.writeUInt16LE(value, offset);
  };
  set64(0x0, k(RVA.KdpDebuggerDataListHead));
  set64(0x8, k(RVA.KdpDebuggerDataListHead));
  block.write('KDBG', 0x10, 'latin1');
  block.writeUInt32LE(build.kdbgSize, 0x14);
  set64(0x18, kernelBase);
  set64(0x48, k(RVA.PsLoadedModuleList));
  set64(0x50, k(RVA.PsActiveProcessHead));
  set64(0x88, k(RVA.KiBugCheckData));
  set64(0xc0, k(RVA.MmPfnDatabase));
  set64(0x138, BigInt(PAGE));
  // Addresses of variables.
  set64(0x1c8, k(0x36300));
  set64(0x1d0, k(0x36308));
  set64(0x1d8, k(0x36310));
  set64(0x208, k(RVA.NtBuildLab));
  set64(0x218, processorBlock);
  set64(0x220, k(RVA.MmUnloadedDrivers));
  set64(0x228, k(RVA.MmLastUnloadedDriver));
  set64(0x270, k(RVA.MmPhysicalMemoryBlock));
  set16(0x2a0, 0xb8);
  set16(0x2a8, eprocess.size);
  set16(0x2aa, eprocess.peb);
  set16(0x2ac, eprocess.parent);
  set16(0x2ae, 0x28);
  set16(0x2b0, 0xaf00);
  set16(0x2b4, 8);
  set16(0x2bc, build.processorState + build.specialSize);
  set16(0x2be, build.prcbNumber);
  set16(0x2e0, 0xb080);
  set16(0x2e2, 0x18);
  set16(0x2e4, 0x20);
  set16(0x2e6, 0x180);
  set16(0x2f2, build.processorState);
  [0x10, 0x18, 0, 0x33, 0x2b, 0x53, 0, 0x40, 0x23, 0x53].forEach((selector, i) => {
    set16(0x2f4 + 2 * i, selector);
  });
  if (build.prcbContext !== undefined) set16(0x338, build.prcbContext);
  if (doing) {
    // As 19041 has them [R].
    for (const [offset, value] of DOING_OFFSETS) set16(offset, value);
  }
  set64(0x360, 0xffff0000_00000000n | (BigInt(selfMapSlot) << 39n));
  const encoded = (options.kdbg ?? (build.encoded && !crashed ? 'encoded' : 'plain')) === 'encoded';
  const [never, always] = [word(), word()];
  kernel.u64(k(RVA.KiWaitNever), never);
  kernel.u64(k(RVA.KiWaitAlways), always);
  kernel.u8(k(RVA.KdpDataBlockEncoded), encoded ? 1 : 0);
  linkAll(k(RVA.KdpDebuggerDataListHead), []);
  const store = (plain: Buffer): Buffer => {
    if (!encoded) return plain;
    const result = Buffer.alloc(plain.length);
    for (let at = 0; at < plain.length; at += 8) {
      result.writeBigUInt64LE(encodeWord(plain.readBigUInt64LE(at), never, always, k(RVA.KdpDataBlockEncoded)), at);
    }
    return result;
  };
  kernel.write(kdbg, store(block));

  const decoys = options.decoys ?? true;
  if (decoys) {
    // Before and after the real one: another kernel's, a stale one of this kernel, plain and encoded, and bare tags.
    const stale = Buffer.from(block);
    stale.writeBigUInt64LE(k(0x38000), 0x48);
    stale.writeBigUInt64LE(k(0x38000), 0x50);
    stale.writeBigUInt64LE(k(0x38000), 0x218);
    const other = Buffer.from(block);
    other.writeBigUInt64LE(kernelBase - 0x200000n, 0x18);
    kernel.write(k(0x30100), other);
    kernel.write(k(0x30800), stale);
    kernel.write(k(0x39000), store(stale));
    kernel.write(k(0x3a004), Buffer.from('KDBG', 'latin1'));
    kernel.write(k(0x3a010), Buffer.from('KDBGKDBG', 'latin1'));
    if (decoys !== 'stale') {
      // One whose lists are right, and which only lacks the processors.
      const almost = Buffer.from(block);
      almost.writeBigUInt64LE(k(0x38000), 0x218);
      kernel.write(k(0x31000), store(almost));
    }
    const elsewhere = pool(PAGE);
    kernel.write(elsewhere + 0x100n, stale);
  }

  // UNLOADED_DRIVERS[50] and its next index: the ring has gone around once.
  const unloadedAt = (n: number) => ({
    name: `dump_${n}.sys`,
    from: 0xfffff804_30000000n + BigInt(n) * 0x100000n,
    to: 0xfffff804_30000000n + BigInt(n) * 0x100000n + 0x9000n,
    time: 0x01d9_4fff_0000_0000n + BigInt(n) * 10_000_000n,
  });
  const unloaded = Array.from({ length: 52 }, (_, n) => unloadedAt(n)).slice(2);
  const ring = pool(0x28 * 50);
  const unloadedNames = pool(50 * 0x40);
  unloaded.forEach((driver, i) => {
    const at = ring + BigInt(0x28 * ((i + 2) % 50));
    const text = unloadedNames + BigInt(0x40 * i);
    kernel.write(text, Buffer.from(driver.name, 'utf16le'));
    kernel.u16(at, 2 * driver.name.length);
    kernel.u16(at + 2n, 2 * driver.name.length);
    kernel.u64(at + 8n, text);
    kernel.u64(at + 0x10n, driver.from);
    kernel.u64(at + 0x18n, driver.to);
    kernel.u64(at + 0x20n, driver.time);
  });
  kernel.u64(k(RVA.MmUnloadedDrivers), ring);
  kernel.u32(k(RVA.MmLastUnloadedDriver), 2);
  let vmcoreinfo: Guest['vmcoreinfo'];
  if (options.vmcoreinfo) {
    const copy = pool(PAGE);
    kernel.write(copy + 0x200n, block);
    const stale = options.vmcoreinfo === 'stale';
    const note = vmcoreinfoNote({
      build: build.build,
      root: BigInt(kernel.root),
      pfnDatabase: k(RVA.MmPfnDatabase),
      psLoadedModuleList: k(stale ? 0x38000 : RVA.PsLoadedModuleList),
      psActiveProcessHead: k(RVA.PsActiveProcessHead),
      processors: stale ? count + 1 : count,
      kdbg,
      kdbgCopy: copy + 0x200n,
      runs: physicalMemory,
    });
    // QEMU wants it in one piece.
    const physical = memory.allocateContiguous(3);
    for (let at = 0; at < note.length; at += PAGE) note.subarray(at, at + PAGE).copy(memory.page(physical + at));
    vmcoreinfo = { physical, note };
  }

  const sample = pool(2 * PAGE);
  const marker = Buffer.from(Array.from({ length: 64 }, (_, i) => (i * 7 + seed) & 0xff));
  kernel.write(sample + 0xfe0n, marker);
  return {
    options,
    build,
    memory,
    ramBytes,
    pages: memory.pages,
    kernel,
    vmcoreinfo,
    cpus,
    launch: {
      virtual: k(RVA.launch),
      physical: Array.from({ length: LAUNCH_PAGES }, (_, i) => kernel.translate(k(RVA.launch + i * PAGE))!),
    },
    truth: {
      root: kernel.root,
      kernelBase,
      kernelSize,
      exports: exportsByName,
      kdbg,
      kdbgBlock: block,
      kdbgEncoded: encoded,
      psLoadedModuleList: k(RVA.PsLoadedModuleList),
      psActiveProcessHead: k(RVA.PsActiveProcessHead),
      pfnDatabaseVariable: k(RVA.MmPfnDatabase),
      physicalMemory,
      modules,
      processors,
      processes: processes.map(({ name, pid, parent, peb, address }) => ({
        name,
        pid,
        parent,
        peb,
        address,
        root: name === 'notepad.exe' ? userRoot.root : kernel.root,
      })),
      unloaded: unloaded.reverse(),
      bugCheck: options.crash && { code: options.crash.code, parameters: options.crash.parameters },
      captured,
      systemTime,
      upTime,
      productType: 1,
      suiteMask: 0x110,
      samples: [
        { virtual: sample + 0xfe0n, bytes: marker },
        ...(compiled ? [] : [{ virtual: functionAt('PoIdle'), bytes: idleFunction() }]),
        { virtual: SHARED_USER_DATA + 0x30n, bytes: Buffer.from('C:\\Windows', 'utf16le') },
      ],
    },
  };
}

/** "VMCOREINFO", type 0, with a crash dump header as KeInitializeCrashDumpHeader fills it. */
function vmcoreinfoNote(v: {
  build: number;
  root: bigint;
  pfnDatabase: bigint;
  psLoadedModuleList: bigint;
  psActiveProcessHead: bigint;
  processors: number;
  kdbg: bigint;
  kdbgCopy: bigint;
  runs: readonly { basePage: number; pageCount: number }[];
}): Buffer {
  const note = Buffer.alloc(24 + 0x2000);
  note.writeUInt32LE(11, 0);
  note.writeUInt32LE(0x2000, 4);
  note.write('VMCOREINFO', 12, 'latin1');
  const header = note.subarray(24).fill('PAGE');
  header.write('DU64', 4, 'latin1');
  header.writeUInt32LE(0xf, 0x8);
  header.writeUInt32LE(v.build, 0xc);
  header.writeBigUInt64LE(v.root, 0x10);
  header.writeBigUInt64LE(v.pfnDatabase, 0x18);
  header.writeBigUInt64LE(v.psLoadedModuleList, 0x20);
  header.writeBigUInt64LE(v.psActiveProcessHead, 0x28);
  header.writeUInt32LE(0x8664, 0x30);
  header.writeUInt32LE(v.processors, 0x34);
  header.writeUInt32LE(0, 0x38);
  header.writeBigUInt64LE(v.kdbgCopy, 0x40);
  header.writeBigUInt64LE(v.kdbg, 0x80);
  header.writeUInt32LE(v.runs.length, 0x88);
  header.writeBigUInt64LE(BigInt(v.runs.reduce((sum, run) => sum + run.pageCount, 0)), 0x90);
  v.runs.forEach((run, i) => {
    header.writeBigUInt64LE(BigInt(run.basePage), 0x98 + 16 * i);
    header.writeBigUInt64LE(BigInt(run.pageCount), 0xa0 + 16 * i);
  });
  header.writeUInt32LE(1, 0xf98);
  return note;
}

/** In a path: the function of demo.sys at fault. */
const FAULT = '';

/** Offsets of the KDBG of a real 19041: of KTHREAD's members, ETHREAD's size, the PRCB's members on DPCs. */
const DOING_OFFSETS: readonly (readonly [offset: number, value: number])[] = [
  [0x29a, 0xf0],
  [0x29e, 0x28],
  [0x2a2, 0x184],
  [0x2b2, 0x312a],
  [0x2c0, 0x898],
  [0x340, 0x30],
  [0x344, 0x38],
  [0x350, 0x18],
  [0x352, 0x312c],
  [0x354, 0x3110],
  [0x356, 0x85d8],
  [0x358, 0x50],
];

/** Functions on the stack of a processor that is busy, from the innermost. */
const BUSY_PATHS: Record<Doing, readonly string[]> = {
  dpc: ['DemoDpc', 'KeInsertQueueDpc', 'KiIdleLoop'],
  'dpc in idle': ['DemoDpc', 'KeInsertQueueDpc', 'KiIdleLoop'],
  'spin lock': ['KeAcquireSpinLockRaiseToDpc', 'DemoDispatch', 'IoCallDriver', 'KiSystemServiceExit'],
  driver: ['DemoDpc', 'DemoDispatch', 'IoCallDriver', 'KiSystemServiceExit'],
};

/** ETHREADs as 19041 has them [R]: the ids at 0x478, the stack's bounds at 0x30; their lists by public symbols. */
class Threads {
  readonly #kernel: PageTables;
  readonly #pool: (bytes: number) => bigint;
  readonly #lists = new Map<bigint, bigint[]>();
  #id = 0x20;

  constructor(kernel: PageTables, pool: (bytes: number) => bigint) {
    this.#kernel = kernel;
    this.#pool = pool;
  }

  /** An idle thread: of process 0, with id 0. */
  idle(stack: bigint, stackTop: bigint): bigint {
    return this.#make({ stack, stackTop });
  }

  add(process: { address: bigint; pid: number }, teb = 0n, bounds?: { stack: bigint; stackTop: bigint }): bigint {
    const thread = this.#make(bounds);
    this.#id += 4;
    this.#kernel.u64(thread + 0xb8n, process.address);
    this.#kernel.u64(thread + 0xf0n, teb);
    this.#kernel.u64(thread + 0x220n, process.address);
    this.#kernel.u64(thread + 0x478n, BigInt(process.pid));
    this.#kernel.u64(thread + 0x480n, BigInt(this.#id));
    // Another pair that could be taken for ids, in this thread alone.
    this.#kernel.u64(thread + 0x5a0n, BigInt(process.pid));
    this.#kernel.u64(thread + 0x5a8n, 0x11n);
    const list = [...(this.#lists.get(process.address) ?? []), thread + 0x2f8n];
    this.#lists.set(process.address, list);
    linkIn(this.#kernel, process.address + 0x30n, list);
    return thread;
  }

  #make(bounds: { stack: bigint; stackTop: bigint } | undefined): bigint {
    const thread = this.#pool(PAGE) + 0x80n;
    this.#kernel.u8(thread, 6);
    if (bounds) {
      const top = (bounds.stackTop & ~0xfffn) + 0x1000n;
      this.#kernel.u64(thread + 0x28n, top - 0x10n);
      this.#kernel.u64(thread + 0x30n, bounds.stack);
      this.#kernel.u64(thread + 0x38n, top);
    }
    return thread;
  }
}

/** Ticks in the PRCB's counters, by processor; with a PDB they are found. */
export const watchdogOf = (number: number) => ({ watchdog: 1000 + number, time: 500 + number });

/** What the PRCB has of DPCs, and the locks by number; the top of the DPC stack. */
function placeActivity({
  kernel,
  pool,
  kpcr,
  task,
  number,
  lock,
  lockAt,
}: {
  kernel: PageTables;
  pool: (bytes: number) => bigint;
  kpcr: bigint;
  task: Doing | undefined;
  number: number;
  lock: GuestOptions['lock'];
  lockAt: bigint;
}): bigint {
  const prcb = kpcr + 0x180n;
  const inDpc = task === 'dpc' || task === 'dpc in idle';
  const dpcStack = pool(6 * PAGE) + BigInt(6 * PAGE) - 0x50n;
  kernel.u64(prcb + 0x3110n, dpcStack);
  kernel.u64(prcb + 0x85d8n, pool(6 * PAGE) + BigInt(6 * PAGE));
  kernel.u8(prcb + 0x312an, inDpc ? 1 : 0);
  // KDPC_DATA.ActiveDpc, and in the KDPC its routine.
  const dpc = pool(PAGE);
  kernel.u64(dpc + 0x18n, DEMO_DPC);
  if (inDpc) kernel.u64(prcb + 0x30c0n + 0x20n, dpc);
  const { watchdog, time } = watchdogOf(number);
  [watchdog, 15000, time, 1280].forEach((value, i) => {
    kernel.u32(prcb + 0x3180n + BigInt(4 * i), inDpc || i % 2 === 1 ? value : 0);
  });
  // KSPIN_LOCK_QUEUE[17]: the next that waits, and the lock with what this one is to it.
  const queue = prcb + 0x670n;
  kernel.u64(kpcr + 0x28n, queue);
  for (let i = 0; i < 17; i++) {
    const bits = lock?.number === i ? Number(lock.waiter === number) | (2 * Number(lock.owner === number)) : 0;
    kernel.u64(queue + BigInt(16 * i + 8), (lockAt + BigInt(8 * i)) | BigInt(bits));
  }
  return dpcStack - 0x30n;
}

/** Functions on a processor's stack, from the innermost. */
function pathOf(crashing: boolean, fault: string | undefined): readonly string[] {
  if (!crashing) return ['PoIdle', 'KiIdleLoop', 'KeWaitForSingleObject', 'NtWaitForSingleObject'];
  if (fault === undefined) return ['KdPollBreakIn', 'KeBugCheckEx', 'KeBugCheck', 'KiSystemServiceExit'];
  const toBugCheck = ['KdPollBreakIn', 'KeBugCheckEx', 'KiBugCheckDispatch', 'KiPageFault'];
  return [...toBugCheck, FAULT, 'IoCallDriver', 'KiSystemServiceExit'];
}

/** A doubly linked list. */
export function linkIn(root: PageTables, head: bigint, entries: readonly bigint[]): void {
  const ring = [head, ...entries];
  ring.forEach((entry, i) => {
    root.u64(entry, ring[(i + 1) % ring.length]!);
    root.u64(entry + 8n, ring[(i + ring.length - 1) % ring.length]!);
  });
}

/** The process's images and the loader's list of them, in its memory. */
function placeProgram(root: PageTables, { program }: CompiledImages, teb: bigint): void {
  const [peb, loader] = [teb + 0x10000n, teb + 0x20000n];
  root.mapNew(peb, PAGE, true);
  root.mapNew(loader, PAGE, true);
  root.u64(teb + 0x30n, teb);
  root.u64(teb + 0x60n, peb);
  root.u64(peb + 0x10n, program[0]!.base);
  root.u64(peb + 0x18n, loader);
  const entries = program.map((_, i) => loader + BigInt(0x200 * (i + 1)));
  linkIn(root, loader + 0x10n, entries);
  program.forEach((image, i) => {
    const entry = entries[i]!;
    root.mapNew(image.base, image.bytes.length, true);
    root.write(image.base, image.bytes);
    root.u64(entry + 0x30n, image.base);
    root.u32(entry + 0x40n, image.bytes.length);
    // In capitals: who has the name from here shows it.
    const name = Buffer.from(image.name.toUpperCase(), 'utf16le');
    root.write(entry + 0x120n, name);
    for (const offset of [0x48n, 0x58n]) {
      root.u16(entry + offset, name.length);
      root.u16(entry + offset + 2n, name.length);
      root.u64(entry + offset + 8n, entry + 0x120n);
    }
  });
}

/** A CPU that waits for its start: real mode at the reset vector. */
function firmwareCpu(): GuestCpu {
  const regs = Object.fromEntries(GPRS.map((name) => [name, 0n])) as Record<Gpr, bigint>;
  return {
    started: false,
    // RDX: what QEMU's CPU is.
    regs: { ...regs, rdx: 0x60fb1n, rip: 0xfff0n, rflags: 2n },
    cs: 0xf000,
    ss: 0,
    ds: 0,
    es: 0,
    fs: 0,
    gs: 0,
    tr: 0,
    gdt: { base: 0n, limit: 0xffff },
    idt: { base: 0n, limit: 0xffff },
    cr0: 0x60000010n,
    cr3: 0n,
    cr4: 0n,
    gsBase: 0n,
    kernelGsBase: 0n,
    fsBase: 0n,
    trBase: 0n,
  };
}

/** PsInvertedFunctionTable as a real kernel has it (types in public symbols); 0x18 bytes for each image. */
const FUNCTION_TABLE = 0x3a000;

/** Gives the kernel its table of all images with an exception directory. */
export function addFunctionTable({ kernel, truth: { kernelBase, modules } }: Pick<Guest, 'kernel' | 'truth'>): void {
  const table = kernelBase + BigInt(FUNCTION_TABLE);
  modules.forEach(({ base, size }, i) => {
    const directory = base + BigInt(kernel.read(base + 0x3cn, 4).readUInt32LE()) + 0xa0n;
    const entry = table + 0x10n + BigInt(0x18 * i);
    kernel.u64(entry, base + BigInt(kernel.read(directory, 4).readUInt32LE()));
    kernel.u64(entry + 8n, base);
    kernel.u32(entry + 0x10n, size);
    kernel.u32(entry + 0x14n, kernel.read(directory + 4n, 4).readUInt32LE());
  });
  kernel.u32(table, modules.length);
  kernel.u32(table + 4n, 0x100);
}
