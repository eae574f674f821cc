/**
 * A guest made of a real crash: the structures, stacks, frames and special registers that a kernel minidump of 19041
 * holds, in page tables of our own. What a minidump leaves out and every guest has (SharedUserData, KPCRs, IDTs, GDTs,
 * loader entries, the kernel's debug directory and exports) is filled in by literal offsets. Nothing is from src/.
 */
import { readFileSync } from 'node:fs';
import type { Build } from './builds.ts';
import { GENERATIONS } from './generations.ts';
import { GPRS, type Guest, type GuestCpu, type GuestProcessor, linkIn } from './guest.ts';
import { PAGE, PageTables, PhysicalMemory } from './memory.ts';

export interface RealCrash {
  guest: Guest;
  /** Registers of each processor's frame in the minidump, by number. */
  frames: readonly GuestCpu['regs'][];
  crash: { code: number; parameters: readonly bigint[]; processor: number };
}

/** Triage dump header at 0x2000: file offsets. */
const TRIAGE = { prcb: 0x201c, process: 0x2020, thread: 0x2024, stack: 0x2028, stackSize: 0x202c } as const;
const SHARED_USER_DATA = 0xfffff780_00000000n;
const SELF_MAP_SLOT = 0x1fb;
const RAM = 2 ** 24;
/** KTHREAD.ApcState.Process, KPRCB.Context and ProcessorState, EPROCESS.ActiveProcessLinks of 19041. */
const { eprocess, contextPointer, processorState } = GENERATIONS['2004'];
const THREAD_PROCESS = 0xb8;
const LDR = 0xffffc08b_c0000000n;

