// A machine made by hand, with nothing of test/guest in it: every register and every byte comes out as it went in.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type CpuSpec, dumpWithQemu, type Machine, qemuAvailable, type Segment } from './machine.ts';

const KERNEL = 0xffffffff_80000000n;
const [CODE, TABLES, LAUNCH, STACK] = [KERNEL, KERNEL + 0x1000n, KERNEL + 0x2000n, KERNEL + 0x3000n];
const [KERNEL_ROOT, USER_ROOT] = [0x1000, 0x2000];
const TSS = TABLES + 0x800n;
const RAM = 8 << 20;

/** CPU 0 in the kernel, CPU 1 in user mode with another root, CPU 2 never started. */
function tinyMachine(): Machine {
  const pages = new Map<number, Buffer>();
  const page = (at: number): Buffer => {
    const b = pages.get(at) ?? Buffer.alloc(0x1000);
    pages.set(at, b);
    return b;
  };
  const entry = (table: number, index: number, value: number) => page(table).writeBigUInt64LE(BigInt(value), 8 * index);

  // 0xffffffff80000000: present, writable, accessed, dirty.
  for (const root of [KERNEL_ROOT, USER_ROOT]) entry(root, 511, 0x3063);
  entry(0x3000, 510, 0x4063);
  entry(0x4000, 0, 0x5063);
  [0x6000, 0x7000, 0x8000, 0x9000].forEach((physical, i) => {
    entry(0x5000, i, physical | 0x63);
  });
  // 0x10000 and 0x11000, for user mode, above the first MiB.
  entry(USER_ROOT, 0, 0xa067);
  entry(0xa000, 0, 0xb067);
  entry(0xb000, 0, 0xc067);
  entry(0xc000, 16, 0x200067);
  entry(0xc000, 17, 0x201067);

  page(0x6000).set([0xf4, 0xeb, 0xfd], 0x120); // hlt; jmp $-1
  page(0x200000).set([0xeb, 0xfe], 0x456); // jmp $
  page(0x8000);
  page(0x201000);
  page(0x9000).fill(0x5a);
  page(0x400000).fill(0xa5); // in no address space
  page(RAM - 0x1000).fill(0x3c);

  const gdt = page(0x7000);
  const descriptors: readonly (readonly [number, bigint])[] = [
    [0x10, 0x00209b00_00000000n],
    [0x18, 0x00409300_00000000n],
    [0x28, 0x00cff300_0000ffffn],
    [0x30, 0x0020fb00_00000000n],
    [0x40, 0x80008b00_18000067n], // TSS at 0xffffffff80001800, busy
    [0x48, 0x00000000_ffffffffn],
    [0x50, 0x0040f300_00003c00n],
  ];
  for (const [selector, value] of descriptors) gdt.writeBigUInt64LE(value, selector);

  const common = {
    ...{ ds: 0x2b, es: 0x2b, fs: 0x53, gs: 0x2b, tr: 0x40 },
    gdt: { base: TABLES, limit: 0x57 },
    idt: { base: TABLES + 0x400n, limit: 0xfff },
  };
  const gprs = (cpu: bigint) => {
    const at = (i: bigint) => BigInt.asUintN(64, 0x8123_4567_89ab_c000n + (cpu << 8n) + i * 0x0101_0000_0000_0001n);
    return {
      ...{ rax: at(0n), rbx: at(1n), rcx: at(2n), rdx: at(3n), rsi: at(4n), rdi: at(5n), rbp: at(6n), r8: at(8n) },
      ...{ r9: at(9n), r10: at(10n), r11: at(11n), r12: at(12n), r13: at(13n), r14: at(14n), r15: at(15n) },
    };
  };
  const cpus: CpuSpec[] = [
    {
      ...common,
      started: true,
      regs: { ...gprs(0n), rsp: STACK + 0xe58n, rip: CODE + 0x121n, rflags: 0x246n },
      ...{ cs: 0x10, ss: 0x18, cr3: BigInt(KERNEL_ROOT), cr4: 0x6f8n },
      ...{ gsBase: 0xfffff803_12345000n, kernelGsBase: 0x7ff6_1000n, fsBase: 0x1122_3000n },
    },
    {
      ...common,
      started: true,
      regs: { ...gprs(1n), rsp: 0x11ff8n, rip: 0x10456n, rflags: 0xa93n },
      ...{ cs: 0x33, ss: 0x2b, cr3: BigInt(USER_ROOT), cr4: 0x406f8n },
      ...{ gsBase: 0x7ffd_e000n, kernelGsBase: 0xffffa001_80000000n, fsBase: 0n },
    },
    {
      // As INIT leaves it; RDX has the family, model and stepping that the harness asks for.
      started: false,
      regs: {
        ...{ rax: 0n, rbx: 0n, rcx: 0n, rdx: 0x60fb1n, rsi: 0n, rdi: 0n, rbp: 0n, rsp: 0n, r8: 0n, r9: 0n, r10: 0n },
        ...{ r11: 0n, r12: 0n, r13: 0n, r14: 0n, r15: 0n, rip: 0xfff0n, rflags: 2n },
      },
      ...{ cs: 0xf000, ss: 0, ds: 0, es: 0, fs: 0, gs: 0, tr: 0, cr3: 0n, cr4: 0n },
      gdt: { base: 0n, limit: 0xffff },
      idt: { base: 0n, limit: 0xffff },
      ...{ gsBase: 0n, kernelGsBase: 0n, fsBase: 0n },
    },
  ];
  return { ramBytes: RAM, pages, cpus, launch: { virtual: LAUNCH, physical: [0x8000] } };
}

