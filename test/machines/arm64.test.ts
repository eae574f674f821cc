// The ARM64 machine's answers to what the rooms above ask, by literal offsets and instruction words.
import { describe, expect, it } from 'vitest';
import { va } from '../../src/core/units.ts';
import { ARM64 } from '../../src/machines/arm64/index.ts';
import { unsigned } from '../../src/machines/arm64/registers.ts';
import { machineOf, machinesOfMigration } from '../../src/machines/index.ts';
import type { CodeImage } from '../../src/machines/unwinding.ts';
import { buildArm64Guest } from '../guest/arm64.ts';
import { arm64Fpsimd, arm64Prstatus } from '../guest/arm64-elf.ts';
import { arm64 } from '../support/registers.ts';

const guest = buildArm64Guest({ processors: 3, user: [1], order: [0, 1, 2], neverStarted: 1, hypervisor: 1 });

/** A CPU's notes, without their headers, as the machine reads them. */
function registersOf(index: number, withVectors = true) {
  const cpu = guest.cpus[index]!;
  const [form] = ARM64.cpuNotes;
  const more = [withVectors ? arm64Fpsimd(cpu).subarray(20) : undefined, undefined];
  return arm64(form!.parse(arm64Prstatus(cpu, index).subarray(20), more)?.registers);
}

describe('the machine of an ARM64 file', () => {
  it('is told by any of its marks', () => {
    for (const mark of [{ elfMachine: 183 }, { imageFileMachine: 0xaa64 }, { prstatusSize: 392 }]) {
      expect(machineOf(mark)).toBe(ARM64);
    }
  });

  it('is told by the machine type of a migration stream, or by the sections of its CPUs', () => {
    const sections = (version: number) => () => [{ version, bytes: Buffer.alloc(0) }];
    expect(machinesOfMigration('virt-7.2', () => [])).toEqual([ARM64]);
    expect(machinesOfMigration(undefined, sections(22))).toEqual([ARM64]);
    expect(machinesOfMigration(undefined, () => [])).not.toContain(ARM64);
    // RISC-V's has no version.
    for (const type of ['virt', 'pc-q35-7.2']) expect(machinesOfMigration(type, () => [])).not.toContain(ARM64);
  });
});

describe('registers of ARM64', () => {
  it('are those of the notes', () => {
    const { x, sp, pc, pstate, v, fpcr, fpsr } = guest.cpus[0]!;
    expect(registersOf(0)).toEqual({ x, sp, pc, pstate, vectors: { v, fpcr, fpsr } });
    expect(registersOf(0, false).vectors).toBeUndefined();
  });

  it('are none where the note is empty or of another size', () => {
    const [form] = ARM64.cpuNotes;
    expect(form!.parse(Buffer.alloc(392), [])).toBeUndefined();
    expect(form!.parse(Buffer.alloc(336, 1), [])).toBeUndefined();
    const vectorsOf = (size: number) => form!.parse(Buffer.alloc(392, 1), [Buffer.alloc(size, 1)])!.registers;
    expect(vectorsOf(528)).toHaveProperty('vectors.fpcr', 0x0101_0101);
    expect([vectorsOf(527), vectorsOf(532)].map((r) => 'vectors' in r && r.vectors)).toEqual([undefined, undefined]);
  });

  it('show what the CPU runs', () => {
    const all = guest.cpus.map((_, i) => registersOf(i));
    expect(all.map(ARM64.isUserMode)).toEqual([false, true, false, false, false]);
    expect(all.map(ARM64.neverStarted)).toEqual([false, false, false, true, false]);
    expect(ARM64.outsideWindows(all[0]!)).toBeUndefined();
    expect(ARM64.outsideWindows(all[1]!)).toBeUndefined();
    expect(ARM64.outsideWindows(all[4]!)).toBe('a hypervisor (EL2)');
    expect(ARM64.outsideWindows({ ...all[0]!, pstate: 0xdn })).toBe('firmware (EL3)');
    expect(ARM64.outsideWindows({ ...all[0]!, pc: 0x4000_1000n })).toBe('firmware or a boot loader');
    // PSTATE.nRW: 32-bit code.
    expect(all.map(ARM64.runsNativeCode).every(Boolean)).toBe(true);
    const thumb = { ...all[1]!, pstate: 0x30n };
    expect([ARM64.isUserMode(thumb), ARM64.runsNativeCode(thumb)]).toEqual([true, false]);
  });

  it('lead to the KPCR in the kernel, and to the TEB in user mode', () => {
    const read = () => undefined;
    const [kernel, user] = [registersOf(0), registersOf(1)];
    expect(ARM64.kpcrCandidates(kernel, read)).toEqual([guest.truth.processors[0]!.kpcr]);
    expect(ARM64.kpcrCandidates(user, read)).toEqual([]);
    // It begins a page.
    const within = kernel.x.map((value, i) => (i === 18 ? value + 8n : value));
    expect(ARM64.kpcrCandidates({ ...kernel, x: within }, read)).toEqual([]);
    expect(ARM64.teb(user, read)).toBe(guest.cpus[1]!.x[18]);
    expect(ARM64.teb(kernel, read)).toBeUndefined();
  });

  it('have their names and widths', () => {
    const named = ARM64.namedRegisters(registersOf(0));
    expect(named.map(({ name }) => name).slice(28, 36)).toEqual([
      'x28',
      'fp',
      'lr',
      'sp',
      'pc',
      'cpsr',
      'fpcr',
      'fpsr',
    ]);
    expect(named.at(-1)).toEqual({
      name: 'v31',
      value: BigInt(`0x${Buffer.from(guest.cpus[0]!.v[31]!).reverse().toString('hex')}`),
      bits: 128,
    });
    expect(ARM64.namedRegisters(registersOf(0, false))).toHaveLength(34);
  });
});

