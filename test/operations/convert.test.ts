import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import type { ConversionReport } from '../../src/report/conversion.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { CASES } from '../matrix/cases.ts';
import { pagesOf } from '../support/dumps.ts';
import { held } from '../support/schemas.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-convert-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Compares each page of the dump with the guest's memory; what differs must be a patch that the report lists. */
function expectOnlyPatches(guest: Guest, dump: Buffer, report: ConversionReport): void {
  const patched = new Map<number, { from: number; to: number }[]>();
  for (const p of report.dump.patches) {
    const from = Number(p.physical);
    const page = from - (from % 0x1000);
    expect(from + p.length).toBeLessThanOrEqual(page + 0x1000);
    patched.set(page, [...(patched.get(page) ?? []), { from: from - page, to: from - page + p.length }]);
    const original = guest.memory.read(from, p.length);
    expect(createHash('sha256').update(original).digest('hex')).toBe(p.originalSha256);
  }
  for (const [address, page] of pagesOf(dump)) {
    const expected = guest.memory.read(address, 0x1000);
    for (const { from, to } of patched.get(address) ?? []) page.copy(expected, from, from, to);
    if (!page.equals(expected)) throw new Error(`page 0x${address.toString(16)} differs where no patch is`);
  }
}

describe('conversion without a debugger', () => {
  const cases = CASES.filter((c) => !c.trueGuest && !c.paging && c.format !== 'pmemsave' && c.format !== 'backend');
  it.each(cases.map((c) => [c.name, c] as const))('%s', async (_, c) => {
    const guest = buildGuest(c.guest);
    c.change?.(guest);
    // The same guest without the change: its page tables tell where things are.
    const { kernel } = buildGuest(c.guest);
    const [input, output] = [join(dir, 'vm.elf'), join(dir, 'out.dmp')];
    const elf = writeElf(guest, c.elf);
    writeFileSync(input, elf);
    const args = c.args ?? [];
    const option = (name: string) => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined);
    const conversion = convert({
      input,
      output,
      force: true,
      context: option('--context') as 'cpu' | undefined,
      type: option('--type') as 'bitmap' | undefined,
      ram: option('--ram') as 'windows' | undefined,
      verify: true,
    });
    if (c.exitCode === 5) {
      await expect(conversion).rejects.toMatchObject({ kind: 'corrupt' });
      return;
    }
    const report = held('convert', await conversion);
    const { truth } = guest;
    expect(report.outcome).toBe(c.exitCode === 3 ? 'losses' : 'good');
    expect([...new Set(report.diagnostics.filter((d) => d.severity === 'loss').map((d) => d.code))].sort()).toEqual(
      [...(c.losses ?? [])].sort(),
    );
    // Read back and compared with the input: what is damaged there is no fault of the dump.
    expect(report.verification?.findings.filter((f) => f.severity === 'error')).toEqual([]);
    expect(report.verification?.against).toMatchObject({ pagesCompared: report.dump.pages, pagesDifferent: 0 });
    expect(report.windows.kdbg).toEqual({
      address: `0x${truth.kdbg.toString(16)}`,
      size: truth.kdbgBlock.length,
      encoded: truth.kdbgEncoded,
    });
    expect(report.windows.kernel.pdb).toEqual(
      c.headless ? null : expect.objectContaining({ name: 'ntkrnlmp.pdb', guid: truth.modules[0]!.guid, age: 1 }),
    );
    expect(report.windows.moduleCount).toBe(c.modules?.length ?? truth.modules.length);
    expect(report.windows.processors.map((p) => p.cpu)).toEqual(
      truth.processors.map((p) => (c.unknown?.includes(p.number) ? null : p.cpu)),
    );

    // The normal path reads little, and searches nothing.
    const { bytesReadToLocate } = report.effort;
    expect(report.evidence.some(({ method }) => method === 'search of memory')).toBe(c.searches ?? false);
    expect(c.searches || bytesReadToLocate < 2 << 20).toBe(true);

    const dump = readFileSync(output);
    expectOnlyPatches(guest, dump, report);
    const pages = pagesOf(dump);
    const read = (virtual: bigint, length: number) => {
      const result = Buffer.alloc(length);
      for (let done = 0; done < length; ) {
        const physical = kernel.translate(virtual + BigInt(done))!;
        const count = Math.min(length - done, 0x1000 - (physical % 0x1000));
        pages.get(physical - (physical % 0x1000))!.copy(result, done, physical % 0x1000, (physical % 0x1000) + count);
        done += count;
      }
      return result;
    };
    expect(read(truth.kdbg, truth.kdbgBlock.length).equals(truth.kdbgBlock)).toBe(true);
    for (const p of truth.processors) {
      if (c.unshown?.includes(p.number)) continue;
      const frame = read(p.context, 0x4d0);
      const special = read(p.specialRegisters, 0xd8);
      const cpu = guest.cpus[p.cpu]!;
      if (c.unknown?.includes(p.number)) {
        // No register is claimed, yet the debugger stays in x64 mode.
        expect([frame.readUInt16LE(0x38), frame.readBigUInt64LE(0xf8)]).toEqual([0x10, 0n]);
        expect(special.readBigUInt64LE(0x58)).toBe(p.gdt);
        continue;
      }
      expect(special.readBigUInt64LE(0x10)).toBe(c.elf?.prstatusOnly === null ? 0n : cpu.cr3);
      expect([special.readUInt16LE(0x56), special.readBigUInt64LE(0x58)]).toEqual([0x57, p.gdt]);
      if (c.captured?.includes(p.number)) {
        expect([frame.readUInt32LE(0x30), frame.readBigUInt64LE(0xf8)]).toEqual([0x10000f, truth.captured!.rip]);
        continue;
      }
      expect(frame.readUInt32LE(0x30)).toBe(0x100007);
      expect([frame.readUInt32LE(0x34), frame.readUInt32LE(0x118)]).toEqual([0x1f80, 0x1f80]);
      expect(frame.readUInt16LE(0x38)).toBe(cpu.cs);
      expect(frame.readBigUInt64LE(0xf8)).toBe(cpu.regs.rip);
      expect(frame.readBigUInt64LE(0x98)).toBe(cpu.regs.rsp);
      expect(frame.readBigUInt64LE(0xf0)).toBe(cpu.regs.r15);
      // Nothing is claimed of floating-point and vector registers.
      expect(frame.subarray(0x1a0, 0x4d0).equals(Buffer.alloc(0x330))).toBe(true);
    }
    expect(readFileSync(input).equals(elf)).toBe(true);
  });

  it('ends in time, in bounded memory, when a hostile kernel image is full of KDBGs', async () => {
    const guest = buildGuest();
    // 256 MiB of image that is one page over and over, full of tags with sizes.
    const { kernelBase } = guest.truth;
    guest.kernel.u32(kernelBase + 0x80n + 0x50n, 256 << 20);
    const page = guest.memory.allocate();
    for (let at = 0; at < 0x1000; at += 8) guest.memory.page(page).writeBigUInt64LE(0x380_4742_444bn, at);
    for (let at = 0x80000n; at < 16n << 20n; at += 0x1000n) guest.kernel.map(kernelBase + at, page);
    const input = join(dir, 'hostile.elf');
    writeFileSync(input, writeElf(guest));
    const report = await convert({ input, output: join(dir, 'hostile.dmp'), force: true });
    expect(report.windows.kdbg.address).toBe(`0x${guest.truth.kdbg.toString(16)}`);
    expect(report.evidence.length).toBeLessThan(1000);
  });

  it('leaves memory untouched with patch: false', async () => {
    const guest = buildGuest();
    const [input, output] = [join(dir, 'plain.elf'), join(dir, 'plain.dmp')];
    writeFileSync(input, writeElf(guest));
    const report = await convert({ input, output, patch: false });
    expect(report.dump.patches).toEqual([]);
    for (const [address, page] of pagesOf(readFileSync(output))) {
      expect(page.equals(guest.memory.read(address, 0x1000))).toBe(true);
    }
  });

  it('uses what a cut file still holds, and says what is missing', async () => {
    const guest = buildGuest();
    const elf = writeElf(guest);
    const [input, output] = [join(dir, 'cut.elf'), join(dir, 'cut.dmp')];
    // The guest's memory is used from low addresses up.
    writeFileSync(input, elf.subarray(0, elf.length - 0x300800));
    const report = await convert({ input, output });
    expect(report.diagnostics.filter((d) => d.severity === 'loss').map((d) => d.code)).toEqual([
      'input-truncated',
      'ram-missing',
      'partial-pages',
    ]);
    expectOnlyPatches(guest, readFileSync(output), report);
  });

  it('fails as corrupt when a cut file lacks the kernel', async () => {
    const input = join(dir, 'short.elf');
    writeFileSync(input, writeElf(buildGuest()).subarray(0, 0x40000));
    const before = readdirSync(dir);
    await expect(convert({ input, output: join(dir, 'short.dmp') })).rejects.toMatchObject({ kind: 'corrupt' });
    expect(readdirSync(dir)).toEqual(before);
  });

  it('writes nothing with strict when something would be lost', async () => {
    const input = join(dir, 'strict.elf');
    writeFileSync(input, writeElf(buildGuest(), { withoutNote: [1] }));
    const before = readdirSync(dir);
    await expect(convert({ input, output: join(dir, 'strict.dmp'), strict: true })).rejects.toMatchObject({
      code: 'strict-losses',
      kind: 'losses',
    });
    expect(readdirSync(dir)).toEqual(before);
  });

  it('finds the kernel without its header page', async () => {
    for (const kdbg of ['plain', 'encoded'] as const) {
      const guest = buildGuest({ kdbg });
      guest.memory.page(guest.kernel.translate(guest.truth.kernelBase)!).fill(0xcc);
      const [input, output] = [join(dir, 'headless.elf'), join(dir, 'headless.dmp')];
      writeFileSync(input, writeElf(guest));
      const report = await convert({ input, output, force: true });
      expect(report.windows.kernel.base).toBe(`0x${guest.truth.kernelBase.toString(16)}`);
      expect(report.windows.kdbg.address).toBe(`0x${guest.truth.kdbg.toString(16)}`);
      expect(report.diagnostics.filter((d) => d.severity === 'loss').map((d) => d.code)).toEqual([
        'kernel-header-missing',
      ]);
    }
  });
});
