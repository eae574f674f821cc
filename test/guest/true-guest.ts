/**
 * A made-up Windows guest of true size and shape, for each generation: what the small guest of guest.ts simplifies is
 * here as real builds have it. Sources as in generations.ts. Nothing here comes from src/.
 */
import type { Build } from './builds.ts';
import { GENERATIONS, type Generation, type GenerationName } from './generations.ts';
import { encodeWord, GPRS, type Guest, type GuestCpu, type GuestModule, type GuestProcessor, linkIn } from './guest.ts';
import { PAGE, PageTables, PhysicalMemory, random } from './memory.ts';
import { AFTER_CALL, AFTER_HLT, buildPe, callingFunction } from './pe.ts';
import { buildTrueKernel, discardedOf, type TrueKernel } from './true-kernel.ts';
import { MODULE_NAMES, PROCESS_NAMES, SESSION_MODULES } from './true-names.ts';

/** Why a process has no page tables of its own any more. */
export type Gone = 'outswapped' | 'exited' | 'secure system';

export interface TrueGuestOptions {
  /** Default: 2004 (19041), which has a real dump as its witness. */
  generation?: GenerationName;
  seed?: number;
  ramMiB?: number;
  processors?: number;
  /** As GuestOptions.order. */
  order?: readonly number[];
  /** Without it, the frame stays in the PRCB (kvm64, qemu64, Nehalem …). Default true. */
  xsave?: boolean;
  /** Processors caught in user mode, in explorer.exe. */
  user?: readonly number[];
  /** User mode runs on a root that hides the kernel. */
  kvaShadow?: boolean;
  crash?: NonNullable<Guest['options']['crash']>;
  kdbg?: 'plain' | 'encoded';
  /** The pages of the kernel's export directory. Default: present. */
  exports?: 'present' | 'paged out' | 'foreign name' | undefined;
  /** The bit that Windows sets in PTEs that are not valid: implemented physical address bits less 1. */
  swizzleBit?: 35 | 38 | 39 | 45;
  /** Default: all three where the generation has them. */
  gone?: readonly Gone[];
  /** ImageFileName without room for its NUL: one process has 15 characters in a field of 15. */
  fullName?: boolean;
  /** Stopped this early, SharedUserData has no version yet. */
  early?: boolean;
  /** The crashing processor is in explorer.exe's address space, not System's. */
  crashInExplorer?: boolean;
  /** The crashing processor runs on a stack in the kernel image, as in early boot and in double faults. */
  stackInImage?: boolean;
  lab?: string;
  /**
   * What processors do: a DPC of BUSY_DRIVER over the idle thread or, on the DPC stack, over a thread of System; that
   * driver in such a thread. All others idle, but for those in user mode. Without it, every thread is its processor's idle one.
   */
  doing?: Readonly<Record<number, 'dpc in idle' | 'dpc' | 'driver'>>;
}

export interface TrueProcess {
  name: string;
  pid: number;
  parent: number;
  peb: bigint;
  address: bigint;
  /** What EPROCESS says; of a process that is `gone`, a page that has another use. */
  root: number;
  gone: Gone | undefined;
}

/** Pages whose state in the page frame database is told, by physical address. */
export interface KnownPages {
  activeUnmapped: number;
  standbyPrivate: number;
  standbyFile: number;
  modifiedPrivate: number;
  zeroed: number;
  free: number;
  /** 2 MiB. */
  largeFree: number;
  /** Free, and named by a raw-pointer PTE that could be taken for a transition entry; undefined before 22621. */
  rawPointer: number | undefined;
  /** In transition at a kernel address. */
  transition: { virtual: bigint; physical: number };
}

export interface TrueGuest extends Guest {
  generation: Generation;
  processes: readonly TrueProcess[];
  known: KnownPages;
  /** Modules that only processes of a session map. */
  sessionModules: readonly GuestModule[];
  idleProcess: bigint;
  bootId: number;
  /** Content of the pages above: each is filled with a byte of its frame number. */
  fill: (physical: number) => Buffer;
}

const SHARED_USER_DATA = 0xfffff780_00000000n;
const PCR_MODERN = 0xffff9b00_02300000n;
const LARGE_FREE = { from: 0x1800000, to: 0x1a00000 };
const KERNEL_FRAMES = { from: 0x600000, to: 0x1800000 };
const MIB2 = 0x200000;
const LAUNCH_PAGES = 8;
const GUID = Buffer.from('a1b2c3d4e5f60718293a4b5c6d7e8f90', 'hex');
const PAGE_STATE = { zeroed: 0, free: 1, standby: 2, modified: 3, bad: 5, active: 6 } as const;

/** Where this generation keeps what. */
function addressesOf(g: Generation) {
  const modern = g.image === 'modern';
  return {
    pool: modern ? 0xffffc08b_de200000n : 0xfffffa80_01a00000n,
    pcrs: modern ? PCR_MODERN : 0xfffff880_02f00000n,
    stacks: modern ? 0xffff8504_29600000n : 0xfffff880_04600000n,
    pfnDatabase: g.selfMapSlot === 0x1ed ? 0xfffffa80_00000000n : 0xffffe280_00000000n,
    drivers: g.kernelBase + 0x4000000n - (g.kernelBase % 0x10000n),
  };
}

/** What the steps below share. */
interface Making {
  options: TrueGuestOptions;
  g: Generation;
  memory: PhysicalMemory;
  kernel: PageTables;
  image: TrueKernel;
  at: ReturnType<typeof addressesOf>;
  /** A kernel variable's address. */
  k: (rva: number) => bigint;
  pool: (bytes: number) => bigint;
  /** The processes' own; they get the kernel's half when it is complete. */
  roots: { tables: PageTables; session: boolean }[];
  word: () => bigint;
  /** Where the driver lies that keeps processors busy. */
  busyDriver: bigint;
}

/** See `doing`. */
export const BUSY_DRIVER = 'tcpip.sys';