export function buildRealCrash(path: string): RealCrash {
  const file = readFileSync(path);
  const u32 = (at: number) => file.readUInt32LE(at);
  const u64 = (at: number) => file.readBigUInt64LE(at);
  const root = Number(u64(0x10));
  const memory = new PhysicalMemory(RAM, 1, [{ from: root, to: root + PAGE }]);
  const kernel = new PageTables(memory, 4, root);
  kernel.setTopEntry(SELF_MAP_SLOT, BigInt(root) | 0x63n);
  const put = (virtual: bigint, bytes: Buffer) => {
    if (Number((virtual >> 39n) & 511n) === SELF_MAP_SLOT) return;
    for (let at = virtual & ~0xfffn; at < virtual + BigInt(bytes.length); at += 0x1000n) {
      if (kernel.translate(at) === undefined) kernel.mapNew(at, PAGE);
    }
    kernel.write(virtual, bytes);
  };
  const put64 = (virtual: bigint, value: bigint) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    put(virtual, bytes);
  };

  // The KDBG, the data blocks, the crashing thread, its process and its stack.
  const kdbg = u64(0x80);
  const kdbgBlock = file.subarray(u32(0x2070), u32(0x2070) + u32(0x2074));
  put(kdbg, kdbgBlock);
  const kdbg64 = (at: number) => kdbgBlock.readBigUInt64LE(at);
  const kernelBase = kdbg64(0x18);
  for (let i = 0; i < u32(0x207c); i++) {
    const at = u32(0x2078) + 16 * i;
    put(u64(at), file.subarray(u32(at + 8), u32(at + 8) + u32(at + 12)));
  }
  const thread = u64(u32(TRIAGE.prcb) + 8);
  put(thread, file.subarray(u32(TRIAGE.thread), u32(TRIAGE.thread) + kdbgBlock.readUInt16LE(0x2c0)));
  const process = u64(u32(TRIAGE.thread) + THREAD_PROCESS);
  put(process, file.subarray(u32(TRIAGE.process), u32(TRIAGE.process) + kdbgBlock.readUInt16LE(0x2a8)));
  put(u64(0x2048), file.subarray(u32(TRIAGE.stack), u32(TRIAGE.stack) + u32(TRIAGE.stackSize)));
  // The other processes are not in the minidump.
  linkIn(kernel, kdbg64(0x50), [process + BigInt(eprocess.links)]);
  linkIn(kernel, kdbg, []);

  const count = u32(0x34);
  const crashing = kernel.read(kdbg64(0x218), 8 * count);
  const prcbs = Array.from({ length: count }, (_, i) => crashing.readBigUInt64LE(8 * i));
  const crash = {
    code: u32(0x38),
    parameters: [0x40, 0x48, 0x50, 0x58].map(u64),
    processor: prcbs.findIndex((prcb) => kernel.read(prcb + 8n, 8).readBigUInt64LE() === thread),
  };
  [BigInt(crash.code), ...crash.parameters].forEach((value, i) => {
    put64(kdbg64(0x88) + BigInt(8 * i), value);
  });

  const order = Array.from({ length: count }, (_, i) => (5 * i + 3) % count);
  const cpus: GuestCpu[] = [];
  const frames = prcbs.map((prcb, number) => {
    const cpu = placeProcessor({ kernel, put, put64, kernelBase }, prcb);
    const captured = cpu.regs;
    // The processor that crashed went on to write the dump: its CPU is further down its stack.
    if (number === crash.processor) {
      cpu.regs = { ...captured, rip: captured.rip + 0x40n, rsp: captured.rsp - 0x100n, rax: 0x1234n };
    }
    cpus[order.indexOf(number)] = cpu;
    return captured;
  });
  const context = (prcb: bigint) => kernel.read(prcb + BigInt(contextPointer), 8).readBigUInt64LE();
  const processors: GuestProcessor[] = prcbs.map((prcb, number) => ({
    number,
    cpu: order.indexOf(number),
    kpcr: prcb - 0x180n,
    prcb,
    context: context(prcb),
    specialRegisters: prcb + BigInt(processorState),
    idt: cpus[order.indexOf(number)]!.idt.base,
    gdt: cpus[order.indexOf(number)]!.gdt.base,
    returns: [],
  }));

  const modules = readDrivers(file).map((m) => ({ ...m, pdb: '', guid: '' }));
  const entries = modules.map((_, i) => LDR + BigInt(0x800 * i));
  modules.forEach((m, i) => {
    put(entries[i]!, loaderEntry(entries[i]!, m));
  });
  // The kernel's header is in the minidump.
  for (const m of modules.slice(1)) put(m.base, imageHeader(m));
  put(kdbg64(0x48), Buffer.alloc(16));
  linkIn(kernel, kdbg64(0x48), entries);

  completeKernel(put, kernelBase, frames[crash.processor]!.rip);
  // Where 19041 has the page frame database, whose pages are not in the minidump.
  put64(kdbg64(0xc0), 0xffffe280_00000000n);
  const physicalMemory = [
    { basePage: 1, pageCount: 0x9e },
    { basePage: 0x100, pageCount: RAM / PAGE - 0x100 },
  ];
  const descriptor = LDR + 0x1000000n;
  put64(kdbg64(0x270), descriptor);
  const words = [
    BigInt(physicalMemory.length),
    0n,
    ...physicalMemory.flatMap((r) => [r.basePage, r.pageCount].map(BigInt)),
  ];
  words.forEach((word, i) => {
    put64(descriptor + BigInt(8 * i), word);
  });
  const [systemTime, upTime] = [u64(0xfa8), u64(0x1030)];
  put(SHARED_USER_DATA, sharedUserData({ systemTime, upTime, productType: u32(0x1040), suiteMask: u32(0x1044) }));

  const g = GENERATIONS['2004'];
  const build: Build = {
    build: u32(0xc),
    ntMajor: 10,
    ntMinor: 0,
    kdbgSize: kdbgBlock.length,
    prcbContext: contextPointer,
    processorState,
    specialSize: g.specialSize,
    prcbNumber: 0x24,
    sharedBuild: true,
    encoded: true,
    lab: g.lab,
    kpcrVersionBlock: false,
    pageLocation: 0x22,
    eprocess,
  };
  const { rip, rsp, rax } = frames[crash.processor]!;
  const guest: Guest = {
    options: { processors: count },
    build,
    memory,
    ramBytes: RAM,
    pages: memory.pages,
    kernel,
    vmcoreinfo: undefined,
    cpus,
    launch: { virtual: 0n, physical: [] },
    truth: {
      root,
      kernelBase,
      kernelSize: modules[0]!.size,
      exports: new Map(),
      kdbg,
      kdbgBlock,
      kdbgEncoded: false,
      psLoadedModuleList: kdbg64(0x48),
      psActiveProcessHead: kdbg64(0x50),
      pfnDatabaseVariable: kdbg64(0xc0),
      physicalMemory,
      modules,
      processors,
      processes: [{ name: 'System', pid: 4, parent: 0, peb: 0n, address: process, root }],
      unloaded: [],
      bugCheck: crash,
      captured: { processor: crash.processor, rip, rsp, rax },
      systemTime,
      upTime,
      productType: u32(0x1040),
      suiteMask: u32(0x1044),
      samples: [],
    },
  };
  return { guest, frames, crash };
}

