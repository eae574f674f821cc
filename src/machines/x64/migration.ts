/**
 * The `cpu` section of a migration stream of an x86 machine, version 12 (vmstate_x86_cpu in QEMU's
 * target/i386/machine.c): big-endian. Its base fields lie at the same offsets in QEMU 2.3 to 10. QEMU for 32-bit guests alone
 * (qemu-system-i386) has smaller registers, and fewer.
 */
import { va } from '../../core/units.ts';
import type { Likelihood, MigratedState, MigrationForm } from '../migration.ts';
import type { NamedRegister } from '../named-register.ts';
import { type FloatingPoint, GENERAL_REGISTERS, numberOf, type Segment, type X64Registers } from './registers.ts';

/** Order of env.regs. */
const REGISTERS = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', ...GENERAL_REGISTERS.slice(8)] as const;
/** Order of env.segs. */
const SEGMENT_ORDER = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'] as const;

const VERSION = 12;

/** Byte offsets of the base fields, which depend on the size of a register alone. */
export interface CpuLayout {
  /** Bytes of a register: 8 where QEMU was built for 64-bit guests, else 4. */
  word: 4 | 8;
  /** General registers, and those of SSE. */
  count: 8 | 16;
  rip: number;
  rflags: number;
  fpuControl: number;
  fpuStatus: number;
  fpuTags: number;
  /** Physical registers: 64 bits of mantissa, 16 of sign and exponent. */
  fpuRegisters: number;
  segments: number;
  segmentSize: number;
  ldt: number;
  tr: number;
  gdt: number;
  idt: number;
  sysenter: number;
  /** cr0, cr2, cr3, cr4. */
  control: number;
  /** dr0 to dr7. */
  debug: number;
  a20Mask: number;
  mxcsr: number;
  /** XMM0 and further: the lower 64 bits, then the upper. */
  xmm: number;
  /** EFER, STAR, LSTAR, CSTAR, FMASK, kernel GS base, where registers have 64 bits; else nothing lies there. */
  efer: number;
  pat: number;
  tsc: number;
  tscAux: number;
  xcr0: number;
  /** The upper halves of YMM0 and further. */
  ymm: number;
  /** Of the base fields, the last of which are upper halves of YMM registers. */
  size: number;
}

function layoutOf(word: 4 | 8): CpuLayout {
  const count = word === 8 ? 16 : 8;
  const rip = count * word;
  const fpuControl = rip + 2 * word + 4;
  const fpuRegisters = fpuControl + 8;
  const segments = fpuRegisters + 8 * FPU_REGISTER_SIZE;
  const segmentSize = 12 + word;
  const ldt = segments + 6 * segmentSize;
  const sysenter = ldt + 4 * segmentSize;
  const control = sysenter + 4 + 2 * word;
  const debug = control + 4 * word;
  const a20Mask = debug + 8 * word;
  const mxcsr = a20Mask + 4;
  const xmm = mxcsr + 4;
  const efer = xmm + 16 * count;
  const smbase = efer + (word === 8 ? 48 : 0);
  const xcr0 = smbase + 681;
  const ymm = xcr0 + 16;
  return {
    word,
    count,
    rip,
    rflags: rip + word,
    fpuControl,
    fpuStatus: fpuControl + 2,
    fpuTags: fpuControl + 4,
    fpuRegisters,
    segments,
    segmentSize,
    ldt,
    tr: ldt + segmentSize,
    gdt: ldt + 2 * segmentSize,
    idt: ldt + 3 * segmentSize,
    sysenter,
    control,
    debug,
    a20Mask,
    mxcsr,
    xmm,
    efer,
    pat: smbase + 4,
    tsc: smbase + 293,
    tscAux: smbase + 657,
    xcr0,
    ymm,
    size: ymm + 16 * count,
  };
}

const FPU_REGISTER_SIZE = 10;
const LAYOUT_64 = layoutOf(8);
const LAYOUT_32 = layoutOf(4);

/** In the `apic` section (vmstate_apic_common): behind APICBASE, ID and arbitration ID. */
const APIC_TPR = 6;