export function buildTrueGuest(options: TrueGuestOptions = {}): TrueGuest {
  const g: Generation = GENERATIONS[options.generation ?? '2004'];
  const seed = options.seed ?? 1;
  const next = random(seed);
  const ramBytes = (options.ramMiB ?? 32) * 2 ** 20;
  const memory = new PhysicalMemory(ramBytes, seed, [LARGE_FREE, ...(g.kernelPages === '2m' ? [KERNEL_FRAMES] : [])]);
  const kernel = new PageTables(memory);
  const at = addressesOf(g);
  let poolNext = at.pool;
  const m: Making = {
    options,
    g,
    memory,
    kernel,
    image: buildTrueKernel({
      image: g.image,
      pdb: { name: 'ntkrnlmp.pdb', guid: GUID, age: 1 },
      timeDateStamp: 0x0d8333e6,
      version: [g.ntMajor, g.ntMinor, g.baseBuild, 1288],
    }),
    at,
    k: (rva) => g.kernelBase + BigInt(rva),
    pool: (bytes) => {
      const start = poolNext;
      const size = Math.ceil(bytes / PAGE) * PAGE;
      kernel.mapNew(start, size);
      poolNext += BigInt(size + PAGE);
      return start;
    },
    roots: [],
    word: () => (BigInt(Math.floor(next() * 2 ** 32)) << 32n) | BigInt(Math.floor(next() * 2 ** 32)),
    busyDriver: 0n,
  };

  mapKernel(m);
  kernel.setTopEntry(g.selfMapSlot, BigInt(kernel.root) | 0x63n);
  kernel.mapNew(SHARED_USER_DATA, PAGE);
  const drivers = placeDrivers(m);
  m.busyDriver = drivers.find(({ name }) => name === BUSY_DRIVER)!.base;
  const session = placeSession(m);
  const modules: GuestModule[] = [
    {
      name: 'ntoskrnl.exe',
      base: g.kernelBase,
      size: m.image.places.size,
      pdb: 'ntkrnlmp.pdb',
      guid: asGuid(GUID),
    },
    ...drivers,
    ...session.modules,
  ];
  listModules(m, modules);
  const processes = placeProcesses(m);
  const explorer = processes.find((p) => p.name === 'explorer.exe')!;
  const userRoot = m.roots.find(({ tables }) => tables.root === explorer.root)!.tables;
  const run = placeProcessors(m, processes, userRoot);
  const block = placeKdbg(m);
  placeVersions(m);
  const physicalMemory = placeRam(m, ramBytes);
  const times = placeSharedUserData(m, ramBytes);
  const unloaded = placeUnloaded(m);
  const known = placePages(m);

  const sample = m.pool(2 * PAGE);
  const marker = Buffer.from(Array.from({ length: 64 }, (_, i) => (i * 7 + seed) & 0xff));
  kernel.write(sample + 0xfe0n, marker);
  const reused = m.pool(3 * PAGE);
  const goneRoots = [0n, 1n, 2n].map((i) => kernel.translate(reused + i * 0x1000n)!);
  // Other data, which no walk may take for tables.
  for (const page of goneRoots) memory.page(page).fill('pool ');
  const named: TrueProcess[] = processes.map((p) =>
    p.gone ? { ...p, root: goneRoots[['outswapped', 'exited', 'secure system'].indexOf(p.gone)]! } : p,
  );
  for (const p of named) {
    if (p.gone) kernel.u64(p.address + 0x28n, BigInt(p.root));
  }
  fillPfnDatabase(m, ramBytes, known);
  for (const root of m.roots) shareKernelHalf(m, root, session);
  finishShadow(m, run.shadow);

  const build: Build = {
    build: g.build,
    ntMajor: g.ntMajor,
    ntMinor: g.ntMinor,
    kdbgSize: g.kdbgSize,
    prcbContext: g.contextPointer,
    processorState: g.processorState,
    specialSize: g.specialSize,
    prcbNumber: 0x24,
    sharedBuild: g.sharedBuild,
    encoded: g.encoded,
    lab: g.lab,
    kpcrVersionBlock: g.kpcrVersionBlock,
    pageLocation: g.pfn.stateAt,
    eprocess: g.eprocess,
  };
  const { places } = m.image;
  return {
    options: {
      ...(options.crash ? { crash: options.crash } : {}),
      ...(options.user ? { user: options.user } : {}),
      ...(options.kvaShadow && g.shadowRootAt !== undefined ? { kernelRootAt: g.shadowRootAt } : {}),
      processors: options.processors ?? 2,
    },
    generation: g,
    build,
    memory,
    ramBytes,
    pages: memory.pages,
    kernel,
    vmcoreinfo: undefined,
    cpus: run.cpus,
    launch: {
      virtual: m.k(places.launch),
      physical: Array.from({ length: LAUNCH_PAGES }, (_, i) => kernel.translate(m.k(places.launch + i * PAGE))!),
    },
    processes: named,
    known,
    sessionModules: session.modules,
    idleProcess: m.k(places.KiInitialProcess),
    bootId: BOOT_ID,
    fill: filled,
    truth: {
      root: kernel.root,
      kernelBase: g.kernelBase,
      kernelSize: places.size,
      exports: new Map([...m.image.exports].map(([name, rva]) => [name, m.k(rva)])),
      kdbg: m.k(places.KdDebuggerDataBlock),
      kdbgBlock: block.plain,
      kdbgEncoded: block.encoded,
      psLoadedModuleList: m.k(places.PsLoadedModuleList),
      psActiveProcessHead: m.k(places.PsActiveProcessHead),
      pfnDatabaseVariable: m.k(places.MmPfnDatabase),
      physicalMemory,
      modules,
      processors: run.processors,
      processes: named,
      unloaded,
      bugCheck: options.crash && { code: options.crash.code, parameters: options.crash.parameters },
      captured: run.captured,
      ...times,
      productType: 1,
      suiteMask: 0x110,
      samples: [
        { virtual: sample + 0xfe0n, bytes: marker },
        { virtual: SHARED_USER_DATA + 0x30n, bytes: Buffer.from('C:\\Windows', 'utf16le') },
      ],
    },
  };
}

const ZERO_PAGE = Buffer.alloc(PAGE);
/** Demand from a page file: not valid, neither transition nor prototype. */
const PAGED_OUT = 0x00001234_000000c0n;

