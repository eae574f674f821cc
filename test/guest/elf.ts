/** Writes a guest as QEMU's dump-guest-memory does, without QEMU: by literal offsets. */
import { GPRS, type Guest, type GuestCpu } from './guest.ts';
import { PAGE } from './memory.ts';
import type { Guest32 } from './x86/guest.ts';

export interface ElfOptions {
  /** Bytes of each "QEMU" note: 432 (no kernel_gs_base), 440, or 448 (version 2, with a crash flag). */
  noteSize?: number;
  /** CPU whose crash flag is set in notes of version 2. */
  crashedCpu?: number;
  /** No notes of CPUs at all. */
  withoutNotes?: boolean;
  /** QEMU CPU indices without a usable note: QEMU's too short, NT_PRSTATUS all zero. */
  withoutNote?: readonly number[];
  /** CPUs whose QEMU note is too short; null for no QEMU notes at all. */
  prstatusOnly?: readonly number[] | null;
  /** Runs [from, to) of physical memory; default: all RAM around the VGA hole. */
  runs?: readonly (readonly [from: number, to: number])[];
  /** Program headers in reverse order, the notes last. */
  reversed?: boolean;
  /** More notes behind the CPUs'. */
  extraNotes?: readonly Buffer[];
}

/** One ELF note with its padding. */
export function elfNote(name: string, type: number, desc: Buffer): Buffer {
  const pad = (b: Buffer) => Buffer.concat([b, Buffer.alloc((4 - (b.length % 4)) % 4)]);
  const nameBytes = Buffer.from(`${name}\0`, 'latin1');
  const header = Buffer.alloc(12);
  header.writeUInt32LE(nameBytes.length, 0);
  header.writeUInt32LE(desc.length, 4);
  header.writeUInt32LE(type, 8);
  return Buffer.concat([header, pad(nameBytes), pad(desc)]);
}

/** QEMU's note of one CPU. */
export function cpuNote(cpu: GuestCpu, size = 440, crashed = false): Buffer {
  const desc = Buffer.alloc(size);
  const { regs } = cpu;
  desc.writeUInt32LE(size > 440 ? 2 : 1, 0);
  desc.writeUInt32LE(size, 4);
  GPRS.forEach((name, i) => {
    desc.writeBigUInt64LE(regs[name], 8 + 8 * i);
  });
  const segment = (at: number, selector: number, limit: number, flags: number, base: bigint) => {
    desc.writeUInt32LE(selector, at);
    desc.writeUInt32LE(limit, at + 4);
    desc.writeUInt32LE(flags, at + 8);
    desc.writeBigUInt64LE(base, at + 16);
  };
  if (cpu.started) {
    const user = (cpu.cs & 3) === 3;
    // 0x23: the code segment of compatibility mode.
    if (cpu.cs === 0x23) segment(0x98, cpu.cs, 0xffffffff, 0xcffb00, 0n);
    else segment(0x98, cpu.cs, 0, user ? 0x20fb00 : 0x209b00, 0n);
    segment(0xb0, cpu.ds, 0xffffffff, 0xcff300, 0n);
    segment(0xc8, cpu.es, 0xffffffff, 0xcff300, 0n);
    segment(0xe0, cpu.fs, 0x3c00, 0x40f300, cpu.fsBase);
    segment(0xf8, cpu.gs, 0xffffffff, 0xcff300, cpu.gsBase);
    if (user) segment(0x110, cpu.ss, 0xffffffff, 0xcff300, 0n);
    else segment(0x110, cpu.ss, 0, 0x409300, 0n);
    // QEMU keeps the descriptor's high word as it was when LTR read it: with bits of the base, and not busy.
    segment(
      0x140,
      cpu.tr,
      0x67,
      (Number(cpu.trBase & 0xff000000n) | Number((cpu.trBase >> 16n) & 0xffn) | 0x8900) >>> 0,
      cpu.trBase,
    );
  } else {
    segment(0x98, cpu.cs, 0xffff, 0x9b00, 0xffff0000n);
    for (const at of [0xb0, 0xc8, 0xe0, 0xf8, 0x110]) segment(at, 0, 0xffff, 0x9300, 0n);
    segment(0x140, 0, 0xffff, 0x8b00, 0n);
  }
  segment(0x128, 0, 0xffff, 0x8200, 0n);
  segment(0x158, 0, cpu.gdt.limit, 0, cpu.gdt.base);
  segment(0x170, 0, cpu.idt.limit, 0, cpu.idt.base);
  desc.writeBigUInt64LE(cpu.cr0, 0x188);
  desc.writeBigUInt64LE(cpu.cr3, 0x1a0);
  desc.writeBigUInt64LE(cpu.cr4, 0x1a8);
  if (size >= 440) desc.writeBigUInt64LE(cpu.kernelGsBase, 0x1b0);
  if (size > 440) desc.writeUInt8(crashed ? 1 : 0, 0x1b8);
  return elfNote('QEMU', 0, desc);
}

