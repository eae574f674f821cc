/**
 * Registers of a 32-bit CPU: QEMU's notes have them in the structure of a 64-bit one, the upper halves zero. Addresses
 * leave here sign-extended, as all of a 32-bit guest's do.
 */
import { isKernelAddress } from '../../core/bits.ts';
import { type VirtualAddress, va } from '../../core/units.ts';
import type { NamedRegister } from '../named-register.ts';
import type { ReadVirtual } from '../read-virtual.ts';
import {
  CONTROL_REGISTERS,
  type ControlRegisters,
  DEBUG_REGISTERS,
  floatingPointRegisters,
  privilegeLevel,
  SEGMENTS,
  type X64Registers,
} from '../x64/registers.ts';

/** An address in a 32-bit register. */
export const address = (value: bigint): VirtualAddress => va(BigInt.asIntN(32, value));

/** The lower half of a register, for a structure. */
export const low = (value: bigint): number => Number(BigInt.asUintN(32, value));

/** Integer registers, by the numbers that instructions encode. */
export const INTEGERS = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'] as const;

const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n;

/** Paging is on; a CPU that was never started has it off. */
export const isPaging = ({ cr0 }: ControlRegisters): boolean => (cr0 & CR0_PG) !== 0n;

/** CR4.PAE. */
export const isPae = ({ cr4 }: ControlRegisters): boolean => (cr4 & CR4_PAE) !== 0n;

/** Selectors of Windows' GDT: the processor's KPCR, and the thread's TEB (types in public headers). */
export const KGDT_R0_PCR = 0x30;
/** See KGDT_R0_PCR. */
export const KGDT_R3_TEB = 0x38;

/** The base that a descriptor of the CPU's own GDT has; undefined where that is unknown. */
export function descriptorBase(
  { tables }: X64Registers,
  selector: number,
  read: ReadVirtual,
): VirtualAddress | undefined {
  if (!tables || tables.gdt.limit < (selector | 7)) return undefined;
  const gdt = address(tables.gdt.base);
  const entry = isKernelAddress(gdt) ? read(gdt + BigInt(selector & ~7), 8) : undefined;
  if (!entry) return undefined;
  const base = entry.readUInt16LE(2) + entry.readUInt8(4) * 0x1_0000 + entry.readUInt8(7) * 0x100_0000;
  return address(BigInt(base));
}

/**
 * The TEB: FS' base in user mode. In the kernel it is in the GDT, as for all of a processor; there are no notes of FS'
 * base where there are none of the GDT.
 */
export function teb(registers: X64Registers, read: ReadVirtual): VirtualAddress | undefined {
  const { fs, tables } = registers;
  const inFs = privilegeLevel(registers) === 3 && tables ? address(fs.base) : undefined;
  const base = inFs ?? descriptorBase(registers, KGDT_R3_TEB, read);
  return base === undefined || base === 0n ? undefined : base;
}

/** In the debugger's order: integer registers, then selectors, then what else is known. */
export function namedRegisters(r: X64Registers): NamedRegister[] {
  const wide = (name: string, value: bigint) => ({ name, value: BigInt.asUintN(32, value), bits: 32 });
  return [
    ...(['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rip', 'rsp', 'rbp'] as const).map((name) =>
      wide(`e${name.slice(1)}`, r[name]),
    ),
    wide('efl', r.rflags),
    ...SEGMENTS.map((name) => ({ name, value: BigInt(r[name].selector), bits: 16 })),
    ...(r.control ? CONTROL_REGISTERS.map((name) => wide(name, r.control![name])) : []),
    ...(r.debug ? DEBUG_REGISTERS.map((name) => wide(name, r.debug![name])) : []),
    ...(r.xcr0 !== undefined ? [{ name: 'xcr0', value: r.xcr0, bits: 64 }] : []),
    ...(r.floatingPoint ? floatingPointRegisters(r.floatingPoint) : []),
    ...(r.more ?? []),
  ];
}
