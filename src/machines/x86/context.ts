/** CONTEXT and KSPECIAL_REGISTERS of 32-bit Windows (ntddk.h, and ntos types in public symbols). */
import { isKernelAddress } from '../../core/bits.ts';
import { address32, raw, type StructOf, struct, u8, u16, u32 } from '../../core/struct.ts';
import type { ContextView } from '../machine.ts';
import type { ReadVirtual } from '../read-virtual.ts';
import type { FrameState } from '../unwinding.ts';
import { packSt, unpackSt, unpackXmm } from '../x64/fxsave.ts';
import type { DebugRegisters, FloatingPoint, Segment, X64Registers } from '../x64/registers.ts';
import { Kpcr } from './kpcr.ts';
import { bareSegment, NO_EXTENDED } from './prstatus.ts';
import { address, low } from './registers.ts';

/** ContextFlags' bit of this machine. */
export const CONTEXT_I386 = 0x10000;

/** Control, integer and segment registers: just what a QEMU note knows. */
const CONTEXT_KNOWN = CONTEXT_I386 | 0x7;
const CONTEXT_DEBUG_REGISTERS = 0x10;
/** Floating point twice: as FSAVE has it, and as FXSAVE has it with SSE. */
const CONTEXT_FLOATING_POINT = 0x8 | 0x20;

/** FLOATING_SAVE_AREA, at 0x1c: as FSAVE has it. FXSAVE's form is at 0xcc. */
export const Context = struct({
  name: 'CONTEXT (x86)',
  size: 0x2cc,
  fields: {
    ContextFlags: u32(0x0),
    Dr0: u32(0x4),
    Dr1: u32(0x8),
    Dr2: u32(0xc),
    Dr3: u32(0x10),
    Dr6: u32(0x14),
    Dr7: u32(0x18),
    ControlWord: u32(0x1c),
    StatusWord: u32(0x20),
    TagWord: u32(0x24),
    RegisterArea: raw(0x38, 80),
    SegGs: u32(0x8c),
    SegFs: u32(0x90),
    SegEs: u32(0x94),
    SegDs: u32(0x98),
    Edi: u32(0x9c),
    Esi: u32(0xa0),
    Ebx: u32(0xa4),
    Edx: u32(0xa8),
    Ecx: u32(0xac),
    Eax: u32(0xb0),
    Ebp: u32(0xb4),
    Eip: u32(0xb8),
    SegCs: u32(0xbc),
    EFlags: u32(0xc0),
    Esp: u32(0xc4),
    SegSs: u32(0xc8),
    FxControlWord: u16(0xcc),
    FxStatusWord: u16(0xce),
    FxTagWord: u8(0xd0),
    FxMxCsr: u32(0xe4),
    FxRegisters: raw(0xec, 8 * 16),
    FxXmm: raw(0x16c, 8 * 16),
  },
});

/** KDESCRIPTOR at +0x28 and +0x30: two bytes of padding, then limit and base as LGDT takes them. */
export const SpecialRegisters = struct({
  name: 'KSPECIAL_REGISTERS (x86)',
  size: 0x54,
  fields: {
    Cr0: u32(0x0),
    Cr2: u32(0x4),
    Cr3: u32(0x8),
    Cr4: u32(0xc),
    KernelDr0: u32(0x10),
    KernelDr1: u32(0x14),
    KernelDr2: u32(0x18),
    KernelDr3: u32(0x1c),
    KernelDr6: u32(0x20),
    KernelDr7: u32(0x24),
    GdtrLimit: u16(0x2a),
    GdtrBase: address32(0x2c),
    IdtrLimit: u16(0x32),
    IdtrBase: address32(0x34),
    Tr: u16(0x38),
    Ldtr: u16(0x3a),
  },
});

/** A whole CONTEXT for what the input holds; its flags claim nothing else. */
export function encodeContext(r: X64Registers): Buffer {
  const buffer = Buffer.alloc(Context.size);
  Context.write(buffer, 0, {
    ContextFlags:
      CONTEXT_KNOWN | (r.debug ? CONTEXT_DEBUG_REGISTERS : 0) | (r.floatingPoint ? CONTEXT_FLOATING_POINT : 0),
    SegGs: r.gs.selector & 0xffff,
    SegFs: r.fs.selector & 0xffff,
    SegEs: r.es.selector & 0xffff,
    SegDs: r.ds.selector & 0xffff,
    Edi: low(r.rdi),
    Esi: low(r.rsi),
    Ebx: low(r.rbx),
    Edx: low(r.rdx),
    Ecx: low(r.rcx),
    Eax: low(r.rax),
    Ebp: low(r.rbp),
    Eip: low(r.rip),
    SegCs: r.cs.selector & 0xffff,
    EFlags: low(r.rflags),
    Esp: low(r.rsp),
    SegSs: r.ss.selector & 0xffff,
    ...(r.debug && {
      Dr0: low(r.debug.dr0),
      Dr1: low(r.debug.dr1),
      Dr2: low(r.debug.dr2),
      Dr3: low(r.debug.dr3),
      Dr6: low(r.debug.dr6),
      Dr7: low(r.debug.dr7),
    }),
  });
  if (r.floatingPoint) encodeFloatingPoint(buffer, r.floatingPoint);
  return buffer;
}

