import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { convert } from '../../src/operations/convert.ts';
import { openImage, openSource } from '../../src/readers/registry.ts';
import { winDump } from '../../src/readers/win-dump.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { writeWinDump } from '../guest/win-dump.ts';
import { pagesOf } from '../support/dumps.ts';
import { x64 } from '../support/registers.ts';

let dir: string;
let guest: Guest;
let full: Buffer;
let bitmap: Buffer;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-win-dump-'));
  guest = buildGuest({ processors: 3, user: [1], seed: 5 });
  const input = join(dir, 'vm.elf');
  writeFileSync(input, writeElf(guest));
  await convert({ input, output: join(dir, 'full.dmp') });
  await convert({ input, output: join(dir, 'bitmap.dmp'), type: 'bitmap' });
  full = readFileSync(join(dir, 'full.dmp'));
  bitmap = readFileSync(join(dir, 'bitmap.dmp'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const open = (bytes: Buffer) => openSource(new BufferSource(bytes, 'test.dmp'), { crashDumps: true });

/** As verify opens it: a wrong list is not mended. */
const openAsIs = (bytes: Buffer) => winDump.open(new BufferSource(bytes, 'test.dmp'));

describe('crash dumps as input', () => {
  it.each(['full', 'bitmap'] as const)('gives the pages of a %s dump', (kind) => {
    const bytes = kind === 'full' ? full : bitmap;
    const image = open(bytes);
    expect(image.format).toBe(`windows-${kind}-dump`);
    expect(image.runs.map((r) => [r.start, r.size])).toEqual([
      [0, 0xa0000],
      [0x100000, 0xf00000],
    ]);
    for (const [address, page] of pagesOf(bytes)) {
      const read = Buffer.alloc(0x1000);
      expect(image.readSync(address, read)).toBe(true);
      if (!read.equals(page)) throw new Error(`page 0x${address.toString(16)} differs`);
    }
  });

  it('leads to the same Windows and registers as the input of the conversion', async () => {
    for (const name of ['full.dmp', 'bitmap.dmp']) {
      const image = openImage(join(dir, name), { crashDumps: true });
      const windows = await locateWindows(image);
      image.close();
      expect(image.diagnostics.list).toEqual([]);
      expect(windows.kernel.base).toBe(guest.truth.kernelBase);
      expect([windows.kdbg.address, windows.kdbg.encoded]).toEqual([guest.truth.kdbg, false]);
      expect(windows.version.build).toBe(guest.build.build);
      for (const p of guest.truth.processors) {
        const registers = windows.processors[p.number]!.cpu!.registers!;
        const { regs, cr3, cs } = guest.cpus[p.cpu]!;
        expect(registers).toMatchObject({
          rip: regs.rip,
          rsp: regs.rsp,
          r15: regs.r15,
          rax: regs.rax,
          control: { cr3 },
        });
        expect([x64(registers).cs.selector, x64(registers).cs.flags]).toEqual([cs, cs === 0x10 ? 0x209b00 : 0x20fb00]);
      }
    }
  });

  it('finds Windows by search when the root in the header leads nowhere', async () => {
    const bytes = Buffer.from(full);
    bytes.writeBigUInt64LE(0x5000n, 0x10);
    const windows = await locateWindows(open(bytes));
    expect(windows.kernel.base).toBe(guest.truth.kernelBase);
  });

  it.each([
    ['machine', 'full', 0x30, 0x14c, 'dmp-machine'],
    ['kind', 'full', 0xf98, 7, 'dmp-type'],
    ['no runs', 'full', 0x88, 0, 'dmp-runs'],
    ['more runs than the header has room for', 'full', 0x88, 43, 'dmp-runs'],
    ['other number of pages', 'full', 0x90, 7, 'dmp-runs'],
    ['runs that overlap', 'full', 0xa8, 0x9f, 'dmp-runs'],
    ['a run beyond all addresses', 'full', 0x9e, 0x1000_0000, 'dmp-runs'],
    ['bitmap signature', 'bitmap', 0x2000, 0, 'dmp-bitmap'],
    ['unfinished bitmap', 'bitmap', 0x2004, 0, 'dmp-bitmap'],
    ['pages within the bitmap', 'bitmap', 0x2020, 0x2040, 'dmp-bitmap'],
    ['pages behind the end', 'bitmap', 0x2020, 0x7fff_ffff, 'dmp-bitmap'],
    ['other number of set bits', 'bitmap', 0x2028, 1, 'dmp-bitmap'],
    ['no bits', 'bitmap', 0x2030, 0, 'dmp-bitmap'],
    ['more bits than the file has', 'bitmap', 0x2030, 0x7fff_ffff, 'dmp-bitmap'],
  ] as const)('refuses a header with a wrong field: %s', (_, kind, at, value, code) => {
    const bytes = Buffer.from(kind === 'full' ? full : bitmap);
    bytes.writeUInt32LE(value, at);
    expect(() => openAsIs(bytes)).toThrow(expect.objectContaining({ code }));
  });

  it('refuses a layout for raw memory: the dump has its own', () => {
    const given = { crashDumps: true, runs: [{ start: 0, size: undefined }] };
    expect(() => openSource(new BufferSource(full, 'test.dmp'), given)).toThrow(
      expect.objectContaining({ code: 'runs-of-no-raw-memory' }),
    );
  });

  it('refuses a file that ends in its header, and says what a cut one lacks', () => {
    expect(() => open(full.subarray(0, 0x1fff))).toThrow(expect.objectContaining({ code: 'dmp-truncated-header' }));
    expect(() => open(full.subarray(0, 0x2000))).toThrow(expect.objectContaining({ code: 'dmp-no-memory' }));
    const image = open(full.subarray(0, full.length - 0x800));
    expect(image.diagnostics.losses.map((d) => d.code)).toEqual(['input-truncated']);
    expect(image.size).toBe(0xfa0000 - 0x800);
  });

  it.each([
    ['full', 1, {}],
    ['bitmap', 5, { crash: { code: 0xd1, parameters: [1n, 2n, 3n, 4n], processor: 0 } }],
  ] as const)('reads a %s dump as Windows writes it, not by elf2dmp', async (_, type, options) => {
    const made = buildGuest({ processors: 3, user: [1], kdbg: 'plain', seed: 9, ...options });
    const windows = await locateWindows(open(writeWinDump(made, type)));
    expect(windows.kernel.base).toBe(made.truth.kernelBase);
    expect(windows.crash?.processor?.number).toBe(type === 5 ? 0 : undefined);
    expect(windows.processors.map((p) => x64(p.cpu?.registers)?.rip)).toEqual(
      made.truth.processors.map((p) =>
        made.truth.captured?.processor === p.number ? made.truth.captured.rip : made.cpus[p.cpu]!.regs.rip,
      ),
    );
    for (const { virtual, bytes } of made.truth.samples)
      expect(windows.space.read(virtual, bytes.length)).toEqual(bytes);
  });

  it.each([
    ['summary signature', 2, 0x2000, 0],
    ['unfinished summary', 2, 0x2004, 0],
    ['summary: pages within the map', 2, 0x200c, 0x2080],
    ['summary: no bits', 2, 0x2010, 0],
    ['summary: more bits than the file has', 2, 0x2010, 0xffff_ffff],
    ['summary: other number of set bits', 2, 0x2014, 7],
    ['ranges: marker', 8, 0x2000, 0],
    ['ranges: signature', 8, 0x2004, 0],
    ['unfinished ranges', 8, 0x2008, 0],
    ['ranges: metadata of another size', 9, 0x2010, 0x31],
    ['ranges: pages elsewhere', 9, 0x2018, 0x2040],
    ['ranges: pages behind the end', 10, 0x201c, 1],
    ['ranges: none', 10, 0x2020, 0],
    ['ranges: more than there is room for', 10, 0x2020, 3],
    ['ranges: far too many', 10, 0x2024, 0xffff_ffff],
    ['ranges: other number of pages', 10, 0x2028, 1],
    ['ranges that overlap', 10, 0x2040, 0x9f],
    ['a range beyond all addresses', 10, 0x2034, 0x1000_0000],
    ['an empty range', 10, 0x2038, 0],
  ] as const)('refuses what lists the pages of other kinds where it is wrong: %s', (_, type, at, value) => {
    const bytes = writeWinDump(buildGuest({ kdbg: 'plain', seed: 9, ramMiB: 4 }), type);
    bytes.writeUInt32LE(value, at);
    expect(() => openAsIs(bytes)).toThrow(expect.objectContaining({ code: 'dmp-bitmap', kind: 'corrupt' }));
  });

  it.each([2, 8, 9, 10] as const)(
    'ends with a typed error, or a loss, wherever a dump of type %i is cut off',
    (type) => {
      const bytes = writeWinDump(buildGuest({ kdbg: 'plain', seed: 9, ramMiB: 4 }), type);
      for (const size of [0x1fff, 0x2000, 0x2010, 0x2027, 0x202f, 0x2030, 0x204f, 0x2050]) {
        expect(() => open(bytes.subarray(0, size))).toThrow(expect.objectContaining({ name: 'Elf2dmpError' }));
      }
      const image = open(bytes.subarray(0, bytes.length - 0x1800));
      expect(image.diagnostics.losses.map((d) => d.code)).toEqual(['input-truncated']);
    },
  );
});
