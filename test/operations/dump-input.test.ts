import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ConvertOptions, convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { verify } from '../../src/operations/verify.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { type WinDumpType, writeTriage, writeWinDump } from '../guest/win-dump.ts';
import { pagesOf } from '../support/dumps.ts';
import { held } from '../support/schemas.ts';

let dir: string;
const at = (name: string) => join(dir, name);
const bytesOf = (name: string) => readFileSync(at(name));
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-dump-input-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Converts, and holds the report against its schema. */
const made = async (input: string, output: string, options: Partial<ConvertOptions> = {}) =>
  held('convert', await convert({ input: at(input), output: at(output), force: true, ...options }));

/** Whether two files are the same, without printing megabytes where they are not. */
const same = (a: string, b: string) => expect([b, bytesOf(a).equals(bytesOf(b))]).toEqual([b, true]);

const CRASH = { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff8042c460004n], processor: 1 } as const;

const GUESTS = {
  live: { processors: 2, seed: 21, ramMiB: 4 },
  crashed: { processors: 3, seed: 22, ramMiB: 4, crash: CRASH },
  'crashed, Windows 11': { processors: 2, seed: 23, ramMiB: 4, build: 'win11', crash: { ...CRASH, processor: 0 } },
} as const;

describe.each(Object.entries(GUESTS))('a dump of a guest that is %s', (name, options) => {
  const key = name.replace(/\W+/g, '-');
  const file = (what: string) => `${key}-${what}`;
  const TYPES = ['full', 'bitmap', 'kernel', 'active'] as const;
  beforeAll(async () => {
    writeFileSync(at(file('vm.elf')), writeElf(buildGuest(options)));
    for (const type of TYPES) await made(file('vm.elf'), file(`${type}.dmp`), { type });
  });

  it.each(TYPES)('becomes from a full dump what it becomes from the ELF file: %s', async (type) => {
    const { outcome } = await made(file('vm.elf'), file('again.dmp'), { type });
    const report = await made(file('full.dmp'), file('again.dmp'), { type, verify: true });
    expect(report).toMatchObject({ outcome, verification: { outcome: 'sound' } });
    expect([report.dump.repairs, report.dump.patches]).toEqual([[], []]);
    same(file(`${type}.dmp`), file('again.dmp'));
  });

  it.each(TYPES)('stays what it is: %s', async (type) => {
    await made(file(`${type}.dmp`), file('copy.dmp'), type === 'bitmap' ? { type } : {});
    same(file(`${type}.dmp`), file('copy.dmp'));
  });

  it('becomes a full dump again from a bitmap dump', async () => {
    await made(file('bitmap.dmp'), file('back.dmp'));
    same(file('full.dmp'), file('back.dmp'));
    await made(file('bitmap.dmp'), file('kernel2.dmp'), { type: 'kernel' });
    same(file('kernel.dmp'), file('kernel2.dmp'));
  });

  it('says what is missing where a smaller dump is to be a larger one', async () => {
    const { outcome, diagnostics, dump } = await made(file('kernel.dmp'), file('larger.dmp'), { type: 'bitmap' });
    expect([outcome, dump.type]).toEqual(['losses', 'bitmap']);
    expect(diagnostics.map((d) => d.code)).toContain('input-is-smaller-dump');
    const strict = made(file('active.dmp'), file('strict.dmp'), { type: 'bitmap', strict: true });
    await expect(strict).rejects.toMatchObject({ code: 'strict-losses' });
  });

  it('shows the same registers, stacks and Windows in every type', async () => {
    const shown = async (dump: string): Promise<unknown[]> => {
      const { stacks: found } = held('stack', await stacks({ input: at(file(dump)) }));
      const { windows } = held('info', await inspect({ input: at(file(dump)) }));
      return [found, windows?.processors, windows?.bugCheck, windows?.currentProcessor, windows?.modules];
    };
    const full = await shown('full.dmp');
    for (const type of TYPES) {
      await made(file(`${type}.dmp`), file('other.dmp'), {});
      expect(await shown('other.dmp')).toEqual(full);
      expect(await verify({ dump: at(file('other.dmp')), against: at(file(`${type}.dmp`)) })).toMatchObject({
        outcome: 'sound',
        against: { pagesDifferent: 0 },
      });
    }
  });
});

