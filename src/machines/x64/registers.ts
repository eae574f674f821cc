/** What an input tells of an x64 CPU. No debug, floating-point or vector registers are in QEMU's notes. */

export interface Segment {
  selector: number;
  limit: number;
  /** The descriptor's high dword as QEMU keeps it: type, S, DPL (bits 13-14), P, L (bit 21) … */
  flags: number;
  base: bigint;
}

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
export type GeneralRegister = (typeof GENERAL_REGISTERS)[number];

export const SEGMENTS = ['cs', 'ds', 'es', 'fs', 'gs', 'ss'] as const;
export type SegmentName = (typeof SEGMENTS)[number];

export const CONTROL_REGISTERS = ['cr0', 'cr2', 'cr3', 'cr4'] as const;
export type ControlRegisters = Record<(typeof CONTROL_REGISTERS)[number], bigint>;

/** LDTR and TR, GDTR and IDTR. */
export const TABLES = ['ldt', 'tr', 'gdt', 'idt'] as const;
export type DescriptorTables = Record<(typeof TABLES)[number], Segment>;

export interface X64Registers extends Record<GeneralRegister, bigint>, Record<SegmentName, Segment> {
  rip: bigint;
  rflags: bigint;
  /** Absent from notes of 432 bytes. */
  kernelGsBase: bigint | undefined;
  /** Not in NT_PRSTATUS notes. */
  control: ControlRegisters | undefined;
  /** Only in QEMU's and VirtualBox' notes. */
  tables: DescriptorTables | undefined;
}

const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n;
const CR4_LA57 = 1n << 12n;
export const SEGMENT_LONG = 1 << 21;

/** Paging on, in the form that long mode needs; a CPU that was never started has it off. */
export const isLongModePaging = (r: ControlRegisters): boolean => (r.cr0 & CR0_PG) !== 0n && (r.cr4 & CR4_PAE) !== 0n;

export const has5Levels = (r: ControlRegisters): boolean => (r.cr4 & CR4_LA57) !== 0n;

/** Current privilege level: the RPL of CS. */
export const privilegeLevel = (r: X64Registers): number => r.cs.selector & 3;

/** In user mode a CPU can run 32-bit code (WoW64); then the CS descriptor's L bit is clear. */
export const is64BitCode = (r: X64Registers): boolean => (r.cs.flags & SEGMENT_LONG) !== 0;

/** In the debugger's order: integer registers, then selectors, then the control registers that are known. */
export function namedRegisters(r: X64Registers): { name: string; value: bigint; bits: number }[] {
  return [
    ...[...GENERAL_REGISTERS, 'rip' as const].map((name) => ({ name, value: r[name], bits: 64 })),
    { name: 'efl', value: r.rflags, bits: 32 },
    ...SEGMENTS.map((name) => ({ name, value: BigInt(r[name].selector), bits: 16 })),
    ...(r.control ? CONTROL_REGISTERS.map((name) => ({ name, value: r.control![name], bits: 64 })) : []),
  ];
}
