// Holds the harness and our own ELF writer to what a real QEMU writes for the same guests.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dumpWithQemu, type QemuOptions, qemuAvailable } from '../support/qemu.ts';
import { cpuNote, writeElf } from './elf.ts';
import { buildGuest, type Guest, type GuestOptions } from './guest.ts';
import { buildGuest32, type GuestOptions32 } from './x86/guest.ts';

interface Core {
  notes: { name: string; type: number; desc: Buffer }[];
  loads: { physical: number; bytes: Buffer }[];
}

/** Reads an ELF core by literal offsets. */
function parse(file: Buffer): Core {
  const core: Core = { notes: [], loads: [] };
  for (let i = 0; i < file.readUInt16LE(0x38); i++) {
    const header = 0xc0 + 56 * i;
    const [offset, , physical, size] = [8, 16, 24, 32].map((at) => Number(file.readBigUInt64LE(header + at)));
    const bytes = file.subarray(offset!, offset! + size!);
    if (file.readUInt32LE(header) === 1) core.loads.push({ physical: physical!, bytes });
    else {
      for (let at = 0; at < bytes.length; ) {
        const [nameSize, descSize] = [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4)];
        const desc = at + 12 + Math.ceil(nameSize / 4) * 4;
        core.notes.push({
          name: bytes.toString('latin1', at + 12, at + 11 + nameSize),
          type: bytes.readUInt32LE(at + 8),
          desc: bytes.subarray(desc, desc + descSize),
        });
        at = desc + Math.ceil(descSize / 4) * 4;
      }
    }
  }
  return core;
}

const CRASH_32 = { code: 0xd1, parameters: [0x10, 2, 0, 4], processor: 1 } as const;

const GUESTS: readonly [name: string, options: GuestOptions, qemu?: QemuOptions][] = [
  ['two processors', {}],
  ['q35, many processors', { processors: 16, ramMiB: 24 }, { machineType: 'q35' }],
  ['user mode', { processors: 3, user: [1], order: [1, 2, 0] }],
  ['user mode behind KVA shadow', { user: [0, 1], kernelRootAt: 0x9000 }],
  ['crashed', { crash: { code: 0xd1, parameters: [1n, 2n, 3n, 4n], processor: 0 } }],
  ['2 MiB pages', { kernelPages: '2m' }],
  ['a 1 GiB page', { kernelPages: '1g' }],
  ['5-level paging', { la57: true, user: [0] }],
  ['CPUs never started, and one outside Windows', { processors: 3, neverStarted: 2, foreign: [1] }],
  ['Server 2003', { build: 'server2003' }],
];