/** All types that Windows and WinDbg write, by literal offsets. */
const WRITTEN: readonly WinDumpType[] = [1, 2, 5, 6, 8, 9, 10];

describe.each(WRITTEN)('a dump of type %i by another writer', (type) => {
  const guest = buildGuest({ processors: 3, user: [1], kdbg: 'plain', seed: 31, ramMiB: 4, crash: CRASH });
  const input = `other-${type}.dmp`;
  beforeAll(() => writeFileSync(at(input), writeWinDump(guest, type)));

  it.each(['full', 'bitmap', 'kernel', 'active'] as const)('becomes a %s dump with its registers', async (to) => {
    const { dump, verification } = await made(input, 'out.dmp', { type: to, verify: true });
    expect([dump.type, dump.repairs, dump.patches, verification?.outcome]).toEqual([to, [], [], 'sound']);
    const before = writeWinDump(guest, 1);
    const pages = pagesOf(before);
    let compared = 0;
    for (const [address, page] of pagesOf(bytesOf('out.dmp'))) {
      if (!pages.get(address)?.equals(page)) throw new Error(`page 0x${address.toString(16)} differs`);
      compared++;
    }
    expect(compared).toBe(dump.pages);
    // All that does not describe the file is as it was.
    const after = bytesOf('out.dmp').subarray(0, 0x2000);
    for (const [from, end] of [
      [0, 0x88],
      [0x348, 0xf98],
      [0xfa8, 0x1050],
    ] as const) {
      expect(after.subarray(from, end).equals(before.subarray(from, end))).toBe(true);
    }
  });

  it('is looked at and verified', async () => {
    const { windows, problem } = held('info', await inspect({ input: at(input) }));
    expect([problem, windows?.bugCheck?.code, windows?.processors.length]).toEqual([null, '0xd1', 3]);
    expect(await verify({ dump: at(input) })).toMatchObject({ outcome: 'sound', findings: [] });
    expect(held('stack', await stacks({ input: at(input) })).stacks).toHaveLength(3);
  });

  it('is read compressed', async () => {
    writeFileSync(at('packed.dmp.gz'), gzipSync(bytesOf(input), { level: 1 }));
    await made('packed.dmp.gz', 'unpacked.dmp', { type: 'full' });
    await made(input, 'plain.dmp', { type: 'full' });
    same('plain.dmp', 'unpacked.dmp');
  });
});

/** A full dump with just the runs that Windows has for its RAM: without the page before the legacy hole. */
function ofWindowsRuns(dump: Buffer): Buffer {
  const header = Buffer.from(dump.subarray(0, 0x2000));
  header.writeBigUInt64LE(0x9en, 0xa0);
  header.writeBigUInt64LE(header.readBigUInt64LE(0x90) - 1n, 0x90);
  header.writeBigUInt64LE(header.readBigUInt64LE(0xfa0) - 0x1000n, 0xfa0);
  return Buffer.concat([header, dump.subarray(0x2000, 0x2000 + 0x9e000), dump.subarray(0x2000 + 0x9f000)]);
}

