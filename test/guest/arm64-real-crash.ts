/**
 * A guest made of a real crash of ARM64: the structures, PRCBs and frames that a kernel minidump of 22000 holds, in page
 * tables of our own at the address that its processors had saved. What a minidump leaves out and every guest has is
 * filled in by literal offsets. Nothing is from src/.
 */
import { readFileSync } from 'node:fs';
import type { Arm64Cpu } from './arm64.ts';
import { Arm64PageTables, arm64Memory } from './arm64-memory.ts';
import { PAGE, type PhysicalMemory } from './memory.ts';
import { type Driver, imageHeader, loaderEntry, readDrivers, sharedUserData } from './real-crash.ts';

export interface Arm64RealCrash {
  memory: PhysicalMemory;
  ramBytes: number;
  /** Beyond RAM. */
  root: number;
  cpus: readonly Arm64Cpu[];
  /** order[i]: the processor that CPU i runs. */
  order: readonly number[];
  /** Each processor's frame in the minidump. */
  frames: readonly Arm64Cpu[];
  prcbs: readonly bigint[];
  crash: { code: number; parameters: readonly bigint[]; processor: number };
  modules: readonly Driver[];
}

/** Triage dump header at 0x2000: file offsets. */
const TRIAGE = { prcb: 0x201c, process: 0x2020, thread: 0x2024, stack: 0x2028, stackSize: 0x202c } as const;
const SHARED_USER_DATA = 0xfffff780_00000000n;
const SELF_MAP_SLOT = 0x151;
const RAM = 2 ** 24;
const LDR = 0xffffc08b_c0000000n;

/** Of 22000: KTHREAD.ApcState.Process, EPROCESS.ActiveProcessLinks. */
const [THREAD_PROCESS, LINKS] = [0xb0, 0x400];