function mapKernel({ g, image, kernel, memory, options }: Making): void {
  const { bytes, sections } = image;
  const gone = discardedOf(image);
  const isGone = (rva: number) => gone.some(({ from, to }) => rva >= from && rva < to);
  const edata = sections.find((s) => s.name === '.edata')!;
  for (let chunk = 0; chunk < bytes.length; chunk += MIB2) {
    const whole = g.kernelPages === '2m' && !gone.some(({ from, to }) => from < chunk + MIB2 && to > chunk);
    const frames = KERNEL_FRAMES.from + chunk;
    if (whole) kernel.mapLarge(g.kernelBase + BigInt(chunk), frames, 2);
    for (let rva = chunk; rva < Math.min(chunk + MIB2, bytes.length); rva += PAGE) {
      const out = options.exports === 'paged out' && rva >= edata.rva && rva < edata.rva + edata.size;
      const virtual = g.kernelBase + BigInt(rva);
      if (isGone(rva) || out) {
        if (out) kernel.setEntry(virtual, PAGED_OUT);
        // A large page that was split: its frame went back to the free list.
        if (g.kernelPages === '2m') memory.release(frames + rva - chunk);
        continue;
      }
      if (!whole && g.kernelPages === '2m') kernel.map(virtual, frames + rva - chunk);
      else if (!whole) kernel.map(virtual, memory.allocate());
      const page = bytes.subarray(rva, rva + PAGE);
      const physical = whole || g.kernelPages === '2m' ? frames + rva - chunk : undefined;
      const target = physical === undefined ? undefined : memory.page(physical);
      if (page.equals(ZERO_PAGE)) continue;
      if (target) page.copy(target);
      else kernel.write(virtual, page);
    }
  }
  if (options.exports === 'foreign name') {
    const name = image.bytes.readUInt32LE(edata.rva + 0xc);
    kernel.write(g.kernelBase + BigInt(name), Buffer.from('othersys.exe\0', 'latin1'));
  }
}

function asGuid(b: Buffer): string {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
  return (
    hex(b.readUInt32LE(0), 8) +
    hex(b.readUInt16LE(4), 4) +
    hex(b.readUInt16LE(6), 4) +
    b.toString('hex', 8)
  ).toUpperCase();
}

/** A driver's image: what is not resident is in the page file. */
function placeImage(m: Making, root: PageTables, name: string, index: number, base: bigint): GuestModule {
  // 155 of them have 99 MiB [R].
  const size = 0x20000 + ((index * 37) % 67) * 0x4000;
  const guid = Buffer.from(GUID);
  guid.writeUInt16LE(index, 0);
  const pdb = name.replace(/\.\w+$/, '.pdb');
  const bytes = buildPe({
    name,
    pdb,
    guid,
    age: 1,
    // What lies behind the code is data that is not there.
    size: 0x20000,
    imageBase: base,
    timeDateStamp: 0x50320000 + index,
    functions: [{ name: 'DllInitialize', rva: 0x10000, code: callingFunction(0x10000, 0x10000) }],
    version: { file: [m.g.ntMajor, m.g.ntMinor, m.g.baseBuild, index + 1], product: [m.g.ntMajor, m.g.ntMinor, 1, 2] },
  });
  bytes.writeUInt32LE(size, 0x80 + 0x50);
  for (let rva = 0; rva < bytes.length; rva += PAGE) {
    const page = bytes.subarray(rva, rva + PAGE);
    if (page.equals(ZERO_PAGE)) {
      root.setEntry(base + BigInt(rva), PAGED_OUT);
      continue;
    }
    const physical = m.memory.allocate();
    root.map(base + BigInt(rva), physical);
    page.copy(m.memory.page(physical));
  }
  return { name, base, size, pdb, guid: asGuid(guid) };
}

function placeDrivers(m: Making): GuestModule[] {
  let base = m.at.drivers;
  return MODULE_NAMES.map((name, i) => {
    const module = placeImage(m, m.kernel, name, i + 1, base);
    // 64 KiB aligned [R].
    base += BigInt(Math.ceil(module.size / 0x10000) * 0x10000 + 0x10000);
    return module;
  });
}

/** The page tables of the session's slot, which only the roots of its processes have. */
function placeSession(m: Making): { modules: GuestModule[]; root: PageTables; slot: number } {
  const root = new PageTables(m.memory);
  const first = MODULE_NAMES.length + 1;
  if (m.g.session === undefined) {
    // Where session space was given up, win32k lies with the other drivers.
    const last = m.at.drivers + 0x20000000n;
    return {
      modules: SESSION_MODULES.map((name, i) => placeImage(m, m.kernel, name, first + i, last + BigInt(i * 0x1000000))),
      root,
      slot: -1,
    };
  }
  const { session } = m.g;
  const names = m.g.image === 'old' ? ['win32k.sys', 'cdd.dll'] : SESSION_MODULES;
  return {
    modules: names.map((name, i) => ({
      ...placeImage(m, root, name, first + i, session + BigInt((i + 1) * 0x400000)),
      session: true,
    })),
    root,
    slot: Number((session >> 39n) & 511n),
  };
}

function listModules(m: Making, modules: readonly GuestModule[]): void {
  const { kernel } = m;
  const entrySize = 0x400;
  const ldr = m.pool(modules.length * entrySize);
  const entries = modules.map((_, i) => ldr + BigInt(i * entrySize));
  linkIn(kernel, m.k(m.image.places.PsLoadedModuleList), entries);
  modules.forEach((module, i) => {
    const entry = Buffer.alloc(entrySize - 0x10);
    entry.writeBigUInt64LE(module.base, 0x30 - 0x10);
    entry.writeBigUInt64LE(module.base + 0x10000n, 0x38 - 0x10);
    entry.writeUInt32LE(module.size, 0x40 - 0x10);
    const folder = i === 0 || module.name.endsWith('.dll') ? 'system32' : 'System32\\drivers';
    for (const [offset, text, at] of [
      [0x48, `\\SystemRoot\\${folder}\\${module.name}`, 0x200],
      [0x58, module.name, 0x340],
    ] as const) {
      const bytes = Buffer.from(text, 'utf16le');
      bytes.copy(entry, at - 0x10);
      entry.writeUInt16LE(bytes.length, offset - 0x10);
      entry.writeUInt16LE(bytes.length + 2, offset - 0x10 + 2);
      entry.writeBigUInt64LE(entries[i]! + BigInt(at), offset - 0x10 + 8);
    }
    entry.writeUInt32LE(i === 0 ? 0xa5938c : 0x12345, 0x78 - 0x10);
    entry.writeUInt32LE(i === 0 ? 0x0d8333e6 : 0x50320000 + i, 0x9c - 0x10);
    kernel.write(entries[i]! + 0x10n, entry);
  });
}