const CR0 = [0x80050033n, 0x80050033n, 0x60000010n];

/** What QEMU keeps for each segment. The TSS is not busy there: LTR reads the descriptor before it marks it. */
function segments(cpu: CpuSpec): Record<string, Segment> {
  const segment = (selector: number, base: bigint, limit: number, flags: number) => ({ selector, base, limit, flags });
  const ldt = segment(0, 0n, 0xffff, 0x8200);
  if (!cpu.started) {
    const data = segment(0, 0n, 0xffff, 0x9300);
    const cs = segment(0xf000, 0xffff0000n, 0xffff, 0x9b00);
    return { cs, ds: data, es: data, fs: data, gs: data, ss: data, ldt, tr: segment(0, 0n, 0xffff, 0x8b00) };
  }
  const user = cpu.cs === 0x33;
  const flat = (base: bigint) => segment(0x2b, base, 0xffffffff, 0xcff300);
  return {
    cs: segment(cpu.cs, 0n, 0, user ? 0x20fb00 : 0x209b00),
    ds: flat(0n),
    es: flat(0n),
    fs: segment(0x53, cpu.fsBase, 0x3c00, 0x40f300),
    gs: flat(cpu.gsBase),
    ss: user ? flat(0n) : segment(0x18, 0n, 0, 0x409300),
    ldt,
    tr: segment(0x40, TSS, 0x67, 0x80008900),
  };
}

interface Dump {
  notes: { name: string; desc: Buffer }[];
  loads: { physical: number; bytes: Buffer }[];
}

function parse(file: Buffer): Dump {
  expect(file.toString('latin1', 0, 4)).toBe('\x7fELF');
  const dump: Dump = { notes: [], loads: [] };
  for (let i = 0; i < file.readUInt16LE(0x38); i++) {
    const header = 0xc0 + 56 * i;
    const word = (at: number) => Number(file.readBigUInt64LE(header + at));
    const bytes = file.subarray(word(8), word(8) + word(32));
    if (file.readUInt32LE(header) === 1) dump.loads.push({ physical: word(24), bytes });
    else {
      for (let at = 0; at < bytes.length; ) {
        const size = bytes.readUInt32LE(at + 4);
        dump.notes.push({
          name: bytes.toString('latin1', at + 12, at + 16),
          desc: bytes.subarray(at + 20, at + 20 + size),
        });
        at += 20 + size;
      }
    }
  }
  return dump;
}

function readNote(desc: Buffer) {
  const names = 'rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags'.split(' ');
  const regs = Object.fromEntries(names.map((name, i) => [name, desc.readBigUInt64LE(8 + 8 * i)]));
  const segment = (at: number): Segment => ({
    selector: desc.readUInt32LE(at),
    base: desc.readBigUInt64LE(at + 16),
    limit: desc.readUInt32LE(at + 4),
    flags: desc.readUInt32LE(at + 8),
  });
  const [cs, ds, es, fs, gs, ss, ldt, tr] = [0x98, 0xb0, 0xc8, 0xe0, 0xf8, 0x110, 0x128, 0x140].map(segment);
  const table = (at: number) => ({ base: desc.readBigUInt64LE(at + 16), limit: desc.readUInt32LE(at + 4) });
  return {
    ...{ version: desc.readUInt32LE(0), size: desc.readUInt32LE(4), regs },
    segments: { cs, ds, es, fs, gs, ss, ldt, tr },
    ...{ gdt: table(0x158), idt: table(0x170) },
    control: [0x188, 0x190, 0x198, 0x1a0, 0x1a8].map((at) => desc.readBigUInt64LE(at)),
    kernelGsBase: desc.readBigUInt64LE(0x1b0),
  };
}

