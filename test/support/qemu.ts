/**
 * Runs a made-up guest in a real QEMU until every CPU is where it should be, and has QEMU write its memory dump.
 * The firmware is test/guest/stub.asm, so that a dump holds only bytes that this repository makes.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
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
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Guest, GuestCpu } from '../guest/guest.ts';
import type { Guest32 } from '../guest/x86/guest.ts';
import { newer, programsAvailable } from './programs.ts';
import { fillFirmware32, placeLaunch32 } from './qemu-x86.ts';

const QEMU = 'qemu-system-x86_64';
/** Its family and model are of a machine that Windows runs on, whatever the version of QEMU has. */
export const GUEST_CPU = 'max,family=15,model=107,stepping=1';
/** What QEMU 7.2 can't set in every KVM is left out. */
const KVM_CPU = 'max,arch-capabilities=off';
const WATCHDOG_MS = 600_000;

/** A guest of any kind. */
type AnyGuest = Guest | Guest32;
const is32 = (guest: AnyGuest): guest is Guest32 => 'pae' in guest;

export interface QemuOptions {
  /** Default: the one that runs 64-bit guests too. */
  program?: 'qemu-system-i386';
  machineType?: string;
  /** By KVM instead of TCG. */
  kvm?: boolean;
  /** Instead of one block: QEMU's arguments for memory that begins with the file's contents. */
  memory?: (ram: RamFile) => string[];
  /** Paging mode (-p): program headers for what the CPUs have mapped. */
  paging?: boolean;
  /** Only this physical range. */
  filter?: { begin: number; length: number };
  format?: 'elf' | 'kdump-zlib' | 'kdump-lzo' | 'kdump-snappy' | 'kdump-raw-zlib' | 'win-dmp';
  /** Instead of a dump, physical memory by `pmemsave`, or the file that backs it. */
  raw?: 'pmemsave' | 'backend' | 'migrate';
  /** More dumps of the same paused guest. */
  also?: readonly { path: string; format?: 'kdump-zlib'; raw?: 'pmemsave' | 'migrate'; paging?: boolean }[];
  /** Internal snapshots to make in a new qcow2 image at this path. */
  snapshots?: { image: string; names: readonly string[] };
  /** More of QEMU's arguments. */
  arguments?: readonly string[];
  /** For the CPUs to get where they should be. */
  timeoutMilliseconds?: number;
}

/** Whether this machine lets QEMU use KVM: a CI's or a user's often does not. */
export const kvmAvailable = (): boolean => {
  try {
    closeSync(openSync('/dev/kvm', 'r+'));
    return true;
  } catch {
    return false;
  }
};

/** For `describe.skipIf(!qemuAvailable())`. With ELF2DMP_REQUIRE_TOOLS=1 a missing program is an error. */
export const qemuAvailable = (): boolean =>
  programsAvailable({ [QEMU]: 'qemu-system-x86', 'qemu-img': 'qemu-utils', nasm: 'nasm' });

/** Writes the guest's dump to `path` and returns it. The guest's memory gets the launch code that its CPUs ran. */
export async function dumpWithQemu(guest: AnyGuest, path: string, options: QemuOptions = {}): Promise<string> {
  return runInQemu(guest, options, async ({ qemu, ram }) => {
    if (options.raw !== 'backend') await dump(qemu, guest, path, options);
    for (const more of options.also ?? []) await dump(qemu, guest, more.path, more);
    for (const name of options.snapshots?.names ?? []) {
      const said = await qemu.human(`savevm ${name}`);
      if (said.trim() !== '') throw new Error(`savevm: ${said}`);
    }
    if (options.raw === 'backend') renameSync(ram, path);
    return path;
  });
}