const USER_CODE = 0x00007ff6_12340000n;
const USER_STACK = 0x000000d5_43210000n;
const TEB = 0x000000d5_40000000n;

/** Every process with tables of its own, but for the kernel's; session processes see the session. */
function placeProcesses(m: Making): TrueProcess[] {
  const { g, kernel, options } = m;
  const { eprocess } = g;
  const gone = options.gone ?? ['outswapped', 'exited', 'secure system'];
  const names = PROCESS_NAMES.filter(
    (p) =>
      g.build >= (p.since ?? 0) &&
      (p.gone === undefined || gone.includes(p.gone)) &&
      (options.fullName || p.name.length < 15 || g.nameBytes === 16),
  );
  const size = Math.ceil(eprocess.size / 0x80) * 0x80 + 0x80;
  // Several in a page, behind their pool headers.
  const room = m.pool(names.length * size + PAGE);
  const processes = names.map((p, i) => {
    const address = room + BigInt(i * size + 0x80);
    const minimal = p.minimal ?? false;
    let root = kernel.root;
    if (p.name !== 'System' && p.gone === undefined) {
      const tables = new PageTables(m.memory);
      root = tables.root;
      m.roots.push({ tables, session: p.session ?? false });
      if (p.name === 'explorer.exe') {
        for (const at of [USER_STACK, TEB, USER_CODE]) tables.mapNew(at, PAGE, true);
        tables.write(USER_CODE, Buffer.from('90ebfe90', 'hex'));
      }
    }
    const peb = minimal || p.gone === 'exited' ? 0n : 0x000000d5_3f000000n + BigInt(0x1000 * i);
    // DISPATCHER_HEADER: a process.
    kernel.u8(address, 3);
    kernel.u64(address + 0x28n, BigInt(root));
    kernel.u64(address + BigInt(eprocess.pid), BigInt(p.pid));
    kernel.u64(address + BigInt(eprocess.parent), BigInt(p.parent));
    kernel.u64(address + BigInt(eprocess.peb), peb);
    kernel.write(address + BigInt(eprocess.name), Buffer.from(p.name, 'latin1'));
    // Behind 15 bytes of name: PriorityClass.
    if (g.nameBytes === 15) kernel.u8(address + BigInt(eprocess.name + 15), 2);
    return { name: p.name, pid: p.pid, parent: p.parent, peb, address, root, gone: p.gone };
  });
  linkIn(
    kernel,
    m.k(m.image.places.PsActiveProcessHead),
    processes.map((p) => p.address + BigInt(eprocess.links)),
  );
  // The idle process, which is on no list.
  const idle = m.k(m.image.places.KiInitialProcess);
  kernel.u8(idle, 3);
  kernel.u64(idle + 0x28n, BigInt(kernel.root));
  kernel.write(idle + BigInt(eprocess.name), Buffer.from('Idle\0', 'latin1'));
  return processes;
}

/** At the very end: the kernel's half is complete then. */
function shareKernelHalf(
  { kernel, g }: Making,
  root: Making['roots'][number],
  session: { root: PageTables; slot: number },
): void {
  const { tables } = root;
  for (let i = 256; i < 512; i++) tables.setTopEntry(i, kernel.topEntry(i));
  tables.setTopEntry(g.selfMapSlot, BigInt(tables.root) | 0x63n);
  if (session.slot >= 0 && root.session) tables.setTopEntry(session.slot, session.root.topEntry(session.slot));
}

interface Run {
  cpus: GuestCpu[];
  processors: GuestProcessor[];
  captured: Guest['truth']['captured'];
  shadow: { root: PageTables; pages: bigint[] } | undefined;
}