interface Places {
  kernel: PageTables;
  put: (virtual: bigint, bytes: Buffer) => void;
  put64: (virtual: bigint, value: bigint) => void;
  kernelBase: bigint;
}

/** KPCR, IDT and GDT of a PRCB, and its CPU as its frame and special registers have it. */
function placeProcessor({ kernel, put, put64, kernelBase }: Places, prcb: bigint): GuestCpu {
  const kpcr = prcb - 0x180n;
  const special = kernel.read(prcb + BigInt(processorState), 0xf0);
  const frame = kernel.read(kernel.read(prcb + BigInt(contextPointer), 8).readBigUInt64LE(), 0x4d0);
  const [gdt, idt] = [special.readBigUInt64LE(0x58), special.readBigUInt64LE(0x68)];
  put64(kpcr, gdt);
  put64(kpcr + 0x18n, kpcr);
  put64(kpcr + 0x20n, prcb);
  put64(kpcr + 0x38n, idt);
  const gates = Buffer.alloc(PAGE);
  for (let vector = 0; vector < 256; vector++) {
    const handler = kernelBase + 0xa11000n + BigInt(8 * vector);
    gates.writeUInt16LE(Number(handler & 0xffffn), 16 * vector);
    gates.writeUInt16LE(0x10, 16 * vector + 2);
    gates.writeUInt8(0x8e, 16 * vector + 5);
    gates.writeUInt16LE(Number((handler >> 16n) & 0xffffn), 16 * vector + 6);
    gates.writeUInt32LE(Number(handler >> 32n), 16 * vector + 8);
  }
  put(idt, gates);
  put64(gdt + 0x10n, 0x00209b00_00000000n);
  put64(gdt + 0x18n, 0x00409300_00000000n);
  put64(gdt + 0x50n, 0x0040f300_00003c00n);
  const offsets = [0x78, 0x90, 0x80, 0x88, 0xa8, 0xb0, 0x98, 0xa0];
  const regs = Object.fromEntries(
    GPRS.map((name, i) => {
      if (name === 'rip') return [name, frame.readBigUInt64LE(0xf8)];
      if (name === 'rflags') return [name, BigInt(frame.readUInt32LE(0x44))];
      return [name, frame.readBigUInt64LE(offsets[i] ?? 0xb8 + 8 * (i - 8))];
    }),
  ) as GuestCpu['regs'];
  const selector = (i: number) => frame.readUInt16LE(0x38 + 2 * i);
  return {
    started: true,
    regs,
    cs: selector(0),
    ds: selector(1),
    es: selector(2),
    fs: selector(3),
    gs: selector(4),
    ss: selector(5),
    tr: special.readUInt16LE(0x70),
    gdt: { base: gdt, limit: special.readUInt16LE(0x56) },
    idt: { base: idt, limit: special.readUInt16LE(0x66) },
    cr0: special.readBigUInt64LE(0),
    cr3: special.readBigUInt64LE(0x10),
    cr4: special.readBigUInt64LE(0x18),
    gsBase: kpcr,
    kernelGsBase: 0n,
    fsBase: 0n,
    trBase: 0n,
  };
}

export interface Driver {
  name: string;
  path: string;
  base: bigint;
  size: number;
  checkSum: number;
  timeDateStamp: number;
}

export function readDrivers(file: Buffer): Driver[] {
  const [list, count] = [file.readUInt32LE(0x2030), file.readUInt32LE(0x2034)];
  return Array.from({ length: count }, (_, i) => {
    const at = list + 0x90 * i;
    const text = file.readUInt32LE(at);
    const path = file.toString('utf16le', text + 4, text + 4 + 2 * file.readUInt32LE(text));
    return {
      name: path.slice(path.lastIndexOf('\\') + 1),
      path,
      base: file.readBigUInt64LE(at + 0x38),
      size: file.readUInt32LE(at + 0x48),
      checkSum: file.readUInt32LE(at + 0x80),
      timeDateStamp: file.readUInt32LE(at + 0x88),
    };
  });
}

