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

  it('refuses a triage dump, which has no physical memory', async () => {
    writeFileSync(at('triage.dmp'), writeTriage(guest).file);
    await expect(made('triage.dmp', 'no.dmp')).rejects.toMatchObject({ code: 'triage-input', kind: 'unsupported' });
  });
});