describe.skipIf(!qemuAvailable())("a real QEMU's dump", () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-qemu-test-'));
  });
  afterAll(() => {
    rmSync(dir, { recursive: true, force: true });
  });
  let count = 0;
  const dump = async (guest: Guest, options: QemuOptions = {}): Promise<Buffer> =>
    readFileSync(await dumpWithQemu(guest, join(dir, `${count++}.elf`), options));

  it.each(GUESTS)("has the guest's CPUs and memory: %s", async (_, options, qemu) => {
    const guest = buildGuest(options);
    const { notes, loads } = parse(await dump(guest, qemu));
    expect(notes.map((n) => n.name)).toEqual([...guest.cpus.map(() => 'CORE'), ...guest.cpus.map(() => 'QEMU')]);
    guest.cpus.forEach((cpu, i) => {
      const { desc } = notes[guest.cpus.length + i]!;
      expect({ cpu: i, note: words(desc) }).toEqual({ cpu: i, note: words(cpuNote(cpu).subarray(20)) });
      const status = notes[i]!.desc;
      expect(status.readUInt32LE(0x20)).toBe(i + 1);
      expect(status.readBigUInt64LE(0x70 + 8 * 16)).toBe(cpu.regs.rip);
      expect(status.readBigUInt64LE(0x70 + 8 * 19)).toBe(cpu.regs.rsp);
    });
    const different = [];
    let compared = 0;
    for (const { physical, bytes } of loads) {
      for (let at = 0; at < bytes.length; at += 0x1000) {
        const address = physical + at;
        // The firmware and its shadow.
        if ((address >= 0xf0000 && address < 0x100000) || address >= 0xffff0000) continue;
        if (!bytes.subarray(at, at + 0x1000).equals(guest.memory.read(address, 0x1000))) different.push(address);
        compared++;
      }
    }
    expect(different).toEqual([]);
    expect(compared).toBe(guest.ramBytes / 0x1000 - 16);
  });

  it('has the headers, notes and end that our own ELF writer gives it, byte for byte', async () => {
    const guest = buildGuest({ processors: 3, user: [1], neverStarted: 1 });
    const real = await dump(guest);
    const { loads } = parse(real);
    const own = writeElf(guest, { runs: loads.map((l) => [l.physical, l.physical + l.bytes.length]) });
    const memory = loads[0]!.bytes.byteOffset - real.byteOffset;
    expect(words(own.subarray(0, memory))).toEqual(words(real.subarray(0, memory)));
    expect(own.length).toBe(real.length);
    expect(own.subarray(-11)).toEqual(real.subarray(-11));
  });

  it.each([
    ['PAE, a CPU in user mode', { user: [1], neverStarted: 1 }, { program: 'qemu-system-i386' }],
    ['without PAE, in large pages', { pae: false, largePages: true, processors: 3 }, { program: 'qemu-system-i386' }],
    ['XP, crashed, in the QEMU for 64-bit guests', { build: 'xp', crash: CRASH_32 }, {}],
    ['/3GB', { threeGigabytes: true, user: [0] }, {}],
  ] as [string, GuestOptions32, QemuOptions][])('is of a 32-bit guest: %s', async (_, options, qemu) => {
    const guest = buildGuest32(options);
    const path = await dumpWithQemu(guest, join(dir, `${count++}.elf`), qemu);
    const real = readFileSync(path);
    const { loads } = parse(real);
    const own = writeElf(guest, { runs: loads.map((l) => [l.physical, l.physical + l.bytes.length]) });
    const memory = loads[0]!.bytes.byteOffset - real.byteOffset;
    expect(real.readUInt16LE(0x12)).toBe(3);
    expect(words(own.subarray(0, memory))).toEqual(words(real.subarray(0, memory)));
    const different = [];
    for (const { physical, bytes } of loads) {
      for (let at = 0; at < bytes.length; at += 0x1000) {
        const address = physical + at;
        // The firmware and its shadow; and QEMU's CPU sets "accessed" in PDPTs.
        const isFirmware = (address >= 0xf0000 && address < 0x100000) || address >= 0xffff0000;
        if (isFirmware || (guest.pae && address === guest.truth.root - (guest.truth.root % 0x1000))) continue;
        if (!bytes.subarray(at, at + 0x1000).equals(guest.memory.read(address, 0x1000))) different.push(address);
      }
    }
    expect(different).toEqual([]);
  });

  it('holds a part of memory where that was asked for', async () => {
    const guest = buildGuest();
    const { loads } = parse(await dump(guest, { filter: { begin: 0x200000, length: 0x10800 } }));
    expect(loads.map((l) => [l.physical, l.bytes.length])).toEqual([[0x200000, 0x10800]]);
  });

  it('lists overlapping mappings in paging mode', async () => {
    const { loads } = parse(await dump(buildGuest(), { paging: true }));
    expect(loads.length).toBeGreaterThan(100);
  });

  it('is not written when a CPU does not get where it should be, and the error shows where it is', async () => {
    const guest = buildGuest();
    guest.cpus[1]!.regs.rip = 0xfffff900_00000000n;
    const path = join(dir, 'stuck.elf');
    // On a busy machine it may not have left 16-bit code, whose registers have other names.
    await expect(dumpWithQemu(guest, path, { timeoutMilliseconds: 1500 })).rejects.toThrow(
      /CPU 1 should be at 0xfffff90000000000[\s\S]*[RE]IP=/,
    );
    expect(() => readFileSync(path)).toThrow();
  });
});

const words = (b: Buffer) =>
  Array.from({ length: b.length / 8 }, (_, i) => `${(8 * i).toString(16)}: ${b.readBigUInt64LE(8 * i).toString(16)}`);
