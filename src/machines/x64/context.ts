/** CONTEXT and KSPECIAL_REGISTERS of x64 Windows (ntddk.h, and ntos types in public symbols). */
import { isCanonical, isKernelAddress } from '../../core/bits.ts';
import { raw, type StructOf, struct, u8, u16, u32, u64 } from '../../core/struct.ts';
import { va } from '../../core/units.ts';
import type { ContextView } from '../machine.ts';
import type { ReadVirtual } from '../read-virtual.ts';
import { packSt, unpackSt, unpackXmm } from './fxsave.ts';
import { Kpcr } from './kpcr.ts';
import { bareSegment } from './prstatus.ts';
import type { DebugRegisters, FloatingPoint, Segment, X64Registers } from './registers.ts';

/** ContextFlags' bit of this machine. */
export const CONTEXT_AMD64 = 0x100000;

/** Control, integer and segment registers: just what a QEMU note knows. */
const CONTEXT_KNOWN = CONTEXT_AMD64 | 0x7;
const CONTEXT_FLOATING_POINT = 0x8;
const CONTEXT_DEBUG_REGISTERS = 0x10;

/** Power-on value of MXCSR, which is also what Windows sets for every thread. */
const MXCSR_DEFAULT = 0x1f80;

/** CONTEXT. */
export const Context = struct({
  name: 'CONTEXT (AMD64)',
  size: 0x4d0,
  fields: {
    ContextFlags: u32(0x30),
    MxCsr: u32(0x34),
    SegCs: u16(0x38),
    SegDs: u16(0x3a),
    SegEs: u16(0x3c),
    SegFs: u16(0x3e),
    SegGs: u16(0x40),
    SegSs: u16(0x42),
    EFlags: u32(0x44),
    Dr0: u64(0x48),
    Dr1: u64(0x50),
    Dr2: u64(0x58),
    Dr3: u64(0x60),
    Dr6: u64(0x68),
    Dr7: u64(0x70),
    Rax: u64(0x78),
    Rcx: u64(0x80),
    Rdx: u64(0x88),
    Rbx: u64(0x90),
    Rsp: u64(0x98),
    Rbp: u64(0xa0),
    Rsi: u64(0xa8),
    Rdi: u64(0xb0),
    R8: u64(0xb8),
    R9: u64(0xc0),
    R10: u64(0xc8),
    R11: u64(0xd0),
    R12: u64(0xd8),
    R13: u64(0xe0),
    R14: u64(0xe8),
    R15: u64(0xf0),
    Rip: u64(0xf8),
    FltControlWord: u16(0x100),
    FltStatusWord: u16(0x102),
    FltTagWord: u8(0x104),
    FltMxCsr: u32(0x118),
    FltMxCsrMask: u32(0x11c),
    /** ST(0) to ST(7), 16 bytes each, of which 10 count. */
    St: raw(0x120, 128),
    Xmm: raw(0x1a0, 256),
    DebugControl: u64(0x4a8),
  },
});

/** KDESCRIPTOR at +0x50 and +0x60: 6 bytes of padding, then limit and base as LGDT takes them. */
export const SpecialRegisters = struct({
  name: 'KSPECIAL_REGISTERS (AMD64)',
  // Before Windows 8 it ends at 0xd8, and padding follows.
  size: 0xe0,
  fields: {
    Cr0: u64(0x0),
    Cr2: u64(0x8),
    Cr3: u64(0x10),
    Cr4: u64(0x18),
    KernelDr0: u64(0x20),
    KernelDr1: u64(0x28),
    KernelDr2: u64(0x30),
    KernelDr3: u64(0x38),
    KernelDr6: u64(0x40),
    KernelDr7: u64(0x48),
    GdtrLimit: u16(0x56),
    GdtrBase: u64(0x58),
    IdtrLimit: u16(0x66),
    IdtrBase: u64(0x68),
    Tr: u16(0x70),
    Ldtr: u16(0x72),
    MxCsr: u32(0x74),
    Cr8: u64(0xa0),
    MsrGsBase: u64(0xa8),
    MsrGsSwap: u64(0xb0),
    MsrStar: u64(0xb8),
    MsrLStar: u64(0xc0),
    MsrCStar: u64(0xc8),
    MsrSyscallMask: u64(0xd0),
    Xcr0: u64(0xd8),
  },
});

