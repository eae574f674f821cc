/** NT_PRSTATUS of an i386 CPU (struct elf_prstatus with user_regs_struct, Linux' uapi): general registers and selectors. */
import { struct, u16, u32n } from '../../core/struct.ts';
import type { CpuNote } from '../cpu-notes.ts';
import type { Segment } from '../x64/registers.ts';

/** The descriptor of an NT_PRSTATUS note. */
export const Prstatus32 = struct({
  name: 'elf_prstatus',
  size: 144,
  fields: {
    ebx: u32n(0x48),
    ecx: u32n(0x4c),
    edx: u32n(0x50),
    esi: u32n(0x54),
    edi: u32n(0x58),
    ebp: u32n(0x5c),
    eax: u32n(0x60),
    ds: u16(0x64),
    es: u16(0x68),
    fs: u16(0x6c),
    gs: u16(0x70),
    orig_eax: u32n(0x74),
    eip: u32n(0x78),
    cs: u16(0x7c),
    eflags: u32n(0x80),
    esp: u32n(0x84),
    ss: u16(0x88),
  },
});

/** A selector whose descriptor is not in the input. */
export const bareSegment = (selector: number, base = 0n): Segment => ({ selector, limit: 0, flags: 0, base });

/** undefined for a descriptor of another size, or of a CPU that nothing is known of (all zero). */
export function parsePrstatus32(desc: Buffer): CpuNote | undefined {
  if (desc.length !== Prstatus32.size) return undefined;
  const r = Prstatus32.read(desc);
  if (r.cs === 0 && r.eip === 0n) return undefined;
  return {
    registers: {
      rax: r.eax,
      rbx: r.ebx,
      rcx: r.ecx,
      rdx: r.edx,
      rsi: r.esi,
      rdi: r.edi,
      rsp: r.esp,
      rbp: r.ebp,
      ...NO_EXTENDED,
      rip: r.eip,
      rflags: r.eflags,
      cs: bareSegment(r.cs),
      ds: bareSegment(r.ds),
      es: bareSegment(r.es),
      fs: bareSegment(r.fs),
      gs: bareSegment(r.gs),
      ss: bareSegment(r.ss),
      kernelGsBase: undefined,
      control: undefined,
      tables: undefined,
    },
    crashed: undefined,
  };
}

/** Registers that a 32-bit CPU lacks. */
export const NO_EXTENDED = { r8: 0n, r9: 0n, r10: 0n, r11: 0n, r12: 0n, r13: 0n, r14: 0n, r15: 0n };