function encodeFloatingPoint(buffer: Buffer, fp: FloatingPoint): void {
  Context.write(buffer, 0, {
    // FSAVE's reserved bits are ones.
    ControlWord: (0xffff0000 | fp.controlWord) >>> 0,
    StatusWord: (0xffff0000 | fp.statusWord) >>> 0,
    TagWord: (0xffff0000 | fullTagWord(fp)) >>> 0,
    RegisterArea: Buffer.concat(fp.st),
    FxControlWord: fp.controlWord,
    FxStatusWord: fp.statusWord,
    FxTagWord: fp.tagWord,
    FxMxCsr: fp.mxcsr,
    FxRegisters: packSt(fp.st),
    FxXmm: Buffer.concat(fp.xmm.slice(0, 8)),
  });
}

/** FSAVE's tags of the physical registers: 0 valid, 1 zero, 2 special, 3 empty (Intel's manual, volume 1, 8.1.7). */
function fullTagWord({ tagWord, statusWord, st }: FloatingPoint): number {
  const top = (statusWord >> 11) & 7;
  let tags = 0;
  for (let physical = 0; physical < 8; physical++) {
    const value = st[(physical - top) & 7]!;
    const tag = (tagWord >> physical) & 1 ? tagOf(value) : 3;
    tags |= tag << (2 * physical);
  }
  return tags;
}

function tagOf(value: Buffer): 0 | 1 | 2 {
  const exponent = value.readUInt16LE(8) & 0x7fff;
  const mantissa = value.readBigUInt64LE();
  if (exponent === 0) return mantissa === 0n ? 1 : 2;
  return exponent === 0x7fff || mantissa >> 63n === 0n ? 2 : 0;
}

/** From FXSAVE's form, which has all of it. */
const floatingPointOf = (c: StructOf<typeof Context>): FloatingPoint => ({
  controlWord: c.FxControlWord,
  statusWord: c.FxStatusWord,
  tagWord: c.FxTagWord,
  mxcsr: c.FxMxCsr,
  st: unpackSt(c.FxRegisters),
  xmm: unpackXmm(c.FxXmm),
});

/** Parts of a CONTEXT (low byte), its requests and states (bits 27 to 31), and the machine's bit. */
const FLAG_BITS = 0xf801_00ff;

/** See `Machine.areContextFlags`. */
export const areContextFlags = (flags: number): boolean => (flags & CONTEXT_I386) !== 0 && (flags & ~FLAG_BITS) === 0;

/** See `Machine.looksLikeContext`. */
export const looksLikeContext = (frame: Buffer): boolean =>
  areContextFlags(Context.read(frame).ContextFlags) || frame.every((byte) => byte === 0);

/** EFLAGS.IF: interrupts are not masked. */
const INTERRUPT_FLAG = 0x200;

/** See `Machine.interruptsEnabled`. */
export const interruptsEnabled = (frame: Buffer): boolean => (Context.read(frame).EFlags & INTERRUPT_FLAG) !== 0;

/** @param frame at least `Context.size` bytes */
export function viewContext(frame: Buffer): ContextView {
  const { ContextFlags: flags, Eip, Esp } = Context.read(frame);
  return {
    // Control (1) and integer (2).
    complete: areContextFlags(flags) && (flags & 3) === 3,
    instructionPointer: address(BigInt(Eip)),
    stackPointer: address(BigInt(Esp)),
    arguments: undefined,
  };
}

/** See `Machine.frameState`. */
export function frameState(frame: Buffer): FrameState {
  const c = Context.read(frame);
  const integers = [c.Eax, c.Ecx, c.Edx, c.Ebx, c.Esp, c.Ebp, c.Esi, c.Edi].map((value) => address(BigInt(value)));
  return {
    instructionPointer: address(BigInt(c.Eip)),
    stackPointer: address(BigInt(c.Esp)),
    integers,
    native: true,
  };
}

/** Of a descriptor's high dword: all but the bits of base and limit. */
const DESCRIPTOR_FLAGS = 0x00f0_ff00;

/**
 * @param frame at least `Context.size` bytes
 * @param special at least `SpecialRegisters.size` bytes
 * @param read for the descriptors that the selectors name, in the GDT
 */
