import { describe, expect, it } from 'vitest';
import { DUMP_HEADER_FORM_32 } from '../../src/formats/dump-header.ts';
import { MACHINES } from '../../src/machines/index.ts';
import { entryAt, type PagingMode } from '../../src/machines/paging-mode.ts';
import { parseQemuNote } from '../../src/machines/x64/qemu-note.ts';
import { X86 } from '../../src/machines/x86/index.ts';
import { PAGING_32_BIT, PAGING_PAE } from '../../src/machines/x86/paging.ts';
import { parsePrstatus32 } from '../../src/machines/x86/prstatus.ts';
import { buildGuest32, prototypeEntry } from '../guest/x86/guest.ts';
import { cpuNote32, prstatus32 } from '../guest/x86/notes.ts';
import { x64 } from '../support/registers.ts';

const entry = (mode: PagingMode, level: number, value: bigint) => {
  const page = Buffer.alloc(8);
  page.writeBigUInt64LE(value);
  return entryAt(mode, level, page, 0);
};

describe('32-bit page tables', () => {
  it.each([
    ['a table', PAGING_32_BIT, 0, 0x12345063n, { kind: 'table', physical: 0x12345000 }],
    ['4 MiB', PAGING_32_BIT, 0, 0xd28000e3n, { kind: 'page', physical: 0xd2800000, size: 2 ** 22 }],
    ['4 MiB beyond 4 GiB', PAGING_32_BIT, 0, 0x004020e3n, { kind: 'page', physical: 0x1_00400000, size: 2 ** 22 }],
    ['a page', PAGING_32_BIT, 1, 0xfffff063n, { kind: 'page', physical: 0xfffff000, size: 4096 }],
    ['nothing', PAGING_32_BIT, 1, 0n, { kind: 'absent' }],
    ['transition in a directory', PAGING_32_BIT, 0, 0x12345880n, { kind: 'absent' }],
    ['transition', PAGING_32_BIT, 1, 0x92345880n, { kind: 'transition', physical: 0x92345000 }],
    [
      'a prototype',
      PAGING_32_BIT,
      1,
      prototypeEntry(false, 0xe1234560),
      { kind: 'prototype', entry: 0xffffffff_e1234560n },
    ],
    ['PAE: a directory', PAGING_PAE, 0, 0x1_12345081n, { kind: 'table', physical: 0x1_12345000 }],
    ['PAE: 2 MiB', PAGING_PAE, 1, 0x80000003_002000e3n, { kind: 'page', physical: 0x3_00200000, size: 2 ** 21 }],
    ['PAE: a page', PAGING_PAE, 2, 0x80000004_fffff063n, { kind: 'page', physical: 0x4_fffff000, size: 4096 }],
    ['PAE: transition', PAGING_PAE, 2, 0x2_12345880n, { kind: 'transition', physical: 0x2_12345000 }],
    [
      'PAE: a prototype',
      PAGING_PAE,
      2,
      prototypeEntry(true, 0xe1234560),
      { kind: 'prototype', entry: 0xffffffff_e1234560n },
    ],
    ['PAE: of a file, which no prototype has', PAGING_PAE, 2, 0xffffffff_00000420n, { kind: 'absent' }],
    ['PAE: in the page file', PAGING_PAE, 2, 0x00001234_00000080n, { kind: 'absent' }],
  ] as const)('%s', (_, mode, level, value, expected) => {
    expect(entry(mode, level, value)).toEqual(expected);
  });
});

