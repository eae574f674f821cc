import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as zlib from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { convert as convertChecked } from '../../src/index.ts';
import { type ConvertOptions, convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { verify } from '../../src/operations/verify.ts';
import type { ConversionReport } from '../../src/report/conversion.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest, type GuestOptions } from '../guest/guest.ts';
import { PAGE } from '../guest/memory.ts';
import { type AddedMemory, addMemoryManager, IN_TRANSITION, PFN_DATABASE } from '../guest/memory-manager.ts';
import { pagesOf } from '../support/dumps.ts';
import { bgzfOf, seekableZstd } from '../support/frames.ts';

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

describe('a dump compressed in frames', () => {
  const at = (name: string) => join(dir, name);
  /** A process's page, and where it is in the dump. */
  let userFill: Buffer;
  let userPage: number;
  const spooled: unknown[] = [];
  const onSpool = (spool: unknown) => spooled.push(spool);
  beforeAll(async () => {
    const { guest, added } = made();
    userFill = added.fill(added.user);
    writeFileSync(at('framed.elf'), writeElf(guest));
    await convert({ input: at('framed.elf'), output: at('plain.dmp') });
    await convert({ input: at('framed.elf'), output: at('ours.dmp.gz'), compress: 'gzip' });
    const plain = readFileSync(at('plain.dmp'));
    userPage = plain.indexOf(userFill);
    writeFileSync(at('other.dmp.gz'), bgzfOf(plain));
    writeFileSync(at('other.dmp.zst'), await seekableZstd(plain, 0x4000));
    writeFileSync(at('stream.dmp.gz'), zlib.gzipSync(plain, { level: 1 }));
  });
  afterEach(() => expect(spooled.splice(0)).toEqual([]));

  /** Where the member begins that has a byte of the contents. */
  const memberWith = (file: Buffer, at: number): number => {
    let offset = 0;
    for (let i = Math.floor(at / 61_440); i > 0; i--) offset += file.readUInt16LE(offset + 16) + 1;
    return offset;
  };

  it('says in each member how long it is, and ends as BGZF does', () => {
    const file = readFileSync(at('ours.dmp.gz'));
    const plain = readFileSync(at('plain.dmp'));
    let [offset, from] = [0, 0];
    while (from < plain.length) {
      expect(file.toString('hex', offset, offset + 16)).toBe('1f8b08040000000000ff060042430200');
      const end = offset + file.readUInt16LE(offset + 16) + 1;
      const contents = zlib.gunzipSync(file.subarray(offset, end));
      expect(contents.length).toBe(Math.min(61_440, plain.length - from));
      expect(contents.equals(plain.subarray(from, from + contents.length))).toBe(true);
      [offset, from] = [end, from + contents.length];
    }
    expect(file.toString('hex', offset)).toBe('1f8b08040000000000ff0600424302001b0003000000000000000000');
    expect(zlib.gunzipSync(file).equals(plain)).toBe(true);
  });

  it.each(['ours.dmp.gz', 'other.dmp.gz', 'other.dmp.zst'])('is read at random, as the plain one: %s', async (name) => {
    const without = ({ path: _, ...input }: { path: string }) => input;
    const [plain, framed] = [
      await inspect({ input: at('plain.dmp'), onSpool }),
      await inspect({ input: at(name), onSpool }),
    ];
    expect(framed.windows).toEqual(plain.windows);
    expect(without(framed.input)).toEqual(without(plain.input));
    for (const options of [{}, { type: 'bitmap', verify: true }, { type: 'kernel' }, { type: 'triage' }] as const) {
      await convert({ input: at('plain.dmp'), output: at('a.dmp'), force: true, ...options });
      await convert({ input: at(name), output: at('b.dmp'), force: true, onSpool, ...options });
      expect(readFileSync(at('b.dmp')).equals(readFileSync(at('a.dmp')))).toBe(true);
    }
    expect(await verify({ dump: at(name) })).toMatchObject({ outcome: 'sound', findings: [] });
    const { dump, against } = await verify({ dump: at(name), against: at('framed.elf') });
    expect(dump.bytes).toBe(readFileSync(at('plain.dmp')).length);
    expect(against).toMatchObject({ pagesDifferent: 0, pagesCompared: dump.pages });
  });

  it.each(['ours.dmp.gz', 'other.dmp.zst'])('loses of damage what is damaged: %s', async (name) => {
    const file = readFileSync(at(name));
    // Within a process's page, and its frame.
    const where = name.endsWith('.gz') ? memberWith(file, userPage) + 100 : file.indexOf(userFill) + 8;
    const damaged = at(`damaged-${name}`);
    writeFileSync(damaged, file.fill(file[where]! ^ 0x55, where, where + 1));
    const report = await convert({ input: damaged, output: at('b.dmp'), force: true, onSpool });
    expect(codes(report, 'loss')).toContain('container-damaged');
    const [sound, partly] = [readFileSync(at('plain.dmp')), readFileSync(at('b.dmp'))];
    const pages = Array.from({ length: sound.length / PAGE - 2 }, (_, i) => PAGE * (i + 2));
    const page = (dump: Buffer, from: number) => dump.subarray(from, from + PAGE);
    const lost = pages.filter((from) => !page(sound, from).equals(page(partly, from)));
    expect(lost).toContain(userPage);
    expect(lost.at(-1)! - lost[0]!).toBeLessThan(name.endsWith('.gz') ? 61_440 : 0x4000);
    expect(lost.every((from) => page(partly, from).every((byte) => byte === 0))).toBe(true);
    const { outcome, findings } = await verify({ dump: damaged });
    expect(outcome).toBe('unsound');
    expect(findings.map(({ code }) => code)).toContain('container-damaged');
    const strict = convert({ input: damaged, output: at('never.dmp'), strict: true, onSpool });
    await expect(strict).rejects.toMatchObject({ code: 'strict-losses' });
  });

  it('whose start is damaged is refused for that', async () => {
    const file = readFileSync(at('ours.dmp.gz'));
    file[100]! ^= 0x55;
    writeFileSync(at('headless.dmp.gz'), file);
    const refused = convert({ input: at('headless.dmp.gz'), output: at('never.dmp'), onSpool });
    await expect(refused).rejects.toMatchObject({ code: 'container-damaged' });
  });

  it('of zeros becomes a dump with holes', async () => {
    const guest = buildGuest({ ...GUEST, ramMiB: 64 });
    writeFileSync(at('sparse.elf.gz'), bgzfOf(writeElf(guest)));
    await convert({ input: at('sparse.elf.gz'), output: at('sparse.dmp'), onSpool });
    const { size, blocks } = statSync(at('sparse.dmp'));
    expect(size).toBeGreaterThan(60 * 2 ** 20);
    expect(blocks * 512).toBeLessThan(size / 2);
  });

  it('is not the same as one that is compressed as a whole', async () => {
    await expect(verify({ dump: at('stream.dmp.gz') })).rejects.toMatchObject({ code: 'compressed-dump' });
    await inspect({ input: at('stream.dmp.gz'), onSpool });
    expect(spooled.splice(0)).toHaveLength(1);
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
    const { pages } = await conversion;
    const packed = readFileSync(join(dir, 'out.dmp'));
    expect(pages.size).toBe((await converted(guest, {})).pages.size);
    expect(packed.readUInt32LE(packed.length - 4)).toBe(0x8f92eab1);
    writeFileSync(join(dir, 'out.dmp.zst'), packed);
    const spooled: unknown[] = [];
    await inspect({ input: join(dir, 'out.dmp.zst'), onSpool: (spool) => spooled.push(spool) });
    expect(spooled).toEqual([]);
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