/** The Linux-style note of one CPU, by which gdb and crash know it. */
export function prstatus(cpu: GuestCpu, index: number): Buffer {
  const desc = Buffer.alloc(336);
  desc.writeUInt32LE(index + 1, 0x20);
  const r = cpu.regs;
  const fromR15 = [
    r.r15,
    r.r14,
    r.r13,
    r.r12,
    r.rbp,
    r.rbx,
    r.r11,
    r.r10,
    r.r9,
    r.r8,
    r.rax,
    r.rcx,
    r.rdx,
    r.rsi,
    r.rdi,
  ];
  const fromRip = [r.rip, BigInt(cpu.cs), r.rflags, r.rsp, BigInt(cpu.ss), cpu.fsBase, cpu.gsBase];
  const segments = [cpu.ds, cpu.es, cpu.fs, cpu.gs].map(BigInt);
  [...fromR15, 0n, ...fromRip, ...segments].forEach((value, i) => {
    desc.writeBigUInt64LE(value, 0x70 + 8 * i);
  });
  return elfNote('CORE', 1, desc);
}

export function writeElf(guest: Guest | Guest32, options: ElfOptions = {}): Buffer {
  const status = (cpu: GuestCpu, i: number) => ('pae' in guest ? guest.elf.status(cpu, i) : prstatus(cpu, i));
  const state = (cpu: GuestCpu, i: number) =>
    'pae' in guest ? guest.elf.state(cpu) : cpuNote(cpu, options.noteSize, options.crashedCpu === i);
  const runs = options.runs ?? [
    [0, 0xa0000],
    [0x100000, guest.ramBytes],
  ];
  const without = new Set(options.withoutNote ?? []);
  const cpus = options.withoutNotes ? [] : guest.cpus;
  const notes = Buffer.concat([
    ...cpus.map((cpu, i) =>
      without.has(i) ? elfNote('CORE', 1, Buffer.alloc('pae' in guest ? 144 : 336)) : status(cpu, i),
    ),
    ...(options.prstatusOnly === null ? [] : cpus).map((cpu, i) =>
      without.has(i) || options.prstatusOnly?.includes(i) ? elfNote('QEMU', 0, Buffer.alloc(64)) : state(cpu, i),
    ),
    ...(guest.vmcoreinfo ? [guest.vmcoreinfo.note] : []),
    ...(options.extraNotes ?? []),
  ]);
  const count = runs.length + 1;
  const headers = Buffer.alloc(0xc0 + 56 * count);
  const memory = runs.map(([from, to]) =>
    guest.memory.flat(from - (from % PAGE), to + PAGE).subarray(from % PAGE, (from % PAGE) + to - from),
  );
  const order = Array.from({ length: count }, (_, i) => (options.reversed ? count - 1 - i : i));
  let at = headers.length + notes.length;
  Buffer.from('7f454c46020101', 'hex').copy(headers);
  headers.writeUInt16LE(4, 0x10);
  headers.writeUInt16LE('pae' in guest ? 3 : 62, 0x12);
  headers.writeUInt32LE(1, 0x14);
  headers.writeBigUInt64LE(0xc0n, 0x20);
  headers.writeBigUInt64LE(0x40n, 0x28);
  headers.writeUInt16LE(8, 0x34);
  headers.writeUInt16LE(56, 0x36);
  headers.writeUInt16LE(Math.min(count, 0xffff), 0x38);
  headers.writeUInt16LE(64, 0x3a);
  headers.writeUInt16LE(2, 0x3c);
  headers.writeUInt16LE(1, 0x3e);
  if (count >= 0xffff) headers.writeUInt32LE(count, 0x40 + 0x2c);
  const program = (slot: number, type: number, offset: number, address: number, size: number) => {
    const p = 0xc0 + 56 * order[slot]!;
    headers.writeUInt32LE(type, p);
    headers.writeBigUInt64LE(BigInt(offset), p + 8);
    headers.writeBigUInt64LE(BigInt(address), p + 0x10);
    headers.writeBigUInt64LE(BigInt(address), p + 0x18);
    headers.writeBigUInt64LE(BigInt(size), p + 0x20);
    headers.writeBigUInt64LE(BigInt(size), p + 0x28);
  };
  program(0, 4, headers.length, 0, notes.length);
  memory.forEach((bytes, i) => {
    program(i + 1, 1, at, runs[i]![0], bytes.length);
    at += bytes.length;
  });
  // The string table that QEMU puts at the very end.
  headers.writeUInt32LE(1, 0x80);
  headers.writeUInt32LE(3, 0x84);
  headers.writeBigUInt64LE(BigInt(at), 0x98);
  headers.writeBigUInt64LE(11n, 0xa0);
  return Buffer.concat([headers, notes, ...memory, Buffer.from('\0.shstrtab\0', 'latin1')]);
}
