/**
 * A made-up Windows guest of ARM64, by literal offsets from public headers and from a dump of a real 22000 with 8 CPUs,
 * in memory that a real QEMU can run. Nothing here comes from src/.
 */

import type { Arm64Compiled } from './arm64-compiled.ts';
import { Arm64PageTables, arm64Memory, RAM_BASE, READ_ONLY } from './arm64-memory.ts';
import { encodeWord } from './guest.ts';
import { PAGE, type PhysicalMemory, random } from './memory.ts';
import { buildPe, type PeFunction } from './pe.ts';

export interface Arm64Options {
  seed?: number;
  ramMiB?: number;
  processors?: number;
  /** order[i] is the processor that QEMU's CPU i runs. Default: reversed. */
  order?: readonly number[];
  /** Processors caught in user mode. */
  user?: readonly number[];
  kdbg?: 'plain' | 'encoded';
  kernelPages?: '4k' | '2m';
  /** Whether PRCBs have their CPU's architecture state. Default true. */
  archState?: boolean;
  crash?: {
    code: number;
    parameters: readonly [bigint, bigint, bigint, bigint];
    processor: number;
    /** A frame that Windows captured in KeBugCheckEx is in the crashing processor's PRCB. Default true. */
    captured?: boolean;
  };
  /** CPUs after the others that the kernel never started. */
  neverStarted?: number;
  /** CPUs after the others that run a hypervisor. */
  hypervisor?: number;
  /** Processors whose PRCB's Context pointer is 0. */
  withoutContext?: readonly number[];
  /**
   * Driver and program from a real compiler, in place of the handmade ones. Then CPUs begin at a thread's first function
   * (of the program for those in `user`), run, and end where the code takes them: only a real QEMU can dump that.
   */
  compiled?: Arm64Compiled;
}

export interface Arm64Cpu {
  started: boolean;
  /** It begins with these registers, runs, and is dumped when its PC is here: [from, to). */
  ends?: { from: bigint; to: bigint };
  /** The stack of exceptions from user mode: SP_EL1. */
  kernelStack: bigint;
  /** X0 to X30. */
  x: readonly bigint[];
  sp: bigint;
  pc: bigint;
  pstate: bigint;
  /** V0 to V31, 16 bytes each. */
  v: readonly Buffer[];
  fpcr: number;
  fpsr: number;
  /** The page-table root that it has loaded. */
  root: number;
}

export interface Arm64Processor {
  number: number;
  /** QEMU's CPU index. */
  cpu: number;
  kpcr: bigint;
  prcb: bigint;
  /** Where the CONTEXT frame for the debugger is. */
  context: bigint;
  /** Return addresses on its stack, from the innermost; the debugger's `k` shows them. */
  returns: readonly bigint[];
}

export interface Arm64Guest {
  options: Arm64Options;
  memory: PhysicalMemory;
  /** Bytes of RAM, from RAM_BASE on. */
  ramBytes: number;
  kernel: Arm64PageTables;
  cpus: readonly Arm64Cpu[];
  launch: { virtual: bigint; physical: number[] };
  vbar: bigint;
  truth: {
    root: number;
    selfMapSlot: number;
    kernelBase: bigint;
    kernelSize: number;
    exports: ReadonlyMap<string, bigint>;
    kdbg: bigint;
    kdbgBlock: Buffer;
    kdbgEncoded: boolean;
    psLoadedModuleList: bigint;
    psActiveProcessHead: bigint;
    pfnDatabaseVariable: bigint;
    physicalMemory: readonly { basePage: number; pageCount: number }[];
    modules: readonly { name: string; base: bigint; size: number; pdb: string }[];
    processors: readonly Arm64Processor[];
    processes: readonly { name: string; pid: number; root: number; address: bigint }[];
    bugCheck: { code: number; parameters: readonly bigint[] } | undefined;
    captured: { processor: number; pc: bigint; sp: bigint; x0: bigint } | undefined;
    systemTime: bigint;
    upTime: bigint;
    /** `physical`: of pages that the hardware does not find. */
    samples: readonly { what: string; virtual: bigint; bytes: Buffer; physical?: number }[];
  };
}

