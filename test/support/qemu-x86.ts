/** What a 32-bit guest needs to run in QEMU: its firmware, and the code that its CPUs run last. See qemu.ts. */
import type { Guest32 } from '../guest/x86/guest.ts';

const LAUNCH_SLOT = 0x100;

/** As for 64-bit guests: CR3 comes in EAX, then the general registers, then to where the CPU is to be found. */
export function placeLaunch32(guest: Guest32): void {
  guest.cpus.forEach((cpu, i) => {
    if (!cpu.started) return;
    const slot = Buffer.alloc(LAUNCH_SLOT, 0xcc);
    const physical = guest.launch.physical[Math.floor((i * LAUNCH_SLOT) / 0x1000)];
    if (physical === undefined) throw new Error(`no room for the launch code of CPU ${i}`);
    const virtual = guest.launch.virtual + i * LAUNCH_SLOT;
    let at = 0;
    const emit = (...bytes: number[]) => {
      slot.set(bytes, at);
      at += bytes.length;
    };
    const emit32 = (value: number | bigint) => {
      at = slot.writeUInt32LE(Number(BigInt.asUintN(32, BigInt(value))), at);
    };
    const r = cpu.regs;
    const user = (cpu.cs & 3) === 3;
    const frame = 0xc8;
    emit(0x0f, 0x22, 0xd8); // mov cr3, eax
    const esp = user ? BigInt(virtual + frame) : r.rsp;
    [r.rax, r.rcx, r.rdx, r.rbx, esp, r.rbp, r.rsi, r.rdi].forEach((value, register) => {
      emit(0xb8 + register); // mov r32, imm32
      emit32(value);
    });
    if (user) {
      emit(0xcf); // iretd
      at = frame;
      for (const value of [r.rip, BigInt(cpu.cs), r.rflags, r.rsp, BigInt(cpu.ss)]) emit32(value);
    } else {
      emit(0xe9); // jmp rel32
      emit32(r.rip - BigInt(virtual + at + 4));
    }
    slot.copy(guest.memory.page(physical), (i * LAUNCH_SLOT) % 0x1000);
  });
}

/** Fills the page tables and records of test/guest/x86/stub.asm. */
export function fillFirmware32(guest: Guest32, firmware: Buffer): Buffer {
  const { kernel, pae } = guest;
  if (pae) {
    // The upper half is the guest's own; below are the firmware and its records.
    [0xf1000, 0xf2000, kernel.directories[2]!, kernel.directories[3]!].forEach((directory, i) => {
      // Accessed, else QEMU tries to set that in what can't be written.
      firmware.writeBigUInt64LE(BigInt(directory) | 0x21n, 8 * i);
    });
    firmware.writeBigUInt64LE(0xe3n, 0x1000);
  } else {
    guest.memory.page(kernel.root).copy(firmware, 0x800, 0x800);
    firmware.writeUInt32LE(0xe3, 0);
  }
  if (0x3000 + 0x100 * guest.cpus.length > 0xc000) throw new Error(`too many CPUs: ${guest.cpus.length}`);
  firmware.writeUInt32LE(guest.cpus.length, 0xeffc);
  guest.cpus.forEach((cpu, i) => {
    if (!cpu.started) return;
    const record = firmware.subarray(0x3000 + 0x100 * i, 0x3100 + 0x100 * i);
    const u32 = (at: number, value: bigint | number) => record.writeUInt32LE(Number(value), at);
    const tableRegister = (at: number, limit: number, base: bigint | number) => {
      record.writeUInt16LE(limit, at);
      u32(at + 2, base);
    };
    u32(0x00, cpu.cr3);
    u32(0x04, guest.launch.virtual + i * LAUNCH_SLOT);
    u32(0x08, cpu.regs.rflags);
    u32(0x0c, cpu.cr0);
    u32(0x10, cpu.cr4);
    tableRegister(0x14, cpu.gdt.limit, cpu.gdt.base);
    tableRegister(0x1c, cpu.idt.limit, cpu.idt.base);
    tableRegister(0x24, 0x3f, 0xf3080 + 0x100 * i);
    // CS and SS of a CPU in user mode come with its IRET.
    [(cpu.cs & 3) === 3 ? 0x10 : cpu.ss, cpu.ds, cpu.es, cpu.fs, cpu.gs, cpu.tr].forEach((selector, n) => {
      record.writeUInt16LE(selector, 0x2c + 2 * n);
    });
    record.writeUInt8(1, 0x38);
    const gdt = kernel.read(Number(cpu.gdt.base), 0x40);
    gdt.writeUInt8(gdt[cpu.tr + 5]! & ~2, cpu.tr + 5); // LTR wants a TSS that is not busy
    gdt.copy(record, 0x80);
  });
  return firmware;
}