function placeProcessors(m: Making, processes: readonly TrueProcess[], userRoot: PageTables): Run {
  const { g, kernel, options, k } = m;
  const { places, exports } = m.image;
  const count = options.processors ?? 2;
  const order = options.order ?? Array.from({ length: count }, (_, i) => count - 1 - i);
  const functionAt = (name: string, offset = 0) => k(exports.get(name)! + offset);
  const shadow =
    options.kvaShadow && g.shadowRootAt !== undefined
      ? { root: new PageTables(m.memory), pages: [k(places.handlers)] as bigint[] }
      : undefined;
  if (shadow) {
    for (const at of [USER_CODE, USER_STACK, TEB]) shadow.root.map(at, userRoot.translate(at)!, true);
    for (let i = 0; i < LAUNCH_PAGES; i++) shadow.pages.push(k(places.launch + i * PAGE));
  }
  const run: Run = { cpus: [], processors: [], captured: undefined, shadow };
  const owners: { thread: bigint; process: TrueProcess }[] = [];
  if (options.doing) {
    // Threads that wait.
    for (const process of processes.filter((p) => !p.gone)) {
      for (let i = 0; i < 4; i++) owners.push({ thread: placeThread(m, process.address, 0n), process });
    }
  }
  for (let number = 0; number < count; number++) {
    const inImage = number === 0 && g.bootKpcrInImage;
    const kpcr = inImage ? k(places.bootKpcr) : m.at.pcrs + BigInt(number) * 0x100000n;
    if (!inImage) kernel.mapNew(kpcr, 0x180 + g.prcbSize + PAGE);
    const prcb = kpcr + 0x180n;
    const { idt, gdt, tss, stackTop: threadStack } = placeTables(m, number, kpcr);
    for (let i = 0n; shadow && i < 5n; i++) shadow.pages.push(idt + i * 0x1000n);
    const inPrcb = prcb + BigInt(g.processorState + g.specialSize);
    // KiInitializePrcbContext: elsewhere, 64-byte aligned, only with XSAVE [P]; …340 in the real dump.
    const elsewhere = g.contextPointer !== undefined && (options.xsave ?? true);
    const frame = elsewhere ? kpcr + 0xfd000n + 0x340n : inPrcb;
    if (elsewhere) kernel.mapNew(frame & ~0xfffn, PAGE);

    kernel.u64(kpcr, gdt);
    kernel.u64(kpcr + 8n, tss);
    kernel.u64(kpcr + 0x18n, kpcr);
    kernel.u64(kpcr + 0x20n, prcb);
    kernel.u64(kpcr + 0x38n, idt);
    kernel.u16(kpcr + 0x60n, 1);
    kernel.u16(kpcr + 0x62n, 1);
    if (g.kpcrVersionBlock && number === 0) kernel.u64(kpcr + 0x108n, k(places.KdVersionBlock));
    const inUser = options.user?.includes(number) ?? false;
    const crashing = options.crash?.processor === number;
    const inExplorer = inUser || (crashing && (options.crashInExplorer ?? false));
    const stackTop = crashing && options.stackInImage ? k(places.stack) : threadStack;
    const task = options.doing?.[number];
    const own = inExplorer ? processes.find((p) => p.name === 'explorer.exe')! : processes[0]!;
    const busy = options.doing !== undefined && (inUser || (task !== undefined && task !== 'dpc in idle'));
    const idleThread = placeThread(
      m,
      inExplorer && !options.doing ? own.address : k(places.KiInitialProcess),
      threadStack,
    );
    const thread = busy ? placeThread(m, own.address, threadStack) : idleThread;
    if (busy) owners.push({ thread, process: own });
    kernel.u32(prcb, 0x1f80);
    kernel.u8(prcb + 4n, number);
    kernel.u64(prcb + 8n, thread);
    kernel.u64(prcb + 0x18n, idleThread);
    kernel.u32(prcb + 0x24n, number);
    const dpcTop = options.doing ? placeDpcs(m, prcb, task?.startsWith('dpc') ?? false) : 0n;
    kernel.u32(frame + 0x30n, 0x10004b);
    if (g.contextPointer !== undefined) {
      kernel.u64(prcb + BigInt(g.contextPointer), frame);
      kernel.u32(prcb + BigInt(g.contextPointer + 8), 0x10004b);
    }
    if (shadow && g.shadowRootAt !== undefined) {
      kernel.u64(kpcr + BigInt(g.shadowRootAt), BigInt(userRoot.root) | (1n << 63n) | 2n);
      shadow.pages.push(kpcr + BigInt(g.shadowRootAt & ~0xfff));
    }
    kernel.u64(k(places.KiProcessorBlock) + BigInt(8 * number), prcb);

    const path = crashing
      ? ['KdPollBreakIn', 'KeBugCheckEx', 'KeBugCheck', 'KiSystemServiceExit']
      : ['PoIdle', 'KiIdleLoop', 'KeWaitForSingleObject', 'NtWaitForSingleObject'];
    const rsp = (task === 'dpc' ? dpcTop : stackTop) - BigInt(0x30 * path.length);
    const returns = path.slice(1).map((name) => functionAt(name, AFTER_CALL));
    returns.forEach((address, i) => {
      kernel.u64(rsp + BigInt(0x28 + 0x30 * i), address);
    });
    if (crashing && options.crash?.captured !== false) {
      // KeBugCheckEx's first byte, and RSP as it was there: its return address is on top [R].
      run.captured = {
        processor: number,
        rip: functionAt('KeBugCheckEx'),
        rsp: rsp + 0x58n,
        rax: 0xc0ffee00n + BigInt(number),
      };
      kernel.write(frame, capturedFrame(run.captured));
      kernel.write(
        prcb + BigInt(g.processorState),
        specialRegisters(inExplorer ? userRoot.root : kernel.root, idt, gdt),
      );
    }

    const regs = Object.fromEntries(GPRS.map((name) => [name, m.word()])) as GuestCpu['regs'];
    const kernelRip = task ? m.busyDriver + 0x10000n + BigInt(AFTER_CALL) : functionAt(path[0]!, AFTER_HLT);
    regs.rip = inUser ? USER_CODE + 1n : kernelRip;
    regs.rsp = inUser ? USER_STACK + 0xe00n : rsp;
    regs.rflags = inUser || task ? 0x246n : 0x46n;
    let loadedRoot = inExplorer ? userRoot : kernel;
    if (inUser && shadow) loadedRoot = shadow.root;
    const index = order.indexOf(number);
    run.cpus[index] = {
      started: true,
      regs,
      cs: inUser ? 0x33 : 0x10,
      ss: inUser ? 0x2b : 0x18,
      ds: 0x2b,
      es: 0x2b,
      fs: 0x53,
      gs: 0x2b,
      tr: 0x40,
      gdt: { base: gdt, limit: 0x57 },
      idt: { base: idt, limit: 0xfff },
      cr0: 0x80050031n,
      cr3: BigInt(loadedRoot.root),
      cr4: 0x6f8n,
      gsBase: inUser ? TEB : kpcr,
      kernelGsBase: inUser ? kpcr : 0x000000d5_40002000n,
      fsBase: 0n,
      trBase: tss,
    };
    run.processors.push({
      number,
      cpu: index,
      kpcr,
      prcb,
      context: frame,
      specialRegisters: prcb + BigInt(g.processorState),
      idt,
      gdt,
      returns: inUser ? [] : returns,
    });
  }
  nameThreads(m, owners);
  if (options.crash) {
    const { code, parameters } = options.crash;
    [BigInt(code), ...parameters].forEach((value, i) => {
      kernel.u64(k(places.KiBugCheckData) + BigInt(8 * i), value);
    });
  }
  return run;
}

/** IDT, TSS and GDT in 0x5000 bytes, the GDT at IDT + 0x2fb0 [R]; and a kernel stack. */
function placeTables(m: Making, number: number, kpcr: bigint) {
  const { kernel, k } = m;
  const { places } = m.image;
  const idt = (m.g.bootKpcrInImage && number === 0 ? m.at.pcrs - 0x100000n : kpcr) + 0xd0000n;
  kernel.mapNew(idt, 5 * PAGE);
  const [tss, gdt] = [idt + 0x1000n, idt + 0x2fb0n];
  const gates = Buffer.alloc(PAGE);
  for (let vector = 0; vector < 256; vector++) {
    const handler = k(places.handlers + 8 * vector);
    gates.writeUInt16LE(Number(handler & 0xffffn), 16 * vector);
    gates.writeUInt16LE(0x10, 16 * vector + 2);
    gates.writeUInt8(vector === 3 ? 0xee : 0x8e, 16 * vector + 5);
    gates.writeUInt16LE(Number((handler >> 16n) & 0xffffn), 16 * vector + 6);
    gates.writeUInt32LE(Number(handler >> 32n), 16 * vector + 8);
  }
  kernel.write(idt, gates);
  const descriptors: [offset: number, value: bigint][] = [
    [0x10, 0x00209b00_00000000n],
    [0x18, 0x00409300_00000000n],
    [0x20, 0x00cffb00_0000ffffn],
    [0x28, 0x00cff300_0000ffffn],
    [0x30, 0x0020fb00_00000000n],
    [0x40, 0x00008b00_00000067n | ((tss & 0xffffffn) << 16n) | (((tss >> 24n) & 0xffn) << 56n)],
    [0x48, tss >> 32n],
    [0x50, 0x0040f300_00003c00n],
  ];
  for (const [offset, value] of descriptors) kernel.u64(gdt + BigInt(offset), value);
  const stack = m.at.stacks + BigInt(number) * 0x10000n;
  kernel.mapNew(stack, 6 * PAGE);
  const stackTop = stack + BigInt(6 * PAGE) - 0x80n;
  kernel.u64(tss + 4n, stackTop);
  return { idt, gdt, tss, stackTop };
}