/** A whole CONTEXT for what the input holds; its flags claim nothing else. */
export function encodeContext(r: X64Registers): Buffer {
  const buffer = Buffer.alloc(Context.size);
  const selector = (s: Segment) => s.selector & 0xffff;
  Context.write(buffer, 0, {
    ContextFlags: CONTEXT_KNOWN,
    MxCsr: MXCSR_DEFAULT,
    SegCs: selector(r.cs),
    SegDs: selector(r.ds),
    SegEs: selector(r.es),
    SegFs: selector(r.fs),
    SegGs: selector(r.gs),
    SegSs: selector(r.ss),
    EFlags: Number(r.rflags & 0xffff_ffffn),
    Rax: r.rax,
    Rcx: r.rcx,
    Rdx: r.rdx,
    Rbx: r.rbx,
    Rsp: r.rsp,
    Rbp: r.rbp,
    Rsi: r.rsi,
    Rdi: r.rdi,
    R8: r.r8,
    R9: r.r9,
    R10: r.r10,
    R11: r.r11,
    R12: r.r12,
    R13: r.r13,
    R14: r.r14,
    R15: r.r15,
    Rip: r.rip,
    FltMxCsr: MXCSR_DEFAULT,
  });
  if (r.floatingPoint) encodeFloatingPoint(buffer, r.floatingPoint);
  if (r.debug) encodeDebugRegisters(buffer, r.debug);
  return buffer;
}

const addFlags = (frame: Buffer, flags: number) =>
  Context.write(frame, 0, { ContextFlags: Context.read(frame).ContextFlags | flags });

function encodeFloatingPoint(frame: Buffer, f: FloatingPoint): void {
  addFlags(frame, CONTEXT_FLOATING_POINT);
  Context.write(frame, 0, {
    // Readers refuse a context where these two differ.
    MxCsr: f.mxcsr,
    FltMxCsr: f.mxcsr,
    FltControlWord: f.controlWord,
    FltStatusWord: f.statusWord,
    FltTagWord: f.tagWord,
    St: packSt(f.st),
    Xmm: Buffer.concat(f.xmm),
  });
}

function encodeDebugRegisters(frame: Buffer, { dr0, dr1, dr2, dr3, dr6, dr7 }: DebugRegisters): void {
  addFlags(frame, CONTEXT_DEBUG_REGISTERS);
  Context.write(frame, 0, { Dr0: dr0, Dr1: dr1, Dr2: dr2, Dr3: dr3, Dr6: dr6, Dr7: dr7 });
}

/** What a frame's flags claim beyond control, integer and segment registers. */
function decodeMore(c: StructOf<typeof Context>): Pick<X64Registers, 'floatingPoint' | 'debug'> {
  return {
    ...((c.ContextFlags & CONTEXT_FLOATING_POINT) !== 0 && {
      floatingPoint: {
        controlWord: c.FltControlWord,
        statusWord: c.FltStatusWord,
        tagWord: c.FltTagWord,
        mxcsr: c.MxCsr,
        st: unpackSt(c.St),
        xmm: unpackXmm(c.Xmm),
      },
    }),
    ...((c.ContextFlags & CONTEXT_DEBUG_REGISTERS) !== 0 && {
      debug: { dr0: c.Dr0, dr1: c.Dr1, dr2: c.Dr2, dr3: c.Dr3, dr6: c.Dr6, dr7: c.Dr7 },
    }),
  };
}

/** Parts of a CONTEXT (low byte), its requests and states (bits 27 to 31), and the machine's bit. */
const FLAG_BITS = 0xf81f_ffff;

