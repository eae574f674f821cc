/**
 * Runs a made-up ARM64 guest in a real QEMU (`virt`) until every CPU is where it should be, and has QEMU write its
 * memory dump. The firmware is test/guest/arm64-stub.s, so that a dump holds only bytes that this repository makes.
 */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Arm64Cpu, Arm64Guest } from '../guest/arm64.ts';
import { RAM_BASE } from '../guest/arm64-memory.ts';
import { programsAvailable } from './programs.ts';
import { migrateTo, Qemu } from './qemu.ts';

const QEMU = 'qemu-system-aarch64';

export interface Arm64QemuOptions {
  format?: 'elf' | 'kdump-zlib';
  /** Instead of a dump, physical memory by `pmemsave`, or the file that backs it. */
  raw?: 'pmemsave' | 'backend' | 'migrate';
  /** Also the migration stream of the same paused guest. */
  stream?: string;
  /** For the CPUs to get where they should be. */
  timeoutMilliseconds?: number;
}

/** For `describe.skipIf(!arm64QemuAvailable())`. With ELF2DMP_REQUIRE_TOOLS=1 a missing program is an error. */
export const arm64QemuAvailable = (): boolean =>
  programsAvailable({ [QEMU]: 'qemu-system-arm', clang: 'clang', 'ld.lld': 'lld' });

