/** KPCR of 32-bit Windows, with its PRCB (types in public symbols): the same in every build as far as it is declared. */
import { isKernelAddress } from '../../core/bits.ts';
import { address32, struct } from '../../core/struct.ts';
import { hex64, type VirtualAddress } from '../../core/units.ts';
import type { KpcrClaim } from '../kpcr.ts';
import type { ReadVirtual } from '../read-virtual.ts';
import { privilegeLevel, type X64Registers } from '../x64/registers.ts';
import { address, descriptorBase, KGDT_R0_PCR } from './registers.ts';

/** Up to its PRCB, which is a part of it. */
export const Kpcr = struct({
  name: 'KPCR (x86)',
  size: 0x120,
  fields: {
    /** The KPCR's own address. */
    SelfPcr: address32(0x1c),
    Prcb: address32(0x20),
    /** Of processor 0 only. */
    KdVersionBlock: address32(0x34),
    Idt: address32(0x38),
    Gdt: address32(0x3c),
  },
});

/** See `Machine.kpcrDoubt`. */
export function kpcrDoubt(read: ReadVirtual, kpcr: VirtualAddress, claim?: KpcrClaim): string | undefined {
  const word = (offset: number) => {
    const bytes = read(kpcr + BigInt(offset), 4);
    return bytes && address(BigInt(bytes.readUInt32LE()));
  };
  const absent = `its KPCR at ${hex64(kpcr)} is not present`;
  const self = word(claim?.selfAt || Kpcr.offsetOf('SelfPcr'));
  if (self === undefined) return absent;
  if (self !== kpcr) return `KPCR.SelfPcr at ${hex64(kpcr)} is ${hex64(self)}`;
  if (claim === undefined) return undefined;
  const current = word(claim.currentPrcbAt || Kpcr.offsetOf('Prcb'));
  if (current === undefined) return absent;
  return current === claim.prcb ? undefined : `KPCR.Prcb at ${hex64(kpcr)} is ${hex64(current)}`;
}

/**
 * See `Machine.kpcrCandidates`. The GDT has it in user mode too; FS has it in the kernel. A descriptor that leads to
 * the KPCR of a processor with other tables was changed.
 */
export function kpcrCandidates(registers: X64Registers, read: ReadVirtual): VirtualAddress[] {
  const inKernel = privilegeLevel(registers) === 0 && registers.fs.selector === KGDT_R0_PCR;
  const inFs = inKernel ? address(registers.fs.base) : undefined;
  const inGdt = descriptorBase(registers, KGDT_R0_PCR, read);
  const isOwn = inGdt !== undefined && (inGdt === inFs || runsKpcr(registers, read, inGdt) !== false);
  const bases = [isOwn ? inGdt : undefined, inFs];
  return [...new Set(bases.flatMap((base) => (base !== undefined && isKernelAddress(base) ? [base] : [])))];
}

/** See `Machine.runsKpcr`. LIDT and LGDT are the kernel's alone. */
export function runsKpcr({ tables }: X64Registers, read: ReadVirtual, kpcr: VirtualAddress): boolean | undefined {
  const bytes = tables && read(kpcr, Kpcr.size);
  if (!bytes) return undefined;
  const { Idt, Gdt } = Kpcr.read(bytes);
  return Idt === address(tables.idt.base) || Gdt === address(tables.gdt.base);
}