export function loaderEntry(at: bigint, m: Driver): Buffer {
  const entry = Buffer.alloc(0x800);
  entry.writeBigUInt64LE(m.base, 0x30);
  entry.writeUInt32LE(m.size, 0x40);
  for (const [offset, text, place] of [
    [0x48, m.path, 0x200],
    [0x58, m.name, 0x600],
  ] as const) {
    const bytes = Buffer.from(text, 'utf16le');
    bytes.copy(entry, place);
    entry.writeUInt16LE(bytes.length, offset);
    entry.writeUInt16LE(bytes.length + 2, offset + 2);
    entry.writeBigUInt64LE(at + BigInt(place), offset + 8);
  }
  entry.writeUInt32LE(m.checkSum, 0x78);
  entry.writeUInt32LE(m.timeDateStamp, 0x9c);
  return entry;
}

/** What a debugger reads of a module: time stamp, size, check sum. */
export function imageHeader(m: Driver, machine = 0x8664): Buffer {
  const header = Buffer.alloc(0x400);
  header.write('MZ', 0, 'latin1');
  header.writeUInt32LE(0x80, 0x3c);
  header.write('PE\0\0', 0x80, 'latin1');
  header.writeUInt16LE(machine, 0x84);
  header.writeUInt32LE(m.timeDateStamp, 0x88);
  header.writeUInt16LE(0xf0, 0x94);
  header.writeUInt16LE(0x22, 0x96);
  header.writeUInt16LE(0x20b, 0x98);
  header.writeBigUInt64LE(m.base, 0xb0);
  header.writeUInt32LE(0x1000, 0xb8);
  header.writeUInt32LE(0x200, 0xbc);
  header.writeUInt32LE(m.size, 0xd0);
  header.writeUInt32LE(0x400, 0xd4);
  header.writeUInt32LE(m.checkSum, 0xd8);
  header.writeUInt32LE(16, 0x104);
  return header;
}

/** The debug directory and the export of KeBugCheckEx, where the real header says that they are: 0x107a0, 0x134000. */
function completeKernel(put: (virtual: bigint, bytes: Buffer) => void, base: bigint, bugCheckEx: bigint): void {
  const debug = Buffer.alloc(0x54);
  debug.writeUInt32LE(2, 0xc);
  debug.writeUInt32LE(0x25, 0x10);
  debug.writeUInt32LE(0x10800, 0x14);
  put(base + 0x107a0n, debug);
  const record = Buffer.alloc(0x25);
  record.write('RSDS', 0, 'latin1');
  Buffer.from('a1b2c3d4e5f60718293a4b5c6d7e8f90', 'hex').copy(record, 4);
  record.writeUInt32LE(1, 0x14);
  record.write('ntkrnlmp.pdb\0', 0x18, 'latin1');
  put(base + 0x10800n, record);
  const exports = Buffer.alloc(0x80);
  exports.writeUInt32LE(0x134050, 0xc);
  exports.writeUInt32LE(1, 0x10);
  exports.writeUInt32LE(1, 0x14);
  exports.writeUInt32LE(1, 0x18);
  exports.writeUInt32LE(0x134028, 0x1c);
  exports.writeUInt32LE(0x13402c, 0x20);
  exports.writeUInt32LE(0x134030, 0x24);
  exports.writeUInt32LE(Number(bugCheckEx - base), 0x28);
  exports.writeUInt32LE(0x134060, 0x2c);
  exports.write('ntoskrnl.exe\0', 0x50, 'latin1');
  exports.write('KeBugCheckEx\0', 0x60, 'latin1');
  put(base + 0x134000n, exports);
}

export function sharedUserData(v: {
  systemTime: bigint;
  upTime: bigint;
  productType: number;
  suiteMask: number;
  /** Default: x64 19041. */
  machine?: number;
  build?: number;
}): Buffer {
  const shared = Buffer.alloc(PAGE);
  shared.writeUInt32LE(0xfa00000, 4);
  for (const [at, value] of [
    [0x8, v.upTime],
    [0x14, v.systemTime],
  ] as const) {
    shared.writeBigUInt64LE(value, at);
    shared.writeUInt32LE(Number(value >> 32n), at + 8);
  }
  shared.writeUInt16LE(v.machine ?? 0x8664, 0x2c);
  shared.writeUInt16LE(v.machine ?? 0x8664, 0x2e);
  shared.write('C:\\Windows\0', 0x30, 'utf16le');
  shared.writeUInt32LE(v.build ?? 19041, 0x260);
  shared.writeUInt32LE(v.productType, 0x264);
  shared.writeUInt8(1, 0x268);
  shared.writeUInt16LE(9, 0x26a);
  shared.writeUInt32LE(10, 0x26c);
  shared.writeUInt32LE(v.suiteMask, 0x2d0);
  return shared;
}