/** Writes the guest's dump to `path` and returns it. The guest's memory gets the launch code that its CPUs ran. */
export async function dumpArm64WithQemu(
  guest: Arm64Guest,
  path: string,
  options: Arm64QemuOptions = {},
): Promise<string> {
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-qemu-arm64-'));
  try {
    placeLaunch(guest);
    const [ram, firmware] = [join(dir, 'ram'), join(dir, 'firmware')];
    writeRam(guest, ram);
    writeFileSync(firmware, buildFirmware(guest, dir));
    const megabytes = guest.ramBytes / 0x100000;
    const qemu = new Qemu(
      [
        ...['-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', `${guest.cpus.length}`, '-m', `${megabytes}M`],
        ...['-machine', 'virt,memory-backend=ram,dtb-randomness=off', '-bios', firmware],
        '-object',
        `memory-backend-file,id=ram,size=${megabytes}M,mem-path=${ram},share=${options.raw === 'backend' ? 'on' : 'off'}`,
        ...['-nodefaults', '-display', 'none', '-net', 'none', '-no-reboot', '-no-shutdown', '-qmp', 'stdio'],
      ],
      QEMU,
    );
    try {
      await qemu.command('qmp_capabilities');
      await parked(qemu, guest, options.timeoutMilliseconds ?? 300_000);
      await qemu.command('stop');
      if (options.raw === 'pmemsave') {
        await qemu.command('pmemsave', { val: RAM_BASE, size: guest.ramBytes, filename: path });
      } else if (options.raw === undefined) {
        const { format } = options;
        await qemu.command('dump-guest-memory', { paging: false, protocol: `file:${path}`, ...(format && { format }) });
      }
      const stream = options.raw === 'migrate' ? path : options.stream;
      if (stream !== undefined) await migrateTo(qemu, { to: { file: stream } });
      await qemu.quit();
    } finally {
      qemu.kill();
    }
    if (options.raw === 'backend') renameSync(ram, path);
    return path;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Waits until every started CPU is where it should be. */
async function parked(qemu: Qemu, guest: Arm64Guest, milliseconds: number): Promise<void> {
  const until = Date.now() + milliseconds;
  for (;;) {
    const registers = await qemu.human('info registers -a');
    const seen = registers.split(/^CPU#\d+\s*$/m).slice(1);
    const late = guest.cpus.flatMap((cpu, i) => (isParked(cpu, seen[i] ?? '') ? [] : [i]));
    if (late.length === 0) return;
    if (Date.now() > until) {
      const states = late.map((i) => `CPU ${i} should be at 0x${guest.cpus[i]!.pc.toString(16)}, but is:\n${seen[i]}`);
      throw new Error(`not all CPUs were there after ${milliseconds} ms\n${states.join('\n')}`);
    }
    await sleep(20);
  }
}

function isParked(cpu: Arm64Cpu, registers: string): boolean {
  const value = (name: string) => BigInt(`0x${new RegExp(`\\b${name}=([0-9a-f]+)`).exec(registers)?.[1] ?? '0'}`);
  if (!cpu.started) return true;
  const pc = value('PC');
  if (cpu.ends) return pc >= cpu.ends.from && pc < cpu.ends.to;
  return pc === cpu.pc && value('SP') === cpu.sp && value('X18') === cpu.x[18];
}

function writeRam(guest: Arm64Guest, path: string): void {
  const file = openSync(path, 'w', 0o600);
  try {
    ftruncateSync(file, guest.ramBytes);
    for (const [at, page] of guest.memory.pages) writeSync(file, page, 0, page.length, at - RAM_BASE);
  } finally {
    closeSync(file);
  }
}

const LAUNCH_SLOT = 0x800;

/**
 * What each CPU runs last, in the guest's kernel, which every address space maps: it loads TTBR0, which it gets in X0,
 * then all registers from behind the code, and leaves for where the CPU is to be found.
 */
function placeLaunch(guest: Arm64Guest): void {
  guest.cpus.forEach((cpu, i) => {
    if (!cpu.started) return;
    const physical = guest.launch.physical[Math.floor((i * LAUNCH_SLOT) / 0x1000)];
    if (physical === undefined) throw new Error(`no room for the launch code of CPU ${i}`);
    const slot = Buffer.alloc(LAUNCH_SLOT);
    // msr ttbr0_el1, x0; isb; tlbi vmalle1; dsb sy; isb
    const code = [0xd5182000, 0xd5033fdf, 0xd508871f, 0xd5033f9f, 0xd5033fdf];
    const vectors = 0x200;
    const general = vectors + 32 * 16;
    const loads = [
      ...cpu.v.map((_, n) => ({ at: vectors + 16 * n, opcode: 0x9c000000 | n })), // ldr q<n>, literal
      ...cpu.x.map((_, n) => ({ at: general + 8 * n, opcode: 0x58000000 | n })), // ldr x<n>, literal
    ];
    for (const { at, opcode } of loads) {
      const from = 4 * code.length;
      code.push(opcode | (((at - from) >> 2) << 5));
    }
    code.push(0xd69f03e0); // eret
    code.forEach((word, n) => {
      slot.writeUInt32LE(word >>> 0, 4 * n);
    });
    cpu.v.forEach((value, n) => {
      value.copy(slot, vectors + 16 * n);
    });
    cpu.x.forEach((value, n) => {
      slot.writeBigUInt64LE(value, general + 8 * n);
    });
    slot.copy(guest.memory.page(physical), (i * LAUNCH_SLOT) % 0x1000);
  });
}

/** As a real Windows has them. */
const TCR = 0x95_b551_3511n;
const MAIR = 0x44bb00ff_44bb00ffn;
const ASID = 0x40n << 48n;

/** The stub with the page tables and the CPUs' records that it wants. */
function buildFirmware(guest: Arm64Guest, dir: string): Buffer {
  const firmware = Buffer.alloc(0x10000);
  assembleStub(dir).copy(firmware);
  if (guest.cpus.length > 8) throw new Error(`too many CPUs: ${guest.cpus.length}`);
  firmware.writeUInt32LE(guest.cpus.length, 0xff8);
  // An identity map of the first 2 GiB.
  firmware.writeBigUInt64LE(0x2003n, 0x1000);
  for (let i = 0; i < 2; i++) firmware.writeBigUInt64LE((BigInt(i) << 30n) | 0x701n, 0x2000 + 8 * i);
  guest.cpus.forEach((cpu, i) => {
    if (!cpu.started) return;
    const processor = guest.truth.processors.find((p) => p.cpu === i)!;
    [
      1n,
      BigInt(cpu.root) | ASID,
      (BigInt(guest.kernel.root) + 0x800n) | ASID,
      TCR,
      MAIR,
      guest.vbar,
      guest.launch.virtual + BigInt(i * LAUNCH_SLOT),
      cpu.pc,
      cpu.pstate,
      cpu.sp,
      BigInt(cpu.fpcr),
      BigInt(cpu.fpsr),
      processor.kpcr,
      cpu.kernelStack,
    ].forEach((value, n) => {
      firmware.writeBigUInt64LE(value, 0x3000 + 0x100 * i + 8 * n);
    });
  });
  return firmware;
}

function assembleStub(dir: string): Buffer {
  const source = fileURLToPath(new URL('../guest/arm64-stub.s', import.meta.url));
  const [object, binary] = [join(dir, 'stub.o'), join(dir, 'stub')];
  execFileSync('clang', ['--target=aarch64-none-elf', '-c', '-o', object, source]);
  execFileSync('ld.lld', ['--oformat=binary', '-Ttext=0', '-o', binary, object]);
  return readFileSync(binary);
}
