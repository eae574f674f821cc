/** Writes an ARM64 guest as a migration stream of QEMU's `virt`, by QEMU's sources: shares nothing with the product's reader. */
import type { Arm64Cpu, Arm64Guest } from './arm64.ts';
import { RAM_BASE } from './arm64-memory.ts';
import { name, u8, u32, u64 } from './qevm.ts';

export interface Arm64StreamOptions {
  machineType?: string;
  /** Leave out the JSON that describes the devices. */
  withoutDescription?: boolean;
  /** FPCR and FPSR in words of their own, as QEMU 9.1 has them where one can't hold both. */
  ownWords?: boolean;
  /** What the section says of the number of its system registers; default: right. */
  systemCount?: number;
  /** RAM in two blocks, the second of which comes first. */
  nodes?: boolean;
}

/** The guest's RAM in the block `mach-virt.ram`. */
export function writeArm64Stream(guest: Arm64Guest, options: Arm64StreamOptions = {}): Buffer {
  const ram = Buffer.alloc(guest.ramBytes);
  for (const [at, page] of guest.memory.pages) page.copy(ram, at - RAM_BASE);
  const type = options.machineType ?? 'virt-7.2';
  const parts: Buffer[] = [
    Buffer.from('QEVM\0\0\0\x03', 'latin1'),
    u8(7),
    u32(type.length),
    Buffer.from(type, 'latin1'),
  ];
  parts.push(u8(5), name('configuration/target-page-bits'), u32(1), u32(12));
  const footer = (id: number) => [u8(0x7e), u32(id)];
  const flash = { name: 'virt.flash0', bytes: Buffer.alloc(0x10000, 0xff) };
  const half = ram.length / 2;
  const blocks = options.nodes
    ? [{ name: 'm1', bytes: ram.subarray(half) }, { name: 'm0', bytes: ram.subarray(0, half) }, flash]
    : [{ name: 'mach-virt.ram', bytes: ram }, flash];
  parts.push(u8(1), u32(2), name('ram'), u32(0), u32(4), u64((ram.length + flash.bytes.length) | 4));
  for (const block of blocks) parts.push(name(block.name), u64(block.bytes.length));
  parts.push(u64(0x10), ...footer(2), u8(3), u32(2));
  for (const { name: block, bytes } of blocks) {
    for (let at = 0; at < bytes.length; at += 4096) {
      const page = bytes.subarray(at, at + 4096);
      const same = page.every((byte) => byte === page[0]);
      const flags = (same ? 2 : 8) | (at === 0 ? 0 : 0x20);
      parts.push(u64(at | flags), ...(at === 0 ? [name(block)] : []), same ? u8(page[0]!) : page);
    }
  }
  parts.push(u64(0x10), ...footer(2));
  const devices = guest.cpus.map((cpu, i) => {
    const state = cpuState(cpu, options);
    parts.push(u8(4), u32(100 + i), name('cpu'), u32(i), u32(22), state, ...footer(100 + i));
    return { name: 'cpu', instance_id: i, version: 22, fields: [{ name: 'all', size: state.length, type: 'buffer' }] };
  });
  parts.push(u8(0));
  const json = Buffer.from(JSON.stringify({ page_size: 4096, devices }));
  if (!options.withoutDescription) parts.push(u8(6), u32(json.length), json);
  return Buffer.concat(parts);
}

/** TTBR1_EL1, VBAR_EL1 and TPIDR_EL0 by their numbers in KVM, and what they hold here. */
export const ARM64_SYSTEM: readonly (readonly [string, bigint, bigint])[] = [
  ['ttbr1_el1', 0x6030_0000_0013_c101n, 0x40_0000_4123_4800n],
  ['vbar_el1', 0x6030_0000_0013_c600n, 0xffff_f800_1234_5800n],
  ['tpidr_el0', 0x6030_0000_0013_de82n, 0x77n],
];

/** vmstate_arm_cpu, and its subsection with the vectors. */
function cpuState(cpu: Arm64Cpu, { ownWords, systemCount }: Arm64StreamOptions): Buffer {
  const zeros = (count: number) => Buffer.alloc(count);
  const vectors = cpu.v.map((value) => Buffer.concat([u64(value.readBigUInt64LE(0)), u64(value.readBigUInt64LE(8))]));
  return Buffer.concat([
    zeros(16 * 4),
    ...[...cpu.x, cpu.sp, cpu.pc].map(u64),
    u32(Number(cpu.pstate)),
    zeros(4 + 8 * 8 + 8 * 4 + 8 * 4 + 5 * 4 + 5 * 4),
    ...[0x10n, 0x11n, 0x12n, 0x13n, 0x20n, 0x21n, 0x22n, 0x23n].map(u64),
    u32(systemCount ?? ARM64_SYSTEM.length),
    ...ARM64_SYSTEM.map(([, id]) => u64(id)),
    ...ARM64_SYSTEM.map(([, , value]) => u64(value)),
    zeros(3 * 8 + 8 + 4 + 4 + 8 + 8 + 8 + 1),
    ...[u8(5), name('cpu/vfp'), u32(3), ...vectors, zeros(15 * 4)],
    u32(ownWords ? 0 : (cpu.fpcr | cpu.fpsr) >>> 0),
    ...(ownWords ? [u8(5), name('cpu/vfp/fpcr_fpsr'), u32(1), u64(cpu.fpcr), u64(cpu.fpsr)] : []),
    ...[u8(5), name('cpu/irq-line-state'), u32(1), u32(0)],
  ]);
}
