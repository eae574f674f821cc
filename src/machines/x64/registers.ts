/** What an input says of an x64 CPU. QEMU's notes have no debug, floating-point or vector registers. */
import type { NamedRegister } from '../named-register.ts';

/** A segment register with its descriptor, or a descriptor table. */
export interface Segment {
  selector: number;
  limit: number;
  /** The descriptor's high dword as QEMU keeps it: type, S, DPL (bits 13-14), P, L (bit 21) … */
  flags: number;
  base: bigint;
}

/** General registers, by the names of QEMU's and VirtualBox' notes. */
export const GENERAL_REGISTERS = [
  'rax',
  'rbx',
  'rcx',
  'rdx',
  'rsi',
  'rdi',
  'rsp',
  'rbp',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const;
/** A name of GENERAL_REGISTERS. */
export type GeneralRegister = (typeof GENERAL_REGISTERS)[number];

/** Segment registers. */
export const SEGMENTS = ['cs', 'ds', 'es', 'fs', 'gs', 'ss'] as const;
/** A name of SEGMENTS. */
export type SegmentName = (typeof SEGMENTS)[number];

/** Control registers that inputs have. */
export const CONTROL_REGISTERS = ['cr0', 'cr2', 'cr3', 'cr4'] as const;
/** Their values. */
export type ControlRegisters = Record<(typeof CONTROL_REGISTERS)[number], bigint>;

/** LDTR and TR, GDTR and IDTR. */
export const TABLES = ['ldt', 'tr', 'gdt', 'idt'] as const;
/** LDTR, TR, GDTR and IDTR. */
export type DescriptorTables = Record<(typeof TABLES)[number], Segment>;

/** x87 and SSE, as FXSAVE has them. */
export interface FloatingPoint {
  controlWord: number;
  statusWord: number;
  /** Abridged: bit i is set where physical register i holds a value. */
  tagWord: number;
  mxcsr: number;
  /** ST(0) to ST(7), 10 bytes each. */
  st: readonly Buffer[];
  /** XMM0 to XMM15, 16 bytes each. */
  xmm: readonly Buffer[];
}

/** Debug registers; DR4 and DR5 are other names of two of them. */
export const DEBUG_REGISTERS = ['dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7'] as const;
/** Their values. */
export type DebugRegisters = Record<(typeof DEBUG_REGISTERS)[number], bigint>;

/** Model-specific registers of system calls: IA32_STAR, LSTAR, CSTAR and FMASK. */
export const SYSTEM_CALL_REGISTERS = ['star', 'lstar', 'cstar', 'fmask'] as const;
/** Their values. */
export type SystemCallRegisters = Record<(typeof SYSTEM_CALL_REGISTERS)[number], bigint>;

/** The registers of a CPU. */
export interface X64Registers extends Record<GeneralRegister, bigint>, Record<SegmentName, Segment> {
  rip: bigint;
  rflags: bigint;
  /** Absent from notes of 432 bytes. */
  kernelGsBase: bigint | undefined;
  /** Not in NT_PRSTATUS notes. */
  control: ControlRegisters | undefined;
  /** Only in QEMU's and VirtualBox' notes. */
  tables: DescriptorTables | undefined;
  /** From here on: what only some inputs have, such as migration streams. */
  floatingPoint?: FloatingPoint | undefined;
  debug?: DebugRegisters | undefined;
  systemCalls?: SystemCallRegisters | undefined;
  /** Task priority. */
  cr8?: bigint | undefined;
  /** Which states XSAVE keeps. */
  xcr0?: bigint | undefined;
  /** Registers that are shown, and have no place in a dump: other MSRs, YMM. */
  more?: readonly NamedRegister[] | undefined;
}

const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n;
const CR4_LA57 = 1n << 12n;
/** In Segment.flags: 64-bit code. */
export const SEGMENT_LONG = 1 << 21;

/** Paging on, in the form that long mode needs; a CPU that was never started has it off. */
export const isLongModePaging = (r: ControlRegisters): boolean => (r.cr0 & CR0_PG) !== 0n && (r.cr4 & CR4_PAE) !== 0n;

/** CR4.LA57: paging has five levels. */
export const has5Levels = (r: ControlRegisters): boolean => (r.cr4 & CR4_LA57) !== 0n;

/** Current privilege level: the RPL of CS. */
export const privilegeLevel = (r: X64Registers): number => r.cs.selector & 3;

/** In user mode a CPU can run 32-bit code (WoW64); then the CS descriptor's L bit is clear. */
export const is64BitCode = (r: X64Registers): boolean => (r.cs.flags & SEGMENT_LONG) !== 0;

/** In the debugger's order: integer registers, then selectors, then what else is known. */
export function namedRegisters(r: X64Registers): NamedRegister[] {
  return [
    ...[...GENERAL_REGISTERS, 'rip' as const].map((name) => ({ name, value: r[name], bits: 64 })),
    { name: 'efl', value: r.rflags, bits: 32 },
    ...SEGMENTS.map((name) => ({ name, value: BigInt(r[name].selector), bits: 16 })),
    ...(r.control ? CONTROL_REGISTERS.map((name) => ({ name, value: r.control![name], bits: 64 })) : []),
    ...(r.debug ? DEBUG_REGISTERS.map((name) => ({ name, value: r.debug![name], bits: 64 })) : []),
    ...(r.cr8 !== undefined ? [{ name: 'cr8', value: r.cr8, bits: 64 }] : []),
    ...(r.xcr0 !== undefined ? [{ name: 'xcr0', value: r.xcr0, bits: 64 }] : []),
    ...(r.systemCalls ? SYSTEM_CALL_REGISTERS.map((name) => ({ name, value: r.systemCalls![name], bits: 64 })) : []),
    ...(r.floatingPoint ? floatingPointRegisters(r.floatingPoint) : []),
    ...(r.more ?? []),
  ];
}

/** A register's bytes as a number. */
export const numberOf = (bytes: Buffer): bigint => BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`);

/** x87 and SSE, as a debugger names them. */
export function floatingPointRegisters(fp: FloatingPoint): NamedRegister[] {
  return [
    { name: 'mxcsr', value: BigInt(fp.mxcsr), bits: 32 },
    { name: 'fpcw', value: BigInt(fp.controlWord), bits: 16 },
    { name: 'fpsw', value: BigInt(fp.statusWord), bits: 16 },
    { name: 'fptw', value: BigInt(fp.tagWord), bits: 16 },
    ...fp.st.map((bytes, i) => ({ name: `st${i}`, value: numberOf(bytes), bits: 80 })),
    ...fp.xmm.map((bytes, i) => ({ name: `xmm${i}`, value: numberOf(bytes), bits: 128 })),
  ];
}
