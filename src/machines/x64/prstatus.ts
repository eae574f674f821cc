/**
 * NT_PRSTATUS of an x86-64 CPU (struct elf_prstatus with user_regs_struct, Linux' uapi), as QEMU and
 * others write it for gdb: general registers, selectors, fs and gs bases, and nothing of the system.
 */
import { struct, u64 } from '../../core/struct.ts';
import type { CpuNote } from '../cpu-notes.ts';
import { SEGMENT_LONG, type Segment, type X64Registers } from './registers.ts';

/** The descriptor of an NT_PRSTATUS note. */
export const Prstatus = struct({
  name: 'elf_prstatus',
  size: 336,
  fields: {
    r15: u64(0x70),
    r14: u64(0x78),
    r13: u64(0x80),
    r12: u64(0x88),
    rbp: u64(0x90),
    rbx: u64(0x98),
    r11: u64(0xa0),
    r10: u64(0xa8),
    r9: u64(0xb0),
    r8: u64(0xb8),
    rax: u64(0xc0),
    rcx: u64(0xc8),
    rdx: u64(0xd0),
    rsi: u64(0xd8),
    rdi: u64(0xe0),
    orig_rax: u64(0xe8),
    rip: u64(0xf0),
    cs: u64(0xf8),
    eflags: u64(0x100),
    rsp: u64(0x108),
    ss: u64(0x110),
    fs_base: u64(0x118),
    gs_base: u64(0x120),
    ds: u64(0x128),
    es: u64(0x130),
    fs: u64(0x138),
    gs: u64(0x140),
  },
});

/** KGDT64_R3_CMCODE | 3, by which Windows runs 32-bit code; all other code is 64-bit. */
const WOW64_CODE = 0x23;

/** A selector whose descriptor is not in the input: of it matters only whether the code is 64-bit. */
export function bareSegment(selector: bigint, base = 0n): Segment {
  const value = Number(selector & 0xffffn);
  return { selector: value, limit: 0, flags: value === WOW64_CODE ? 0 : SEGMENT_LONG, base };
}

/** undefined for a descriptor of another size, or of a CPU that nothing is known of (all zero). */
export function parsePrstatus(desc: Buffer): CpuNote | undefined {
  if (desc.length !== Prstatus.size) return undefined;
  const { cs, ds, es, fs, gs, ss, fs_base, gs_base, eflags, orig_rax: _, ...general } = Prstatus.read(desc);
  if (cs === 0n && general.rip === 0n) return undefined;
  const registers: X64Registers = {
    ...general,
    rflags: eflags,
    cs: bareSegment(cs),
    ds: bareSegment(ds),
    es: bareSegment(es),
    fs: bareSegment(fs, fs_base),
    gs: bareSegment(gs, gs_base),
    ss: bareSegment(ss),
    kernelGsBase: undefined,
    control: undefined,
    tables: undefined,
  };
  return { registers, crashed: undefined };
}
