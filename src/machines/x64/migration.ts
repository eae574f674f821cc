/**
 * The `cpu` section of a migration stream of an x86 machine, version 12 (vmstate_x86_cpu in QEMU's
 * target/i386/machine.c): big-endian. Its base fields lie at the same offsets in QEMU 2.3 to 10.
 */
import { va } from '../../core/units.ts';
import type { MigrationForm } from '../migration.ts';
import { GENERAL_REGISTERS, type Segment, type X64Registers } from './registers.ts';

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
const KERNEL_GS_BASE = 856;
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

function parse({ version, bytes }: { version: number; bytes: Buffer }): X64Registers | undefined {
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
  };
}

/** See `Machine.migration`. */
export const MIGRATION: MigrationForm = {
  // pc and q35 have names with versions, and Debian's and RHEL's builds their own.
  machineTypes: /^(pc|q35|microvm|isapc|xenfv|rhel|ubuntu|pve)/i,
  section: 'cpu',
  parse,
};