describe('a dump whose list of pages is wrong', () => {
  const guest = buildGuest({ processors: 2, kdbg: 'plain', seed: 43, ramMiB: 4, crash: CRASH });
  const good = ofWindowsRuns(writeWinDump(guest, 1));
  const changed = (change: (dump: Buffer) => void, from = good): Buffer => {
    const dump = Buffer.from(from);
    change(dump);
    return dump;
  };
  const u32 = (offset: number, value: number) => (dump: Buffer) => {
    dump.writeUInt32LE(value, offset);
  };
  const u64 = (offset: number, value: bigint) => (dump: Buffer) => {
    dump.writeBigUInt64LE(value, offset);
  };
  const erase = (dump: Buffer) => {
    dump.fill('PAGE', 0x88, 0x348);
  };

  const pages = String((good.length - 0x2000) / 0x1000);
  const runs = '0x1000+0x9e000, 0x100000+0x300000';
  const size = 'the runs and the size of the file';
  const own = "Windows' own list of its RAM, and the size of the file";
  it.each([
    ['pages', u64(0x90, 7n), 'NumberOfPages', '7', pages, size],
    ['no runs', u32(0x88, 0), 'NumberOfRuns', '0', '2', size],
    ['fewer runs', u32(0x88, 1), 'NumberOfRuns', '1', '2', size],
    ['more runs', u32(0x88, 0xffff_ffff), 'NumberOfRuns', '4294967295', '2', size],
    ['a run elsewhere', u64(0xa8, 0x200n), 'Runs', '0x1000+0x9e000, 0x200000+0x300000', runs, own],
    ['a run of another size', u64(0xa0, 0x9dn), 'Runs', '0x1000+0x9d000, 0x100000+0x300000', runs, own],
    ['runs that overlap', u64(0xa8, 0x9en), 'Runs', '0x1000+0x9e000, 0x9e000+0x300000', runs, own],
    ['nothing at all', erase, 'Runs', expect.any(String), runs, own],
  ] as const)('is read as it must be, and listed right: %s', async (_, change, field, before, after, evidence) => {
    writeFileSync(at('good.dmp'), good);
    writeFileSync(at('listed.dmp'), changed(change));
    const { dump, diagnostics, verification } = await made('listed.dmp', 'mended.dmp', { type: 'full', verify: true });
    expect(dump.repairs).toEqual([{ what: `header ${field}`, before, after, evidence }]);
    expect(diagnostics.map((d) => d.code)).toContain('dump-list-wrong');
    expect(verification?.outcome).toBe('sound');
    // What is not listed any more, or never was, is left as the writer had it.
    const ours = bytesOf('mended.dmp');
    expect(ours.subarray(0x348).equals(good.subarray(0x348))).toBe(true);
    expect(ours.subarray(0, 0xb8).equals(good.subarray(0, 0xb8))).toBe(true);
    expect(await verify({ dump: at('listed.dmp') })).toMatchObject({ outcome: 'unsound' });
    const { windows, diagnostics: said } = held('info', await inspect({ input: at('listed.dmp') }));
    expect([windows?.kernel.base, said.map((d) => d.code)]).toEqual([
      `0x${guest.truth.kernelBase.toString(16)}`,
      ['dump-list-wrong'],
    ]);
  });

  it.each([
    [5, u64(0x2028, 1n), 'TotalPresentPages', '0x1', 'the page map and the size of the file'],
    [6, u64(0x2028, 1n), 'TotalPresentPages', '0x1', 'the page map and the size of the file'],
    [2, u32(0x2014, 1), 'Pages', '0x1', 'the page map and the size of the file'],
    [8, u64(0x2028, 1n), 'TotalPages', '1', 'the ranges and the size of the file'],
    [10, u64(0x2028, 1n), 'TotalPages', '1', 'the ranges and the size of the file'],
  ] as const)('is counted again in type %i', async (type, change, field, before, evidence) => {
    const right = writeWinDump(guest, type);
    writeFileSync(at('right.dmp'), right);
    writeFileSync(at('counted.dmp'), changed(change, right));
    const { dump } = await made('counted.dmp', 'from-wrong.dmp', { type: 'bitmap' });
    expect(dump.repairs).toEqual([{ what: `header ${field}`, before, after: expect.any(String), evidence }]);
    await made('right.dmp', 'from-right.dmp', { type: 'bitmap' });
    same('from-right.dmp', 'from-wrong.dmp');
  });

  /** As C elf2dmp writes it: it doesn't count how many runs have room. */
  const spilled = (count: number): Buffer => {
    const lacking = new Set(Array.from({ length: count - 2 }, (_, i) => 0x3f0 - 2 * i));
    const present = [...pagesOf(good)].filter(([address]) => !lacking.has(address / 0x1000));
    const header = Buffer.from(good.subarray(0, 0x2000));
    header.fill(0, 0x348, 0xf00);
    const list: { base: number; count: number }[] = [];
    for (const [address] of present) {
      const [last, page] = [list.at(-1), address / 0x1000];
      if (last && last.base + last.count === page) last.count++;
      else list.push({ base: page, count: 1 });
    }
    expect(list).toHaveLength(count);
    header.writeUInt32LE(count, 0x88);
    header.writeBigUInt64LE(BigInt(present.length), 0x90);
    list.forEach(({ base, count: pageCount }, i) => {
      header.writeBigUInt64LE(BigInt(base), 0x98 + 16 * i);
      header.writeBigUInt64LE(BigInt(pageCount), 0xa0 + 16 * i);
    });
    header.writeBigUInt64LE(BigInt(0x2000 + present.length * 0x1000), 0xfa0);
    return Buffer.concat([header, ...present.map(([, page]) => page)]);
  };

  it.each([43, 44, 60, 200])('is read beyond the room in the header: %i runs', async (count) => {
    const input = spilled(count);
    writeFileSync(at('spilled.dmp'), input);
    const { dump } = await made('spilled.dmp', 'kept.dmp', { verify: true });
    const repaired = {
      what: 'header Runs',
      before: `${count} runs, over the context`,
      after: 'the first 42 runs, and a page map',
    };
    expect(dump).toMatchObject({ type: 'bitmap', runCount: count, repairs: count > 43 ? [repaired] : [] });
    const ours = bytesOf('kept.dmp');
    expect(ours.subarray(0x348, 0xf00).every((byte) => byte === 0)).toBe(true);
    expect([...pagesOf(ours).keys()]).toHaveLength(dump.pages);
  });

  it.each([
    ['the file is cut off', (d: Buffer) => changed(u64(0x90, 7n), d.subarray(0, d.length - 0x3000))],
    ["the file has a page that Windows' list has not", () => changed(erase, writeWinDump(guest, 1))],
    ['more than one number is wrong', (d: Buffer) => changed(u32(0x88, 9), changed(u64(0x90, 7n), d))],
  ])('is refused where nothing proves what it should be: %s', async (_, change) => {
    const lost = changed((d) => {
      // Windows' own list.
      const variable = guest.truth.kdbgBlock.readBigUInt64LE(0x270);
      const physical = guest.kernel.translate(variable)!;
      d.fill(0, 0x2000 + physical - 0x62000, 0x2000 + physical - 0x62000 + 8);
    });
    writeFileSync(at('lost.dmp'), change(lost));
    await expect(made('lost.dmp', 'no.dmp')).rejects.toMatchObject({ code: 'dmp-runs' });
  });
});

