/**
 * A made-up 32-bit Windows guest: structures by literal offsets from public headers and symbols, in memory that a real
 * QEMU can run. Nothing here comes from src/. Addresses are unsigned 32-bit numbers.
 */
import { GPRS, type GuestCpu } from '../guest.ts';
import { PAGE, PhysicalMemory, random } from '../memory.ts';
import { allocateLow, PageTables32 } from './memory.ts';
import { cpuNote32, prstatus32 } from './notes.ts';
import { AFTER_CALL_32, AFTER_HLT_32, buildPe32, callingFunction32, idleFunction32 } from './pe.ts';

/** What differs between builds. Where a build was not checked, the nearest known one's values stand. */
export interface Build32 {
  build: number;
  ntMajor: number;
  ntMinor: number;
  kdbgSize: number;
  /** KPRCB.Context, a pointer; undefined: the frame is in the PRCB itself. */
  prcbContext: number | undefined;
  /** KPRCB.ProcessorState, which begins with the CONTEXT. */
  processorState: number;
  prcbNumber: number;
  sharedBuild: boolean;
  lab: string;
  /** The boot processor's KPCR: at 0xffdff000, or a variable of the kernel. */
  bootKpcr: 'fixed' | 'image';
  eprocess: { size: number; links: number; pid: number; name: number; parent: number; peb: number };
  kthread: { teb: number; process: number; initialStack: number; stackLimit: number; stackBase: number };
}

export const BUILDS_32 = {
  xp: {
    build: 2600,
    ntMajor: 5,
    ntMinor: 1,
    kdbgSize: 0x290,
    prcbContext: undefined,
    processorState: 0x1c,
    prcbNumber: 0x10,
    sharedBuild: false,
    lab: '2600.xpsp_sp3_qfe.130704-0421',
    bootKpcr: 'fixed',
    eprocess: { size: 0x260, links: 0x88, pid: 0x84, name: 0x174, parent: 0x14c, peb: 0x1b0 },
    kthread: { teb: 0x20, process: 0x44, initialStack: 0x18, stackLimit: 0x1c, stackBase: 0x168 },
  },
  server2003: {
    build: 3790,
    ntMajor: 5,
    ntMinor: 2,
    kdbgSize: 0x318,
    prcbContext: undefined,
    processorState: 0x1c,
    prcbNumber: 0x10,
    sharedBuild: false,
    lab: '3790.srv03_sp2_qfe.150626-0318',
    bootKpcr: 'fixed',
    eprocess: { size: 0x278, links: 0x98, pid: 0x94, name: 0x164, parent: 0x140, peb: 0x1a0 },
    kthread: { teb: 0x74, process: 0x38, initialStack: 0x18, stackLimit: 0x1c, stackBase: 0x158 },
  },
  win7: {
    build: 7601,
    ntMajor: 6,
    ntMinor: 1,
    kdbgSize: 0x340,
    prcbContext: 0x3404,
    processorState: 0x18,
    prcbNumber: 0x3cc,
    sharedBuild: false,
    lab: '7601.24384.x86fre.win7sp1_ldr_escrow.190220-1800',
    bootKpcr: 'image',
    eprocess: { size: 0x2c0, links: 0xb8, pid: 0xb4, name: 0x16c, parent: 0x140, peb: 0x1a8 },
    kthread: { teb: 0x88, process: 0x50, initialStack: 0x28, stackLimit: 0x2c, stackBase: 0x190 },
  },
  win10: {
    build: 19041,
    ntMajor: 10,
    ntMinor: 0,
    kdbgSize: 0x380,
    prcbContext: 0x3c84,
    processorState: 0x18,
    prcbNumber: 0x3cc,
    sharedBuild: true,
    lab: '19041.1.x86fre.vb_release.191206-1406',
    bootKpcr: 'image',
    eprocess: { size: 0x4c0, links: 0xe8, pid: 0xe4, name: 0x1ac, parent: 0x164, peb: 0x17c },
    kthread: { teb: 0xa8, process: 0x80, initialStack: 0x20, stackLimit: 0x24, stackBase: 0x28 },
  },
} as const satisfies Record<string, Build32>;

export interface GuestOptions32 {
  build?: keyof typeof BUILDS_32;
  /** Default true. */
  pae?: boolean;
  /** User space up to 3 GiB. */
  threeGigabytes?: boolean;
  seed?: number;
  ramMiB?: number;
  /** With PAE: so much RAM from 4 GiB on, with half of what the guest uses in it. */
  highMiB?: number;
  processors?: number;
  /** order[i] is the processor that QEMU's CPU i runs. Default: reversed. */
  order?: readonly number[];
  /** The kernel in one large page. */
  largePages?: boolean;
  /** Processors caught in user mode. */
  user?: readonly number[];
  crash?: {
    code: number;
    parameters: readonly [number, number, number, number];
    processor: number;
    /** A frame that Windows captured in KeBugCheckEx is in the crashing processor's PRCB. Default true. */
    captured?: boolean;
  };
  /** Stale and false KDBGs. Default true. */
  decoys?: boolean;
  /** CPUs after the others that the kernel never started. */
  neverStarted?: number;
  /** KDBG fields with pointers, default sign-extended as in Windows. */
  kdbgPointers?: 'sign-extended' | 'zero-extended';
  /** What virtio-win's fwcfg driver leaves for QEMU's vmcoreinfo device. */
  vmcoreinfo?: 'good';
}