export function buildArm64RealCrash(path: string): Arm64RealCrash {
  const file = readFileSync(path);
  const u32 = (at: number) => file.readUInt32LE(at);
  const u64 = (at: number) => file.readBigUInt64LE(at);
  const memory = arm64Memory(RAM, 1);
  const kernel = new Arm64PageTables(memory, Number(u64(0x10)));
  kernel.selfMap(SELF_MAP_SLOT);
  const put = (virtual: bigint, bytes: Buffer) => {
    if (Number((virtual >> 39n) & 511n) === SELF_MAP_SLOT) return;
    for (let at = virtual & ~0xfffn; at < virtual + BigInt(bytes.length); at += 0x1000n) {
      if (kernel.translate(at) === undefined) kernel.mapNew(at, PAGE);
    }
    kernel.write(virtual, bytes);
  };
  const put64 = (virtual: bigint, ...values: bigint[]) => {
    const bytes = Buffer.alloc(8 * values.length);
    values.forEach((value, i) => {
      bytes.writeBigUInt64LE(value, 8 * i);
    });
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
  const link = (head: bigint, entries: readonly bigint[]) => {
    const ring = [head, ...entries];
    ring.forEach((entry, i) => {
      put64(entry, ring[(i + 1) % ring.length]!, ring[(i + ring.length - 1) % ring.length]!);
    });
  };
  // The other processes are not in the minidump.
  link(kdbg64(0x50), [process + BigInt(LINKS)]);
  link(kdbg, []);

  const count = u32(0x34);
  const block = kernel.read(kdbg64(0x218), 8 * count);
  const prcbs = Array.from({ length: count }, (_, i) => block.readBigUInt64LE(8 * i));
  const crash = { code: u32(0x38), parameters: [0x40, 0x48, 0x50, 0x58].map(u64), processor: 0 };
  put64(kdbg64(0x88), BigInt(crash.code), ...crash.parameters);
  const order = Array.from({ length: count }, (_, i) => (3 * i + 5) % count);
  const frames = prcbs.map((prcb) => {
    const kpcr = prcb - 0x980n;
    put64(kpcr + 0x28n, kpcr + 0x1100n);
    put(kpcr + 0x3cn, Buffer.from([1, 0, 1, 0]));
    return cpuOf(kernel.read(prcb + 0x360n, 0x390), kernel.root);
  });
  // The processor that crashed went on to write the dump: its CPU is further down its stack.
  const cpus = order.map((number) => {
    const frame = frames[number]!;
    return number === crash.processor ? { ...frame, pc: frame.pc + 0x40n, sp: frame.sp - 0x100n } : frame;
  });

  const modules = readDrivers(file);
  const entries = modules.map((_, i) => LDR + BigInt(0x800 * i));
  modules.forEach((m, i) => {
    put(entries[i]!, loaderEntry(entries[i]!, m));
    put(m.base, imageHeader(m, 0xaa64));
  });
  put(kdbg64(0x48), Buffer.alloc(16));
  link(kdbg64(0x48), entries);
  completeKernel(put, kernelBase, Number(frames[crash.processor]!.pc - kernelBase));
  put64(kdbg64(0xc0), 0xffffe280_00000000n);
  const descriptor = LDR + 0x1000000n;
  put64(kdbg64(0x270), descriptor);
  put64(descriptor, 1n, 0n, 0x40000n, BigInt(RAM / PAGE));
  put(
    SHARED_USER_DATA,
    sharedUserData({
      systemTime: u64(0xfa8),
      upTime: u64(0x1030),
      productType: u32(0x1040),
      suiteMask: u32(0x1044),
      machine: 0xaa64,
      build: u32(0xc),
    }),
  );
  return { memory, ramBytes: RAM, root: kernel.root, cpus, order, frames, prcbs, crash, modules };
}

/** A CPU with the registers of a CONTEXT. */
function cpuOf(frame: Buffer, root: number): Arm64Cpu {
  return {
    started: true,
    kernelStack: 0n,
    x: Array.from({ length: 31 }, (_, i) => frame.readBigUInt64LE(8 + 8 * i)),
    sp: frame.readBigUInt64LE(0x100),
    pc: frame.readBigUInt64LE(0x108),
    pstate: BigInt(frame.readUInt32LE(4)),
    v: Array.from({ length: 32 }, (_, i) => Buffer.from(frame.subarray(0x110 + 16 * i, 0x120 + 16 * i))),
    fpcr: frame.readUInt32LE(0x310),
    fpsr: frame.readUInt32LE(0x314),
    root,
  };
}

/** The debug directory and the export of the function that captured the frame, in the header's page. */
function completeKernel(put: (virtual: bigint, bytes: Buffer) => void, base: bigint, captured: number): void {
  const more = Buffer.alloc(0x200);
  const u32 = (at: number, ...values: number[]) => {
    values.forEach((value, i) => {
      more.writeUInt32LE(value, at - 0x400 + 4 * i);
    });
  };
  u32(0x40c, 0x450, 1, 1, 1, 0x428, 0x42c, 0x430);
  // It begins somewhat before.
  u32(0x428, captured - 0x20, 0x460);
  more.write('ntoskrnl.exe\0', 0x50, 'latin1');
  more.write('KeBugCheckEx\0', 0x60, 'latin1');
  u32(0x50c, 2, 0x25, 0x540);
  more.write('RSDS', 0x140, 'latin1');
  Buffer.from('a1b2c3d4e5f60718293a4b5c6d7e8f90', 'hex').copy(more, 0x144);
  u32(0x554, 1);
  more.write('ntkrnlmp.pdb\0', 0x158, 'latin1');
  put(base + 0x400n, more);
  const directory = (index: number, rva: number, size: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(rva, 0);
    bytes.writeUInt32LE(size, 4);
    put(base + BigInt(0x108 + 8 * index), bytes);
  };
  directory(0, 0x400, 0x80);
  directory(6, 0x500, 28);
}