/** Address line 20 is passed on, or masked. */
const isA20Mask = (value: number) => value === -1 || value === ~0x10_0000;

/** How a section lies; undefined where it can't be a CPU's. Nothing names it: a field that has two values only does. */
export function cpuLayout({ version, bytes }: MigratedState): CpuLayout | undefined {
  if (version !== VERSION || bytes.length < LAYOUT_32.size) return undefined;
  const is32 = isA20Mask(bytes.readInt32BE(LAYOUT_32.a20Mask));
  if (bytes.length < LAYOUT_64.size) return is32 ? LAYOUT_32 : undefined;
  return is32 && !isA20Mask(bytes.readInt32BE(LAYOUT_64.a20Mask)) ? LAYOUT_32 : LAYOUT_64;
}

const EFER_LMA = 1n << 10n;
const CR0_PG = 1n << 31n;

/** What a CPU does: runs in long mode, pages without it, or neither; undefined where the section is no CPU's. */
export function cpuMode(state: MigratedState): 'long' | 'paging' | 'neither' | undefined {
  const layout = cpuLayout(state);
  if (!layout) return undefined;
  const word = wordReader(state.bytes, layout);
  if (layout.word === 8 && (word(layout.efer) & EFER_LMA) !== 0n) return 'long';
  return (word(layout.control) & CR0_PG) !== 0n ? 'paging' : 'neither';
}

const wordReader = (bytes: Buffer, { word }: CpuLayout) =>
  word === 8 ? (at: number) => bytes.readBigUInt64BE(at) : (at: number) => BigInt(bytes.readUInt32BE(at));

const pick = <K extends string, T>(names: readonly K[], at: (index: number) => T) =>
  Object.fromEntries(names.map((name, i) => [name, at(i)])) as Record<K, T>;

function floatingPoint(state: Buffer, layout: CpuLayout): FloatingPoint {
  const statusWord = state.readUInt16BE(layout.fpuStatus);
  const top = (statusWord >> 11) & 7;
  return {
    controlWord: state.readUInt16BE(layout.fpuControl),
    statusWord,
    tagWord: state.readUInt16BE(layout.fpuTags) & 0xff,
    mxcsr: state.readUInt32BE(layout.mxcsr),
    st: Array.from({ length: 8 }, (_, i) => {
      const at = layout.fpuRegisters + FPU_REGISTER_SIZE * ((top + i) & 7);
      const value = Buffer.alloc(FPU_REGISTER_SIZE);
      value.writeBigUInt64LE(state.readBigUInt64BE(at));
      value.writeUInt16LE(state.readUInt16BE(at + 8), 8);
      return value;
    }),
    xmm: Array.from({ length: layout.count }, (_, i) => {
      const value = Buffer.alloc(16);
      value.writeBigUInt64LE(state.readBigUInt64BE(layout.xmm + 16 * i));
      value.writeBigUInt64LE(state.readBigUInt64BE(layout.xmm + 16 * i + 8), 8);
      return value;
    }),
  };
}

/** A CPU's registers, whatever their size. */
export function readCpu(bytes: Buffer, layout: CpuLayout): X64Registers {
  const word = wordReader(bytes, layout);
  const segment = (at: number): Segment => ({
    selector: bytes.readUInt32BE(at),
    base: word(at + 4),
    limit: bytes.readUInt32BE(at + 4 + layout.word),
    flags: bytes.readUInt32BE(at + 8 + layout.word),
  });
  const fp = floatingPoint(bytes, layout);
  const xcr0 = bytes.readBigUInt64BE(layout.xcr0);
  return {
    ...pick(REGISTERS, (i) => (i < layout.count ? word(layout.word * i) : 0n)),
    ...pick(SEGMENT_ORDER, (i) => segment(layout.segments + layout.segmentSize * i)),
    rip: va(word(layout.rip)),
    rflags: word(layout.rflags),
    kernelGsBase: undefined,
    control: pick(['cr0', 'cr2', 'cr3', 'cr4'] as const, (i) => word(layout.control + layout.word * i)),
    tables: {
      ldt: segment(layout.ldt),
      tr: segment(layout.tr),
      gdt: segment(layout.gdt),
      idt: segment(layout.idt),
    },
    floatingPoint: fp,
    debug: pick(['dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7'] as const, (i) =>
      word(layout.debug + layout.word * (i < 4 ? i : i + 2)),
    ),
    xcr0,
    more: [...modelSpecific(bytes, layout, word), ...((xcr0 & XCR0_YMM) !== 0n ? vectors(bytes, layout, fp) : [])],
  };
}

