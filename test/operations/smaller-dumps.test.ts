import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as zlib from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert as convertChecked } from '../../src/index.ts';
import { type ConvertOptions, convert } from '../../src/operations/convert.ts';
import { verify } from '../../src/operations/verify.ts';
import type { ConversionReport } from '../../src/report/conversion.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest, type GuestOptions } from '../guest/guest.ts';
import { PAGE } from '../guest/memory.ts';
import { type AddedMemory, addMemoryManager, IN_TRANSITION, PFN_DATABASE } from '../guest/memory-manager.ts';
import { pagesOf } from '../support/dumps.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-smaller-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Of Windows 7: its page frame database has its state in byte 0x1a. */
const GUEST: GuestOptions = { build: 'win7', processors: 2, user: [1], seed: 31 };

function made(options: GuestOptions = GUEST, stateAt?: number): { guest: Guest; added: AddedMemory } {
  const guest = buildGuest(options);
  return { guest, added: addMemoryManager(guest, stateAt) };
}

async function converted(
  guest: Guest,
  options: Partial<ConvertOptions>,
): Promise<{ report: ConversionReport; dump: Buffer; pages: Map<number, Buffer> }> {
  const [input, output] = [join(dir, 'vm.elf'), join(dir, 'out.dmp')];
  writeFileSync(input, writeElf(guest));
  const report = await convert({ input, output, force: true, ...options });
  const file = readFileSync(output);
  const { zstdDecompressSync } = zlib as { zstdDecompressSync?: (bytes: Buffer) => Buffer };
  const decompress = { gzip: zlib.gunzipSync, zstd: zstdDecompressSync! };
  const dump = options.compress ? decompress[options.compress](file) : file;
  return { report, dump, pages: pagesOf(dump) };
}

const codes = (report: ConversionReport, severity: string) =>
  report.diagnostics.filter((d) => d.severity === severity).map((d) => d.code);
const total = (counts: object) => Object.values(counts).reduce((sum: number, n: number) => sum + n, 0);

describe('a kernel dump', () => {
  it('has what the kernel maps in any process, and nothing of processes', async () => {
    const { guest, added } = made();
    const { report, dump, pages } = await converted(guest, { type: 'kernel' });
    expect(report.outcome).toBe('good');
    expect([dump.readUInt32LE(0xf98), dump.toString('latin1', 0x2000, 0x2008)]).toEqual([6, 'SDMPDUMP']);
    for (const physical of [added.session, added.transition.standby, added.transition.modified]) {
      expect(pages.get(physical)).toEqual(added.fill(physical));
    }
    expect(pages.has(added.root)).toBe(true);
    for (const physical of [added.user, ...Object.values(added.unmapped)]) expect(pages.has(physical)).toBe(false);
    const { selection } = report.dump;
    // USER_CODE, USER_STACK, TEB, two pages of 32-bit code, and the one added; in use otherwise: the start block too.
    expect(selection?.leftOut).toMatchObject({ user: 6, free: 1, standby: 1, modified: 1, otherInUse: 2 });
    expect(selection?.kept).toMatchObject({ kernelInTransition: 2 });
    expect(Object.keys(selection?.kept ?? {}).sort()).toEqual(['kernel', 'kernelInTransition', 'kernelPageTables']);
    expect([selection?.processes, selection?.roots]).toEqual([3, 3]);
    expect(total(selection?.kept ?? {})).toBe(pages.size);
    expect(total(selection?.kept ?? {}) + total(selection?.leftOut ?? {})).toBe(report.input.memoryBytes / PAGE);
  });

  it.each(['server2003', 'win7', 'win10', 'win11'] as const)('finds the processes of %s', async (build) => {
    const { guest } = made({ ...GUEST, build });
    const { report } = await converted(guest, { type: 'kernel' });
    expect(codes(report, 'loss')).toEqual([]);
    expect(report.dump.selection?.roots).toBe(3);
  });

  it.each(['2m', '1g'] as const)('keeps large pages of %s', async (kernelPages) => {
    const { guest } = made({ ...GUEST, kernelPages });
    const { report, pages } = await converted(guest, { type: 'kernel' });
    expect(report.outcome).toBe('good');
    for (let at = 0x600000; at < 0x800000; at += PAGE) expect(pages.has(at)).toBe(true);
    if (kernelPages === '1g') expect(pages.size).toBe(report.input.memoryBytes / PAGE);
  });

  it('is made of guests with 5-level page tables', async () => {
    const guest = buildGuest({ ...GUEST, la57: true });
    const { report, pages } = await converted(guest, { type: 'kernel' });
    expect(codes(report, 'loss')).toEqual(['five-level-paging']);
    expect(report.dump.selection?.leftOut).toMatchObject({ user: 5 });
    expect(pages.has(guest.kernel.translate(guest.truth.samples[0]!.virtual)! & ~0xfff)).toBe(true);
  });

  it('leaves out what is not RAM even where the kernel maps it, if asked to', async () => {
    const { guest } = made({ ...GUEST, kernelPages: '1g' });
    const all = await converted(guest, { type: 'kernel' });
    const { report, pages } = await converted(guest, { type: 'kernel', ram: 'windows' });
    expect([all.pages.has(0x9f000), pages.has(0x9f000), pages.has(0x9e000)]).toEqual([true, false, true]);
    expect(total(report.dump.selection?.kept ?? {})).toBe(pages.size);
  });

  it('says what it could not find where the list of processes is broken', async () => {
    const { guest, added } = made();
    const head = guest.truth.psActiveProcessHead;
    // Both ends lead to an entry that leads to itself.
    guest.kernel.u64(head, head + 0x800n);
    guest.kernel.u64(head + 8n, head + 0x800n);
    guest.kernel.u64(head + 0x800n, head + 0x800n);
    guest.kernel.u64(head + 0x808n, head + 0x800n);
    const { report, pages } = await converted(guest, { type: 'kernel' });
    expect(codes(report, 'loss')).toEqual(['kdbg-field-damaged', 'processes-unknown', 'structures-damaged']);
    expect(pages.has(added.session)).toBe(false);
  });
});

