// From one type to another and back: byte for byte what it was, wherever neither type lacks what the other has.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ConvertOptions, convert } from '../../src/operations/convert.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { buildTrueGuest } from '../guest/true-guest.ts';
import { type WinDumpType, writeWinDump } from '../guest/win-dump.ts';
import { held } from '../support/schemas.ts';

let dir: string;
const at = (name: string) => join(dir, name);
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-round-trips-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

type Type = NonNullable<ConvertOptions['type']>;

/** Converts along a list of types, holds that nothing had to be repaired, and returns every dump on the way. */
async function along(input: string, types: readonly Type[], options: Partial<ConvertOptions> = {}): Promise<Buffer[]> {
  const dumps: Buffer[] = [];
  let from = at(input);
  for (const [i, type] of types.entries()) {
    const output = at(`${i}.dmp`);
    const { dump, verification } = held(
      'convert',
      await convert({ input: from, output, type, force: true, verify: true, ...options }),
    );
    expect([i, dump.repairs, verification?.outcome]).toEqual([i, [], 'sound']);
    dumps.push(readFileSync(output));
    from = output;
  }
  return dumps;
}

const same = (a: Buffer | undefined, b: Buffer | undefined) => expect(a !== undefined && b?.equals(a)).toBe(true);

const CRASH = { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff8042c460004n], processor: 1 } as const;
const SMALL = { processors: 2, seed: 51, ramMiB: 4 } as const;

/** With CPU 0, whose root the header of a running guest has, in all kinds of states. */
const GUESTS: Record<string, () => Guest> = {
  'with all CPUs in the kernel': () => buildGuest(SMALL),
  'with CPU 0 in a program': () => buildGuest({ ...SMALL, user: [1] }),
  'with all CPUs in programs': () => buildGuest({ ...SMALL, user: [0, 1] }),
  'with KVA shadow and all CPUs in programs': () => buildGuest({ ...SMALL, user: [0, 1], kernelRootAt: 0x9000 }),
  'with five levels of page tables and CPU 0 in a program': () => buildGuest({ ...SMALL, user: [1], la57: true }),
  'of true size, with CPU 0 in a program': () => buildTrueGuest({ user: [0, 1] }),
  'of true size, with KVA shadow': () => buildTrueGuest({ user: [0, 1], kvaShadow: true }),
  'that crashed in a program': () => buildTrueGuest({ crash: { ...CRASH, processor: 0 }, crashInExplorer: true }),
  'that crashed': () => buildGuest({ ...SMALL, crash: CRASH, build: 'win11' }),
};

describe.each(Object.entries(GUESTS))('a guest %s', (_, build) => {
  beforeAll(() => writeFileSync(at('vm.elf'), writeElf(build())));

  it('is the same from full to bitmap to full, and from bitmap to full to bitmap', async () => {
    const [full, bitmap, back, again] = await along('vm.elf', ['full', 'bitmap', 'full', 'bitmap']);
    same(full, back);
    same(bitmap, again);
    same(bitmap, (await along('vm.elf', ['bitmap', 'full']))[0]);
  });

  it.each(['kernel', 'active'] as const)(
    'is the same %s dump from every larger type, and from itself',
    async (type) => {
      const [direct, itself] = await along('vm.elf', [type, type]);
      same(direct, itself);
      same(direct, (await along('vm.elf', ['full', type]))[1]);
      same(direct, (await along('vm.elf', ['full', 'bitmap', type]))[2]);
    },
  );

  it('is the same triage dump from every larger type', async () => {
    const [direct] = await along('vm.elf', ['triage']);
    same(direct, (await along('vm.elf', ['full', 'triage']))[1]);
    same(direct, (await along('vm.elf', ['bitmap', 'triage']))[1]);
  });

  it('is the same through a compressed dump', async () => {
    const [full] = await along('vm.elf', ['full']);
    await convert({ input: at('0.dmp'), output: at('packed.dmp.gz'), compress: 'gzip', type: 'bitmap', force: true });
    same(full, (await along('packed.dmp.gz', ['full']))[0]);
    writeFileSync(at('again.dmp.gz'), gzipSync(full!, { level: 1 }));
    same(full, (await along('again.dmp.gz', ['full']))[0]);
  });
});

describe('a dump by another writer', () => {
  const guest = buildTrueGuest({ kdbg: 'plain', user: [1] });
  const full = writeWinDump(guest, 1);

  it.each<[WinDumpType]>([[1], [2], [5], [6], [8], [9], [10]])(
    'of type %i gives the pages and header of its full dump',
    async (type) => {
      writeFileSync(at('other.dmp'), writeWinDump(guest, type));
      const dumps = await along('other.dmp', ['full', 'bitmap', 'full']);
      same(dumps[0], dumps[2]);
      // Only what describes the file differs: a list of runs, and attributes that WinDbg's header leaves as they are.
      expect(dumps[0]?.subarray(0x2000).equals(full.subarray(0x2000))).toBe(true);
      expect(dumps[0]?.equals(full)).toBe(true);
    },
  );

  it('keeps the root of a process that a processor runs, and loses that of another', async () => {
    const { root } = guest.truth;
    const of = (name: string) => guest.truth.processes.find((p) => p.name === name)!.root;
    for (const [name, repaired] of [
      ['explorer.exe', false],
      ['smss.exe', true],
    ] as const) {
      const dump = Buffer.from(full);
      dump.writeBigUInt64LE(BigInt(of(name)), 0x10);
      writeFileSync(at('root.dmp'), dump);
      const report = await convert({ input: at('root.dmp'), output: at('rooted.dmp'), force: true });
      const hex = (value: number) => `0x${value.toString(16)}`;
      expect(report.dump.repairs).toEqual(
        repaired
          ? [
              {
                what: 'header DirectoryTableBase',
                before: hex(of(name)),
                after: hex(root),
                evidence: "System's page tables, not those of a process that no processor runs",
              },
            ]
          : [],
      );
      same(readFileSync(at('rooted.dmp')), repaired ? full : dump);
    }
  });
});
