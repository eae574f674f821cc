/**
 * The `cpu` section of a migration stream of an Arm machine, version 22 (vmstate_arm_cpu in QEMU's target/arm/machine.c):
 * big-endian. Its base fields lie at the same offsets in QEMU 2.3 to 10, but for those that follow the list of system registers.
 */
import type { MigratedState, MigrationForm } from '../migration.ts';
import type { NamedRegister } from '../named-register.ts';
import type { Arm64Registers, Vectors } from './registers.ts';

const VERSION = 22;

/** Byte offsets. In front of them lie R0 to R15 of 32-bit code. */
const X = 64;
/** X0 to X30. */
const GENERAL = 31;
/** Behind X30: that of the exception level that the CPU runs in. */
const SP = X + 8 * GENERAL;
const PC = SP + 8;
const PSTATE = PC + 8;
/** ELR_EL0 to ELR_EL3, then SP_EL0 to SP_EL3; in between and in front lie banked registers of 32-bit code. */
const ELR = 504;
const SP_EL = ELR + 4 * 8;
/** How many system registers follow: first all their numbers, then all their values. */
const SYSTEM_COUNT = SP_EL + 4 * 8;
const SYSTEM = SYSTEM_COUNT + 4;
/** exclusive_addr to power_state, behind them. */
const AFTER_SYSTEM = 4 * 8 + 2 * 4 + 3 * 8 + 1;

/** No CPU has nearly as many. */
const MAX_SYSTEM = 4096;

const VECTORS = 32;
const VECTOR_SIZE = 16;
const VFP = { name: 'cpu/vfp', size: VECTORS * VECTOR_SIZE + 15 * 4 + 4 };
/** In `VFP`, where one word can't hold both (QEMU 9.1): FPCR and FPSR. */
const FPCR_FPSR = { name: 'cpu/vfp/fpcr_fpsr', size: 16 };

/** FPSCR of 32-bit code is FPCR and FPSR in one (Arm Architecture Reference Manual, G8.2.57). */
const FPSR_BITS = 0xf800_009f;
const FPCR_BITS = 0x07ff_9f00;

/** Fields of a system register's number as KVM has them (linux/kvm.h): AArch64, 64 bits, a register of the system. */
const SYSTEM_REGISTER = 0x6030_0000_0013_0000n;

/** By op0, op1, CRn, CRm, op2, which its number has in its low 16 bits (Arm Architecture Reference Manual, D19). */
const number = (op0: number, op1: number, crn: number, crm: number, op2: number): bigint =>
  SYSTEM_REGISTER | BigInt((op0 << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2);

/** Those that Windows uses and people look for, by the debugger's names. */
const SYSTEM_REGISTERS: readonly (readonly [string, bigint])[] = [
  ['sctlr_el1', number(3, 0, 1, 0, 0)],
  ['ttbr0_el1', number(3, 0, 2, 0, 0)],
  ['ttbr1_el1', number(3, 0, 2, 0, 1)],
  ['tcr_el1', number(3, 0, 2, 0, 2)],
  ['mair_el1', number(3, 0, 10, 2, 0)],
  ['vbar_el1', number(3, 0, 12, 0, 0)],
  ['esr_el1', number(3, 0, 5, 2, 0)],
  ['far_el1', number(3, 0, 6, 0, 0)],
  ['contextidr_el1', number(3, 0, 13, 0, 1)],
  ['tpidr_el1', number(3, 0, 13, 0, 4)],
  ['tpidr_el0', number(3, 3, 13, 0, 2)],
  ['tpidrro_el0', number(3, 3, 13, 0, 3)],
];

function parse({ version, bytes }: MigratedState): Arm64Registers | undefined {
  if (version !== VERSION || bytes.length < SYSTEM) return undefined;
  const count = bytes.readInt32BE(SYSTEM_COUNT);
  const end = SYSTEM + 16 * count;
  if (count < 0 || count > MAX_SYSTEM || end + AFTER_SYSTEM > bytes.length) return undefined;
  const word = (at: number) => bytes.readBigUInt64BE(at);
  const pc = word(PC);
  const pstate = BigInt(bytes.readUInt32BE(PSTATE));
  // As in an ELF: a CPU that nothing is known of.
  if (pc === 0n && pstate === 0n) return undefined;
  return {
    x: Array.from({ length: GENERAL }, (_, i) => word(X + 8 * i)),
    sp: word(SP),
    pc,
    pstate,
    vectors: vectorsIn(bytes.subarray(end + AFTER_SYSTEM)),
    more: [
      ...systemRegisters(bytes, count),
      { name: 'elr_el1', value: word(ELR + 8), bits: 64 },
      { name: 'sp_el0', value: word(SP_EL), bits: 64 },
      { name: 'sp_el1', value: word(SP_EL + 8), bits: 64 },
    ],
  };
}

function systemRegisters(bytes: Buffer, count: number): NamedRegister[] {
  const values = new Map<bigint, bigint>();
  for (let i = 0; i < count; i++) {
    values.set(bytes.readBigUInt64BE(SYSTEM + 8 * i), bytes.readBigUInt64BE(SYSTEM + 8 * (count + i)));
  }
  return SYSTEM_REGISTERS.flatMap(([name, id]) => {
    const value = values.get(id);
    return value === undefined ? [] : [{ name, value, bits: 64 }];
  });
}

/** The first subsection, if it is that of the vectors. */
function vectorsIn(rest: Buffer): Vectors | undefined {
  const vfp = subsection(rest, VFP);
  if (!vfp) return undefined;
  const words = subsection(vfp.rest, FPCR_FPSR)?.bytes;
  const both = vfp.bytes.readUInt32BE(VFP.size - 4);
  return {
    v: Array.from({ length: VECTORS }, (_, i) => {
      const value = Buffer.alloc(VECTOR_SIZE);
      value.writeBigUInt64LE(vfp.bytes.readBigUInt64BE(VECTOR_SIZE * i), 0);
      value.writeBigUInt64LE(vfp.bytes.readBigUInt64BE(VECTOR_SIZE * i + 8), 8);
      return value;
    }),
    fpcr: words ? words.readUInt32BE(4) : (both & FPCR_BITS) >>> 0,
    fpsr: words ? words.readUInt32BE(12) : (both & FPSR_BITS) >>> 0,
  };
}

/** What a subsection holds, and what follows: a mark, its name behind a length, its version. */
function subsection(at: Buffer, { name, size }: { name: string; size: number }) {
  const head = Buffer.concat([Buffer.from([SUBSECTION, name.length]), Buffer.from(name, 'latin1')]);
  const from = head.length + 4;
  if (at.length < from + size || !at.subarray(0, head.length).equals(head)) return undefined;
  return { bytes: at.subarray(from, from + size), rest: at.subarray(from + size) };
}

const SUBSECTION = 5;

/** See `Machine.migration`. */
export const MIGRATION: MigrationForm = {
  // RISC-V's and LoongArch's `virt` have no versions.
  machineTypes: /^virt-(\d|rhel)/,
  section: 'cpu',
  also: undefined,
  // 32-bit Arm has the same sections, and runs no Windows that is converted.
  likelihood: (cpus) => (cpus.length > 0 && cpus.every(({ version }) => version === VERSION) ? 'sure' : 'never'),
  parse,
  told: undefined,
  // VIRT_MEM in QEMU's hw/arm/virt.c.
  ramStart: 0x4000_0000,
};