const SHARED_USER_DATA = 0xfffff780_00000000n;
const POOL = 0xffffbb8e_b1700000n;
const KPCRS = 0xffff9700_690e8000n;
const DEMO_BASE = 0xfffff806_86030000n;
const IMAGE_SIZE = 0x80000;
const DRIVER_SIZE = 0x20000;
const BUILD = 22000;
const LAUNCH_PAGES = 4;

const RVA = {
  vectors: 0x20800,
  launch: 0x28000,
  KdDebuggerDataBlock: 0x32040,
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
} as const;

/** Page aligned only, or on a block. */
const KERNEL_BASES = { '4k': 0xfffff803_f2e07000n, '2m': 0xfffff803_f2e00000n };

const words = (...instructions: number[]): Buffer => {
  const code = Buffer.alloc(4 * instructions.length);
  instructions.forEach((word, i) => {
    code.writeUInt32LE(word >>> 0, 4 * i);
  });
  return code;
};

/** Bytes of each function's frame. */
const FRAME = 0x30;
const PUSH = 0xa9bd7bfd; // stp fp, lr, [sp, #-48]!
const SET_FP = 0x910003fd; // mov fp, sp
const POP = 0xa8c37bfd; // ldp fp, lr, [sp], #48
const RET = 0xd65f03c0;
const NOP = 0xd503201f;
const WFI = 0xd503207f;
const BACK = 0x17ffffff; // b .-4

/** Packed: CR = 3 (the pair is saved first, FP set), a frame of 48 bytes, 6 instructions. */
const UNWIND = 1 | (6 << 2) | (3 << 21) | ((FRAME / 16) << 23);

/** Offset of the return address behind the call. */
export const ARM64_AFTER_CALL = 12;

const callingFunction = (rva: number, target: number): Buffer =>
  words(PUSH, SET_FP, 0x94000000 | (((target - (rva + 8)) >> 2) & 0x3ffffff), NOP, POP, RET);

/** Offset of PC in a CPU that sleeps in `idleFunction`. */
export const ARM64_AFTER_WFI = 12;
const idleFunction = (): Buffer => words(PUSH, SET_FP, WFI, BACK, POP, RET);

const FUNCTIONS = [
  'HalRequestIpi',
  'KiIdleLoop',
  'KeBugCheck',
  'KeWaitForSingleObject',
  'KiSystemServiceExit',
  'NtWaitForSingleObject',
  'RtlCaptureContext',
  'KdPollBreakIn',
  'KeBugCheckEx',
  'PoIdle',
];

function kernelFunctions(): PeFunction[] {
  const rvaOf = (name: string) => 0x10000 + 0x40 * FUNCTIONS.indexOf(name);
  const idle = new Set(['PoIdle', 'KdPollBreakIn', 'RtlCaptureContext']);
  const calls: Record<string, string> = {
    KeBugCheckEx: 'RtlCaptureContext',
    KiIdleLoop: 'PoIdle',
    KeBugCheck: 'KeBugCheckEx',
  };
  return FUNCTIONS.map((name) => ({
    name,
    rva: rvaOf(name),
    code: idle.has(name) ? idleFunction() : callingFunction(rvaOf(name), rvaOf(calls[name] ?? 'PoIdle')),
    unwind: UNWIND,
  }));
}

const IDLE_PATH = ['PoIdle', 'KiIdleLoop', 'KeWaitForSingleObject', 'NtWaitForSingleObject'];
const CRASH_PATH = ['KdPollBreakIn', 'KeBugCheckEx', 'KeBugCheck', 'KiSystemServiceExit'];

function link(tables: Arm64PageTables, head: bigint, entries: readonly bigint[]): void {
  const ring = [head, ...entries];
  ring.forEach((entry, i) => {
    tables.u64(entry, ring[(i + 1) % ring.length]!);
    tables.u64(entry + 8n, ring[(i + ring.length - 1) % ring.length]!);
  });
}