function placeThread(m: Making, process: bigint, stackTop: bigint): bigint {
  const thread = m.pool(PAGE) + 0x440n;
  const { kthread } = m.g;
  const top = (stackTop & ~0xfffn) + 0x1000n;
  m.kernel.u8(thread, 6);
  m.kernel.u64(thread + BigInt(kthread.initialStack), top - 0x10n);
  m.kernel.u64(thread + BigInt(kthread.stackLimit), top - 6n * 0x1000n);
  m.kernel.u64(thread + BigInt(kthread.stackBase), top);
  m.kernel.u64(thread + BigInt(kthread.kernelStack), stackTop);
  m.kernel.u64(thread + BigInt(kthread.process), process);
  return thread;
}

/** Ids and lists of threads: CLIENT_ID at 0x478 as in the real 19041 [R], KPROCESS.ThreadListHead at 0x30 [P]. */
function nameThreads({ kernel }: Making, owners: readonly { thread: bigint; process: TrueProcess }[]): void {
  const lists = new Map<TrueProcess, bigint[]>();
  for (const [i, { thread, process }] of owners.entries()) {
    kernel.u64(thread + 0x478n, BigInt(process.pid));
    kernel.u64(thread + 0x480n, BigInt(0x40 + 4 * i));
    lists.set(process, [...(lists.get(process) ?? []), thread + 0x2f8n]);
  }
  for (const [process, links] of lists) linkIn(kernel, process.address + 0x30n, links);
}

/** Offsets in the PRCB: 19041's [R] where it has room for them. */
const dpcOffsets = (g: Generation) => ({
  active: g.prcbSize > 0x3200 ? 0x312a : 0x1ffa,
  // Since Windows 8 the KDBG has this one.
  stack: g.kdbgSize > 0x356 ? 0x3110 : 0,
});

/** What the PRCB has of DPCs; where a stack begins that they run on. */
function placeDpcs({ g, kernel, pool }: Making, prcb: bigint, active: boolean): bigint {
  const at = dpcOffsets(g);
  const top = pool(6 * PAGE) + BigInt(6 * PAGE) - 0x50n;
  if (at.stack) kernel.u64(prcb + BigInt(at.stack), top);
  kernel.u8(prcb + BigInt(at.active), active ? 1 : 0);
  return top - 0x30n;
}

function capturedFrame(frame: { rip: bigint; rsp: bigint; rax: bigint }): Buffer {
  const context = Buffer.alloc(0x4d0);
  // The crashing processor's flags [R].
  context.writeUInt32LE(0x10000f, 0x30);
  context.writeUInt32LE(0x1f80, 0x34);
  context.writeUInt16LE(0x10, 0x38);
  [0x2b, 0x2b, 0x53, 0x2b].forEach((selector, i) => {
    context.writeUInt16LE(selector, 0x3a + 2 * i);
  });
  context.writeUInt16LE(0x18, 0x42);
  context.writeUInt32LE(0x40246, 0x44);
  context.writeBigUInt64LE(frame.rax, 0x78);
  context.writeBigUInt64LE(frame.rsp, 0x98);
  context.writeBigUInt64LE(frame.rip, 0xf8);
  context.writeUInt32LE(0x1f80, 0x118);
  return context;
}

/** As the real dump has them after its bug check [R]. */
function specialRegisters(root: number, idt: bigint, gdt: bigint): Buffer {
  const special = Buffer.alloc(0xd8);
  special.writeBigUInt64LE(0x80050031n, 0);
  special.writeBigUInt64LE(BigInt(root), 0x10);
  special.writeBigUInt64LE(0x6f8n, 0x18);
  special.writeBigUInt64LE(0xffff0ff0n, 0x40);
  special.writeBigUInt64LE(0x400n, 0x48);
  special.writeUInt16LE(0x57, 0x56);
  special.writeBigUInt64LE(gdt, 0x58);
  special.writeUInt16LE(0xfff, 0x66);
  special.writeBigUInt64LE(idt, 0x68);
  special.writeUInt16LE(0x40, 0x70);
  special.writeUInt32LE(0x1f80, 0x74);
  return special;
}

function finishShadow({ kernel, g }: Making, shadow: Run['shadow']): void {
  if (!shadow) return;
  for (const virtual of shadow.pages) shadow.root.map(virtual, kernel.translate(virtual)!);
  shadow.root.setTopEntry(g.selfMapSlot, BigInt(shadow.root.root) | 0x63n);
}