describe.skipIf(!qemuAvailable())('a machine made by hand, in a real QEMU', () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-machine-'));
  });
  afterAll(() => {
    rmSync(dir, { recursive: true, force: true });
  });

  it.each(['pc', 'q35'] as const)(
    'comes out with the registers and memory that it was given: %s',
    async (machineType) => {
      const machine = tinyMachine();
      const output = join(dir, `${machineType}.elf`);
      await dumpWithQemu(machine, output, { machineType });
      const { notes, loads } = parse(readFileSync(output));
      expect(notes.map((note) => note.name)).toEqual(['CORE', 'CORE', 'CORE', 'QEMU', 'QEMU', 'QEMU']);
      machine.cpus.forEach((cpu, i) => {
        const { gdt, idt, kernelGsBase } = cpu;
        const { regs } = cpu;
        expect({ cpu: i, ...readNote(notes[3 + i]!.desc) }).toEqual({
          ...{ cpu: i, version: 1, size: 440, regs, segments: segments(cpu), gdt, idt, kernelGsBase },
          control: [CR0[i], 0n, 0n, cpu.cr3, cpu.cr4],
        });
      });

      const zeros = Buffer.alloc(0x1000);
      const different: string[] = [];
      const seen = new Set<number>();
      for (const { physical, bytes } of loads) {
        for (let at = 0; at < bytes.length; at += 0x1000) {
          const address = physical + at;
          // The firmware's shadow and, at the end of the first 4 GiB, the firmware.
          if ((address >= 0xf0000 && address < 0x100000) || address >= 0xffff0000) continue;
          seen.add(address);
          if (!bytes.subarray(at, at + 0x1000).equals(machine.pages.get(address) ?? zeros)) {
            different.push(address.toString(16));
          }
        }
      }
      expect(different).toEqual([]);
      expect([...machine.pages.keys()].filter((at) => !seen.has(at))).toEqual([]);
      expect(seen.size).toBe(RAM / 0x1000 - 16);
    },
  );

  it('comes out in paging mode with its mappings, of every root', async () => {
    const output = join(dir, 'paging.elf');
    await dumpWithQemu(tinyMachine(), output, { paging: true });
    const physical = parse(readFileSync(output)).loads.map((load) => load.physical);
    expect(physical).toEqual(expect.arrayContaining([0x6000, 0x200000]));
    expect(physical).not.toContain(0x400000);
  });

  it('comes out in part, and compressed', async () => {
    const output = join(dir, 'part.elf');
    await dumpWithQemu(tinyMachine(), output, { filter: { begin: 0x400000, length: 0x10800 } });
    expect(parse(readFileSync(output)).loads.map((l) => [l.physical, l.bytes.length])).toEqual([[0x400000, 0x10800]]);
    const kdump = join(dir, 'kdump');
    await dumpWithQemu(tinyMachine(), kdump, { kdump: 'zlib' });
    expect(readFileSync(kdump).toString('latin1', 0, 8)).toBe('makedump'); // flattened
  });

  it('is refused where it cannot be run, with the reason', async () => {
    const machine = tinyMachine();
    const output = join(dir, 'refused.elf');
    const unmapped = { ...machine, launch: { virtual: LAUNCH + 0x2000n, physical: [0x8000] } };
    await expect(dumpWithQemu(unmapped, output)).rejects.toThrow('does not map 0xffffffff80004000');
    const stuck = tinyMachine();
    stuck.pages.get(0x6000)!.fill(0, 0x120, 0x123); // its code is gone: a fault without handlers
    // RIP where it stopped; EIP when the registers were read before it ran and the machine's end after that.
    await expect(dumpWithQemu(stuck, output)).rejects.toThrow(/CPU 0 should be at 0xffffffff80000121[\s\S]*[RE]IP=/);
    expect(readdirSync(dir)).not.toContain('refused.elf');
  });
});
