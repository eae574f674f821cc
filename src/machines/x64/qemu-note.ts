/**
 * The "QEMU" note of an x86 CPU (QEMUCPUState in QEMU's target/i386/arch_dump.c): the same structure
 * for 32-bit and 64-bit guests. Sizes decide what is in it, not the version number.
 */
import { nested, struct, u8, u32, u64 } from '../../core/struct.ts';
import type { CpuNote } from '../cpu-notes.ts';
import { CONTROL_REGISTERS, GENERAL_REGISTERS, SEGMENTS, TABLES } from './registers.ts';

const QemuSegment = struct({
  name: 'QEMUCPUSegment',
  size: 24,
  fields: { selector: u32(0), limit: u32(4), flags: u32(8), base: u64(0x10) },
});

const QemuCpuState = struct({
  name: 'QEMUCPUState',
  size: 448,
  fields: {
    version: u32(0),
    size: u32(4),
    rax: u64(0x08),
    rbx: u64(0x10),
    rcx: u64(0x18),
    rdx: u64(0x20),
    rsi: u64(0x28),
    rdi: u64(0x30),
    rsp: u64(0x38),
    rbp: u64(0x40),
    r8: u64(0x48),
    r9: u64(0x50),
    r10: u64(0x58),
    r11: u64(0x60),
    r12: u64(0x68),
    r13: u64(0x70),
    r14: u64(0x78),
    r15: u64(0x80),
    rip: u64(0x88),
    rflags: u64(0x90),
    cs: nested(0x98, QemuSegment),
    ds: nested(0xb0, QemuSegment),
    es: nested(0xc8, QemuSegment),
    fs: nested(0xe0, QemuSegment),
    gs: nested(0xf8, QemuSegment),
    ss: nested(0x110, QemuSegment),
    ldt: nested(0x128, QemuSegment),
    tr: nested(0x140, QemuSegment),
    gdt: nested(0x158, QemuSegment),
    idt: nested(0x170, QemuSegment),
    cr0: u64(0x188),
    cr1: u64(0x190),
    cr2: u64(0x198),
    cr3: u64(0x1a0),
    cr4: u64(0x1a8),
    /** Since QEMU 3.0; absent where the note's size is 432. */
    kernel_gs_base: u64(0x1b0),
    /** Since version 2: this is the CPU on which the guest crashed. */
    crash: u8(0x1b8),
  },
});

/** Everything up to and without kernel_gs_base: what every version has. */
export const QEMU_CPU_STATE_MIN = 432;

/** Of QEMUCPUState. */
const NEWEST_VERSION = 2;

/**
 * Reads a note's descriptor.
 *
 * @returns undefined when it is shorter than the oldest known form or its own size field is impossible.
 */
export function parseQemuNote(desc: Buffer): CpuNote | undefined {
  if (desc.length < QEMU_CPU_STATE_MIN) return undefined;
  const claimed = QemuCpuState.fields.size.read(desc, 4);
  const size = Math.min(claimed, desc.length);
  if (size < QEMU_CPU_STATE_MIN) return undefined;
  const { version, crash } = QemuCpuState.readPartial(desc, size);
  const state = QemuCpuState.read(Buffer.concat([desc.subarray(0, size)], QemuCpuState.size));
  const pick = <K extends keyof typeof state>(names: readonly K[]) =>
    Object.fromEntries(names.map((name) => [name, state[name]])) as Pick<typeof state, K>;
  return {
    registers: {
      ...pick(GENERAL_REGISTERS),
      ...pick(SEGMENTS),
      rip: state.rip,
      rflags: state.rflags,
      kernelGsBase: size < QEMU_CPU_STATE_MIN + 8 ? undefined : state.kernel_gs_base,
      control: pick(CONTROL_REGISTERS),
      tables: pick(TABLES),
    },
    crashed: version !== undefined && version >= 2 && crash !== undefined ? crash !== 0 : undefined,
    doubt:
      version === undefined || version < 1 || version > NEWEST_VERSION || claimed > desc.length
        ? `it says that it is of version ${version} and has ${claimed} bytes`
        : undefined,
  };
}
