/** Registers of an ARM64 CPU, in the architecture's terms (Arm Architecture Reference Manual, D1). */
import { isKernelAddress } from '../../core/bits.ts';
import type { NamedRegister } from '../named-register.ts';

/** V0 to V31 with what controls them. */
export interface Vectors {
  /** 16 bytes each. */
  v: readonly Buffer[];
  fpcr: number;
  fpsr: number;
}

/** The registers of a CPU. */
export interface Arm64Registers {
  /** X0 to X30: X29 is the frame pointer, X30 the link register. */
  x: readonly bigint[];
  sp: bigint;
  pc: bigint;
  pstate: bigint;
  /** undefined where the input doesn't say. */
  vectors: Vectors | undefined;
  /** System registers, which only migration streams hold: shown, and nothing else depends on them. */
  more?: readonly NamedRegister[] | undefined;
}

/** Frame pointer's number. */
export const FP = 29;

/** Link register's number. */
export const LR = 30;

/** Windows keeps the KPCR's address in it in the kernel, and the TEB's in user mode. */
const PLATFORM_REGISTER = 18;

/** See `PLATFORM_REGISTER`. */
export const x18 = ({ x }: Arm64Registers): bigint => x[PLATFORM_REGISTER]!;

/** PSTATE.nRW: 32-bit code. */
export const is32BitCode = ({ pstate }: Arm64Registers): boolean => (pstate & 0x10n) !== 0n;

/** 0 user mode, 1 the kernel, 2 a hypervisor, 3 firmware. Of 32-bit code only user mode has all mode bits clear. */
export function exceptionLevel(r: Arm64Registers): number {
  const mode = Number(r.pstate & 0xfn);
  if (!is32BitCode(r)) return mode >> 2;
  return mode === 0 ? 0 : 1;
}

/** Where an address has its sign: below are at most 47 bits of address, above a signature or tag. */
const SIGN_BIT = 55n;
const SIGNATURE = 0xffff_8000_0000_0000n;

/** A code pointer without its signature (PAC): all bits above the address are those of bit 55. */
export const unsigned = (pointer: bigint): bigint =>
  ((pointer >> SIGN_BIT) & 1n) === 0n ? pointer & ~SIGNATURE : pointer | SIGNATURE;

/** As a reset leaves a CPU that nobody has started: nothing is loaded. */
export const neverStarted = ({ x, sp, pc }: Arm64Registers): boolean =>
  pc === 0n && sp === 0n && x.every((value) => value === 0n);

/** See `Machine.outsideWindows`: of code below the kernel, the exception level; of other code in the kernel's, its address. */
export function outsideWindows(r: Arm64Registers): string | undefined {
  switch (exceptionLevel(r)) {
    case 0:
      return undefined;
    case 1:
      return isKernelAddress(r.pc) ? undefined : 'firmware or a boot loader';
    case 2:
      return 'a hypervisor (EL2)';
    default:
      return 'firmware (EL3)';
  }
}

/** In the debugger's order and by its names. */
export function namedRegisters({ x, sp, pc, pstate, vectors, more = [] }: Arm64Registers): NamedRegister[] {
  return [
    ...x.map((value, i) => ({ name: NAMES.get(i) ?? `x${i}`, value, bits: 64 })),
    { name: 'sp', value: sp, bits: 64 },
    { name: 'pc', value: pc, bits: 64 },
    { name: 'cpsr', value: pstate & 0xffff_ffffn, bits: 32 },
    ...(vectors
      ? [
          { name: 'fpcr', value: BigInt(vectors.fpcr), bits: 32 },
          { name: 'fpsr', value: BigInt(vectors.fpsr), bits: 32 },
          ...vectors.v.map((value, i) => ({ name: `v${i}`, value: vectorValue(value), bits: 128 })),
        ]
      : []),
    ...more,
  ];
}

const NAMES = new Map([
  [FP, 'fp'],
  [LR, 'lr'],
]);

const vectorValue = (bytes: Buffer): bigint => (bytes.readBigUInt64LE(8) << 64n) | bytes.readBigUInt64LE(0);