/** See `Machine.areContextFlags`. */
export const areContextFlags = (flags: number): boolean =>
  (flags & CONTEXT_AMD64) !== 0 && (flags & ~FLAG_BITS) === 0 && (flags & 0xf_ff00) === 0;

/** See `Machine.looksLikeContext`. */
export function looksLikeContext(frame: Buffer): boolean {
  const { ContextFlags: flags, MxCsr } = Context.read(frame);
  // MXCSR has 16 bits.
  return (areContextFlags(flags) && MxCsr <= 0xffff) || frame.every((byte) => byte === 0);
}

/** @param frame at least `Context.size` bytes */
export function viewContext(frame: Buffer): ContextView {
  const { ContextFlags: flags, Rip, Rsp, Rcx, Rdx, R8, R9 } = Context.read(frame);
  return {
    // Control (1) and integer (2).
    complete: areContextFlags(flags) && (flags & 3) === 3,
    instructionPointer: va(Rip),
    stackPointer: va(Rsp),
    arguments: [Rcx, Rdx, R8, R9],
  };
}

/** RFLAGS.IF */
const EFLAGS_INTERRUPTS = 0x200;

/** See `Machine.interruptsEnabled`. */
export const interruptsEnabled = (frame: Buffer): boolean => (Context.read(frame).EFlags & EFLAGS_INTERRUPTS) !== 0;

/** Of a descriptor's high dword: all but the bits of base and limit. */
const DESCRIPTOR_FLAGS = 0x00f0_ff00;

/**
 * @param frame at least `Context.size` bytes
 * @param special at least `SpecialRegisters.size` bytes
 * @param read for the descriptors that the selectors name, in the GDT
 */
export function decodeContext(frame: Buffer, special: Buffer, read: ReadVirtual): X64Registers | undefined {
  const c = Context.read(frame);
  // What is written for a CPU whose registers are unknown has no RIP.
  if (!viewContext(frame).complete || c.Rip === 0n || !isCanonical(c.Rip, 57)) return undefined;
  const s = SpecialRegisters.read(special);
  const table = (limit: number, base: bigint): Segment => ({ selector: 0, limit, flags: 0, base });
  const segment = (selector: number, base = 0n): Segment => {
    const descriptor = isKernelAddress(s.GdtrBase) ? read(s.GdtrBase + BigInt(selector & ~7), 8) : undefined;
    if (!descriptor) return bareSegment(BigInt(selector), base);
    return { selector, limit: 0, flags: descriptor.readUInt32LE(4) & DESCRIPTOR_FLAGS, base };
  };
  return {
    rax: c.Rax,
    rbx: c.Rbx,
    rcx: c.Rcx,
    rdx: c.Rdx,
    rsi: c.Rsi,
    rdi: c.Rdi,
    rsp: c.Rsp,
    rbp: c.Rbp,
    r8: c.R8,
    r9: c.R9,
    r10: c.R10,
    r11: c.R11,
    r12: c.R12,
    r13: c.R13,
    r14: c.R14,
    r15: c.R15,
    rip: c.Rip,
    rflags: BigInt(c.EFlags),
    cs: segment(c.SegCs),
    ds: segment(c.SegDs),
    es: segment(c.SegEs),
    fs: segment(c.SegFs),
    gs: segment(c.SegGs, s.MsrGsBase),
    ss: segment(c.SegSs),
    // Zeros stand for what was not known.
    control: s.Cr3 === 0n ? undefined : { cr0: s.Cr0, cr2: s.Cr2, cr3: s.Cr3, cr4: s.Cr4 },
    tables:
      s.GdtrBase === 0n
        ? undefined
        : {
            ldt: segment(s.Ldtr),
            tr: segment(s.Tr),
            gdt: table(s.GdtrLimit, s.GdtrBase),
            idt: table(s.IdtrLimit, s.IdtrBase),
          },
    kernelGsBase: s.MsrGsSwap,
    ...decodeMore(c),
  };
}

