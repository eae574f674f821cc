/** Writes an ARM64 guest as QEMU's dump-guest-memory does, without QEMU: by literal offsets. */
import type { Arm64Cpu, Arm64Guest } from './arm64.ts';
import { RAM_BASE } from './arm64-memory.ts';
import { elfNote } from './elf.ts';

export interface Arm64ElfOptions {
  /** No notes of CPUs at all. */
  withoutNotes?: boolean;
  /** No NT_ARM_SVE, as on CPUs without SVE. */
  withoutSve?: boolean;
  /** No NT_PRFPREG. */
  withoutVectors?: boolean;
  /** CPUs whose NT_PRSTATUS is all zero. */
  withoutState?: readonly number[];
  /** Physical pages beyond RAM. */
  pages?: readonly number[];
}

/** NT_PRSTATUS of one CPU. */
export function arm64Prstatus(cpu: Arm64Cpu, index: number): Buffer {
  const desc = Buffer.alloc(392);
  desc.writeUInt32LE(index + 1, 0x20);
  [...cpu.x, cpu.sp, cpu.pc, cpu.pstate].forEach((value, i) => {
    desc.writeBigUInt64LE(value, 0x70 + 8 * i);
  });
  desc.writeUInt32LE(1, 0x180);
  return elfNote('CORE', 1, desc);
}

/** NT_PRFPREG of one CPU. */
export function arm64Fpsimd(cpu: Arm64Cpu): Buffer {
  const desc = Buffer.alloc(528);
  cpu.v.forEach((value, i) => {
    value.copy(desc, 16 * i);
  });
  desc.writeUInt32LE(cpu.fpsr, 0x200);
  desc.writeUInt32LE(cpu.fpcr, 0x204);
  return elfNote('CORE', 2, desc);
}

export function arm64Notes(guest: Pick<Arm64Guest, 'cpus'>, options: Arm64ElfOptions = {}): Buffer {
  return Buffer.concat(
    (options.withoutNotes ? [] : guest.cpus).flatMap((cpu, i) => [
      options.withoutState?.includes(i) ? elfNote('CORE', 1, Buffer.alloc(392)) : arm64Prstatus(cpu, i),
      ...(options.withoutVectors ? [] : [arm64Fpsimd(cpu)]),
      ...(options.withoutSve ? [] : [elfNote('LINUX', 0x405, Buffer.alloc(592))]),
    ]),
  );
}

export function writeArm64Elf(
  guest: Pick<Arm64Guest, 'cpus' | 'memory' | 'ramBytes'>,
  options: Arm64ElfOptions = {},
): Buffer {
  const notes = arm64Notes(guest, options);
  const ranges = [[RAM_BASE, guest.ramBytes], ...(options.pages ?? []).map((page) => [page, 0x1000])] as const;
  const headers = Buffer.alloc(0xc0 + 56 * (1 + ranges.length));
  const memory = ranges.map(([from, size]) => guest.memory.flat(from!, from! + size!));
  const end = headers.length + notes.length + memory.reduce((sum, bytes) => sum + bytes.length, 0);
  Buffer.from('7f454c46020101', 'hex').copy(headers);
  headers.writeUInt16LE(4, 0x10);
  headers.writeUInt16LE(183, 0x12);
  headers.writeUInt32LE(1, 0x14);
  headers.writeBigUInt64LE(0xc0n, 0x20);
  headers.writeBigUInt64LE(0x40n, 0x28);
  headers.writeUInt16LE(8, 0x34);
  headers.writeUInt16LE(56, 0x36);
  headers.writeUInt16LE(1 + ranges.length, 0x38);
  headers.writeUInt16LE(64, 0x3a);
  headers.writeUInt16LE(2, 0x3c);
  headers.writeUInt16LE(1, 0x3e);
  const program = (slot: number, type: number, offset: number, address: number, size: number) => {
    const p = 0xc0 + 56 * slot;
    headers.writeUInt32LE(type, p);
    headers.writeBigUInt64LE(BigInt(offset), p + 8);
    headers.writeBigUInt64LE(BigInt(address), p + 0x10);
    headers.writeBigUInt64LE(BigInt(address), p + 0x18);
    headers.writeBigUInt64LE(BigInt(size), p + 0x20);
    headers.writeBigUInt64LE(BigInt(size), p + 0x28);
  };
  program(0, 4, headers.length, 0, notes.length);
  let at = headers.length + notes.length;
  memory.forEach((bytes, i) => {
    program(1 + i, 1, at, ranges[i]![0]!, bytes.length);
    at += bytes.length;
  });
  headers.writeUInt32LE(1, 0x80);
  headers.writeUInt32LE(3, 0x84);
  headers.writeBigUInt64LE(BigInt(end), 0x98);
  headers.writeBigUInt64LE(11n, 0xa0);
  return Buffer.concat([headers, notes, ...memory, Buffer.from('\0.shstrtab\0', 'latin1')]);
}