function placeKdbg(m: Making): { plain: Buffer; encoded: boolean } {
  const { g, kernel, k, options } = m;
  const { places } = m.image;
  const plain = Buffer.alloc(g.kdbgSize);
  const set64 = (offset: number, value: bigint) => {
    if (offset + 8 <= plain.length) plain.writeBigUInt64LE(value, offset);
  };
  const set16 = (offset: number, value: number) => {
    if (offset + 2 <= plain.length) plain.writeUInt16LE(value, offset);
  };
  const head = k(places.KdpDebuggerDataListHead);
  set64(0, head);
  set64(8, head);
  linkIn(kernel, head, []);
  plain.write('KDBG', 0x10, 'latin1');
  plain.writeUInt32LE(g.kdbgSize, 0x14);
  const addresses: [offset: number, rva: number][] = [
    [0x18, 0],
    [0x48, places.PsLoadedModuleList],
    [0x50, places.PsActiveProcessHead],
    [0x88, places.KiBugCheckData],
    [0xc0, places.MmPfnDatabase],
    // Addresses of variables, not their values [R].
    [0x1c8, 0x21440],
    [0x1d0, 0x21448],
    [0x1d8, 0x21438],
    [0x208, places.NtBuildLab],
    [0x218, places.KiProcessorBlock],
    [0x220, places.MmUnloadedDrivers],
    [0x228, places.MmLastUnloadedDriver],
    [0x270, places.MmPhysicalMemoryBlock],
  ];
  for (const [offset, rva] of addresses) set64(offset, k(rva));
  set64(0x138, BigInt(PAGE));
  const { kthread, eprocess } = g;
  const halves: (readonly [offset: number, value: number])[] = [
    [0x298, 0x218],
    [0x29a, 0xf0],
    [0x29c, kthread.kernelStack],
    [0x29e, kthread.initialStack],
    [0x2a0, kthread.process],
    [0x2a2, 0x184],
    [0x2a8, eprocess.size],
    [0x2aa, eprocess.peb],
    [0x2ac, eprocess.parent],
    [0x2ae, 0x28],
    [0x2b0, g.prcbSize],
    [0x2b4, 8],
    [0x2b6, 0x44],
    [0x2b8, 0x40],
    [0x2bc, g.processorState + g.specialSize],
    [0x2be, 0x24],
    [0x2c0, 0x898],
    [0x2e0, (0x180 + g.prcbSize) & 0xffff],
    [0x2e2, 0x18],
    [0x2e4, 0x20],
    [0x2e6, 0x180],
    [0x2f2, g.processorState],
    [0x2f4, 0x10],
    [0x2f6, 0x18],
    [0x2fa, 0x33],
    [0x2fc, 0x2b],
    [0x302, 0x40],
    [0x304, 0x23],
    [0x306, 0x53],
    [0x338, g.contextPointer ?? 0],
    [0x340, kthread.stackLimit],
    [0x344, kthread.stackBase],
    [0x350, 0x18],
    ...(options.doing
      ? ([
          [0x2b2, dpcOffsets(g).active],
          [0x354, dpcOffsets(g).stack],
        ] as const)
      : []),
  ];
  for (const [offset, value] of halves) set16(offset, value);
  // PteBase, a value.
  set64(0x360, 0xffff0000_00000000n | (BigInt(g.selfMapSlot) << 39n));
  const encoded = (options.kdbg ?? (g.encoded && !options.crash ? 'encoded' : 'plain')) === 'encoded';
  const [never, always] = [m.word(), m.word()];
  kernel.u64(k(places.KiWaitNever), never);
  kernel.u64(k(places.KiWaitAlways), always);
  kernel.u8(k(places.KdpDataBlockEncoded), encoded ? 1 : 0);
  const stored = Buffer.from(plain);
  for (let at = 0; encoded && at < plain.length; at += 8) {
    const word = encodeWord(plain.readBigUInt64LE(at), never, always, k(places.KdpDataBlockEncoded));
    stored.writeBigUInt64LE(word, at);
  }
  kernel.write(k(places.KdDebuggerDataBlock), stored);
  return { plain, encoded };
}

function placeVersions({ g, kernel, k, image, options }: Making): void {
  const { places } = image;
  const block = k(places.KdVersionBlock);
  kernel.u16(block, 0xf);
  kernel.u16(block + 2n, g.baseBuild);
  kernel.write(block + 4n, Buffer.from([6, 0, 0x47, 0]));
  kernel.u16(block + 8n, 0x8664);
  kernel.u64(block + 0x10n, g.kernelBase);
  kernel.u64(block + 0x18n, k(places.PsLoadedModuleList));
  kernel.u64(block + 0x20n, k(places.KdpDebuggerDataListHead));
  kernel.u32(k(places.NtBuildNumber), 0xf0000000 + g.build);
  kernel.write(k(places.NtBuildLab), Buffer.from(`${options.lab ?? g.lab}\0`, 'latin1'));
}

function placeRam(m: Making, ramBytes: number): { basePage: number; pageCount: number }[] {
  const { kernel, k } = m;
  const { places } = m.image;
  const runs = [
    { basePage: 0x1, pageCount: 0x9f - 1 },
    { basePage: 0x100, pageCount: ramBytes / PAGE - 0x100 },
  ];
  const descriptor = m.pool(PAGE);
  kernel.u64(k(places.MmPhysicalMemoryBlock), descriptor);
  kernel.u32(descriptor, runs.length);
  kernel.u64(descriptor + 8n, BigInt(runs.reduce((n, r) => n + r.pageCount, 0)));
  runs.forEach((run, i) => {
    kernel.u64(descriptor + BigInt(0x10 + 16 * i), BigInt(run.basePage));
    kernel.u64(descriptor + BigInt(0x18 + 16 * i), BigInt(run.pageCount));
  });
  // PROCESSOR_START_BLOCK.
  const start = m.memory.page(0x2000);
  start.writeBigUInt64LE(0x0000_0001_0006_4de9n, 0);
  start.writeBigUInt64LE(k(m.image.exports.get('KiIdleLoop')!), 0x70);
  start.writeBigUInt64LE(BigInt(kernel.root), 0xa0);
  return runs;
}

const BOOT_ID = 0x0d;

function placeSharedUserData({ g, kernel, options }: Making, ramBytes: number) {
  const systemTime = 0x01d9_5000_1234_5678n;
  const upTime = 0x5_1234_5678n;
  const u32 = (offset: bigint, value: number) => kernel.u32(SHARED_USER_DATA + offset, value);
  const setTime = (offset: bigint, value: bigint) => {
    kernel.u64(SHARED_USER_DATA + offset, value);
    u32(offset + 8n, Number(value >> 32n));
  };
  u32(4n, 0xfa00000);
  setTime(0x8n, upTime);
  setTime(0x14n, systemTime);
  kernel.u16(SHARED_USER_DATA + 0x2cn, 0x8664);
  kernel.u16(SHARED_USER_DATA + 0x2en, 0x8664);
  kernel.write(SHARED_USER_DATA + 0x30n, Buffer.from('C:\\Windows\0', 'utf16le'));
  if (!options.early) {
    if (g.sharedBuild) u32(0x260n, g.build);
    u32(0x264n, 1);
    kernel.u8(SHARED_USER_DATA + 0x268n, 1);
    u32(0x26cn, g.ntMajor);
    u32(0x270n, g.ntMinor);
  }
  kernel.u16(SHARED_USER_DATA + 0x26an, 9);
  if (g.bootId) u32(0x2c4n, BOOT_ID);
  u32(0x2d0n, 0x110);
  u32(0x2e8n, ramBytes / PAGE);
  setTime(0x320n, 0x1234567n);
  return { systemTime, upTime };
}