describe('a dump of active memory', () => {
  it.each([0x1a, 0x19])('keeps what the page frame database has in use (state in byte %i)', async (stateAt) => {
    const { guest, added } = made(GUEST, stateAt);
    const { report, dump, pages } = await converted(guest, { type: 'active' });
    expect(report.outcome).toBe('good');
    expect([dump.readUInt32LE(0xf98), dump.readUInt32LE(0x1050)]).toEqual([5, 0x40]);
    const { unmapped, transition } = added;
    for (const physical of [added.session, added.user, transition.modified, unmapped.modified, unmapped.active]) {
      expect(pages.get(physical)).toEqual(added.fill(physical));
    }
    for (const physical of [transition.standby, unmapped.standby, unmapped.free, unmapped.zeroed]) {
      expect(pages.has(physical)).toBe(false);
    }
    const { selection } = report.dump;
    expect(selection?.statesFrom).toBe('page frame database');
    expect(selection?.kept).toMatchObject({ user: 6, modified: 1, otherInUse: 2, kernelInTransition: 1 });
    expect(selection?.leftOut).toMatchObject({ free: 1, standby: 1, kernelInTransition: 1 });
  });

  it('keeps a page that is mapped, whatever the database says of it', async () => {
    const { guest, added } = made();
    // Both a process's page and one of the kernel's in transition.
    guest.kernel.setEntry(IN_TRANSITION.standby, BigInt(added.user) | 0x880n);
    added.setState(added.user, 2);
    const { report, pages } = await converted(guest, { type: 'active' });
    expect(report.dump.selection?.statesFrom).toBe('page frame database');
    expect(pages.has(added.user)).toBe(true);
  });

  it.each([
    [
      'says something else',
      (guest: Guest) => {
        for (let pfn = 0; pfn < 4096; pfn++) guest.kernel.u8(PFN_DATABASE + BigInt(pfn * 0x30 + 0x1a), pfn % 7);
      },
      ['kdbg-field-damaged'],
    ],
    ['is not there', (guest: Guest) => guest.kernel.u64(guest.truth.pfnDatabaseVariable, 0xffffd123_00000000n), []],
    [
      'has no address',
      (guest: Guest) => guest.kernel.u64(guest.truth.pfnDatabaseVariable, 0x1234n),
      ['kdbg-field-damaged'],
    ],
  ])('goes by the page tables where the database %s', async (_, damage, doubts) => {
    const { guest, added } = made();
    damage(guest);
    const { report, pages } = await converted(guest, { type: 'active' });
    expect(report.dump.selection?.statesFrom).toBe('page tables');
    expect(codes(report, 'loss')).toEqual([...doubts, 'page-states-unknown']);
    for (const physical of [added.session, added.user, added.transition.standby])
      expect(pages.has(physical)).toBe(true);
    expect(pages.has(added.unmapped.free)).toBe(false);
  });
});