/** Runs the guest in a real QEMU and stops it when every CPU is where it should be; then `use` has it. */
export async function runInQemu<T>(
  guest: AnyGuest,
  options: QemuOptions,
  use: (running: { qemu: Qemu; ram: string }) => Promise<T>,
): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-qemu-'));
  try {
    placeLaunch(guest);
    const [ram, firmware] = [join(dir, 'ram'), join(dir, 'firmware')];
    writeRam(guest, ram);
    writeFileSync(firmware, buildFirmware(guest, options.kvm));
    const qemu = new Qemu(
      [
        ...[
          '-accel',
          options.kvm ? 'kvm' : 'tcg,thread=multi',
          '-cpu',
          options.kvm ? KVM_CPU : GUEST_CPU,
          '-smp',
          `${guest.cpus.length}`,
        ],
        ...(options.memory ?? backing)({ file: ram, bytes: guest.ramBytes, shared: options.raw === 'backend' }),
        ...[
          '-machine',
          options.memory ? (options.machineType ?? 'pc') : `${options.machineType ?? 'pc'},memory-backend=ram`,
        ],
        ...['-bios', firmware, '-nodefaults', '-vga', 'none', '-display', 'none', '-net', 'none'],
        // A triple fault stops the machine and leaves the registers to look at.
        ...['-no-reboot', '-no-shutdown', '-qmp', 'stdio'],
        ...(guest.vmcoreinfo && !is32(guest) ? ['-device', 'vmcoreinfo'] : []),
        ...(options.snapshots ? diskArguments(options.snapshots.image) : []),
        ...(options.arguments ?? []),
      ],
      options.program,
    );
    try {
      await qemu.command('qmp_capabilities');
      await parked(qemu, guest, options.timeoutMilliseconds ?? 300_000);
      await qemu.command('stop');
      const result = await use({ qemu, ram });
      await qemu.quit();
      return result;
    } finally {
      qemu.kill();
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** The guest's RAM as a file: its path and size, and whether QEMU's writes reach it. */
export interface RamFile {
  file: string;
  bytes: number;
  shared: boolean;
}

const backing = ({ file, bytes, shared }: RamFile): string[] => [
  '-m',
  `${bytes / 0x100000}M`,
  '-object',
  `memory-backend-file,id=ram,size=${bytes / 0x100000}M,mem-path=${file},share=${shared ? 'on' : 'off'}`,
];

async function dump(
  qemu: Qemu,
  guest: AnyGuest,
  path: string,
  { raw, paging, format, filter }: Omit<QemuOptions, 'raw'> & { raw?: 'pmemsave' | 'backend' | 'migrate' },
): Promise<void> {
  if (raw === 'migrate') {
    await migrate(qemu, path);
    return;
  }
  if (raw === 'pmemsave') {
    await qemu.command('pmemsave', { val: 0, size: guest.ramBytes, filename: path });
    return;
  }
  await qemu.command('dump-guest-memory', {
    paging: paging ?? false,
    protocol: `file:${path}`,
    ...(format ? { format } : {}),
    ...filter,
  });
}

function diskArguments(image: string): string[] {
  createImage(image);
  return ['-drive', `file=${image},format=qcow2,if=ide`];
}

/** An empty qcow2 image. */
export const createImage = (path: string) => execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, '64M']);

/** The migration stream of the paused guest, as `virsh save` and `virsh dump` have QEMU write it. */
async function migrate(qemu: Qemu, path: string): Promise<void> {
  await qemu.command('migrate', { uri: intoFile(path) });
  await migrated(qemu, path);
}

/** Where a migration goes. The file appears when it is whole: QEMU can call a migration completed before that. */
const intoFile = (path: string): string => `exec:cat > '${path}.part' && mv '${path}.part' '${path}'`;

/** How a migration is made. */
export interface Migration {
  /** Its file, which appears when it is whole; or QEMU's address of where it goes. */
  to: { file: string } | { uri: string };
  capabilities?: readonly string[];
  parameters?: object;
  /** The guest runs meanwhile, and its memory changes. */
  live?: boolean;
}

/** A migration to a file of the paused guest, which is paused again after it. */
export async function migrateTo(qemu: Qemu, { to, capabilities = [], parameters, live }: Migration): Promise<void> {
  const set = (state: boolean) =>
    qemu.command('migrate-set-capabilities', {
      capabilities: capabilities.map((capability) => ({ capability, state })),
    });
  await set(true);
  if (parameters) await qemu.command('migrate-set-parameters', parameters);
  if (live) await qemu.command('cont');
  if ('file' in to) rmSync(to.file, { force: true });
  await qemu.command('migrate', { uri: 'uri' in to ? to.uri : intoFile(to.file) });
  await migrated(qemu, 'uri' in to ? undefined : to.file);
  await set(false);
  // From where it stopped: QEMU migrates only what ran since the last migration.
  await qemu.command('cont');
  await qemu.command('stop');
}

