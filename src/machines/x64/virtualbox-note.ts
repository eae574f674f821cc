/**
 * "VBCPU" notes of VirtualBox' `VBoxManage debugvm NAME dumpvmcore`: DBGFCORECPU of its public header
 * dbgfcorefmt.h, as it is since format 1.2. No file of a real VirtualBox was at hand to check it on.
 */
import { nested, struct, u16, u32, u64, u64s } from '../../core/struct.ts';
import type { CpuNote } from '../cpu-notes.ts';
import { CONTROL_REGISTERS, GENERAL_REGISTERS, SEGMENTS, type Segment } from './registers.ts';

const VirtualBoxSegment = struct({
  name: 'DBGFCORESEL',
  size: 24,
  fields: { uBase: u64(0), uLimit: u32(8), uAttr: u32(0xc), uSel: u16(0x10) },
});

const VirtualBoxTable = struct({ name: 'DBGFCOREXDTR', size: 16, fields: { uAddr: u64(0), cb: u32(8) } });

const VirtualBoxCpu = struct({
  name: 'DBGFCORECPU',
  size: 0x220,
  fields: {
    rax: u64(0),
    rbx: u64(0x8),
    rcx: u64(0x10),
    rdx: u64(0x18),
    rsi: u64(0x20),
    rdi: u64(0x28),
    r8: u64(0x30),
    r9: u64(0x38),
    r10: u64(0x40),
    r11: u64(0x48),
    r12: u64(0x50),
    r13: u64(0x58),
    r14: u64(0x60),
    r15: u64(0x68),
    rip: u64(0x70),
    rsp: u64(0x78),
    rbp: u64(0x80),
    rflags: u64(0x88),
    cs: nested(0x90, VirtualBoxSegment),
    ds: nested(0xa8, VirtualBoxSegment),
    es: nested(0xc0, VirtualBoxSegment),
    fs: nested(0xd8, VirtualBoxSegment),
    gs: nested(0xf0, VirtualBoxSegment),
    ss: nested(0x108, VirtualBoxSegment),
    cr0: u64(0x120),
    cr2: u64(0x128),
    cr3: u64(0x130),
    cr4: u64(0x138),
    dr: u64s(0x140, 8),
    gdtr: nested(0x180, VirtualBoxTable),
    idtr: nested(0x190, VirtualBoxTable),
    ldtr: nested(0x1a0, VirtualBoxSegment),
    tr: nested(0x1b8, VirtualBoxSegment),
    msrKernelGSBase: u64(0x218),
  },
});

/** DR7's bit 10 and RFLAGS' bit 1 are always set: a structure of another version shows itself by them. */
const DR7_ONE = 1n << 10n;
const RFLAGS_ONE = 1n << 1n;

/** undefined when the descriptor can't be this structure. */
export function parseVirtualBoxNote(desc: Buffer): CpuNote | undefined {
  if (desc.length < VirtualBoxCpu.size) return undefined;
  const cpu = VirtualBoxCpu.read(desc);
  if ((cpu.rflags & RFLAGS_ONE) === 0n || (cpu.dr[7]! & DR7_ONE) === 0n) return undefined;
  const pick = <K extends keyof typeof cpu>(names: readonly K[]) =>
    Object.fromEntries(names.map((name) => [name, cpu[name]])) as Pick<typeof cpu, K>;
  const segments = Object.fromEntries(SEGMENTS.map((name) => [name, segment(cpu[name])]));
  return {
    registers: {
      ...pick(GENERAL_REGISTERS),
      ...(segments as Record<(typeof SEGMENTS)[number], Segment>),
      rip: cpu.rip,
      rflags: cpu.rflags,
      kernelGsBase: cpu.msrKernelGSBase,
      control: pick(CONTROL_REGISTERS),
      tables: { ldt: segment(cpu.ldtr), tr: segment(cpu.tr), gdt: table(cpu.gdtr), idt: table(cpu.idtr) },
    },
    crashed: undefined,
  };
}

/** Its attributes are bits 8 to 23 of the descriptor's high dword, without the limit's. */
const segment = (s: { uBase: bigint; uLimit: number; uAttr: number; uSel: number }): Segment => ({
  selector: s.uSel,
  limit: s.uLimit,
  flags: (s.uAttr & 0xf0ff) << 8,
  base: s.uBase,
});

const table = (t: { uAddr: bigint; cb: number }): Segment => ({ selector: 0, limit: t.cb, flags: 0, base: t.uAddr });