/** UNLOADED_DRIVERS[50] of 0x28 bytes, and the next index, which is below 50. */
function placeUnloaded(m: Making): Guest['truth']['unloaded'] {
  const { kernel, k } = m;
  const { places } = m.image;
  const ring = m.pool(0x28 * 50 + 50 * 0x40);
  const drivers = Array.from({ length: 7 }, (_, n) => ({
    name: `dump_${n}.sys`,
    from: m.at.drivers + 0x30000000n + BigInt(n) * 0x100000n,
    to: m.at.drivers + 0x30000000n + BigInt(n) * 0x100000n + 0x9000n,
    time: 0x01d9_4fff_0000_0000n + BigInt(n) * 10_000_000n,
  }));
  drivers.forEach((driver, i) => {
    const at = ring + BigInt(0x28 * i);
    const text = ring + BigInt(0x28 * 50 + 0x40 * i);
    kernel.write(text, Buffer.from(driver.name, 'utf16le'));
    kernel.u16(at, 2 * driver.name.length);
    kernel.u16(at + 2n, 2 * driver.name.length);
    kernel.u64(at + 8n, text);
    kernel.u64(at + 0x10n, driver.from);
    kernel.u64(at + 0x18n, driver.to);
    kernel.u64(at + 0x20n, driver.time);
  });
  kernel.u64(k(places.MmUnloadedDrivers), ring);
  kernel.u32(k(places.MmLastUnloadedDriver), drivers.length);
  return drivers.reverse();
}

const filled = (physical: number) => Buffer.alloc(PAGE, ((physical / PAGE) & 0xff) | 1);

/** Pages that no table maps, and one in transition, as Windows would have them with the swizzle of L1TF or without. */
function placePages(m: Making): KnownPages {
  const page = () => {
    const at = m.memory.allocate();
    filled(at).copy(m.memory.page(at));
    return at;
  };
  const transition = { virtual: m.at.pool + 0x1000000n, physical: page() };
  const { swizzleBit } = m.options;
  // The frame's bit is clear, so the bit is set and bit 4 stays clear.
  const swizzle = swizzleBit === undefined ? 0n : 1n << BigInt(swizzleBit);
  m.kernel.setEntry(transition.virtual, BigInt(transition.physical) | 0x880n | swizzle);
  let rawPointer: number | undefined;
  if (m.g.rawPointers) {
    rawPointer = page();
    m.kernel.setEntry(transition.virtual + 0x1000n, 0xffff8000_00000000n | BigInt(rawPointer) | 0x800n);
  }
  return {
    activeUnmapped: page(),
    standbyPrivate: page(),
    standbyFile: page(),
    modifiedPrivate: page(),
    zeroed: m.memory.allocate(),
    free: page(),
    largeFree: LARGE_FREE.from,
    rawPointer,
    transition,
  };
}

/** One MMPFN of 0x30 bytes for each page. */
function fillPfnDatabase(m: Making, ramBytes: number, known: KnownPages): void {
  const { stateAt, originalPteAt } = m.g.pfn;
  const count = ramBytes / PAGE;
  const bytes = Math.ceil((count * 0x30) / PAGE) * PAGE;
  m.kernel.mapNew(m.at.pfnDatabase, bytes);
  m.kernel.u64(m.k(m.image.places.MmPfnDatabase), m.at.pfnDatabase);
  const database = Buffer.alloc(bytes);
  const set = (physical: number, state: number, originalPte: bigint) => {
    const at = (physical / PAGE) * 0x30;
    // In 2003 the byte has RemovalRequested and CacheAttribute behind the state; later also what is being done to the page.
    const cached = stateAt === 0x19 ? 0x10 : 0x40;
    const modified = state === PAGE_STATE.modified && stateAt !== 0x19 ? 0x10 : 0;
    database.writeUInt8(state | cached | modified, at + stateAt);
    database.writeUInt16LE(state === PAGE_STATE.active ? 1 : 0, at + (stateAt === 0x19 ? 0x1a : stateAt - 2));
    database.writeBigUInt64LE(originalPte, at + originalPteAt);
  };
  // Demand zero, read and write: private. With bit 10: of a file.
  const [privatePte, filePte] = [0x80n, 0x8888_1234_0480n];
  for (let at = 0; at < ramBytes; at += PAGE) {
    set(at, m.memory.pages.has(at) ? PAGE_STATE.active : PAGE_STATE.zeroed, privatePte);
  }
  set(known.standbyPrivate, PAGE_STATE.standby, privatePte);
  set(known.standbyFile, PAGE_STATE.standby, filePte);
  set(known.modifiedPrivate, PAGE_STATE.modified, privatePte);
  set(known.zeroed, PAGE_STATE.zeroed, 0n);
  set(known.free, PAGE_STATE.free, 0n);
  set(known.transition.physical, PAGE_STATE.standby, privatePte);
  if (known.rawPointer !== undefined) set(known.rawPointer, PAGE_STATE.free, 0n);
  if (m.g.residentPages) {
    for (let at = LARGE_FREE.from; at < LARGE_FREE.to; at += PAGE) {
      const base = at === LARGE_FREE.from;
      set(at, base ? PAGE_STATE.zeroed : PAGE_STATE.bad, 0n);
      const entry = (at / PAGE) * 0x30;
      database.writeUInt8(base ? 1 : 0, entry + 0x24);
      database.writeBigUInt64LE(base ? 0n : 1n << 40n, entry + 0x28);
    }
  }
  m.kernel.write(m.at.pfnDatabase, database);
  // The tables that map the database, and its own pages.
  for (const at of m.memory.pages.keys()) {
    const entry = (at / PAGE) * 0x30 + stateAt;
    if ((database[entry]! & 7) === PAGE_STATE.zeroed && !(at >= LARGE_FREE.from && at < LARGE_FREE.to)) {
      const isKnown = at === known.zeroed || at === known.rawPointer;
      if (!isKnown) m.kernel.u8(m.at.pfnDatabase + BigInt(entry), (database[entry]! & ~7) | PAGE_STATE.active);
    }
  }
}