const XCR0_YMM = 4n;

/** IA32_EFER, IA32_SYSENTER_*, IA32_PAT, IA32_TIME_STAMP_COUNTER and IA32_TSC_AUX. */
function modelSpecific(bytes: Buffer, layout: CpuLayout, word: (at: number) => bigint): NamedRegister[] {
  const { sysenter, efer, pat, tsc, tscAux } = layout;
  const wide = (name: string, at: number) => ({ name, value: bytes.readBigUInt64BE(at), bits: 64 });
  return [
    ...(layout.word === 8 ? [wide('efer', efer)] : []),
    { name: 'sysenter_cs', value: BigInt(bytes.readUInt32BE(sysenter)), bits: 32 },
    { name: 'sysenter_esp', value: word(sysenter + 4), bits: 8 * layout.word },
    { name: 'sysenter_eip', value: word(sysenter + 4 + layout.word), bits: 8 * layout.word },
    wide('pat', pat),
    wide('tsc', tsc),
    wide('tsc_aux', tscAux),
  ];
}

function vectors(bytes: Buffer, { ymm }: CpuLayout, { xmm }: FloatingPoint): NamedRegister[] {
  return xmm.map((value, i) => {
    const upper = bytes.readBigUInt64BE(ymm + 16 * i) | (bytes.readBigUInt64BE(ymm + 16 * i + 8) << 64n);
    return { name: `ymm${i}`, value: (upper << 128n) | numberOf(value), bits: 256 };
  });
}

function parse(state: MigratedState, apic: MigratedState | undefined): X64Registers | undefined {
  const layout = cpuLayout(state);
  if (layout?.word !== 8) return undefined;
  const [, star, lstar, cstar, fmask, kernelGsBase] = Array.from({ length: 6 }, (_, i) =>
    state.bytes.readBigUInt64BE(layout.efer + 8 * i),
  ) as [bigint, bigint, bigint, bigint, bigint, bigint];
  return {
    ...readCpu(state.bytes, layout),
    kernelGsBase,
    systemCalls: { star, lstar, cstar, fmask },
    // CR8 is the upper half of the APIC's task priority.
    cr8: apic && apic.bytes.length > APIC_TPR ? BigInt(apic.bytes.readUInt8(APIC_TPR) >> 4) : undefined,
  };
}

function likelihood(cpus: readonly MigratedState[]): Likelihood {
  if (cpus.some((cpu) => cpuLayout(cpu)?.word === 4)) return 'never';
  const modes = cpus.map(cpuMode);
  if (modes.includes('long')) return 'sure';
  return modes.includes('paging') ? 'unlikely' : 'likely';
}

/** What the forms of all x86 machines have alike. */
export const PC_STREAM = {
  // pc and q35 have names with versions, and Debian's and RHEL's builds their own.
  machineTypes: /^(pc|q35|microvm|isapc|xenfv|rhel|ubuntu|pve)/i,
  section: 'cpu',
  also: 'apic',
  // vmstate_msr_hyperv_crash and vmstate_msr_hypercall_hypercall.
  told: {
    crash: 'cpu/msr_hyperv_crash/env.msr_hv_crash_params',
    guestOsId: 'cpu/msr_hyperv_hypercall/env.msr_hv_guest_os_id',
  },
  ramStart: undefined,
} as const;

/** See `Machine.migration`. */
export const MIGRATION: MigrationForm = { ...PC_STREAM, likelihood, parse };