describe('a 32-bit CPU', () => {
  const guest = buildGuest32({ processors: 3, user: [1], order: [0, 1, 2] });
  const read = (virtual: bigint, length: number) => {
    const at = Number(BigInt.asUintN(32, virtual));
    return guest.kernel.translate(at) === undefined ? undefined : guest.kernel.read(at, length);
  };
  const wide = (address: number): bigint => BigInt.asUintN(64, BigInt(address | 0));
  const registersOf = (i: number) => x64(parseQemuNote(cpuNote32(guest, guest.cpus[i]!).subarray(20))!.registers);

  it('leads to its KPCR in kernel and user mode, by its GDT', () => {
    for (const { number, kpcr } of guest.truth.processors) {
      expect(X86.kpcrCandidates(registersOf(number), read)).toEqual([wide(kpcr)]);
    }
    const { kpcr, prcb } = guest.truth.processors[2]!;
    const claim = { prcb: wide(prcb), selfAt: undefined, currentPrcbAt: undefined } as never;
    expect(X86.kpcrDoubt(read, wide(kpcr) as never, claim)).toBeUndefined();
    expect(X86.kpcrDoubt(read, wide(kpcr + 0x20) as never)).toMatch(/SelfPcr/);
  });

  it('is not led to the KPCR of a processor with other tables by a descriptor that was changed', () => {
    const own = buildGuest32({ processors: 2, user: [1], order: [0, 1] });
    const readOwn = (virtual: bigint, length: number) => own.kernel.read(Number(BigInt.asUintN(32, virtual)), length);
    const notes = own.cpus.map((cpu) => x64(parseQemuNote(cpuNote32(own, cpu).subarray(20))!.registers));
    const [first, second] = own.truth.processors.map(({ gdt }) => own.kernel.read(gdt + 0x30, 8));
    own.kernel.write(own.truth.processors[0]!.gdt + 0x30, second!);
    own.kernel.write(own.truth.processors[1]!.gdt + 0x30, first!);
    // In the kernel FS has it.
    expect(X86.kpcrCandidates(notes[0]!, readOwn)).toEqual([wide(own.truth.processors[0]!.kpcr)]);
    expect(X86.kpcrCandidates(notes[1]!, readOwn)).toEqual([]);
  });

  it('has the page tables that CR3 and CR4 say', () => {
    expect(X86.pageTables(registersOf(1))).toEqual({ root: guest.truth.userRoot, mode: PAGING_PAE });
    const other = buildGuest32({ pae: false });
    const registers = x64(parseQemuNote(cpuNote32(other, other.cpus[0]!).subarray(20))!.registers);
    expect(X86.pageTables(registers)).toEqual({ root: other.truth.root, mode: PAGING_32_BIT });
  });

  it('leads to its TEB in user mode, and to none of an idle thread', () => {
    expect(X86.teb(registersOf(1), read)).toBe(guest.cpus[1]!.fsBase);
    expect(X86.teb(registersOf(0), read)).toBeUndefined();
  });

  it('leads to no KPCR where its GDT ends before the descriptor', () => {
    const registers = { ...registersOf(1), tables: { ...registersOf(1).tables! } };
    registers.tables.gdt = { ...registers.tables.gdt, limit: 0x36 };
    expect(X86.kpcrCandidates(registers, read)).toEqual([]);
    registers.tables.gdt = { ...registers.tables.gdt, limit: 0x37 };
    expect(X86.kpcrCandidates(registers, read)).toHaveLength(1);
  });

  it('dispatches through gates, not through tasks', () => {
    const table = X86.interruptTable(registersOf(0))!;
    // What a task gate has where others have an offset means nothing.
    guest.kernel.u16(guest.truth.processors[0]!.idt + 8 * 2 + 6, 0x8234);
    // Of 32 exceptions two go through task gates.
    expect(X86.interruptHandlers(table, read)).toHaveLength(30);
  });

  it('is written as a CONTEXT and special registers, and read back', () => {
    const registers = registersOf(1);
    const frame = X86.encodeContext(registers);
    expect(frame).toHaveLength(0x2cc);
    expect([0, 0xb0, 0xb8, 0xc4, 0xbc].map((at) => frame.readUInt32LE(at))).toEqual([
      0x10007,
      Number(registers.rax),
      Number(registers.rip),
      Number(registers.rsp),
      0x1b,
    ]);
    const kpcr = read(wide(guest.truth.processors[1]!.kpcr), 0x120);
    const special = X86.patchSpecialRegisters(Buffer.alloc(0x54), registers, kpcr, false);
    expect([0, 8, 0xc, 0x2c, 0x34].map((at) => special.readUInt32LE(at))).toEqual([
      0x8001003b,
      guest.truth.userRoot,
      0x6f9,
      guest.truth.processors[1]!.gdt,
      guest.truth.processors[1]!.idt,
    ]);
    const back = x64(X86.decodeContext(frame, special, read)!);
    const plain = (r: typeof back) => [r.rax, r.rip, r.rsp, r.rbp, r.control, r.cs.selector, r.fs.base, r.tables?.gdt];
    expect(plain(back)).toEqual(plain({ ...registers, tables: { ...registers.tables!, gdt: back.tables!.gdt } }));
  });

  it('has the tables that its KPCR names where the input does not say', () => {
    const general = x64(parsePrstatus32(prstatus32(guest.cpus[0]!, 0).subarray(20))!.registers);
    const { kpcr, gdt, idt } = guest.truth.processors[0]!;
    const special = X86.patchSpecialRegisters(Buffer.alloc(0x54, 0x5a), general, read(wide(kpcr), 0x120), false);
    expect([0, 8, 0x2c, 0x34].map((at) => special.readUInt32LE(at))).toEqual([0, 0, gdt, idt]);
  });

  it('is never started with paging off', () => {
    const { cpus } = buildGuest32({ neverStarted: 1 });
    const registers = x64(parseQemuNote(cpuNote32(guest, cpus.at(-1)!).subarray(20))!.registers);
    expect([X86.neverStarted(registers), X86.pageTables(registers)]).toEqual([true, undefined]);
  });
});

