import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { verify } from '../../src/operations/verify.ts';
import { writeElf } from '../guest/elf.ts';
import { kdumpOf } from '../guest/kdump.ts';
import { addPageDatabase32 } from '../guest/page-database.ts';
import { buildGuest32, type Guest32, type GuestOptions32 } from '../guest/x86/guest.ts';
import { pagesOf } from '../support/dumps.ts';

let dir: string;
let count = 0;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-x86-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function writtenOf(guest: Guest32) {
  const input = join(dir, `${count++}.elf`);
  writeFileSync(input, writeElf(guest));
  return { guest, input, output: `${input}.dmp` };
}

function inputOf(options: GuestOptions32 = {}, change: (guest: Guest32) => void = () => undefined) {
  const guest = buildGuest32(options);
  change(guest);
  return writtenOf(guest);
}

const CRASH = { code: 0xd1, parameters: [0x10, 2, 0, 0x8a460003], processor: 1 } as const;

describe('a dump of a 32-bit guest', () => {
  it('has the pages of RAM behind one page of header, with the registers where the debugger looks', async () => {
    const { guest, input, output } = inputOf({ processors: 3, user: [1] });
    const report = await convert({ input, output });
    expect(report.diagnostics).toEqual([]);
    const dump = readFileSync(output);
    expect(dump.toString('latin1', 0, 8)).toBe('PAGEDUMP');
    expect(dump[0x5c]).toBe(1);
    const at = (physical: number) => 0x1000 + (physical < 0xa0000 ? physical : physical - 0x60000);
    for (const { context, specialRegisters, cpu, gdt } of guest.truth.processors) {
      const { rip, rsp, rax } = guest.cpus[cpu]!.regs;
      const frame = dump.subarray(at(guest.kernel.translate(context)!));
      expect([0, 0xb8, 0xc4, 0xb0].map((offset) => frame.readUInt32LE(offset))).toEqual([
        0x10007,
        ...[rip, rsp, rax].map(Number),
      ]);
      const special = dump.subarray(at(guest.kernel.translate(specialRegisters)!));
      expect([8, 0x2c].map((offset) => special.readUInt32LE(offset))).toEqual([Number(guest.cpus[cpu]!.cr3), gdt]);
    }
  });

  it.each(['full', 'bitmap', 'kernel', 'active'] as const)('is sound: %s', async (type) => {
    const { input, output } = inputOf({ crash: CRASH, user: [0] });
    const report = await convert({ input, output, type });
    // This guest has no page frame database.
    const losses = report.diagnostics.filter(({ severity }) => severity === 'loss').map(({ code }) => code);
    expect(losses).toEqual(type === 'active' ? ['page-states-unknown'] : []);
    const verified = await verify({ dump: output });
    expect(verified.findings).toEqual([]);
  });

  it.each([
    ['xp', false],
    ['xp', true],
    ['server2003', true],
    ['win7', false],
    ['win7', true],
    ['win10', true],
  ] as const)('has what its page frame database says is in use: %s, PAE %s', async (build, pae) => {
    const guest = buildGuest32({ build, pae, user: [0], crash: CRASH });
    const { unmapped, fill } = addPageDatabase32(guest);
    const { input, output } = writtenOf(guest);
    const report = await convert({ input, output, type: 'active' });
    expect(report.diagnostics).toEqual([]);
    expect(report.dump.selection?.statesFrom).toBe('page frame database');
    const pages = pagesOf(readFileSync(output));
    for (const physical of [unmapped.modified, unmapped.active]) expect(pages.get(physical)).toEqual(fill(physical));
    for (const physical of [unmapped.standby, unmapped.free, unmapped.zeroed]) expect(pages.has(physical)).toBe(false);
    // The process that a processor runs, and none of what a file has.
    expect(pages.has(guest.user.translate(guest.truth.userSample.virtual)! & ~0xfff)).toBe(true);
    for (const { what, physical } of guest.truth.samples) {
      if (physical !== undefined)
        expect([what, pages.has(physical & ~0xfff)]).toEqual([what, !/transition/.test(what)]);
    }
    expect((await verify({ dump: output, against: input })).findings).toEqual([]);
  });

  it('goes by the page tables where the database has a form that no known build has', async () => {
    const guest = buildGuest32();
    addPageDatabase32(guest);
    for (let pfn = 0; pfn < 4096; pfn++) guest.kernel.u8(0x83800000 + pfn * 0x1c + 0xe, pfn % 7);
    const { input, output } = writtenOf(guest);
    const report = await convert({ input, output, type: 'active' });
    expect(report.diagnostics.map(({ code }) => code)).toEqual(['page-states-unknown']);
    expect(report.diagnostics[0]!.message).toContain('does not agree with the page tables');
  });

  it('has a KDBG that says how to walk page tables, where the guest has another word for it', async () => {
    const { guest, input, output } = inputOf({ pae: false }, ({ kernel, truth }) => kernel.u16(truth.kdbg + 0x36, 1));
    const report = await convert({ input, output });
    expect(report.outcome).toBe('good');
    const dump = readFileSync(output);
    const physical = guest.kernel.translate(guest.truth.kdbg)!;
    expect(dump.readUInt16LE(0x1000 + physical - (physical < 0xa0000 ? 0 : 0x60000) + 0x36)).toBe(0);
    expect(dump[0x5c]).toBe(0);
    const again = await convert({ input: output, output: `${output}.kernel`, type: 'kernel' });
    expect(again.outcome).toBe('good');
  });

  it('lacks pages of zeros where they are dropped, and keeps what structures are worth their zeros', async () => {
    const { guest, input, output } = inputOf({ processors: 2, user: [1] });
    const report = await convert({ input, output, dropZeroPages: true });
    expect(report.diagnostics.map(({ code }) => code)).toEqual(['zero-pages-dropped']);
    const pages = pagesOf(readFileSync(output));
    expect(pages.size).toBe(report.dump.pages);
    expect(pages.size).toBeLessThan(guest.ramBytes / 0x1000 / 2);
    for (const { what, virtual, physical, bytes } of guest.truth.samples) {
      const at = physical ?? guest.kernel.translate(virtual)!;
      const page = pages.get(at - (at % 0x1000));
      expect([what, page?.subarray(at % 0x1000).subarray(0, bytes.length)]).toEqual([
        what,
        bytes.subarray(0, 0x1000 - (at % 0x1000)),
      ]);
    }
    expect((await verify({ dump: output, against: input })).findings).toEqual([]);
  });

  it.each([
    ['with PAE', { user: [0] }],
    ['without', { build: 'xp', pae: false }],
  ] as [string, GuestOptions32][])('is the same from a kdump-compressed file, %s', async (_, options) => {
    const { guest, input, output } = inputOf(options);
    await convert({ input, output });
    const kdump = join(dir, `${count++}.kdump`);
    writeFileSync(kdump, kdumpOf(guest).file);
    const report = await convert({ input: kdump, output: `${kdump}.dmp` });
    expect([report.input.format, report.diagnostics]).toEqual(['kdump', []]);
    expect(readFileSync(`${kdump}.dmp`).equals(readFileSync(output))).toBe(true);
  });

  it.each([
    ['raw memory', 'vm.raw', 0, {}],
    [
      'a VMware file, with a part above 4 GiB',
      'vm.vmem',
      16,
      {
        runs: [
          { start: 0, size: 2 ** 24 },
          { start: 2 ** 32, size: 2 ** 24 },
        ],
      },
    ],
  ])('has the crash that is in %s', async (_, name, highMiB, more) => {
    const guest = buildGuest32({ highMiB, crash: CRASH });
    const { memory, lowBytes, ramBytes } = guest;
    const input = join(dir, name);
    const high = memory.flat(2 ** 32, 2 ** 32 + ramBytes - lowBytes);
    writeFileSync(input, Buffer.concat([memory.flat(0, lowBytes), high]));
    const report = await convert({ input, output: `${input}.dmp`, ...more });
    expect(report.input.machine).toBe('x86');
    expect(report.windows.processors.map(({ registers }) => registers)).toEqual(['unknown', 'captured']);
    const dump = readFileSync(`${input}.dmp`);
    expect([dump.readUInt32LE(0x28), dump.readUInt32LE(0x2c)]).toEqual([0xd1, 0x10]);
    const pages = pagesOf(dump);
    for (const { what, virtual, physical, bytes } of guest.truth.samples) {
      const at = physical ?? guest.kernel.translate(virtual)!;
      const within = bytes.subarray(0, 0x1000 - (at % 0x1000));
      expect([
        what,
        pages
          .get(at - (at % 0x1000))!
          .subarray(at % 0x1000)
          .subarray(0, within.length),
      ]).toEqual([what, within]);
    }
  });

  it('is not a triage dump where the KDBG ends before the size of a PRCB', async () => {
    const { input, output } = inputOf({ build: 'xp' });
    await expect(convert({ input, output, type: 'triage' })).rejects.toMatchObject({ code: 'triage-no-processor' });
  });
});

describe('a stack of 32-bit code', () => {
  it('follows frame pointers, and marks what they lead to as guesses', async () => {
    const { guest, input } = inputOf({ processors: 3, user: [2], crash: CRASH });
    const report = await stacks({ input });
    for (const { number, frames } of guest.truth.processors) {
      const seen = report.stacks.find(({ processor }) => processor === number)!.frames;
      const { captured } = guest.truth;
      const own = captured?.processor === number ? [captured.eip, ...frames.slice(2)] : frames;
      const wide = own.map(
        (ip) =>
          `0x${BigInt.asUintN(64, BigInt(ip | 0))
            .toString(16)
            .padStart(16, '0')}`,
      );
      expect(seen.map((frame) => frame.instructionPointer)).toEqual(wide);
      expect(seen.map((frame) => [frame.how, frame.certain])).toEqual(
        own.map((_, i) => (i === 0 ? ['registers', true] : ['frame-pointer', false])),
      );
    }
  });
});
