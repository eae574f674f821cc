/** KPCR of x64 Windows, with its PRCB (types in public symbols): the same in every build as far as it is declared. */
import { isKernelAddress } from '../../core/bits.ts';
import { struct, u64 } from '../../core/struct.ts';
import { hex64, type VirtualAddress, va } from '../../core/units.ts';
import type { KpcrClaim } from '../kpcr.ts';
import type { ReadVirtual } from '../read-virtual.ts';
import { privilegeLevel, type X64Registers } from './registers.ts';

/** Up to its PRCB, which is a part of it. */
export const Kpcr = struct({
  name: 'KPCR (AMD64)',
  size: 0x180,
  fields: {
    GdtBase: u64(0),
    /** The KPCR's own address. */
    Self: u64(0x18),
    CurrentPrcb: u64(0x20),
    LockArray: u64(0x28),
    IdtBase: u64(0x38),
    KdVersionBlock: u64(0x108),
  },
});

/** Offset of the PRCB. */
export const PRCB_IN_KPCR = Kpcr.size;

/** See `Machine.kpcrDoubt`. */
export function kpcrDoubt(read: ReadVirtual, kpcr: VirtualAddress, claim?: KpcrClaim): string | undefined {
  const word = (offset: number) => read(kpcr + BigInt(offset), 8)?.readBigUInt64LE();
  const absent = `its KPCR at ${hex64(kpcr)} is not present`;
  const self = word(claim?.selfAt || Kpcr.offsetOf('Self'));
  if (self === undefined) return absent;
  if (claim === undefined) return self === kpcr ? undefined : `KPCR.Self at ${hex64(kpcr)} is ${hex64(self)}`;
  const current = word(claim.currentPrcbAt || Kpcr.offsetOf('CurrentPrcb'));
  if (current === undefined) return absent;
  if (self !== kpcr) return `KPCR.Self at ${hex64(kpcr)} is ${hex64(self)}`;
  return current === claim.prcb ? undefined : `KPCR.CurrentPrcb at ${hex64(kpcr)} is ${hex64(current)}`;
}

/**
 * See `Machine.kpcrCandidates`. In user mode only the kernel's GS base counts, which SWAPGS brings: a program can load
 * any address into the other (WRGSBASE). In the kernel it is the other way around, but for the few instructions before
 * SWAPGS.
 */
export function kpcrCandidates(registers: X64Registers): VirtualAddress[] {
  const { gs, kernelGsBase } = registers;
  const bases = privilegeLevel(registers) === 3 ? [kernelGsBase] : [gs.base, kernelGsBase];
  return [...new Set(bases)].filter((base) => base !== undefined && isKernelAddress(base)).map((base) => va(base!));
}

/** See `Machine.runsKpcr`. LIDT and LGDT are the kernel's alone. */
export function runsKpcr({ tables }: X64Registers, read: ReadVirtual, kpcr: VirtualAddress): boolean | undefined {
  const bytes = tables && read(kpcr, Kpcr.size);
  if (!bytes) return undefined;
  const { IdtBase, GdtBase } = Kpcr.read(bytes);
  return IdtBase === tables.idt.base || GdtBase === tables.gdt.base;
}