describe('a dump whose header or memory is wrong', () => {
  const guest = buildGuest({ processors: 2, kdbg: 'plain', seed: 41, ramMiB: 4, crash: CRASH });
  const good = writeWinDump(guest, 1);
  const u32 = (offset: number, value: number) => (header: Buffer) => {
    header.writeUInt32LE(value, offset);
  };
  const u64 = (offset: number, value: bigint) => (header: Buffer) => {
    header.writeBigUInt64LE(value, offset);
  };
  const fill = (value: string | number, from: number, to: number) => (header: Buffer) => {
    header.fill(value, from, to);
  };

  it.each([
    ['bug check code', 'BugCheckCode', u32(0x38, 0x161), ['0x161', '0xd1']],
    ['build', 'MinorVersion', u32(0xc, 17763), ['0x4563', '0x4a61']],
    ['processors', 'NumberProcessors', u32(0x34, 1), ['0x1', '0x2']],
    ['root', 'DirectoryTableBase', u64(0x10, 0x5000n), ['0x5000', undefined]],
    ['module list', 'PsLoadedModuleList', u64(0x20, 0xfffff80000001000n), ['0xfffff80000001000', undefined]],
    ['KDBG', 'KdDebuggerDataBlock', u64(0x80, 0n), ['0x0000000000000000', undefined]],
    ['page frame database', 'PfnDatabase', u64(0x18, 1n), ['0x0000000000000001', undefined]],
    ['time', 'SystemTime', u64(0xfa8, 0n), ['0x0000000000000000', undefined]],
    ['up time', 'SystemUpTime', fill('PAGE', 0x1030, 0x1038), [undefined, undefined]],
  ] as const)('is repaired, and says so: %s', async (_, field, change, [before, after]) => {
    const bytes = Buffer.from(good);
    change(bytes);
    writeFileSync(at('wrong.dmp'), bytes);
    const { dump, verification } = await made('wrong.dmp', 'repaired.dmp', { verify: true });
    expect(dump.repairs).toEqual([
      {
        what: `header ${field}`,
        before: before ?? expect.any(String),
        after: after ?? expect.any(String),
        evidence: expect.any(String),
      },
    ]);
    expect(verification?.outcome).toBe('sound');
    await made('wrong.dmp', 'kept.dmp', { patch: false });
    same('wrong.dmp', 'kept.dmp');
    writeFileSync(at('good.dmp'), good);
    same('good.dmp', 'repaired.dmp');
  });

  it.each([
    ['low bits of the root', u64(0x10, BigInt(guest.truth.root) | 2n)],
    ['a comment', fill('Made by hand\0', 0xfb0, 0xfbd)],
    ['a context', fill(0x11, 0x348, 0x348 + 0x4d0)],
    ['an exception', u32(0xf00, 0xc0000005)],
    [
      'the page frame database by its value',
      u64(0x18, guest.kernel.read(guest.truth.pfnDatabaseVariable, 8).readBigUInt64LE()),
    ],
    ["a bug check's code as of a system that broke into a debugger first", u32(0x38, 0x100000d1)],
    ["the base build of an edition's", u32(0xc, 19045)],
    ['a time half a minute before', u64(0xfa8, guest.truth.systemTime - 300_000_000n)],
    ['a later time', u64(0xfa8, guest.truth.systemTime + 36_000_000_000n)],
  ])('keeps what memory does not decide: %s', async (_, change) => {
    const bytes = Buffer.from(good);
    change(bytes);
    writeFileSync(at('kept-in.dmp'), bytes);
    const { dump } = await made('kept-in.dmp', 'kept.dmp');
    expect(dump.repairs).toEqual([]);
    same('kept-in.dmp', 'kept.dmp');
  });

  it('gets its KDBG decoded, and with --no-patch stays as it is', async () => {
    const encoded = buildGuest({ processors: 2, seed: 42, ramMiB: 4 });
    const bytes = writeWinDump(encoded, 1);
    writeFileSync(at('encoded.dmp'), bytes);
    const { dump, verification } = await made('encoded.dmp', 'decoded.dmp', { verify: true });
    expect(dump.repairs).toEqual([{ what: 'KDBG', before: 'encoded', after: 'decoded', evidence: expect.any(String) }]);
    expect(dump.patches.every(({ what }) => what === 'KDBG')).toBe(true);
    expect(verification?.outcome).toBe('sound');
    const untouched = await made('encoded.dmp', 'untouched.dmp', { patch: false });
    expect(untouched.dump.repairs).toEqual([]);
    same('encoded.dmp', 'untouched.dmp');
  });

  it('keeps in a minidump what the header says and memory does not: a live report with its exception', async () => {
    const live = writeWinDump(buildGuest({ processors: 2, kdbg: 'plain', seed: 44, ramMiB: 4 }), 1);
    live.writeUInt32LE(0x1a8, 0x38);
    live.writeBigUInt64LE(0x1234n, 0x40);
    live.writeUInt32LE(0xc0000005, 0xf00);
    live.fill('Made by hand\0', 0xfb0, 0xfbd);
    live.fill(0x11, 0x348, 0x348 + 0x4d0);
    writeFileSync(at('live.dmp'), live);
    const { dump, verification } = await made('live.dmp', 'live-mini.dmp', { type: 'triage', verify: true });
    expect([dump.bugCheckCode, dump.exception?.code, dump.repairs]).toEqual(['0x1a8', '0xc0000005', []]);
    expect(verification?.findings).toEqual([]);
    const mini = bytesOf('live-mini.dmp');
    for (const [from, end] of [
      [0x8, 0x88],
      [0x348, 0xf98],
      [0xfa8, 0x1038],
    ] as const) {
      expect(mini.subarray(from, end).equals(live.subarray(from, end))).toBe(true);
    }
  });

  it('refuses a triage dump, which has no physical memory', async () => {
    writeFileSync(at('triage.dmp'), writeTriage(guest).file);
    await expect(made('triage.dmp', 'no.dmp')).rejects.toMatchObject({ code: 'triage-input', kind: 'unsupported' });
  });
});