/**
 * The frame of a CPU whose registers are unknown: flags that claim an AMD64 context and kernel
 * selectors keep the debugger in x64 mode for all CPUs (an all-zero frame makes it fall back to x86
 * mode for every CPU, seen in the engine); all else is zero.
 */
export function encodeUnknownContext(): Buffer {
  const buffer = Buffer.alloc(Context.size);
  Context.write(buffer, 0, {
    ContextFlags: CONTEXT_KNOWN,
    MxCsr: MXCSR_DEFAULT,
    FltMxCsr: MXCSR_DEFAULT,
    SegCs: 0x10,
    SegSs: 0x18,
  });
  return buffer;
}

/** Up to the descriptor of the compatibility-mode TEB, the last one that Windows sets; and 256 gates. */
const GDT_LIMIT = 0x57;
const IDT_LIMIT = 0xfff;

/** What the kernel names of its tables; undefined where it can't be its own KPCR. */
function tablesOfKpcr(kpcr: Buffer) {
  const { GdtBase: gdt, IdtBase: idt } = Kpcr.read(kpcr);
  if (!isKernelAddress(gdt) || !isKernelAddress(idt)) return undefined;
  return { GdtrLimit: GDT_LIMIT, GdtrBase: gdt, IdtrLimit: IDT_LIMIT, IdtrBase: idt };
}

/** Values that a running kernel saved at some time in the past are not to pass for current ones. */
const UNKNOWN_CONTROL = { Cr0: 0n, Cr2: 0n, Cr3: 0n, Cr4: 0n };

/** What only some inputs have; the rest stays as the guest had it. The debugger shows debug registers from here. */
function knownMore({
  debug,
  floatingPoint,
  systemCalls,
  cr8,
  xcr0,
}: X64Registers): Partial<StructOf<typeof SpecialRegisters>> {
  return {
    ...(debug && {
      KernelDr0: debug.dr0,
      KernelDr1: debug.dr1,
      KernelDr2: debug.dr2,
      KernelDr3: debug.dr3,
      KernelDr6: debug.dr6,
      KernelDr7: debug.dr7,
    }),
    ...(floatingPoint && { MxCsr: floatingPoint.mxcsr }),
    ...(systemCalls && {
      MsrStar: systemCalls.star,
      MsrLStar: systemCalls.lstar,
      MsrCStar: systemCalls.cstar,
      MsrSyscallMask: systemCalls.fmask,
    }),
    ...(cr8 !== undefined && { Cr8: cr8 }),
    ...(xcr0 !== undefined && { Xcr0: xcr0 }),
  };
}

/** See `Machine.patchSpecialRegisters`. */
export function patchSpecialRegisters(
  original: Buffer,
  r: X64Registers | undefined,
  kpcr: Buffer | undefined,
  saved: boolean,
): Buffer {
  const buffer = Buffer.from(original);
  const { control, tables } = r ?? {};
  const kernelTables = kpcr && tablesOfKpcr(kpcr);
  const savedTables = saved && SpecialRegisters.read(original).GdtrBase === kernelTables?.GdtrBase;
  const unknownControl = saved ? {} : UNKNOWN_CONTROL;
  const unknownTables = savedTables ? {} : { ...(saved ? {} : { Tr: 0, Ldtr: 0 }), ...kernelTables };
  SpecialRegisters.write(buffer, 0, {
    ...(control ? { Cr0: control.cr0, Cr2: control.cr2, Cr3: control.cr3, Cr4: control.cr4 } : unknownControl),
    ...(tables
      ? {
          GdtrLimit: tables.gdt.limit & 0xffff,
          GdtrBase: tables.gdt.base,
          IdtrLimit: tables.idt.limit & 0xffff,
          IdtrBase: tables.idt.base,
          Tr: tables.tr.selector & 0xffff,
          Ldtr: tables.ldt.selector & 0xffff,
        }
      : unknownTables),
    ...(r && { MsrGsBase: r.gs.base }),
    ...(r?.kernelGsBase !== undefined && { MsrGsSwap: r.kernelGsBase }),
    ...(r && knownMore(r)),
  });
  return buffer;
}