export interface GuestProcessor32 {
  number: number;
  /** QEMU's CPU index. */
  cpu: number;
  kpcr: number;
  prcb: number;
  context: number;
  specialRegisters: number;
  idt: number;
  gdt: number;
  thread: number;
  /** Instruction pointers on its stack, from the innermost. */
  frames: readonly number[];
}

export interface Guest32 {
  machine: 'x86';
  options: GuestOptions32;
  build: Build32;
  pae: boolean;
  memory: PhysicalMemory;
  ramBytes: number;
  /** Of it, below 4 GiB. */
  lowBytes: number;
  kernel: PageTables32;
  user: PageTables32;
  cpus: readonly GuestCpu[];
  vmcoreinfo: { physical: number; note: Buffer } | undefined;
  launch: { virtual: number; physical: number[] };
  /** Its CPUs' notes. */
  elf: { status(cpu: GuestCpu, index: number): Buffer; state(cpu: GuestCpu): Buffer };
  truth: {
    root: number;
    userRoot: number;
    kernelBase: number;
    kernelSize: number;
    exports: ReadonlyMap<string, number>;
    kdbg: number;
    kdbgBlock: Buffer;
    psLoadedModuleList: number;
    psActiveProcessHead: number;
    pfnDatabaseVariable: number;
    physicalMemory: readonly { basePage: number; pageCount: number }[];
    modules: readonly { name: string; base: number; size: number; pdb: string; guid: string; entry: number }[];
    processors: readonly GuestProcessor32[];
    processes: readonly { name: string; pid: number; parent: number; peb: number; address: number; root: number }[];
    /** The last one first. */
    unloaded: readonly { name: string; from: number; to: number; time: bigint }[];
    bugCheck: { code: number; parameters: readonly number[] } | undefined;
    captured: { processor: number; eip: number; esp: number; eax: number } | undefined;
    systemTime: bigint;
    upTime: bigint;
    productType: number;
    suiteMask: number;
    /** Places to compare memory at; `physical`: of pages that the hardware does not find. */
    samples: readonly { what: string; virtual: number; bytes: Buffer; physical?: number }[];
    /** Of the process in user mode. */
    userSample: { virtual: number; bytes: Buffer };
    userModule: { name: string; base: number; size: number };
  };
}

const SHARED_USER_DATA = 0xffdf0000;
const SHARED_USER_VIEW = 0x7ffe0000;
const IMAGE_SIZE = 0x80000;
const DRIVER_SIZE = 0x20000;
const LAUNCH_PAGES = 4;

const RVA = {
  KdDebuggerDataBlock: 0x32040,
  KdVersionBlock: 0x33000,
  PsLoadedModuleList: 0x34008,
  PsActiveProcessHead: 0x34118,
  KiBugCheckData: 0x34200,
  KiProcessorBlock: 0x35000,
  MmPfnDatabase: 0x36008,
  MmPhysicalMemoryBlock: 0x36010,
  MmUnloadedDrivers: 0x36018,
  MmLastUnloadedDriver: 0x36020,
  NtBuildLab: 0x36100,
  NtBuildNumber: 0x36200,
  KdpDebuggerDataListHead: 0x37030,
  handlers: 0x38000,
  launch: 0x39000,
  bootKpcr: 0x60c00,
} as const;

const NAMES = [
  'HalRequestIpi',
  'KeDelayExecutionThread',
  'KiIdleLoop',
  'KeBugCheck',
  'KeWaitForSingleObject',
  'IofCallDriver',
  'KiSystemServiceExit',
  'NtWaitForSingleObject',
  'KdPollBreakIn',
  'KeBugCheckEx',
  'PoIdle',
] as const;
type FunctionName = (typeof NAMES)[number];

const rvaOf = (name: FunctionName) => 0x10000 + 0x40 * NAMES.indexOf(name);
const IDLE: readonly FunctionName[] = ['PoIdle', 'KdPollBreakIn'];
const CALLS: Partial<Record<FunctionName, FunctionName>> = {
  KeBugCheckEx: 'KdPollBreakIn',
  KeBugCheck: 'KeBugCheckEx',
  KiSystemServiceExit: 'KeBugCheck',
};

/** Functions on a processor's stack, from the innermost. */
const pathOf = (crashing: boolean): readonly FunctionName[] =>
  crashing
    ? ['KdPollBreakIn', 'KeBugCheckEx', 'KeBugCheck', 'KiSystemServiceExit']
    : ['PoIdle', 'KiIdleLoop', 'KeWaitForSingleObject', 'NtWaitForSingleObject'];

/** MMPTE of a page in transition. */
const transition = (physical: number) => BigInt(physical) | 0x880n;

/** MMPTE_PROTOTYPE, as debuggers decode it. */
export function prototypeEntry(pae: boolean, address: number): bigint {
  if (pae) return (BigInt(address) << 32n) | 0x400n;
  const low = address - 0x80000000;
  return (BigInt(Math.floor(low / 0x400)) << 11n) | 0x400n | BigInt((low & 0x3ff) >> 1);
}