describe('verifying', () => {
  it.each(['kernel', 'active', 'bitmap'] as const)(
    'finds a %s dump sound, by itself and against its input',
    async (type) => {
      const { guest } = made();
      const { report } = await converted(guest, { type, verify: true });
      expect(report.verification?.findings).toEqual([]);
      const dump = join(dir, 'out.dmp');
      for (const against of [undefined, join(dir, 'vm.elf')]) {
        const verified = await verify({ dump, against });
        expect(verified.findings).toEqual([]);
        expect(verified.dump.type).toBe(type);
      }
    },
  );
});

describe('dropped pages of zeros', () => {
  it('are counted as a loss', async () => {
    const { guest } = made();
    const all = await converted(guest, { type: 'bitmap' });
    const { report, pages } = await converted(guest, { dropZeroPages: true });
    const isZero = (page: Buffer) => page.every((byte) => byte === 0);
    const zeros = [...all.pages.values()].filter(isZero).length;
    // Variables that the KDBG names and processors are worth their zeros.
    const kept = [...pages.values()].filter(isZero).length;
    expect(zeros - kept).toBeGreaterThan(1000);
    expect(pages.has(guest.kernel.translate(guest.truth.processors[0]!.prcb)! & ~0xfff)).toBe(true);
    expect(report.outcome).toBe('losses');
    expect(codes(report, 'loss')).toEqual(['zero-pages-dropped']);
    expect(report.dump).toMatchObject({
      type: 'bitmap',
      zeroPagesDropped: zeros - kept,
      pages: all.report.dump.pages - zeros + kept,
    });
    for (const [at, page] of pages) expect(page).toEqual(all.pages.get(at));
    expect(pages.size).toBe(all.pages.size - zeros + kept);
  });
});

describe('a compressed dump', () => {
  it('holds what the dump would', async () => {
    const { guest } = made();
    for (const type of ['full', 'kernel'] as const) {
      const plain = await converted(guest, { type });
      const { report, dump } = await converted(guest, { type, compress: 'gzip' });
      expect(dump.equals(plain.dump)).toBe(true);
      expect(report.dump.bytes).toBe(plain.dump.length);
      expect(report.dump.compression?.bytes).toBe(readFileSync(join(dir, 'out.dmp')).length);
    }
  });

  it('can be of zstd where Node has it', async () => {
    const { guest } = made();
    const conversion = converted(guest, { compress: 'zstd' });
    if (!('createZstdCompress' in zlib)) {
      await expect(conversion).rejects.toMatchObject({ code: 'zstd-unavailable', kind: 'usage' });
      return;
    }
    expect((await conversion).pages.size).toBe((await converted(guest, {})).pages.size);
  });

  it('leaves nothing behind when it is interrupted', async () => {
    const { guest } = made();
    const [input, output] = [join(dir, 'vm.elf'), join(dir, 'interrupted.dmp')];
    writeFileSync(input, writeElf(guest));
    const stop = new AbortController();
    const onProgress = ({ phase }: { phase: string }) => phase === 'write' && stop.abort();
    await expect(convert({ input, output, compress: 'gzip', signal: stop.signal, onProgress })).rejects.toThrow();
    expect(readdirSync(dir).filter((name) => name.startsWith('interrupted'))).toEqual([]);
  });

  it.each([
    { compress: 'gzip', reflink: 'auto' },
    { compress: 'gzip', sparse: 'always' },
    { compress: 'gzip', verify: true },
    { dropZeroPages: true, type: 'full' },
  ] as const)('is refused with what does not go together: %o', async (options) => {
    const { guest } = made();
    const [input, output] = [join(dir, 'vm.elf'), join(dir, 'refused.dmp')];
    writeFileSync(input, writeElf(guest));
    await expect(convertChecked({ input, output, ...options })).rejects.toMatchObject({ kind: 'usage' });
  });
});
