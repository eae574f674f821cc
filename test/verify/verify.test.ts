import { createHash } from 'node:crypto';
import {
  appendFileSync,
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { verify } from '../../src/operations/verify.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { random } from '../guest/memory.ts';
import { writeWinDump } from '../guest/win-dump.ts';
import { held } from '../support/schemas.ts';

let dir: string;
let guest: Guest;
let input: string;
let patches: string;
const dumps = { full: '', bitmap: '' };
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-verify-'));
  guest = buildGuest({ ramMiB: 8, seed: 3 });
  input = join(dir, 'vm.elf');
  patches = join(dir, 'patches.json');
  writeFileSync(input, writeElf(guest));
  for (const type of ['full', 'bitmap'] as const) {
    dumps[type] = join(dir, `${type}.dmp`);
    await convert({ input, output: dumps[type], type, ...(type === 'full' ? { patches } : {}) });
  }
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Runs `check` while one byte of a file is another. */
async function withDamage(path: string, at: number, check: () => Promise<void>, mask = 0xff): Promise<void> {
  const fd = openSync(path, 'r+');
  const byte = Buffer.alloc(1);
  try {
    readSync(fd, byte, 0, 1, at);
    writeSync(fd, Buffer.from([byte[0]! ^ mask]), 0, 1, at);
    await check();
  } finally {
    writeSync(fd, byte, 0, 1, at);
    closeSync(fd);
  }
}

/** Where the full dump has a physical address. */
const offsetOf = (physical: number) => 0x2000 + (physical < 0xa0000 ? physical : physical - 0x60000);

/** By literal offsets: every field of the header that a full dump has. */
const HEADER_FIELDS: readonly (readonly [name: string, offset: number])[] = [
  ['Signature', 0],
  ['ValidDump', 4],
  ['MajorVersion', 0x8],
  ['MinorVersion', 0xc],
  ['DirectoryTableBase', 0x10],
  ['DirectoryTableBase, its page', 0x12],
  ['DirectoryTableBase, beyond its address', 0x17],
  ['PfnDatabase', 0x18],
  ['PsLoadedModuleList', 0x20],
  ['PsActiveProcessHead', 0x28],
  ['MachineImageType', 0x30],
  ['NumberProcessors', 0x34],
  ['BugCheckCode', 0x38],
  ['padding of BugCheckCode', 0x3c],
  ['BugCheckParameter1', 0x40],
  ['BugCheckParameter2', 0x48],
  ['BugCheckParameter3', 0x50],
  ['BugCheckParameter4', 0x58],
  ['VersionUser', 0x60],
  ['KdDebuggerDataBlock', 0x80],
  ['NumberOfRuns', 0x88],
  ['padding of NumberOfRuns', 0x8c],
  ['NumberOfPages', 0x90],
  ['Run[0].BasePage', 0x98],
  ['Run[0].PageCount', 0xa0],
  ['Run[1].BasePage', 0xa8],
  ['Run[1].PageCount', 0xb0],
  ['an unused run', 0xb8],
  ['between runs and context', 0x340],
  ['ContextRecord: flags', 0x348 + 0x30],
  ['ContextRecord: MxCsr', 0x348 + 0x34],
  ['ContextRecord: Rsp', 0x348 + 0x98],
  ['ContextRecord: Rip', 0x348 + 0xf8],
  ['behind the context', 0x348 + 0x4d0],
  ['ExceptionCode', 0xf00],
  ['ExceptionFlags', 0xf04],
  ['ExceptionRecord', 0xf08],
  ['ExceptionAddress', 0xf10],
  ['NumberParameters', 0xf18],
  ['ExceptionInformation', 0xf20],
  ['DumpType', 0xf98],
  ['padding of DumpType', 0xf9c],
  ['RequiredDumpSpace', 0xfa0],
  ['SystemTime', 0xfa8],
  ['Comment', 0xfb0],
  ['Comment, its end', 0xfb0 + 127],
  ['SystemUpTime', 0x1030],
  ['MiniDumpFields', 0x1038],
  ['SecondaryDataState', 0x103c],
  ['ProductType', 0x1040],
  ['SuiteMask', 0x1044],
  ['WriterStatus', 0x1048],
  ['KdSecondaryVersion', 0x104d],
  ['Attributes', 0x1050],
  ['BootId', 0x1054],
  ['unused bytes', 0x1800],
];
const BITMAP_FIELDS: readonly (readonly [name: string, offset: number])[] = [
  ['Signature', 0x2000],
  ['ValidDump', 0x2004],
  ['unused bytes', 0x2010],
  ['FirstPage', 0x2020],
  ['TotalPresentPages', 0x2028],
  ['Pages', 0x2030],
  ['a bit', 0x2038 + 0x40],
];

describe('verify', () => {
  it('finds nothing wrong with what a conversion wrote, by itself and against its input', async () => {
    for (const dump of [dumps.full, dumps.bitmap]) {
      expect(held('verify', await verify({ dump }))).toMatchObject({ outcome: 'sound', findings: [], against: null });
      const report = await verify({ dump, against: input });
      expect(report).toMatchObject({
        outcome: 'sound',
        findings: [],
        against: { pagesCompared: 0x7a0, pagesDifferent: 0 },
      });
      expect(report.against?.changes.map((c) => c.what).sort()).toEqual([
        'CONTEXT of processor 0',
        'CONTEXT of processor 1',
        'KDBG',
        'special registers of processor 0',
        'special registers of processor 1',
      ]);
    }
  });

  it.each(HEADER_FIELDS)('finds one wrong byte in the header: %s', async (_, at) => {
    await withDamage(dumps.full, at, async () => {
      const { outcome, findings } = held('verify', await verify({ dump: dumps.full }));
      expect(outcome).toBe('unsound');
      expect(findings.length).toBeLessThan(10);
    });
  });

  it.each(BITMAP_FIELDS)('finds one wrong byte in the header of a bitmap dump: %s', async (_, at) => {
    await withDamage(dumps.bitmap, at, async () => {
      expect((await verify({ dump: dumps.bitmap })).outcome).toBe('unsound');
    });
  });

  it('says what it expected where, and what it found', async () => {
    await withDamage(dumps.full, 0xc, async () => {
      expect(held('verify', await verify({ dump: dumps.full })).findings).toEqual([
        {
          severity: 'error',
          code: 'header-field',
          message: "DUMP_HEADER64.MinorVersion does not agree with the dump's memory",
          where: { in: 'file', structure: 'DUMP_HEADER64', field: 'MinorVersion', offset: '0xc' },
          expected: '0x4a61',
          found: '0x4a9e',
        },
      ]);
    });
    await withDamage(dumps.full, 0xf12, async () => {
      const { outcome, findings } = held('verify', await verify({ dump: dumps.full, against: input }));
      expect(outcome).toBe('differs');
      expect(findings).toMatchObject([
        { where: { structure: 'EXCEPTION_RECORD64', field: 'ExceptionAddress', offset: '0xf10' } },
      ]);
    });
  });

  it('finds one wrong byte in any page, and in what the conversion changed', async () => {
    const next = random(7);
    const size = readFileSync(dumps.full).length;
    for (let i = 0; i < 6; i++) {
      const at = 0x2000 + Math.floor(next() * (size - 0x2000));
      const physical = at - 0x2000 < 0xa0000 ? at - 0x2000 : at - 0x2000 + 0x60000;
      await withDamage(dumps.full, at, async () => {
        for (const list of [undefined, patches]) {
          const { outcome, findings } = await verify({ dump: dumps.full, against: input, patches: list });
          expect(outcome).toBe('differs');
          expect(findings).toContainEqual(
            expect.objectContaining({
              code: 'page-differs',
              where: { in: 'memory', physical: `0x${physical.toString(16)}`, virtual: null },
            }),
          );
        }
      });
    }
    const frame = guest.kernel.translate(guest.truth.processors[1]!.context + 0xf8n)!;
    await withDamage(dumps.full, offsetOf(frame), async () => {
      const { findings } = held('verify', await verify({ dump: dumps.full, against: input }));
      expect(findings).toContainEqual(
        expect.objectContaining({
          code: 'change-differs',
          message: expect.stringContaining('CONTEXT of processor 1'),
          where: { in: 'memory', physical: `0x${frame.toString(16)}`, virtual: null },
        }),
      );
    });
  });

  it('names pages that are missing, and a file that is too short or too long', async () => {
    const output = join(dir, 'windows.dmp');
    await convert({ input, output, ram: 'windows' });
    // Made so on purpose: that fits the plan of such a conversion.
    expect(await verify({ dump: output, against: input })).toMatchObject({ outcome: 'sound' });
    // But not the list of a conversion that kept all.
    const { findings } = await verify({ dump: output, against: input, patches });
    expect(findings.filter((f) => f.code === 'pages-missing').map((f) => f.found)).toEqual([
      '0x0 to 0x1000',
      '0x9f000 to 0xa0000',
    ]);
    rmSync(output);
    const cut = join(dir, 'cut.dmp');
    copyFileSync(dumps.full, cut);
    truncateSync(cut, 0x780000);
    const short = await verify({ dump: cut, against: input });
    expect(short.outcome).toBe('differs');
    expect(short.findings.map((f) => f.code)).toEqual(expect.arrayContaining(['file-size', 'pages-missing']));
    copyFileSync(dumps.full, cut);
    appendFileSync(cut, 'more');
    expect(await verify({ dump: cut })).toMatchObject({ outcome: 'unsound', findings: [{ code: 'file-size' }] });
    // As a conversion in place leaves it.
    copyFileSync(dumps.bitmap, cut);
    appendFileSync(cut, '\0.shstrtab\0');
    expect(await verify({ dump: cut })).toMatchObject({ outcome: 'sound', findings: [{ severity: 'warning' }] });
  });

  it('finds damage in page tables, KDBG, lists and registers of the dump', async () => {
    const { truth, kernel, build } = guest;
    const at = (virtual: bigint) => offsetOf(kernel.translate(virtual)!);
    const places: [code: string, offset: number][] = [
      // Then a copy of it looks best, and the header's is none.
      ['header-field', at(truth.kdbg + 0x18n)],
      ['modules-broken', at(kernel.read(truth.psLoadedModuleList, 8).readBigUInt64LE()) + 7],
      ['processes-broken', at(truth.processes[1]!.address + BigInt(build.eprocess.links)) + 7],
      ['processor-damaged', at(truth.processors[1]!.kpcr + 0x18n)],
      ['processor-without-state', at(truth.processors[1]!.context + 0x30n) + 2],
      ['special-registers', at(truth.processors[1]!.specialRegisters + 0x10n) + 4],
      ['interrupt-table', at(truth.processors[1]!.specialRegisters + 0x68n) + 3],
      ['dmp-runs', 0x89],
    ];
    for (const [code, offset] of places) {
      await withDamage(dumps.full, offset, async () => {
        const { findings } = held('verify', await verify({ dump: dumps.full }));
        expect(findings.map((f) => f.code)).toContain(code);
      });
    }
  });

  it("leaves to other writers what they may fill as they like, but not what the dump's memory tells", async () => {
    const foreign = join(dir, 'foreign.dmp');
    for (const type of [1, 5] as const) {
      const bytes = writeWinDump(buildGuest({ ramMiB: 8, kdbg: 'plain', processors: 3, user: [2] }), type);
      if (type === 5) {
        // Of kernel memory.
        bytes.writeUInt32LE(6, 0xf98);
        bytes.write('SDMP', 0x2000, 'latin1');
      }
      writeFileSync(foreign, bytes);
      expect(await verify({ dump: foreign })).toMatchObject({ outcome: 'sound', findings: [] });
      for (const at of [0xd, 0x11, 0x20, 0x28, 0x34, 0x80, type === 5 ? 0x2028 : 0x90]) {
        await withDamage(foreign, at, async () => {
          expect((await verify({ dump: foreign })).outcome).toBe('unsound');
        });
      }
    }
  });

  it.each([
    [
      'a dump of the header alone',
      0xf98,
      '03000000',
      'dmp-type',
      /^.*: cannot be verified: a dump of the header alone/,
    ],
    ['an automatic memory dump', 0xf98, '07000000', 'dmp-type', /automatic/],
    ['an Itanium dump', 0x30, '00020000', 'dmp-machine', /an Itanium machine/],
    ['a user-mode minidump', 0, '4d444d50', 'minidump', /user-mode/],
    ['an ELF file', 0, '7f454c4602010100', 'not-a-crash-dump', /an input for a conversion/],
  ])('says of %s that it is not read, not that it is unsound', async (_, at, bytes, code, message) => {
    const other = join(dir, 'other-kind.dmp');
    const file = readFileSync(dumps.full);
    Buffer.from(bytes, 'hex').copy(file, at);
    writeFileSync(other, file);
    await expect(verify({ dump: other })).rejects.toMatchObject({ code, kind: 'unsupported' });
    await expect(verify({ dump: other })).rejects.toThrow(message);
  });

  it('finds kinds and machines that do not exist to be damage', async () => {
    for (const [at, code] of [
      [0xf98, 'dmp-type'],
      [0x31, 'dmp-machine'],
    ] as const) {
      await withDamage(dumps.full, at, async () => {
        expect(await verify({ dump: dumps.full })).toMatchObject({ outcome: 'unsound', findings: [{ code }] });
      });
    }
  });

  it('finds out by itself how a dump was made', async () => {
    const crashed = join(dir, 'crashed.elf');
    const crash = { code: 0xd1, parameters: [1n, 2n, 0n, 3n] as const, processor: 1 };
    writeFileSync(crashed, writeElf(buildGuest({ crash, ramMiB: 8 })));
    const output = join(dir, 'crashed.dmp');
    for (const options of [
      { context: 'cpu' },
      { context: 'captured' },
      { patch: false },
      { ram: 'windows', type: 'bitmap', context: 'cpu' },
    ] as const) {
      await convert({ input: crashed, output, force: true, ...options });
      expect(await verify({ dump: output, against: crashed })).toMatchObject({ outcome: 'sound' });
    }
  });

  it('hashes the files', async () => {
    const hashOf = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');
    const output = join(dir, 'hashed.dmp');
    const report = await convert({ input, output, hash: true });
    expect(report.sha256).toEqual({ input: hashOf(input), dump: hashOf(output) });
    expect((await verify({ dump: output, hash: true })).sha256).toEqual({ dump: hashOf(output), input: null });
  });
});

describe('the list of patches', () => {
  it('holds addresses and both the original and the new bytes', async () => {
    const data = JSON.parse(readFileSync(patches, 'utf8'));
    expect(data).toMatchObject({ schema: 'elf2dmp-patches-1', input });
    expect(data.patches).toHaveLength(5);
    const dump = readFileSync(dumps.full);
    for (const p of data.patches) {
      const physical = Number(p.physical);
      expect(guest.kernel.translate(BigInt(p.virtual))).toBe(physical);
      expect(guest.memory.read(physical, p.length).toString('hex')).toBe(p.original);
      const at = offsetOf(physical);
      expect(dump.toString('hex', at, at + p.length)).toBe(p.bytes);
    }
  });

  it('is never put over another file without force, nor over the dump', async () => {
    const output = join(dir, 'other.dmp');
    await expect(convert({ input, output, patches })).rejects.toMatchObject({ code: 'output-exists' });
    await expect(convert({ input, output, patches: output })).rejects.toMatchObject({ code: 'output-twice' });
    await expect(convert({ input, output, patches: input, force: true })).rejects.toMatchObject({
      code: 'output-is-input',
    });
  });

  it.each([
    ['no JSON', 'PAGEDU64'],
    ['another kind', '{"schema":"elf2dmp-info-1"}'],
    ['an address that is none', undefined, (d: Data) => ({ ...d.patches[0]!, physical: 'x' })],
    ['bytes that are fewer than its length', undefined, (d: Data) => ({ ...d.patches[0]!, bytes: '00' })],
  ])('is refused where it is %s', async (_, text, change?: (d: Data) => unknown) => {
    const file = join(dir, 'bad.json');
    const data = JSON.parse(readFileSync(patches, 'utf8')) as Data;
    writeFileSync(file, text ?? JSON.stringify({ ...data, patches: [change?.(data)] }));
    await expect(verify({ dump: dumps.full, against: input, patches: file })).rejects.toMatchObject({
      code: 'patch-file',
    });
  });

  it('shows where the input is not the one of the conversion', async () => {
    const other = join(dir, 'other.elf');
    writeFileSync(other, writeElf(buildGuest({ ramMiB: 8, seed: 4 })));
    const { outcome, findings, findingsLeftOut } = await verify({ dump: dumps.full, against: other, patches });
    expect(outcome).toBe('differs');
    expect(findings[0]).toMatchObject({ code: 'patch-original' });
    expect(findings.length).toBeLessThanOrEqual(1010);
    expect(findingsLeftOut).toBeGreaterThanOrEqual(0);
  });
});

interface Data {
  patches: object[];
}