/** QEMU's version: 7.2 or 10. */
export function qemuVersion(): number {
  const [program, ...args] = newer([QEMU, '--version']);
  return Number.parseFloat(/version ([\d.]+)/.exec(execFileSync(program!, args, { encoding: 'utf8' }))![1]!);
}

/** Waits until the migration is over, QEMU would run the guest again, and the file is there. */
export async function migrated(qemu: Qemu, file?: string): Promise<void> {
  for (;;) {
    const seen = (await qemu.command('query-migrate')) as { status: string; 'error-desc'?: string };
    if (seen.status === 'failed' || seen.status === 'cancelled') {
      throw new Error(`QEMU could not write its migration stream: ${seen['error-desc'] ?? seen.status}`);
    }
    const { status } = (await qemu.command('query-status')) as { status: string };
    if (seen.status === 'completed' && status === 'postmigrate' && (!file || existsSync(file))) return;
    await sleep(20);
  }
}

/** QEMU with its monitor protocol (QMP) on standard input and output. */
export class Qemu implements Monitor {
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  #over = false;
  #errors = '';
  #waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];

  constructor(args: readonly string[], name: string = QEMU) {
    const [program, ...rest] = newer([name, ...args]);
    const child = spawn(program!, rest, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child = child;
    // Whatever hangs, a test must not.
    const watchdog = setTimeout(() => child.kill('SIGKILL'), WATCHDOG_MS).unref();
    child.on('close', () => clearTimeout(watchdog));
    child.stderr!.on('data', (data) => {
      this.#errors += data;
    });
    child.stdin!.on('error', () => undefined); // its end is told by 'close'
    this.#ended = new Promise((resolve) => {
      const end = (why: string) => {
        this.#over = true;
        for (const { reject } of this.#waiting.splice(0)) reject(new Error(`QEMU ${why}: ${this.#errors.trim()}`));
        resolve();
      };
      child.on('error', (error) => end(`did not start (${error.message})`));
      child.on('close', (code, signal) => end(`ended (${signal ?? code})`));
    });
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const message = JSON.parse(line);
      if ('return' in message) this.#waiting.shift()?.resolve(message.return);
      else if ('error' in message) this.#waiting.shift()?.reject(new Error(`QEMU: ${message.error.desc}`));
    });
  }

  command(execute: string, args: object = {}): Promise<unknown> {
    if (this.#over) return Promise.reject(new Error(`QEMU has ended: ${this.#errors.trim()}`));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#child.stdin!.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    });
  }

  async human(line: string): Promise<string> {
    return String(await this.command('human-monitor-command', { 'command-line': line }));
  }

  async quit(): Promise<void> {
    await this.command('quit');
    await this.#ended;
  }

  kill(): void {
    if (!this.#over) this.#child.kill('SIGKILL');
  }
}

/** QEMU's monitor, its own or through libvirt. */
export interface Monitor {
  command(execute: string, args?: object): Promise<unknown>;
  human(line: string): Promise<string>;
}

/** Waits until every started CPU is where it should be, in its address space, asleep if it is in the kernel. */
export async function parked(qemu: Monitor, guest: AnyGuest, milliseconds: number): Promise<void> {
  const until = Date.now() + milliseconds;
  for (;;) {
    // Before the registers: a machine that dies in between must not pass for one that runs.
    const { status } = (await qemu.command('query-status')) as { status: string };
    const registers = await qemu.human('info registers -a');
    const seen = registers.split(/^CPU#\d+\s*$/m).slice(1);
    const late = guest.cpus.flatMap((cpu, i) => (isParked(cpu, seen[i] ?? '') ? [] : [i]));
    if (late.length === 0) return;
    if (status !== 'running' || Date.now() > until) {
      const states = late.map((i) => {
        const { regs, cr3 } = guest.cpus[i]!;
        const [rip, root] = [guest.cpus[i]!.ends?.from ?? regs.rip, cr3].map((value) => `0x${value.toString(16)}`);
        return `CPU ${i} should be at ${rip} with CR3 ${root}, but is:\n${seen[i]?.trim()}`;
      });
      const why =
        status === 'running' ? `not all CPUs were there after ${milliseconds} ms` : `the machine is "${status}"`;
      throw new Error(`${why}\n${states.join('\n')}`);
    }
    await sleep(20);
  }
}

function isParked(cpu: GuestCpu, registers: string): boolean {
  if (!cpu.started) return true;
  const value = (name: string) => BigInt(`0x${new RegExp(`\\b${name}=([0-9a-f]+)`).exec(registers)?.[1] ?? '0'}`);
  if (cpu.ends) {
    const rip = value('RIP');
    const user = /\bCPL=3\b/.test(registers);
    return rip >= cpu.ends.from && rip < cpu.ends.to && (user || value('HLT') === 1n);
  }
  // In 32-bit code the monitor shows EIP and ESP.
  if (value('[RE]IP') !== cpu.regs.rip || value('CR3') !== cpu.cr3 || value('[RE]SP') !== cpu.regs.rsp) return false;
  return (cpu.cs & 3) === 3 || (cpu.spins ?? false) || value('HLT') === 1n;
}

export function writeRam(guest: AnyGuest, path: string): void {
  const file = openSync(path, 'w', 0o600);
  const lowBytes = is32(guest) ? guest.lowBytes : 2 ** 31;
  try {
    ftruncateSync(file, guest.ramBytes);
    for (const [at, page] of guest.memory.pages) {
      if (at >= 0xa0000 && at < 0x100000)
        throw new Error(`the guest has memory at 0x${at.toString(16)}, where firmware is`);
      // RAM above 4 GiB lies behind the low memory, see GuestOptions.highMiB.
      writeSync(file, page, 0, page.length, at < 2 ** 32 ? at : at - 2 ** 32 + lowBytes);
    }
  } finally {
    closeSync(file);
  }
}

const LAUNCH_SLOT = 0x100;

/**
 * What each CPU runs last, in the guest's kernel, which every address space maps: it loads CR3, which it gets in RAX,
 * and the general registers, and goes to where the CPU is to be found.
 */
export function placeLaunch(guest: AnyGuest): void {
  if (is32(guest)) {
    placeLaunch32(guest);
    return;
  }
  guest.cpus.forEach((cpu, i) => {
    if (!cpu.started) return;
    const slot = Buffer.alloc(LAUNCH_SLOT, 0xcc);
    const physical = guest.launch.physical[Math.floor((i * LAUNCH_SLOT) / 0x1000)];
    if (physical === undefined) throw new Error(`no room for the launch code of CPU ${i}`);
    let at = 0;
    const emit = (...bytes: number[]) => {
      slot.set(bytes, at);
      at += bytes.length;
    };
    const emit64 = (value: bigint) => {
      at = slot.writeBigUInt64LE(BigInt.asUintN(64, value), at);
    };
    const load = (register: number, value: bigint) => {
      emit(register < 8 ? 0x48 : 0x49, 0xb8 + (register & 7)); // mov r64, imm64
      emit64(value);
    };
    const r = cpu.regs;
    const user = (cpu.cs & 3) === 3;
    const frame = 0xc8;
    emit(0x0f, 0x22, 0xd8); // mov cr3, rax
    const rsp = user ? guest.launch.virtual + BigInt(i * LAUNCH_SLOT + frame) : r.rsp;
    const inOrder = [
      r.rax,
      r.rcx,
      r.rdx,
      r.rbx,
      rsp,
      r.rbp,
      r.rsi,
      r.rdi,
      r.r8,
      r.r9,
      r.r10,
      r.r11,
      r.r12,
      r.r13,
      r.r14,
      r.r15,
    ];
    inOrder.forEach((value, register) => {
      load(register, value);
    });
    if (user) {
      emit(0x48, 0xcf); // iretq
      at = frame;
      for (const value of [r.rip, BigInt(cpu.cs), r.rflags, r.rsp, BigInt(cpu.ss)]) emit64(value);
    } else {
      emit(0xff, 0x25, 0, 0, 0, 0); // jmp [rip]
      emit64(r.rip);
    }
    slot.copy(guest.memory.page(physical), (i * LAUNCH_SLOT) % 0x1000);
  });
}

/** The stub with the page tables and the CPUs' records that it wants. */
export function buildFirmware(guest: AnyGuest, underKvm = false): Buffer {
  if (is32(guest)) return fillFirmware32(guest, assembleStub('x86/stub.asm'));
  const firmware = assembleStub('stub.asm');
  const root = 0;
  const kernelRoot = guest.memory.page(guest.kernel.root);
  kernelRoot.copy(firmware, root + 0x800, 0x800);
  const table = (page: number) => BigInt(0xf0000 + page) | 0x23n;
  firmware.writeBigUInt64LE(table(guest.kernel.levels === 5 ? 0x1000 : 0x2000), root);
  firmware.writeBigUInt64LE(table(0x2000), 0x1000);
  // Itself and the local APIC, by pages of 2 MiB: larger ones are not on every CPU.
  for (const [gigabyte, page] of [
    [0, 0xa000],
    [3, 0xb000],
  ] as const) {
    firmware.writeBigUInt64LE(table(page), 0x2000 + 8 * gigabyte);
    for (let i = 0; i < 512; i++) {
      firmware.writeBigUInt64LE((BigInt(gigabyte) << 30n) | (BigInt(i) << 21n) | 0xe3n, page + 8 * i);
    }
  }

  if (0x3000 + 0x100 * guest.cpus.length > 0xa000) throw new Error(`too many CPUs: ${guest.cpus.length}`);
  firmware.writeUInt32LE(underKvm ? 1 : 0, 0xeff8);
  firmware.writeUInt32LE(guest.cpus.length, 0xeffc);
  if (guest.vmcoreinfo) {
    firmware.writeUInt32LE(guest.vmcoreinfo.note.length, 0xefec);
    firmware.writeBigUInt64LE(BigInt(guest.vmcoreinfo.physical), 0xeff0);
  }
  guest.cpus.forEach((cpu, i) => {
    if (!cpu.started) return;
    const record = firmware.subarray(0x3000 + 0x100 * i, 0x3100 + 0x100 * i);
    const u64 = (at: number, value: bigint) => record.writeBigUInt64LE(value, at);
    const tableRegister = (at: number, limit: number, base: bigint) => {
      record.writeUInt16LE(limit, at);
      u64(at + 2, base);
    };
    u64(0x00, cpu.cr3);
    u64(0x08, guest.launch.virtual + BigInt(i * LAUNCH_SLOT));
    u64(0x10, cpu.regs.rflags);
    u64(0x18, cpu.cr0);
    u64(0x20, cpu.cr4);
    u64(0x28, cpu.fsBase);
    u64(0x30, cpu.gsBase);
    u64(0x38, cpu.kernelGsBase);
    tableRegister(0x40, cpu.gdt.limit, cpu.gdt.base);
    tableRegister(0x50, cpu.idt.limit, cpu.idt.base);
    tableRegister(0x60, 0x5f, BigInt(0xf0000 + 0x3080 + 0x100 * i));
    // CS and SS of a CPU in user mode come with its IRETQ.
    [(cpu.cs & 3) === 3 ? 0x18 : cpu.ss, cpu.ds, cpu.es, cpu.fs, cpu.gs, cpu.tr].forEach((selector, n) => {
      record.writeUInt16LE(selector, 0x70 + 2 * n);
    });
    record.writeUInt8(1, 0x7c);
    const gdt = guest.kernel.read(cpu.gdt.base, cpu.gdt.limit + 1);
    gdt.writeUInt8(gdt[cpu.tr + 5]! & ~2, cpu.tr + 5); // LTR wants a TSS that is not busy
    gdt.copy(record, 0x80);
  });
  return firmware;
}

function assembleStub(name: string): Buffer {
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-stub-'));
  try {
    const source = fileURLToPath(new URL(`../guest/${name}`, import.meta.url));
    execFileSync('nasm', ['-f', 'bin', '-o', join(dir, 'stub'), source]);
    return readFileSync(join(dir, 'stub'));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