export function decodeContext(frame: Buffer, special: Buffer, read: ReadVirtual): X64Registers | undefined {
  const c = Context.read(frame);
  // What is written for a CPU whose registers are unknown has no EIP.
  if (!viewContext(frame).complete || c.Eip === 0) return undefined;
  const s = SpecialRegisters.read(special);
  const gdt = isKernelAddress(s.GdtrBase) ? s.GdtrBase : undefined;
  const table = (limit: number, base: bigint): Segment => ({
    selector: 0,
    limit,
    flags: 0,
    base: BigInt.asUintN(32, base),
  });
  const segment = (value: number): Segment => {
    const selector = value & 0xffff;
    const entry = gdt === undefined || selector < 4 ? undefined : read(gdt + BigInt(selector & ~7), 8);
    if (!entry) return bareSegment(selector);
    const base = entry.readUInt16LE(2) + entry.readUInt8(4) * 0x1_0000 + entry.readUInt8(7) * 0x100_0000;
    return { selector, limit: 0, flags: entry.readUInt32LE(4) & DESCRIPTOR_FLAGS, base: BigInt(base) };
  };
  const wide = (value: number) => BigInt(value);
  return {
    rax: wide(c.Eax),
    rbx: wide(c.Ebx),
    rcx: wide(c.Ecx),
    rdx: wide(c.Edx),
    rsi: wide(c.Esi),
    rdi: wide(c.Edi),
    rsp: wide(c.Esp),
    rbp: wide(c.Ebp),
    ...NO_EXTENDED,
    rip: wide(c.Eip),
    rflags: wide(c.EFlags),
    cs: segment(c.SegCs),
    ds: segment(c.SegDs),
    es: segment(c.SegEs),
    fs: segment(c.SegFs),
    gs: segment(c.SegGs),
    ss: segment(c.SegSs),
    kernelGsBase: undefined,
    // Zeros stand for what was not known.
    control: s.Cr3 === 0 ? undefined : { cr0: wide(s.Cr0), cr2: wide(s.Cr2), cr3: wide(s.Cr3), cr4: wide(s.Cr4) },
    tables:
      s.GdtrBase === 0n
        ? undefined
        : {
            ldt: segment(s.Ldtr),
            tr: segment(s.Tr),
            gdt: table(s.GdtrLimit, s.GdtrBase),
            idt: table(s.IdtrLimit, s.IdtrBase),
          },
    ...((c.ContextFlags & CONTEXT_DEBUG_REGISTERS) !== 0 && { debug: debugOf(c) }),
    ...((c.ContextFlags & CONTEXT_FLOATING_POINT) === CONTEXT_FLOATING_POINT && {
      floatingPoint: floatingPointOf(c),
    }),
  };
}

const debugOf = (c: StructOf<typeof Context>): DebugRegisters => ({
  dr0: BigInt(c.Dr0),
  dr1: BigInt(c.Dr1),
  dr2: BigInt(c.Dr2),
  dr3: BigInt(c.Dr3),
  dr6: BigInt(c.Dr6),
  dr7: BigInt(c.Dr7),
});

/** The frame of a CPU whose registers are unknown: kernel selectors, and zeros. */
export function encodeUnknownContext(): Buffer {
  const buffer = Buffer.alloc(Context.size);
  Context.write(buffer, 0, {
    ContextFlags: CONTEXT_KNOWN,
    SegCs: 8,
    SegSs: 0x10,
    SegDs: 0x23,
    SegEs: 0x23,
    SegFs: 0x30,
  });
  return buffer;
}

/** 128 descriptors and 256 gates, as Windows has them. */
const GDT_LIMIT = 0x3ff;
const IDT_LIMIT = 0x7ff;

/** What the kernel names of its tables; undefined where it can't be its own KPCR. */
function tablesOfKpcr(kpcr: Buffer) {
  const { Gdt: gdt, Idt: idt } = Kpcr.read(kpcr);
  if (!isKernelAddress(gdt) || !isKernelAddress(idt)) return undefined;
  return { GdtrLimit: GDT_LIMIT, GdtrBase: gdt, IdtrLimit: IDT_LIMIT, IdtrBase: idt };
}

/** Values that a running kernel saved at some time in the past are not to pass for current ones. */
const UNKNOWN_CONTROL = { Cr0: 0, Cr2: 0, Cr3: 0, Cr4: 0 };

/** See `Machine.patchSpecialRegisters`. */
export function patchSpecialRegisters(
  original: Buffer,
  r: X64Registers | undefined,
  kpcr: Buffer | undefined,
  saved: boolean,
): Buffer {
  const buffer = Buffer.from(original);
  const { control, tables, debug } = r ?? {};
  const kernelTables = kpcr && tablesOfKpcr(kpcr);
  const savedTables = saved && SpecialRegisters.read(original).GdtrBase === kernelTables?.GdtrBase;
  const unknownControl = saved ? {} : UNKNOWN_CONTROL;
  const unknownTables = savedTables ? {} : { ...(saved ? {} : { Tr: 0, Ldtr: 0 }), ...kernelTables };
  SpecialRegisters.write(buffer, 0, {
    ...(control
      ? { Cr0: low(control.cr0), Cr2: low(control.cr2), Cr3: low(control.cr3), Cr4: low(control.cr4) }
      : unknownControl),
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
    ...(debug && {
      KernelDr0: low(debug.dr0),
      KernelDr1: low(debug.dr1),
      KernelDr2: low(debug.dr2),
      KernelDr3: low(debug.dr3),
      KernelDr6: low(debug.dr6),
      KernelDr7: low(debug.dr7),
    }),
  });
  return buffer;
}