/** CONTEXT, by literal offsets. */
export function arm64Context(cpu: Pick<Arm64Cpu, 'x' | 'sp' | 'pc' | 'pstate'>, flags = 0x400007): Buffer {
  const frame = Buffer.alloc(0x390);
  frame.writeUInt32LE(flags, 0);
  frame.writeUInt32LE(Number(cpu.pstate & 0xffffffffn), 4);
  cpu.x.forEach((value, i) => {
    frame.writeBigUInt64LE(value, 8 + 8 * i);
  });
  frame.writeBigUInt64LE(cpu.sp, 0x100);
  frame.writeBigUInt64LE(cpu.pc, 0x108);
  return frame;
}

export function buildArm64Guest(options: Arm64Options = {}): Arm64Guest {
  const seed = options.seed ?? 1;
  const next = random(seed);
  const word = () => (BigInt(Math.floor(next() * 2 ** 32)) << 32n) | BigInt(Math.floor(next() * 2 ** 32));
  const count = options.processors ?? 2;
  const order = options.order ?? Array.from({ length: count }, (_, i) => count - 1 - i);
  const ramBytes = (options.ramMiB ?? 16) * 2 ** 20;
  const kernelPages = options.kernelPages ?? '4k';

  const block = { from: RAM_BASE + 0x600000, to: RAM_BASE + 0x800000 };
  const memory = arm64Memory(ramBytes, seed, kernelPages === '4k' ? [] : [block]);
  const kernel = new Arm64PageTables(memory);
  const kernelBase = KERNEL_BASES[kernelPages];
  if (kernelPages === '4k') kernel.mapNew(kernelBase, IMAGE_SIZE);
  else kernel.mapBlock(kernelBase, block.from, 2);
  // Random, but not where anything else is.
  const used = [POOL, KPCRS].map((address) => Number((address >> 39n) & 511n));
  let selfMapSlot = 256 + Math.floor(next() * 128) + 1;
  while (used.includes(selfMapSlot)) selfMapSlot++;
  kernel.selfMap(selfMapSlot);
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
  const functions = kernelFunctions();
  const exports = new Map(functions.map((f) => [f.name, k(f.rva)]));
  kernel.write(
    kernelBase,
    buildPe({
      arm64: true,
      name: 'ntoskrnl.exe',
      pdb: 'ntkrnlmp.pdb',
      guid,
      age: 1,
      size: IMAGE_SIZE,
      imageBase: 0x140000000n,
      timeDateStamp: 0x5e0f1a2b,
      functions,
      version: { file: [10, 0, BUILD, 1], product: [10, 0, BUILD, 7] },
      data: [{ name: 'NtBuildNumber', rva: RVA.NtBuildNumber }],
    }),
  );
  // Exception vectors: b . in each, so that a CPU that faults stays to be looked at.
  for (let at = 0; at < 0x800; at += 0x80) kernel.write(k(RVA.vectors + at), words(0x14000000));
  const { compiled } = options;
  const driverSize = compiled?.driver.bytes.length ?? DRIVER_SIZE;
  kernel.mapNew(DEMO_BASE, driverSize);
  kernel.write(
    DEMO_BASE,
    compiled?.driver.bytes ??
      buildPe({
        arm64: true,
        name: 'demo.sys',
        pdb: 'demo.pdb',
        guid: Buffer.from(guid).fill(8, 0, 2),
        age: 2,
        size: DRIVER_SIZE,
        imageBase: DEMO_BASE,
        timeDateStamp: 0x5e0f1a2c,
        version: { file: [1, 2, 65535, 4], product: [1, 2, 0, 0] },
        functions: [{ name: 'DemoDispatch', rva: 0x10000, code: callingFunction(0x10000, 0x10000), unwind: UNWIND }],
      }),
  );
  const modules = [
    { name: 'ntoskrnl.exe', base: kernelBase, size: IMAGE_SIZE, pdb: 'ntkrnlmp.pdb' },
    { name: 'demo.sys', base: DEMO_BASE, size: driverSize, pdb: 'demo.pdb' },
  ];
  const ldr = modules.map(() => pool(PAGE));
  link(kernel, k(RVA.PsLoadedModuleList), ldr);
  modules.forEach((module, i) => {
    const entry = ldr[i]!;
    kernel.u64(entry + 0x30n, module.base);
    kernel.u64(entry + 0x38n, module.base + 0x10000n);
    kernel.u32(entry + 0x40n, module.size);
    for (const [offset, text, at] of [
      [0x48n, `\\SystemRoot\\system32\\${module.name}`, 0x200n],
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

  // Processes: EPROCESS of 22000, whose offsets the KDBG has but for links, process ID and name.
  const processes = [
    { name: 'System', pid: 4, parent: 0, peb: 0n },
    { name: 'smss.exe', pid: 0x198, parent: 4, peb: 0xd5_3fff_e000n },
    { name: 'notepad.exe', pid: 0x1a2c, parent: 0x198, peb: 0xd5_3fff_f000n },
  ].map((p) => ({ ...p, address: pool(0xc80) }));
  link(
    kernel,
    k(RVA.PsActiveProcessHead),
    processes.map((p) => p.address + 0x400n),
  );
  const USER_CODE = 0x00007ff6_12340000n;
  const USER_STACK = 0x000000d5_43210000n;
  const TEB = 0x000000d5_40000000n;
  const userRoot = new Arm64PageTables(memory);
  userRoot.mapNew(USER_STACK, count * 0x2000, true);
  userRoot.mapNew(USER_CODE, compiled?.program.bytes.length ?? PAGE, true);
  userRoot.mapNew(TEB, count * 0x2000, true);
  userRoot.write(USER_CODE, compiled?.program.bytes ?? words(NOP, 0x14000000));
  if (compiled) placeProgram(userRoot, compiled, TEB, count);
  processes.forEach((p) => {
    kernel.u8(p.address, 3);
    kernel.u64(p.address + 0x28n, BigInt(p.name === 'notepad.exe' ? userRoot.root : kernel.root));
    kernel.u64(p.address + 0x3f8n, BigInt(p.pid));
    kernel.u64(p.address + 0x4f8n, BigInt(p.parent));
    kernel.u64(p.address + 0x508n, p.peb);
    kernel.write(p.address + 0x560n, Buffer.from(`${p.name}\0`, 'latin1'));
    kernel.u8(p.address + 0x56fn, 2);
  });
  const idleProcess = pool(0xc80);
  kernel.u8(idleProcess, 3);
  kernel.u64(idleProcess + 0x28n, BigInt(kernel.root));
  kernel.write(idleProcess + 0x560n, Buffer.from('Idle\0', 'latin1'));

  // Processors.
  const at = (name: string, offset = 0) => exports.get(name)! + BigInt(offset);
  const cpus: Arm64Cpu[] = [];
  const processors: Arm64Processor[] = [];
  let captured: Arm64Guest['truth']['captured'];
  for (let number = 0; number < count; number++) {
    const kpcr = KPCRS + BigInt(number) * 0x100000n;
    kernel.mapNew(kpcr, 0xa000);
    const prcb = kpcr + 0x980n;
    const frame = prcb + 0x360n;
    kernel.u64(kpcr + 0x28n, kpcr + 0x1100n);
    kernel.u16(kpcr + 0x3cn, 1);
    kernel.u16(kpcr + 0x3en, 1);
    const thread = pool(PAGE);
    const inUser = options.user?.includes(number) ?? false;
    const teb = TEB + BigInt(0x2000 * number);
    kernel.u64(prcb + 8n, thread);
    kernel.u64(prcb + 0x18n, thread);
    kernel.u32(prcb + 0x24n, number);
    // KTHREAD.ApcState.Process, and Teb.
    kernel.u64(thread + 0xb0n, inUser ? processes[2]!.address : idleProcess);
    if (inUser) kernel.u64(thread + 0xe8n, teb);
    const stack = pool(6 * PAGE);
    const stackTop = stack + BigInt(6 * PAGE) - 0x80n;
    kernel.u64(thread + 0x28n, stackTop);
    kernel.u64(thread + 0x30n, stack);
    kernel.u64(thread + 0x38n, stack + BigInt(6 * PAGE));
    if (options.archState ?? true) {
      const asid = 0x40n << 48n;
      kernel.u64(prcb + 0x60n, kpcr | (number % 2 === 0 ? 2n : 0n));
      kernel.u64(prcb + 0x100n, 0x95_b551_3511n);
      kernel.u64(prcb + 0x108n, BigInt(kernel.root) | asid);
      kernel.u64(prcb + 0x110n, (BigInt(kernel.root) + 0x800n) | asid);
      kernel.u64(prcb + 0x348n, 0x44bb00ff_44bb00ffn);
      kernel.u64(prcb + 0x350n, k(RVA.vectors));
    }
    // What an earlier freeze left there.
    kernel.write(frame, Buffer.alloc(0x390, 0xa5));
    kernel.u32(frame, 0x400007);
    if (!options.withoutContext?.includes(number)) kernel.u64(prcb + 0x8a0n, frame);
    kernel.u32(prcb + 0x8a8n, 0x400007);
    kernel.u64(k(RVA.KiProcessorBlock) + BigInt(8 * number), prcb);

    // Stacks: frames of 0x30 bytes that begin with the caller's FP and LR, innermost first.
    const crashing = options.crash?.processor === number;
    const path = crashing ? CRASH_PATH : IDLE_PATH;
    const sp = stackTop - BigInt(FRAME * path.length);
    const returns = path.slice(1).map((name) => at(name, ARM64_AFTER_CALL));
    returns.forEach((address, i) => {
      const record = sp + BigInt(FRAME * i);
      kernel.u64(record, record + BigInt(FRAME));
      kernel.u64(record + 8n, address);
    });
    if (crashing && options.crash?.captured !== false) {
      // Behind the call of RtlCaptureContext; LR was not kept.
      captured = {
        processor: number,
        pc: at('KeBugCheckEx', ARM64_AFTER_CALL),
        sp: sp + BigInt(FRAME),
        x0: 0xc0ffee00n + BigInt(number),
      };
      const x = Array.from({ length: 31 }, () => 0n);
      x[0] = captured.x0;
      x[18] = kpcr;
      x[29] = captured.sp;
      kernel.write(frame, arm64Context({ x, sp: captured.sp, pc: captured.pc, pstate: 0x80000144n }));
    }
    const x = Array.from({ length: 31 }, word);
    x[18] = inUser ? teb : kpcr;
    if (!inUser) x[29] = sp;
    const cpu = {
      started: true,
      x,
      sp: inUser ? USER_STACK + 0xe00n : sp,
      pc: inUser ? USER_CODE + 4n : at(path[0]!, ARM64_AFTER_WFI),
      // All interrupts masked in the kernel, so that nothing wakes it.
      pstate: inUser ? 0x6000_0000n : 0x6000_03c4n,
      v: Array.from({ length: 32 }, () => {
        const value = Buffer.alloc(16);
        value.writeBigUInt64LE(word(), 0);
        value.writeBigUInt64LE(word(), 8);
        return value;
      }),
      fpcr: number % 2 === 0 ? 0 : 0x0100_0000,
      fpsr: 0x10 + (number % 8),
      root: inUser ? userRoot.root : kernel.root,
      kernelStack: stackTop,
    };
    if (compiled)
      begin(cpu, compiled, { number, inUser, sp: inUser ? USER_STACK + BigInt(0x2000 * number) + 0x1f00n : stackTop });
    const index = order.indexOf(number);
    cpus[index] = cpu;
    processors.push({ number, cpu: index, kpcr, prcb, context: frame, returns: inUser || compiled ? [] : returns });
  }
  for (let i = 0; i < (options.neverStarted ?? 0); i++) cpus.push(stoppedCpu());
  for (let i = 0; i < (options.hypervisor ?? 0); i++) {
    cpus.push({ ...stoppedCpu(), pc: 0xfffff900_00001234n, sp: 0xfffff900_00008000n, pstate: 0x6000_03c9n });
  }

  // Versions, bug check, memory description.
  kernel.u32(k(RVA.NtBuildNumber), 0xf0000000 + BUILD);
  kernel.write(k(RVA.NtBuildLab), Buffer.from('22000.1.arm64fre.co_release.210604-1628\0', 'latin1'));
  kernel.u64(k(RVA.MmPfnDatabase), 0xffffe000_00000000n);
  const physicalMemory = [{ basePage: RAM_BASE / PAGE, pageCount: ramBytes / PAGE }];
  const descriptor = pool(PAGE);
  kernel.u64(k(RVA.MmPhysicalMemoryBlock), descriptor);
  kernel.u32(descriptor, 1);
  kernel.u64(descriptor + 8n, BigInt(ramBytes / PAGE));
  kernel.u64(descriptor + 0x10n, BigInt(RAM_BASE / PAGE));
  kernel.u64(descriptor + 0x18n, BigInt(ramBytes / PAGE));
  if (options.crash) {
    kernel.u64(k(RVA.KiBugCheckData), BigInt(options.crash.code));
    options.crash.parameters.forEach((p, i) => {
      kernel.u64(k(RVA.KiBugCheckData) + BigInt(8 + 8 * i), p);
    });
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
  kernel.u16(SHARED_USER_DATA + 0x2cn, 0xaa64);
  kernel.u16(SHARED_USER_DATA + 0x2en, 0xaa64);
  kernel.write(SHARED_USER_DATA + 0x30n, Buffer.from('C:\\Windows\0', 'utf16le'));
  kernel.u32(SHARED_USER_DATA + 0x260n, BUILD);
  kernel.u32(SHARED_USER_DATA + 0x264n, 1);
  kernel.u8(SHARED_USER_DATA + 0x268n, 1);
  kernel.u16(SHARED_USER_DATA + 0x26an, 12);
  kernel.u32(SHARED_USER_DATA + 0x26cn, 10);
  kernel.u32(SHARED_USER_DATA + 0x270n, 0);
  kernel.u32(SHARED_USER_DATA + 0x2c4n, 0xd);
  kernel.u32(SHARED_USER_DATA + 0x2d0n, 0x110);
  kernel.u32(SHARED_USER_DATA + 0x2e8n, ramBytes / PAGE);
  setTime(0x320n, 0x1234567n);

  // KDBG.
  const kdbg = k(RVA.KdDebuggerDataBlock);
  const plain = Buffer.alloc(0x380);
  const set64 = (offset: number, value: bigint) => plain.writeBigUInt64LE(value, offset);
  const set16 = (offset: number, value: number) => plain.writeUInt16LE(value, offset);
  set64(0x0, k(RVA.KdpDebuggerDataListHead));
  set64(0x8, k(RVA.KdpDebuggerDataListHead));
  plain.write('KDBG', 0x10, 'latin1');
  plain.writeUInt32LE(plain.length, 0x14);
  set64(0x18, kernelBase);
  set64(0x48, k(RVA.PsLoadedModuleList));
  set64(0x50, k(RVA.PsActiveProcessHead));
  set64(0x88, k(RVA.KiBugCheckData));
  set64(0xc0, k(RVA.MmPfnDatabase));
  set64(0x138, BigInt(PAGE));
  set64(0x1c8, k(0x36300));
  set64(0x1d0, k(0x36308));
  set64(0x1d8, k(0x36310));
  set64(0x208, k(RVA.NtBuildLab));
  set64(0x218, k(RVA.KiProcessorBlock));
  set64(0x220, k(RVA.MmUnloadedDrivers));
  set64(0x228, k(RVA.MmLastUnloadedDriver));
  set64(0x270, k(RVA.MmPhysicalMemoryBlock));
  const offsets: readonly [number, number][] = [
    [0x298, 0x238],
    [0x29a, 0xe8],
    [0x29c, 0x58],
    [0x29e, 0x28],
    [0x2a0, 0xb0],
    [0x2a2, 0x17c],
    [0x2a8, 0xc80],
    [0x2aa, 0x508],
    [0x2ac, 0x4f8],
    [0x2ae, 0x28],
    [0x2b0, 0x9680],
    [0x2b4, 8],
    [0x2bc, 0x360],
    [0x2be, 0x24],
    [0x2c0, 0x910],
    [0x2e0, 0xa000],
    [0x2e2, 0x18],
    [0x2e6, 0x980],
    [0x2f2, 0x40],
    [0x338, 0x8a0],
    [0x340, 0x30],
    [0x344, 0x38],
  ];
  for (const [offset, value] of offsets) set16(offset, value);
  set64(0x360, 0xffff0000_00000000n | (BigInt(selfMapSlot) << 39n));
  const encoded = (options.kdbg ?? (options.crash ? 'plain' : 'encoded')) === 'encoded';
  const [never, always] = [word(), word()];
  kernel.u64(k(RVA.KiWaitNever), never);
  kernel.u64(k(RVA.KiWaitAlways), always);
  kernel.u8(k(RVA.KdpDataBlockEncoded), encoded ? 1 : 0);
  link(kernel, k(RVA.KdpDebuggerDataListHead), []);
  const stored = Buffer.from(plain);
  for (let i = 0; encoded && i < plain.length; i += 8) {
    stored.writeBigUInt64LE(encodeWord(plain.readBigUInt64LE(i), never, always, k(RVA.KdpDataBlockEncoded)), i);
  }
  kernel.write(kdbg, stored);

  // Samples: pool; a read-only page; pages in transition and behind a prototype entry; a read-only block.
  const marker = (n: number) => Buffer.from(Array.from({ length: 64 }, (_, i) => (i * 7 + seed + n) & 0xff));
  const sample = pool(2 * PAGE);
  kernel.write(sample + 0xfe0n, marker(0));
  const special = POOL + 0x800000n;
  const pageWith = (bytes: Buffer): number => {
    const page = memory.allocate();
    bytes.copy(memory.page(page), 0x123);
    return page;
  };
  kernel.map(special, pageWith(marker(1)), READ_ONLY);
  const [transition, mapped] = [pageWith(marker(2)), pageWith(marker(3))];
  kernel.setEntry(special + 0x1000n, BigInt(transition) | 0x880n);
  const prototype = pool(PAGE) + 0x238n;
  kernel.u64(prototype, BigInt(mapped) | 0x703n);
  kernel.setEntry(special + 0x2000n, ((prototype & 0x0000ffff_ffffffffn) << 16n) | 0x400n);
  const samples = [
    { what: 'pool', virtual: sample + 0xfe0n, bytes: marker(0) },
    { what: 'a read-only page', virtual: special + 0x123n, bytes: marker(1) },
    { what: 'a page in transition', virtual: special + 0x1123n, bytes: marker(2), physical: transition + 0x123 },
    { what: 'a page behind a prototype entry', virtual: special + 0x2123n, bytes: marker(3), physical: mapped + 0x123 },
    { what: 'code', virtual: at('PoIdle'), bytes: idleFunction() },
    { what: 'SharedUserData', virtual: SHARED_USER_DATA + 0x30n, bytes: Buffer.from('C:\\Windows', 'utf16le') },
  ];
  // The kernel's half is the same in all processes.
  for (let slot = 256; slot < 512; slot++) userRoot.setTopEntry(slot, kernel.topEntry(slot));
  userRoot.selfMap(selfMapSlot);
  return {
    options,
    memory,
    ramBytes,
    kernel,
    cpus,
    launch: {
      virtual: k(RVA.launch),
      physical: Array.from({ length: LAUNCH_PAGES }, (_, i) => kernel.translate(k(RVA.launch + i * PAGE))!),
    },
    vbar: compiled?.driver.exports.get('DemoVectors') ?? k(RVA.vectors),
    truth: {
      root: kernel.root,
      selfMapSlot,
      kernelBase,
      kernelSize: IMAGE_SIZE,
      exports,
      kdbg,
      kdbgBlock: plain,
      kdbgEncoded: encoded,
      psLoadedModuleList: k(RVA.PsLoadedModuleList),
      psActiveProcessHead: k(RVA.PsActiveProcessHead),
      pfnDatabaseVariable: k(RVA.MmPfnDatabase),
      physicalMemory,
      modules,
      processors,
      processes: processes.map(({ name, pid, address }) => ({
        name,
        pid,
        address,
        root: name === 'notepad.exe' ? userRoot.root : kernel.root,
      })),
      bugCheck: options.crash && { code: options.crash.code, parameters: options.crash.parameters },
      captured,
      systemTime,
      upTime,
      samples,
    },
  };
}

/** As if called from nowhere: with a return address of 0, at a thread's first function. */
function begin(
  cpu: Arm64Cpu & { x: bigint[] },
  { driver, program }: Arm64Compiled,
  { number, inUser, sp }: { number: number; inUser: boolean; sp: bigint },
): void {
  const at = (image: typeof driver, name: string) => image.exports.get(name)!;
  const start = inUser ? at(program, 'AppThread') : at(driver, 'DemoThread');
  const halted = at(driver, 'HalHaltProcessor') + 4n;
  const spinning = at(program, 'AppSpin');
  cpu.x[0] = BigInt(number);
  cpu.x[29] = 0n;
  cpu.x[30] = 0n;
  const ends = inUser && number === 1 ? { from: spinning, to: spinning + 0x10n } : { from: halted, to: halted + 4n };
  Object.assign(cpu, { pc: start, sp, ends });
}

/** The process's image and the loader's list of it, in its memory. */
function placeProgram(root: Arm64PageTables, { program }: Arm64Compiled, teb: bigint, threads: number): void {
  const [peb, loader] = [teb + 0x100000n, teb + 0x200000n];
  root.mapNew(peb, PAGE, true);
  root.mapNew(loader, PAGE, true);
  for (let i = 0; i < threads; i++) {
    root.u64(teb + BigInt(0x2000 * i) + 0x30n, teb + BigInt(0x2000 * i));
    root.u64(teb + BigInt(0x2000 * i) + 0x60n, peb);
  }
  root.u64(peb + 0x10n, program.base);
  root.u64(peb + 0x18n, loader);
  const entry = loader + 0x200n;
  link(root, loader + 0x10n, [entry]);
  root.u64(entry + 0x30n, program.base);
  root.u32(entry + 0x40n, program.bytes.length);
  // In capitals: who has the name from here shows it.
  const name = Buffer.from(program.name.toUpperCase(), 'utf16le');
  root.write(entry + 0x120n, name);
  for (const offset of [0x48n, 0x58n]) {
    root.u16(entry + offset, name.length);
    root.u16(entry + offset + 2n, name.length);
    root.u64(entry + offset + 8n, entry + 0x120n);
  }
}

/** As a reset leaves a CPU: EL1h, interrupts masked. */
const stoppedCpu = (): Arm64Cpu => ({
  started: false,
  x: Array.from({ length: 31 }, () => 0n),
  sp: 0n,
  pc: 0n,
  pstate: 0x4000_03c5n,
  v: Array.from({ length: 32 }, () => Buffer.alloc(16)),
  fpcr: 0,
  fpsr: 0,
  root: 0,
  kernelStack: 0n,
});
