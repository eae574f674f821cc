/**
 * The `cpu` section of a migration stream of an x86 machine, version 12 (vmstate_x86_cpu in QEMU's
 * target/i386/machine.c): big-endian. Its base fields lie at the same offsets in QEMU 2.3 to 10.
 */
import { va } from '../../core/units.ts';
import type { MigratedState, MigrationForm } from '../migration.ts';
import { type FloatingPoint, GENERAL_REGISTERS, type Segment, type X64Registers } from './registers.ts';

/** Order of env.regs. */
const REGISTERS = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', ...GENERAL_REGISTERS.slice(8)] as const;
/** Order of env.segs. */
const SEGMENT_ORDER = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'] as const;

const VERSION = 12;
const RIP = 128;
const RFLAGS = 136;
const SEGS = 236;
const SEGMENT_SIZE = 20;
const LDT = 356;
const TR = 376;
const GDT = 396;
const IDT = 416;
/** cr0, cr2, cr3, cr4. */
const CONTROL = 456;
/** dr0 to dr7. */
const DEBUG = 488;
const FPU_CONTROL = 148;
const FPU_STATUS = 150;
const FPU_TAGS = 152;
/** Physical registers: 64 bits of mantissa, 16 of sign and exponent. */
const FPU_REGISTERS = 156;
const FPU_REGISTER_SIZE = 10;
const MXCSR = 556;
/** XMM0 to XMM15: the lower 64 bits, then the upper. */
const XMM = 560;
const STAR = 824;
const LSTAR = 832;
const CSTAR = 840;
const FMASK = 848;
const KERNEL_GS_BASE = 856;
const XCR0 = 1545;
/** In the `apic` section (vmstate_apic_common): behind APICBASE, ID and arbitration ID. */
const APIC_TPR = 6;
/** With all that is read here. */
const BASE_SIZE = 1817;

function segment(state: Buffer, at: number): Segment {
  return {
    selector: state.readUInt32BE(at),
    base: state.readBigUInt64BE(at + 4),
    limit: state.readUInt32BE(at + 12),
    flags: state.readUInt32BE(at + 16),
  };
}

const pick = <K extends string, T>(names: readonly K[], at: (index: number) => T) =>
  Object.fromEntries(names.map((name, i) => [name, at(i)])) as Record<K, T>;

function floatingPoint(state: Buffer): FloatingPoint {
  const statusWord = state.readUInt16BE(FPU_STATUS);
  const top = (statusWord >> 11) & 7;
  return {
    controlWord: state.readUInt16BE(FPU_CONTROL),
    statusWord,
    tagWord: state.readUInt16BE(FPU_TAGS) & 0xff,
    mxcsr: state.readUInt32BE(MXCSR),
    st: Array.from({ length: 8 }, (_, i) => {
      const at = FPU_REGISTERS + FPU_REGISTER_SIZE * ((top + i) & 7);
      const value = Buffer.alloc(FPU_REGISTER_SIZE);
      value.writeBigUInt64LE(state.readBigUInt64BE(at));
      value.writeUInt16LE(state.readUInt16BE(at + 8), 8);
      return value;
    }),
    xmm: Array.from({ length: 16 }, (_, i) => {
      const value = Buffer.alloc(16);
      value.writeBigUInt64LE(state.readBigUInt64BE(XMM + 16 * i));
      value.writeBigUInt64LE(state.readBigUInt64BE(XMM + 16 * i + 8), 8);
      return value;
    }),
  };
}

function parse({ version, bytes }: MigratedState, apic: MigratedState | undefined): X64Registers | undefined {
  if (version !== VERSION || bytes.length < BASE_SIZE) return undefined;
  const word = (at: number) => bytes.readBigUInt64BE(at);
  return {
    ...pick(REGISTERS, (i) => word(8 * i)),
    ...pick(SEGMENT_ORDER, (i) => segment(bytes, SEGS + SEGMENT_SIZE * i)),
    rip: va(word(RIP)),
    rflags: word(RFLAGS),
    kernelGsBase: word(KERNEL_GS_BASE),
    control: pick(['cr0', 'cr2', 'cr3', 'cr4'] as const, (i) => word(CONTROL + 8 * i)),
    tables: {
      ldt: segment(bytes, LDT),
      tr: segment(bytes, TR),
      gdt: segment(bytes, GDT),
      idt: segment(bytes, IDT),
    },
    floatingPoint: floatingPoint(bytes),
    debug: pick(['dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7'] as const, (i) => word(DEBUG + 8 * (i < 4 ? i : i + 2))),
    systemCalls: { star: word(STAR), lstar: word(LSTAR), cstar: word(CSTAR), fmask: word(FMASK) },
    xcr0: word(XCR0),
    // CR8 is the upper half of the APIC's task priority.
    cr8: apic && apic.bytes.length > APIC_TPR ? BigInt(apic.bytes.readUInt8(APIC_TPR) >> 4) : undefined,
  };
}

/** See `Machine.migration`. */
export const MIGRATION: MigrationForm = {
  // pc and q35 have names with versions, and Debian's and RHEL's builds their own.
  machineTypes: /^(pc|q35|microvm|isapc|xenfv|rhel|ubuntu|pve)/i,
  section: 'cpu',
  also: 'apic',
  // vmstate_msr_hyperv_crash and vmstate_msr_hypercall_hypercall.
  told: {
    crash: 'cpu/msr_hyperv_crash/env.msr_hv_crash_params',
    guestOsId: 'cpu/msr_hyperv_hypercall/env.msr_hv_guest_os_id',
  },
  parse,
};