export function buildGuest32(options: GuestOptions32 = {}): Guest32 {
  const build: Build32 = BUILDS_32[options.build ?? 'win7'];
  const pae = options.pae ?? true;
  const seed = options.seed ?? 1;
  const next = random(seed);
  const word = () => BigInt(Math.floor(next() * 2 ** 32));
  const count = options.processors ?? 2;
  const order = options.order ?? Array.from({ length: count }, (_, i) => count - 1 - i);
  const highBytes = pae ? (options.highMiB ?? 0) * 2 ** 20 : 0;
  const lowBytes = (options.ramMiB ?? 16) * 2 ** 20;
  const ramBytes = lowBytes + highBytes;
  const top = options.threeGigabytes ? 0xe0000000 : 0x80000000;
  const kernelFrom = options.threeGigabytes ? 0xc0000000 : 0x80000000;

  const large = { from: 0x400000, to: 0x800000 };
  const memory = new PhysicalMemory(lowBytes, seed, options.largePages ? [large] : [], highBytes);
  const pdptPage = allocateLow(memory);
  const kernel = new PageTables32(memory, pae, { page: pdptPage, slot: 3 });
  // As XP and later have it: 4 KiB aligned.
  const kernelBase = options.largePages ? top + 0x2800000 : top + 0x284b000;
  if (options.largePages) kernel.mapLarge(kernelBase, large.from);
  else kernel.mapNew(kernelBase, IMAGE_SIZE);
  kernel.mapNew(SHARED_USER_DATA, PAGE);
  let poolNext = top + 0x6400000;
  /** Zeroed, page-aligned non-paged pool. */
  const pool = (bytes: number): number => {
    const at = poolNext;
    const size = Math.ceil(bytes / PAGE) * PAGE;
    kernel.mapNew(at, size);
    poolNext += size + PAGE;
    return at;
  };
  const k = (rva: number) => kernelBase + rva;
  const functionAt = (name: FunctionName, offset = 0) => k(rvaOf(name)) + offset;

  // Images.
  const guid = Buffer.from('a1b2c3d4e5f60718293a4b5c6d7e8f90', 'hex');
  const kernelPdb = pae ? 'ntkrpamp.pdb' : 'ntkrnlmp.pdb';
  const functions = NAMES.map((name) => ({
    name,
    rva: rvaOf(name),
    code: IDLE.includes(name) ? idleFunction32() : callingFunction32(rvaOf(name), rvaOf(CALLS[name] ?? 'PoIdle')),
  }));
  kernel.write(
    kernelBase,
    buildPe32({
      name: pae ? 'ntkrpamp.exe' : 'ntoskrnl.exe',
      pdb: kernelPdb,
      guid,
      age: 1,
      size: IMAGE_SIZE,
      imageBase: 0x400000,
      timeDateStamp: 0x5e0f1a2b,
      functions,
      data: [
        { name: 'NtBuildNumber', rva: RVA.NtBuildNumber },
        { name: 'KiBugCheckData', rva: RVA.KiBugCheckData },
      ],
    }),
  );
  for (let vector = 0; vector < 256; vector++) {
    // push VECTOR; hlt; jmp $-1: a CPU that faults stays to be looked at.
    kernel.write(k(RVA.handlers + 8 * vector), Buffer.from([0x6a, vector, 0xf4, 0xeb, 0xfd, 0xcc, 0xcc, 0xcc]));
  }
  const drivers = [
    { name: 'hal.dll', base: kernelBase + 0x400000, export: 'HalSendNMI' },
    { name: 'demo.sys', base: top + 0x8a450000, export: 'DemoDispatch' },
  ].map((d) => ({ ...d, base: d.base >= 2 ** 32 ? top + 0xa450000 : d.base }));
  for (const driver of drivers) {
    kernel.mapNew(driver.base, DRIVER_SIZE);
    kernel.write(
      driver.base,
      buildPe32({
        name: driver.name,
        pdb: driver.name.replace(/\..*/, '.pdb'),
        guid: Buffer.from(guid).fill(driver.name.length, 0, 2),
        age: 2,
        size: DRIVER_SIZE,
        imageBase: driver.base,
        timeDateStamp: 0x5e0f1a2c,
        functions: [{ name: driver.export, rva: 0x10000, code: callingFunction32(0x10000, 0x10000) }],
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
  const linkAll = (tables: PageTables32, head: number, entries: readonly number[]) => {
    const ring = [head, ...entries];
    ring.forEach((entry, i) => {
      tables.u32(entry, ring[(i + 1) % ring.length]!);
      tables.u32(entry + 4, ring[(i + ring.length - 1) % ring.length]!);
    });
  };
  const string = (tables: PageTables32, at: number, textAt: number, text: string) => {
    const bytes = Buffer.from(text, 'utf16le');
    tables.write(textAt, bytes);
    tables.u16(at, bytes.length);
    tables.u16(at + 2, bytes.length + 2);
    tables.u32(at + 4, textAt);
  };
  const ldrPages = pool((1 + drivers.length) * PAGE);
  const modules = [
    { name: 'ntoskrnl.exe', base: kernelBase, size: IMAGE_SIZE },
    ...drivers.map(({ name, base }) => ({ name, base, size: DRIVER_SIZE })),
  ].map((m, i) => ({
    ...m,
    pdb: i === 0 ? kernelPdb : m.name.replace(/\..*/, '.pdb'),
    guid: asGuid(i === 0 ? guid : Buffer.from(guid).fill(m.name.length, 0, 2)),
    entry: ldrPages + i * PAGE,
  }));
  linkAll(
    kernel,
    k(RVA.PsLoadedModuleList),
    modules.map(({ entry }) => entry),
  );
  modules.forEach(({ entry, name, base, size }, i) => {
    kernel.u32(entry + 0x18, base);
    kernel.u32(entry + 0x1c, base + 0x10000);
    kernel.u32(entry + 0x20, size);
    string(kernel, entry + 0x24, entry + 0x200, `\\SystemRoot\\system32\\${name}`);
    string(kernel, entry + 0x2c, entry + 0x400, name);
    kernel.u32(entry + 0x40, 0x12345);
    kernel.u32(entry + 0x58, i === 0 ? 0x5e0f1a2b : 0x5e0f1a2c);
  });

  // Processes.
  const { eprocess, kthread } = build;
  const PEB = options.threeGigabytes ? 0xbffdf000 : 0x7ffdf000;
  const processes = [
    { name: 'System', pid: 4, parent: 0, peb: 0 },
    { name: 'smss.exe', pid: 0x198, parent: 4, peb: 0x7ffd9000 },
    { name: 'notepad.exe', pid: 0x6ac, parent: 0x198, peb: PEB },
  ].map((p) => ({ ...p, address: pool(eprocess.size) + 0x18 }));
  linkAll(
    kernel,
    k(RVA.PsActiveProcessHead),
    processes.map((p) => p.address + eprocess.links),
  );

  // What runs in user mode.
  const PROGRAM = 0x00400000;
  const USER_STACK = options.threeGigabytes ? 0xa0000000 : 0x0012e000;
  const user = new PageTables32(memory, pae, { page: pdptPage, slot: 5 });
  user.mapNew(PROGRAM, DRIVER_SIZE, true);
  const spin = Buffer.from('558bec90ebfe5dc3', 'hex');
  user.write(
    PROGRAM,
    buildPe32({
      name: 'app.exe',
      pdb: 'app.pdb',
      guid,
      age: 3,
      size: DRIVER_SIZE,
      imageBase: PROGRAM,
      timeDateStamp: 0x5e0f1a2d,
      functions: [
        { name: 'AppMain', rva: 0x10000, code: callingFunction32(0x10000, 0x10040) },
        { name: 'AppSpin', rva: 0x10040, code: spin },
      ],
    }),
  );
  const userSample = { virtual: PROGRAM + 0x10040, bytes: spin };
  user.map(SHARED_USER_VIEW, kernel.translate(SHARED_USER_DATA)!, true);
  const LDR = 0x00241000;
  for (const at of [PEB, LDR]) user.mapNew(at, PAGE, true);
  user.u32(PEB + 8, PROGRAM);
  user.u32(PEB + 0xc, LDR);
  linkAll(user, LDR + 0xc, [LDR + 0x100]);
  user.u32(LDR + 0x118, PROGRAM);
  user.u32(LDR + 0x120, DRIVER_SIZE);
  string(user, LDR + 0x124, LDR + 0x200, 'C:\\APP.EXE');
  string(user, LDR + 0x12c, LDR + 0x206, 'APP.EXE');

  // Processors.
  const cpus: GuestCpu[] = [];
  const processors: GuestProcessor32[] = [];
  const idleProcess = pool(eprocess.size) + 0x18;
  const cr4 = pae ? 0x6f9n : 0x6d9n;
  let captured: Guest32['truth']['captured'];
  for (let number = 0; number < count; number++) {
    let kpcr = top + 0x7c2000 + number * 0x8000;
    if (number === 0 && build.bootKpcr === 'image') kpcr = k(RVA.bootKpcr);
    else if (number === 0) kpcr = 0xffdff000;
    // At its fixed place it has no more than a page, in which its PRCB lies.
    if (kpcr !== k(RVA.bootKpcr)) kernel.mapNew(kpcr, number === 0 ? PAGE : 5 * PAGE);
    const prcb = kpcr + 0x120;
    const frame = build.prcbContext === undefined ? prcb + build.processorState : pool(PAGE) + 0x348;
    const special = prcb + build.processorState + 0x2cc;
    const tables = pool(2 * PAGE);
    const [gdt, idt, tss] = [tables, tables + 0x400, tables + PAGE];
    const stack = pool(3 * PAGE);
    const stackTop = stack + 3 * PAGE - 0x2a0;
    const inUser = options.user?.includes(number) ?? false;
    const teb = PEB - PAGE * (1 + number);

    for (let vector = 0; vector < 256; vector++) {
      const handler = k(RVA.handlers + 8 * vector);
      const gate = Buffer.alloc(8);
      gate.writeUInt16LE(handler & 0xffff, 0);
      gate.writeUInt16LE(8, 2);
      gate.writeUInt8(vector === 3 ? 0xee : 0x8e, 5);
      gate.writeUInt16LE(handler >>> 16, 6);
      // Double faults and NMIs go through a task gate.
      if (vector === 2 || vector === 8) Buffer.from([0, 0, 0x58, 0, 0, 0x85, 0, 0]).copy(gate);
      kernel.write(idt + 8 * vector, gate);
    }
    const descriptor = (selector: number, base: number, limit: number, flags: number) => {
      const low = (limit & 0xffff) + (base & 0xffff) * 0x10000;
      const high = ((base >>> 16) & 0xff) + ((flags & 0xff) << 8) + (limit & 0xf0000) + ((flags & 0xf00) << 12);
      kernel.u32(gdt + selector, low);
      kernel.u32(gdt + selector + 4, (high >>> 0) + (base >>> 24) * 0x1000000);
    };
    descriptor(0x08, 0, 0xfffff, 0xc9b);
    descriptor(0x10, 0, 0xfffff, 0xc93);
    descriptor(0x18, 0, 0xfffff, 0xcfb);
    descriptor(0x20, 0, 0xfffff, 0xcf3);
    // Busy, as LTR leaves it.
    descriptor(0x28, tss, 0x20ab, 0x08b);
    descriptor(0x30, kpcr, 0x3748, 0x493);
    descriptor(0x38, inUser ? teb : 0, 0xfff, 0x4f3);
    kernel.u32(tss + 4, stackTop);
    kernel.u16(tss + 8, 0x10);

    kernel.u32(kpcr + 0x18, inUser ? teb : 0);
    kernel.u32(kpcr + 0x1c, kpcr);
    kernel.u32(kpcr + 0x20, prcb);
    if (number === 0) kernel.u32(kpcr + 0x34, k(RVA.KdVersionBlock));
    kernel.u32(kpcr + 0x38, idt);
    kernel.u32(kpcr + 0x3c, gdt);
    kernel.u32(kpcr + 0x40, tss);
    kernel.u16(kpcr + 0x44, 1);
    kernel.u16(kpcr + 0x46, 1);
    kernel.u8(kpcr + 0x51, number);
    const thread = pool(PAGE);
    kernel.u16(prcb, 1);
    kernel.u16(prcb + 2, 1);
    kernel.u32(prcb + 4, thread);
    kernel.u32(prcb + 0xc, thread);
    if (build.prcbNumber === 0x10) kernel.u8(prcb + 0x10, number);
    else kernel.u32(prcb + build.prcbNumber, number);
    kernel.u32(thread + kthread.process, inUser ? processes[2]!.address : idleProcess);
    kernel.u32(thread + kthread.initialStack, stack + 3 * PAGE);
    kernel.u32(thread + kthread.stackLimit, stack);
    kernel.u32(thread + kthread.stackBase, stack + 3 * PAGE);
    if (inUser) {
      user.mapNew(teb, PAGE, true);
      user.u32(teb + 0x18, teb);
      user.u32(teb + 0x30, PEB);
      kernel.u32(thread + kthread.teb, teb);
    }
    // What an earlier freeze left there.
    kernel.write(special, Buffer.alloc(0x54, 0x5a));
    kernel.write(frame, Buffer.alloc(0x2cc, 0xa5));
    kernel.u32(frame, 0x10017);
    if (build.prcbContext !== undefined) {
      kernel.u32(prcb + build.prcbContext, frame);
      kernel.u32(prcb + build.prcbContext + 4, 0x1007f);
    }
    kernel.u32(k(RVA.KiProcessorBlock) + 4 * number, prcb);

    // Stacks: a saved EBP and a return address for each function, innermost first.
    const crashing = options.crash?.processor === number;
    const path = pathOf(crashing);
    const ebp = stackTop - 0x10 * path.length;
    const kernelFrames = [
      functionAt(path[0]!, AFTER_HLT_32),
      ...path.slice(1).map((name) => functionAt(name, AFTER_CALL_32)),
    ];
    path.forEach((_, i) => {
      const last = i + 1 === path.length;
      kernel.u32(ebp + 0x10 * i, last ? 0 : ebp + 0x10 * (i + 1));
      kernel.u32(ebp + 0x10 * i + 4, last ? 0 : kernelFrames[i + 1]!);
    });
    if (crashing && options.crash && options.crash.captured !== false) {
      captured = {
        processor: number,
        eip: functionAt('KeBugCheckEx'),
        // As it is on entry: the return address is on top.
        esp: ebp + 0x14,
        eax: 0xc0ffee0 + number,
      };
      const context = Buffer.alloc(0x2cc);
      context.writeUInt32LE(0x1003f, 0);
      for (const [at, value] of [
        [0x90, 0x30],
        [0x94, 0x23],
        [0x98, 0x23],
        [0xb0, captured.eax],
        [0xb4, ebp + 0x20],
        [0xb8, captured.eip],
        [0xbc, 8],
        [0xc0, 0x246],
        [0xc4, captured.esp],
        [0xc8, 0x10],
      ] as const)
        context.writeUInt32LE(value >>> 0, at);
      kernel.write(frame, context);
      const saved = Buffer.alloc(0x54);
      for (const [at, value] of [
        [0x0, 0x8001003b],
        [0x4, 0x10],
        [0x8, kernel.root],
        [0xc, Number(cr4)],
        [0x2c, gdt],
        [0x34, idt],
        [0x38, 0x28],
      ] as const)
        saved.writeUInt32LE(value >>> 0, at);
      saved.writeUInt16LE(0x3ff, 0x2a);
      saved.writeUInt16LE(0x7ff, 0x32);
      kernel.write(special, saved);
    }

    const regs = Object.fromEntries(GPRS.map((name) => [name, /^r\d/.test(name) ? 0n : word()])) as GuestCpu['regs'];
    // Each thread has 64 KiB.
    const userTop = USER_STACK + 0x10000 * number + 0xe00;
    const userFrames = [PROGRAM + 0x10044, PROGRAM + 0x10000 + AFTER_CALL_32];
    if (inUser) {
      user.mapNew(userTop - (userTop % PAGE), PAGE, true);
      user.u32(userTop, userTop + 0x20);
      user.u32(userTop + 4, userFrames[1]!);
    }
    const [sp, ip] = inUser ? [userTop, userFrames[0]!] : [ebp, kernelFrames[0]!];
    Object.assign(regs, { rip: BigInt(ip), rsp: BigInt(sp), rbp: BigInt(sp), rflags: inUser ? 0x246n : 0x46n });
    const cpu: GuestCpu = {
      started: true,
      regs,
      cs: inUser ? 0x1b : 8,
      ss: inUser ? 0x23 : 0x10,
      ds: 0x23,
      es: 0x23,
      fs: inUser ? 0x3b : 0x30,
      gs: 0,
      tr: 0x28,
      gdt: { base: BigInt(gdt), limit: 0x3ff },
      idt: { base: BigInt(idt), limit: 0x7ff },
      cr0: 0x8001003bn,
      cr3: BigInt(inUser ? user.root : kernel.root),
      cr4,
      gsBase: 0n,
      kernelGsBase: 0n,
      fsBase: BigInt(inUser ? teb : kpcr),
      trBase: BigInt(tss),
    };
    const index = order.indexOf(number);
    cpus[index] = cpu;
    processors.push({
      number,
      cpu: index,
      kpcr,
      prcb,
      context: frame,
      specialRegisters: special,
      idt,
      gdt,
      thread,
      frames: inUser ? userFrames : kernelFrames,
    });
  }
  for (let i = 0; i < (options.neverStarted ?? 0); i++) cpus.push(firmwareCpu32());

  for (const p of [...processes, { name: 'Idle', pid: 0, parent: 0, peb: 0, address: idleProcess }]) {
    kernel.u8(p.address, 3);
    kernel.u32(p.address + 0x18, p.name === 'notepad.exe' ? user.root : kernel.root);
    kernel.u32(p.address + eprocess.parent, p.parent);
    kernel.u32(p.address + eprocess.peb, p.peb);
    kernel.u32(p.address + eprocess.pid, p.pid);
    kernel.write(p.address + eprocess.name, Buffer.from(`${p.name}\0`, 'latin1'));
    if (build.ntMajor > 5) kernel.u8(p.address + eprocess.name + 15, 2);
  }

  // Versions, bug check, memory description.
  const extended = (value: number): bigint =>
    options.kdbgPointers === 'zero-extended' ? BigInt(value) : BigInt.asUintN(64, BigInt(value | 0));
  const version = k(RVA.KdVersionBlock);
  kernel.u16(version, 0xf);
  kernel.u16(version + 2, build.build);
  kernel.write(version + 4, Buffer.from([6, 2, 3, 0]));
  kernel.u16(version + 8, 0x14c);
  kernel.u64(version + 0x10, extended(kernelBase));
  kernel.u64(version + 0x18, extended(k(RVA.PsLoadedModuleList)));
  kernel.u64(version + 0x20, extended(k(RVA.KdpDebuggerDataListHead)));
  kernel.u32(k(RVA.NtBuildNumber), 0xf0000000 + build.build);
  kernel.write(k(RVA.NtBuildLab), Buffer.from(`${build.lab}\0`, 'latin1'));
  const physicalMemory = [
    { basePage: 0x1, pageCount: 0x9f - 1 },
    { basePage: 0x100, pageCount: lowBytes / PAGE - 0x100 },
    ...(highBytes > 0 ? [{ basePage: 2 ** 32 / PAGE, pageCount: highBytes / PAGE }] : []),
  ];
  const ramDescriptor = pool(PAGE);
  kernel.u32(k(RVA.MmPhysicalMemoryBlock), ramDescriptor);
  kernel.u32(ramDescriptor, physicalMemory.length);
  kernel.u32(
    ramDescriptor + 4,
    physicalMemory.reduce((n, r) => n + r.pageCount, 0),
  );
  physicalMemory.forEach((run, i) => {
    kernel.u32(ramDescriptor + 8 + 8 * i, run.basePage);
    kernel.u32(ramDescriptor + 12 + 8 * i, run.pageCount);
  });
  kernel.u32(k(RVA.MmPfnDatabase), top + 0x3800000);
  if (options.crash) {
    [options.crash.code, ...options.crash.parameters].forEach((value, i) => {
      kernel.u32(k(RVA.KiBugCheckData) + 4 * i, value);
    });
  } else {
    // Leftovers: only the code says whether it crashed.
    kernel.u32(k(RVA.KiBugCheckData) + 4, 0x1234);
  }

  const systemTime = 0x01d9_5000_1234_5678n;
  const upTime = 0x5_1234_5678n;
  const setTime = (offset: number, value: bigint) => {
    kernel.u64(SHARED_USER_DATA + offset, value);
    kernel.u32(SHARED_USER_DATA + offset + 8, Number(value >> 32n));
  };
  kernel.u32(SHARED_USER_DATA + 4, 0xfa00000);
  setTime(0x8, upTime);
  setTime(0x14, systemTime);
  kernel.u16(SHARED_USER_DATA + 0x2c, 0x14c);
  kernel.u16(SHARED_USER_DATA + 0x2e, 0x14c);
  kernel.write(SHARED_USER_DATA + 0x30, Buffer.from('C:\\Windows\0', 'utf16le'));
  if (build.sharedBuild) kernel.u32(SHARED_USER_DATA + 0x260, build.build);
  kernel.u32(SHARED_USER_DATA + 0x264, 1);
  kernel.u8(SHARED_USER_DATA + 0x268, 1);
  kernel.u32(SHARED_USER_DATA + 0x26c, build.ntMajor);
  kernel.u32(SHARED_USER_DATA + 0x270, build.ntMinor);
  kernel.u32(SHARED_USER_DATA + 0x2d0, 0x110);
  kernel.u32(SHARED_USER_DATA + 0x2e8, ramBytes / PAGE);
  setTime(0x320, 0x1234567n);

  // KDBG.
  const kdbg = k(RVA.KdDebuggerDataBlock);
  const block = Buffer.alloc(build.kdbgSize);
  const pointer = (offset: number, value: number) => {
    if (offset + 8 <= block.length) block.writeBigUInt64LE(extended(value), offset);
  };
  const set16 = (offset: number, value: number) => {
    if (offset + 2 <= block.length) block.writeUInt16LE(value, offset);
  };
  // A 32-bit LIST_ENTRY in the 64-bit form: Flink and Blink as two words of 64 bits.
  pointer(0x0, k(RVA.KdpDebuggerDataListHead));
  pointer(0x8, k(RVA.KdpDebuggerDataListHead));
  block.write('KDBG', 0x10, 'latin1');
  block.writeUInt32LE(build.kdbgSize, 0x14);
  pointer(0x18, kernelBase);
  block.writeUInt16LE(0x12c, 0x30);
  block.writeUInt16LE(pae ? 1 : 0, 0x36);
  pointer(0x48, k(RVA.PsLoadedModuleList));
  pointer(0x50, k(RVA.PsActiveProcessHead));
  pointer(0x88, k(RVA.KiBugCheckData));
  pointer(0xc0, k(RVA.MmPfnDatabase));
  pointer(0x138, PAGE);
  pointer(0x1c8, k(0x36300));
  pointer(0x1d0, k(0x36308));
  pointer(0x1d8, k(0x36310));
  kernel.u32(k(0x36308), kernelFrom);
  pointer(0x208, k(RVA.NtBuildLab));
  pointer(0x218, k(RVA.KiProcessorBlock));
  pointer(0x220, k(RVA.MmUnloadedDrivers));
  pointer(0x228, k(RVA.MmLastUnloadedDriver));
  pointer(0x270, k(RVA.MmPhysicalMemoryBlock));
  set16(0x29a, kthread.teb);
  set16(0x29e, kthread.initialStack);
  set16(0x2a0, kthread.process);
  set16(0x2a8, eprocess.size);
  set16(0x2aa, eprocess.peb);
  set16(0x2ac, eprocess.parent);
  set16(0x2ae, 0x18);
  set16(0x2b0, 0x4000);
  set16(0x2b4, 4);
  set16(0x2bc, build.processorState);
  set16(0x2be, build.prcbNumber);
  set16(0x2c0, 0x2b8);
  set16(0x2e0, 0x4120);
  set16(0x2e2, 0x1c);
  set16(0x2e4, 0x20);
  set16(0x2e6, 0x120);
  set16(0x2f2, build.processorState + 0x2cc);
  [0x08, 0x10, 0x30, 0x1b, 0x23, 0x3b, 0, 0x28, 0, 0].forEach((selector, i) => {
    set16(0x2f4 + 2 * i, selector);
  });
  if (build.prcbContext !== undefined) set16(0x338, build.prcbContext);
  if (build.kdbgSize >= 0x348) {
    block.writeUInt32LE(kthread.stackLimit, 0x340);
    block.writeUInt32LE(kthread.stackBase, 0x344);
  }
  pointer(0x360, 0xc0000000);
  kernel.write(kdbg, block);
  linkAll(kernel, k(RVA.KdpDebuggerDataListHead), []);
  kernel.u32(k(RVA.KdpDebuggerDataListHead), kdbg);

  if (options.decoys ?? true) {
    const stale = Buffer.from(block);
    for (const at of [0x48, 0x50, 0x218]) stale.writeBigUInt64LE(extended(k(0x3c000)), at);
    const other = Buffer.from(block);
    other.writeBigUInt64LE(extended(kernelBase - 0x200000), 0x18);
    kernel.write(k(0x30100), other);
    kernel.write(k(0x30800), stale);
    kernel.write(k(0x3e004), Buffer.from('KDBG', 'latin1'));
    kernel.write(pool(PAGE) + 0x100, stale);
  }

  // UNLOADED_DRIVERS[50] and its next index: the ring has gone around once.
  const unloaded = Array.from({ length: 50 }, (_, i) => ({
    name: `dump_${i + 2}.sys`,
    from: top + 0x8000000 + (i + 2) * 0x10000,
    to: top + 0x8000000 + (i + 2) * 0x10000 + 0x9000,
    time: 0x01d9_4fff_0000_0000n + BigInt(i + 2) * 10_000_000n,
  }));
  const ring = pool(0x18 * 50);
  const names = pool(50 * 0x40);
  unloaded.forEach((driver, i) => {
    const at = ring + 0x18 * ((i + 2) % 50);
    string(kernel, at, names + 0x40 * i, driver.name);
    kernel.u32(at + 8, driver.from);
    kernel.u32(at + 0xc, driver.to);
    kernel.u64(at + 0x10, driver.time);
  });
  kernel.u32(k(RVA.MmUnloadedDrivers), ring);
  kernel.u32(k(RVA.MmLastUnloadedDriver), 2);

  // Memory to compare: across two pages, in transition, and behind prototype entries.
  const mark = (n: number) => Buffer.from(Array.from({ length: 64 }, (_, i) => (i * 7 + seed + n) & 0xff));
  const sample = pool(2 * PAGE);
  kernel.write(sample + 0xfe0, mark(0));
  const softly = (n: number, entryOf: (physical: number) => bigint): { virtual: number; physical: number } => {
    const at = pool(PAGE);
    kernel.write(at + 0x40, mark(n));
    const physical = kernel.translate(at)!;
    kernel.setEntry(at, entryOf(physical));
    return { virtual: at + 0x40, physical: physical + 0x40 };
  };
  const prototypes = pool(PAGE);
  const prototype = (slot: number, entry: bigint): bigint => {
    const at = prototypes + 0x40 + 0x10 * slot;
    if (pae) kernel.u64(at, entry);
    else kernel.u32(at, Number(entry));
    return prototypeEntry(pae, at);
  };
  const inTransition = softly(1, transition);
  const shared = softly(2, (physical) => prototype(0, BigInt(physical) | 0x21n));
  const sharedInTransition = softly(3, (physical) => prototype(1, transition(physical)));

  // The process sees the kernel as all do.
  user.shareFrom(kernel, kernelFrom);

  let vmcoreinfo: Guest32['vmcoreinfo'];
  if (options.vmcoreinfo) {
    const copy = pool(PAGE);
    user.shareFrom(kernel, kernelFrom);
    kernel.write(copy + 0x200, block);
    const note = vmcoreinfoNote32({
      build: build.build,
      root: kernel.root,
      pae,
      pfnDatabase: k(RVA.MmPfnDatabase),
      psLoadedModuleList: k(RVA.PsLoadedModuleList),
      psActiveProcessHead: k(RVA.PsActiveProcessHead),
      processors: count,
      kdbg,
      kdbgCopy: copy + 0x200,
      runs: physicalMemory,
    });
    const physical = memory.allocateContiguous(2);
    for (let at = 0; at < note.length; at += PAGE) note.subarray(at, at + PAGE).copy(memory.page(physical + at));
    vmcoreinfo = { physical, note };
  }

  return {
    machine: 'x86',
    options,
    build,
    pae,
    memory,
    ramBytes,
    lowBytes,
    kernel,
    user,
    cpus,
    vmcoreinfo,
    elf: { status: prstatus32, state: (cpu) => cpuNote32({ kernel }, cpu) },
    launch: {
      virtual: k(RVA.launch),
      physical: Array.from({ length: LAUNCH_PAGES }, (_, i) => kernel.translate(k(RVA.launch + i * PAGE))!),
    },
    truth: {
      root: kernel.root,
      userRoot: user.root,
      kernelBase,
      kernelSize: IMAGE_SIZE,
      exports: new Map(NAMES.map((name) => [name, functionAt(name)])),
      kdbg,
      kdbgBlock: block,
      psLoadedModuleList: k(RVA.PsLoadedModuleList),
      psActiveProcessHead: k(RVA.PsActiveProcessHead),
      pfnDatabaseVariable: k(RVA.MmPfnDatabase),
      physicalMemory,
      modules,
      processors,
      processes: processes.map((p) => ({ ...p, root: p.name === 'notepad.exe' ? user.root : kernel.root })),
      unloaded: unloaded.reverse(),
      bugCheck: options.crash && { code: options.crash.code, parameters: options.crash.parameters },
      captured,
      systemTime,
      upTime,
      productType: 1,
      suiteMask: 0x110,
      samples: [
        { what: 'two pages', virtual: sample + 0xfe0, bytes: mark(0) },
        { what: 'in transition', ...inTransition, bytes: mark(1) },
        { what: 'a prototype entry', ...shared, bytes: mark(2) },
        { what: 'a prototype entry in transition', ...sharedInTransition, bytes: mark(3) },
        { what: 'code', virtual: functionAt('PoIdle'), bytes: idleFunction32() },
        { what: 'SharedUserData', virtual: SHARED_USER_DATA + 0x30, bytes: Buffer.from('C:\\Windows', 'utf16le') },
      ],
      userSample,
      userModule: { name: 'APP.EXE', base: PROGRAM, size: DRIVER_SIZE },
    },
  };
}

/** "VMCOREINFO", type 0, with a 32-bit crash dump header as KeInitializeCrashDumpHeader fills it. */
function vmcoreinfoNote32(v: {
  build: number;
  root: number;
  pae: boolean;
  pfnDatabase: number;
  psLoadedModuleList: number;
  psActiveProcessHead: number;
  processors: number;
  kdbg: number;
  kdbgCopy: number;
  runs: readonly { basePage: number; pageCount: number }[];
}): Buffer {
  const note = Buffer.alloc(24 + 0x1000);
  note.writeUInt32LE(11, 0);
  note.writeUInt32LE(0x1000, 4);
  note.write('VMCOREINFO', 12, 'latin1');
  const header = note.subarray(24).fill('PAGE');
  header.write('DUMP', 4, 'latin1');
  for (const [at, value] of [
    [0x8, 0xf],
    [0xc, v.build],
    [0x10, v.root],
    [0x14, v.pfnDatabase],
    [0x18, v.psLoadedModuleList],
    [0x1c, v.psActiveProcessHead],
    [0x20, 0x14c],
    [0x24, v.processors],
    [0x28, 0],
    [0x2c, v.kdbgCopy],
    [0x60, v.kdbg],
    [0x64, v.runs.length],
    [0x68, v.runs.reduce((sum, run) => sum + run.pageCount, 0)],
    [0xf88, 1],
  ] as const)
    header.writeUInt32LE(value, at);
  header.writeUInt8(v.pae ? 1 : 0, 0x5c);
  v.runs.forEach((run, i) => {
    header.writeUInt32LE(run.basePage, 0x6c + 8 * i);
    header.writeUInt32LE(run.pageCount, 0x70 + 8 * i);
  });
  return note;
}

/** A CPU that waits for its start: real mode at the reset vector. */
function firmwareCpu32(): GuestCpu {
  const regs = Object.fromEntries(GPRS.map((name) => [name, 0n])) as GuestCpu['regs'];
  return {
    started: false,
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
