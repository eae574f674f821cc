/** The notes of 32-bit x86 CPUs as QEMU writes them, by literal offsets. */
import { cpuNote, elfNote } from '../elf.ts';
import type { GuestCpu } from '../guest.ts';
import type { Guest32 } from './guest.ts';

/** NT_PRSTATUS of i386. */
export function prstatus32(cpu: GuestCpu, index: number): Buffer {
  const desc = Buffer.alloc(144);
  desc.writeUInt32LE(index + 1, 0x18);
  const { rbx, rcx, rdx, rsi, rdi, rbp, rax, rip, rflags, rsp } = cpu.regs;
  const segments = [cpu.ds, cpu.es, cpu.fs, cpu.gs].map(BigInt);
  [rbx, rcx, rdx, rsi, rdi, rbp, rax, ...segments, 0n, rip, BigInt(cpu.cs), rflags, rsp, BigInt(cpu.ss)].forEach(
    (value, i) => void desc.writeUInt32LE(Number(value), 0x48 + 4 * i),
  );
  return elfNote('CORE', 1, desc);
}

/** QEMU keeps the upper half of each descriptor as it was when it was loaded, the base's bits in it too. */
export function cpuNote32({ kernel }: Pick<Guest32, 'kernel'>, cpu: GuestCpu): Buffer {
  const note = cpuNote(cpu);
  if (!cpu.started) return note;
  const desc = note.subarray(20);
  const segment = (at: number, selector: number) => {
    desc.fill(0, at, at + 24);
    desc.writeUInt32LE(selector, at);
    if (selector < 4) return;
    const entry = kernel.read(Number(cpu.gdt.base) + (selector & ~7), 8);
    const [low, high] = [entry.readUInt32LE(0), entry.readUInt32LE(4)];
    const limit = (low & 0xffff) + (high & 0xf0000);
    const base = (low >>> 16) + (high & 0xff) * 0x10000 + (high >>> 24) * 0x1000000;
    desc.writeUInt32LE((high & 0x800000) !== 0 ? limit * 0x1000 + 0xfff : limit, at + 4);
    // LTR read the TSS when it was not busy.
    desc.writeUInt32LE(selector === cpu.tr ? (high & ~0x200) >>> 0 : high, at + 8);
    desc.writeBigUInt64LE(BigInt(base), at + 16);
  };
  [cpu.cs, cpu.ds, cpu.es, cpu.fs, cpu.gs, cpu.ss].forEach((selector, i) => {
    segment(0x98 + 24 * i, selector);
  });
  segment(0x140, cpu.tr);
  return note;
}