describe('a 32-bit dump header', () => {
  it('has its fields where debuggers look for them', () => {
    const header = DUMP_HEADER_FORM_32.encode({
      dumpType: 5,
      attributes: 0x40,
      extents: [{ start: 0x1000, size: 0x2000 }],
      pages: 2,
      requiredSpace: 0x4000,
      majorVersion: 0xf,
      build: 7601,
      directoryTableBase: 0x1e0a0,
      pae: true,
      pfnDatabase: 0xffffffff_82881008n,
      psLoadedModuleList: 0xffffffff_8287f008n,
      psActiveProcessHead: 0xffffffff_8287f118n,
      machine: 0x14c,
      processors: 2,
      bugCheck: { code: 0xc000021a, parameters: [0xffffffff_8a000000n, 2n, 3n, 4n] },
      kdDebuggerDataBlock: 0xffffffff_8287d040n,
      context: Buffer.alloc(0x2cc, 0x11),
      exceptionAddress: 0xffffffff_8285b284n,
      systemTime: 0x1d9_5000_1234_5678n,
      systemUpTime: 0x5_1234_5678n,
      productType: 1,
      suiteMask: 0x110,
      kdSecondaryVersion: 2,
      pagingLevels: 4,
      bootId: undefined,
      comment: 'test',
    });
    expect(header).toHaveLength(0x1000);
    expect(header.toString('latin1', 0, 8)).toBe('PAGEDUMP');
    const at = [0x8, 0xc, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x60, 0x64, 0x68, 0x6c, 0x70, 0x320, 0x7d0];
    expect(at.map((offset) => header.readUInt32LE(offset))).toEqual([
      0xf, 7601, 0x1e0a0, 0x82881008, 0x8287f008, 0x8287f118, 0x14c, 2, 0xc000021a, 0x8a000000, 0x8287d040, 1, 2, 1, 2,
      0x11111111, 0x80000003,
    ]);
    expect([header[0x5c], header[0x5d]]).toEqual([1, 2]);
    expect([0x7dc, 0x8a0, 0xf88, 0xf94, 0xf98].map((offset) => header.readUInt32LE(offset))).toEqual([
      0x8285b284, 0x40, 5, 1, 0x110,
    ]);
    expect([0xfa0, 0xfb8, 0xfc0].map((offset) => header.readBigUInt64LE(offset))).toEqual([
      0x4000n,
      0x5_1234_5678n,
      0x1d9_5000_1234_5678n,
    ]);
    const back = DUMP_HEADER_FORM_32.decode(header);
    expect(back).toMatchObject({
      PaeEnabled: 1,
      PsLoadedModuleList: 0xffffffff_8287f008n,
      BugCheckParameters: [0xffffffff_8a000000n, 2n, 3n, 4n],
    });
    expect(X86.pagingModesOf(back)[0]).toBe(PAGING_PAE);
    expect(X86.pagingModesOf({ ...back, PaeEnabled: 0 })[0]).toBe(PAGING_32_BIT);
  });

  it('is not taken for a 64-bit one', () => {
    expect(MACHINES.filter(({ dumpHeader }) => dumpHeader === DUMP_HEADER_FORM_32)).toEqual([X86]);
  });
});