describe("a frame of ARM64's registers", () => {
  it('has all of them where the debugger looks, and flags that claim them', () => {
    const cpu = guest.cpus[0]!;
    const frame = ARM64.encodeContext(registersOf(0));
    expect(frame).toHaveLength(0x390);
    expect([frame.readUInt32LE(0), frame.readUInt32LE(4)]).toEqual([0x400007, 0x600003c4]);
    expect([frame.readBigUInt64LE(8), frame.readBigUInt64LE(0xf8)]).toEqual([cpu.x[0], cpu.x[30]]);
    expect([frame.readBigUInt64LE(0x100), frame.readBigUInt64LE(0x108)]).toEqual([cpu.sp, cpu.pc]);
    expect(frame.subarray(0x110, 0x120)).toEqual(cpu.v[0]);
    expect(frame.subarray(0x300, 0x310)).toEqual(cpu.v[31]);
    expect([frame.readUInt32LE(0x310), frame.readUInt32LE(0x314)]).toEqual([cpu.fpcr, cpu.fpsr]);
    expect(frame.subarray(0x318).every((byte) => byte === 0)).toBe(true);
  });

  it('claims no vector registers that are not known', () => {
    const frame = ARM64.encodeContext(registersOf(0, false));
    expect(frame.readUInt32LE(0)).toBe(0x400003);
    expect(frame.subarray(0x110).every((byte) => byte === 0)).toBe(true);
  });

  it('comes back from a dump', () => {
    for (const registers of [registersOf(0), registersOf(1), registersOf(0, false)]) {
      expect(ARM64.decodeContext(ARM64.encodeContext(registers), Buffer.alloc(0xa0), () => undefined)).toEqual(
        registers,
      );
    }
    expect(ARM64.decodeContext(ARM64.encodeUnknownContext(), Buffer.alloc(0xa0), () => undefined)).toBeUndefined();
  });

  it('is told from other data by its flags', () => {
    expect([0x400007, 0x40001f, 0x60400003, 0x100007, 0x10007, 0xffffffff, 0].map(ARM64.areContextFlags)).toEqual([
      true,
      true,
      true,
      false,
      false,
      false,
      false,
    ]);
    expect(ARM64.looksLikeContext(Buffer.alloc(0x390))).toBe(true);
    expect(ARM64.looksLikeContext(Buffer.alloc(0x390, 0xa5))).toBe(false);
  });
});

describe('a KPCR of ARM64', () => {
  const kpcr = va(0xffff9700_690e8000n);
  const of = (change: (page: Buffer) => void) => {
    const page = Buffer.alloc(0x1000);
    page.writeBigUInt64LE(kpcr + 0x1180n, 0x28);
    page.writeUInt16LE(1, 0x3c);
    page.writeUInt16LE(1, 0x3e);
    change(page);
    return ARM64.kpcrDoubt((_, length) => page.subarray(0, length), kpcr);
  };

  it('is known by its version or its lock array', () => {
    expect(of(() => undefined)).toBeUndefined();
    expect(of((page) => page.writeBigUInt64LE(0n, 0x28))).toBeUndefined();
    expect(of((page) => page.writeUInt16LE(2, 0x3c))).toBeUndefined();
    expect(of((page) => page.fill(0))).toContain('KPCR.LockArray');
    expect(of((page) => page.fill(0xff))).toContain('version 65535.65535');
    expect(ARM64.kpcrDoubt(() => undefined, kpcr)).toContain('not present');
  });
});

describe('unwind data of ARM64', () => {
  const { read } = ARM64.functionTable!;
  const entry = (begin: number, data: number) => {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(begin, 0);
    bytes.writeUInt32LE(data >>> 0, 4);
    return bytes;
  };

  it('says where functions end, packed or in .xdata', () => {
    expect(read(entry(0x1000, 1 | (6 << 2)), () => undefined)).toMatchObject({ begin: 0x1000, end: 0x1018 });
    const header = Buffer.alloc(4);
    header.writeUInt32LE(0x0840_0123, 0);
    const xdata: CodeImage['read'] = (rva) => (rva === 0x7000 ? header : undefined);
    expect(read(entry(0x1000, 0x7000), xdata)).toMatchObject({ begin: 0x1000, end: 0x1000 + 4 * 0x123 });
    expect(read(entry(0x1000, 0x7008), xdata).end).toBeUndefined();
  });

  it.each([
    ['bl', 0x94000003, true],
    ['blr x8', 0xd63f0100, true],
    ['blraaz x8', 0xd63f091f, true],
    ['blraa x8, x9', 0xd73f0909, true],
    ['b', 0x14000003, false],
    ['br x8', 0xd61f0100, false],
    ['ret', 0xd65f03c0, false],
    ['svc 0', 0xd4000001, false],
  ])('a call precedes a return address: %s', (_, word, isCall) => {
    const code = Buffer.alloc(4);
    code.writeUInt32LE(word, 0);
    expect(ARM64.endsWithCall(code)).toBe(isCall);
  });

  it('return addresses are read without their signatures', () => {
    expect(unsigned(0x12bf_f803_f300_8830n)).toBe(0xffff_f803_f300_8830n);
    expect(unsigned(0x1234_7ff6_1234_0004n)).toBe(0x0000_7ff6_1234_0004n);
  });
});
