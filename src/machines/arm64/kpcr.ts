/**
 * KPCR of ARM64 Windows, with its PRCB's saved state (types in public symbols, and a dump of a real 22000 with 8 CPUs).
 * Self is declared, and 0 in real memory.
 */
import { isKernelAddress } from '../../core/bits.ts';
import { struct, u16, u64 } from '../../core/struct.ts';
import { hex64, PAGE_SIZE, type VirtualAddress, va } from '../../core/units.ts';
import type { ReadVirtual } from '../read-virtual.ts';
import { type Arm64Registers, exceptionLevel, x18 } from './registers.ts';

/** Up to its PRCB, which is a part of it. */
export const Kpcr = struct({
  name: 'KPCR (ARM64)',
  size: 0x980,
  fields: {
    /** Leads into the PRCB behind this. */
    LockArray: u64(0x28),
    MajorVersion: u16(0x3c),
    MinorVersion: u16(0x3e),
    KdVersionBlock: u64(0x80),
  },
});

/** Bytes of KSPECIAL_REGISTERS, with which a PRCB's saved state begins. */
export const SPECIAL_REGISTERS_SIZE = 0xa0;

/** The first page of a KPCR, as far as its PRCB's ProcessorState says how the CPU translates addresses. */
export const KpcrPage = struct({
  name: 'KPCR with KARM64_ARCH_STATE',
  size: PAGE_SIZE,
  fields: {
    LockArray: u64(0x28),
    /** The KPCR's address; low bits may be set. */
    Tpidr_El1: u64(0x9e0),
    Tcr_El1: u64(0xa80),
    Ttbr0_El1: u64(0xa88),
    Ttbr1_El1: u64(0xa90),
    /** In the kernel's image. */
    Vbar_El1: u64(0xcd0),
  },
});

/** A KPCR with its PRCB: no build's is larger. */
const REACH = 0x1_0000n;

/** See `Machine.kpcrDoubt`: its version or its lock array shows it. No build was seen in which either is otherwise. */
export function kpcrDoubt(read: ReadVirtual, kpcr: VirtualAddress): string | undefined {
  const bytes = read(kpcr, Kpcr.size);
  if (!bytes) return `its KPCR at ${hex64(kpcr)} is not present`;
  const { LockArray, MajorVersion, MinorVersion } = Kpcr.read(bytes);
  if ((MajorVersion === 1 && MinorVersion === 1) || (LockArray > kpcr && LockArray < kpcr + REACH)) return undefined;
  return `KPCR.LockArray at ${hex64(kpcr)} is ${hex64(LockArray)}, its version ${MajorVersion}.${MinorVersion}`;
}

/** See `Machine.kpcrCandidates`. In user mode X18 is the program's. */
export function kpcrCandidates(registers: Arm64Registers): VirtualAddress[] {
  const kpcr = x18(registers);
  const isOne = exceptionLevel(registers) === 1 && isKernelAddress(kpcr) && kpcr % BigInt(PAGE_SIZE) === 0n;
  return isOne ? [va(kpcr)] : [];
}
