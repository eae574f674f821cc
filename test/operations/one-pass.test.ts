import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ConversionReport, type ConvertOptions, convert, type Elf2dmpError } from '../../src/index.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { kdumpOf } from '../guest/kdump.ts';
import { writeStream } from '../guest/qevm.ts';
import { writeWinDump } from '../guest/win-dump.ts';

let dir: string;
let guest: Guest;
/** Pages scattered, so that a full dump's header cannot list them. */
const SCATTERED: [number, number][] = [
  [0, 0xa0000],
  [0x100000, 0x700000],
  ...Array.from({ length: 100 }, (_, i) => [0x701000 + i * 0x2000, 0x702000 + i * 0x2000] as [number, number]),
];

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-one-pass-'));
  guest = buildGuest({ seed: 71, ramMiB: 8, processors: 1, decoys: false });
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const at = (name: string) => join(dir, name);

interface Outcome {
  dump: Buffer | undefined;
  /** All that does not depend on the way: findings, losses, or the error. */
  said: unknown;
  spooled: boolean;
}

/** Converts what lies in a file. */
async function outcomeOf(bytes: Buffer, name: string, options: Partial<ConvertOptions>): Promise<Outcome> {
  const output = at('out.dmp');
  writeFileSync(at(name), bytes);
  let spooled = false;
  const onSpool = () => {
    spooled = true;
  };
  try {
    const report = await convert({ input: at(name), output, force: true, onSpool, ...options });
    return { dump: readFileSync(output), said: comparable(report), spooled };
  } catch (error) {
    return { dump: undefined, said: (error as Elf2dmpError).code, spooled };
  } finally {
    rmSync(output, { force: true });
    expect(readdirSync(dir).filter((file) => /spool|part/.test(file))).toEqual([]);
  }
}

function comparable({ input, windows, dump, outcome, diagnostics }: ConversionReport) {
  const own = diagnostics.filter(({ code }) => !code.startsWith('container-'));
  return {
    input: { ...input, path: '' },
    windows,
    dump: { ...dump, path: '' },
    outcome: own.length < diagnostics.length ? 'losses' : outcome,
    diagnostics: own,
  };
}

/** Converts the plain file and the compressed one. The outcome of the latter. */
async function same(bytes: Buffer, options: Partial<ConvertOptions> = {}): Promise<Outcome> {
  const plain = await outcomeOf(bytes, 'plain', options);
  const streamed = await outcomeOf(gzipSync(bytes, { level: 1 }), 'streamed', options);
  expect(streamed.said).toEqual(plain.said);
  expect(streamed.dump?.equals(plain.dump!), 'the same bytes').toBe(plain.dump && true);
  return streamed;
}

const INPUTS: Record<string, () => Buffer> = {
  'an ELF file': () => writeElf(guest),
  'an ELF file with its headers in reverse order': () => writeElf(guest, { reversed: true }),
  'an ELF file of 102 runs': () => writeElf(guest, { runs: SCATTERED }),
  'an ELF file with incomplete pages': () =>
    writeElf(guest, {
      runs: [
        [0, 0xa0000],
        [0x100000, 0x800000 - 0x800],
      ],
    }),
  'a full dump': () => writeWinDump(guest, 1),
  'a bitmap dump': () => writeWinDump(guest, 5),
  'a dump of ranges': () => writeWinDump(guest, 10),
  'raw memory': () => {
    const raw = Buffer.alloc(guest.ramBytes);
    for (const [address, page] of guest.memory.pages) page.copy(raw, address);
    return raw;
  },
};

describe.each(Object.entries(INPUTS))('%s', (_, make) => {
  it.each(['auto', 'full', 'bitmap'] as const)('read once gives the dump that it gives as a file: %s', async (type) => {
    await same(make(), { type });
  });

  it.each(['always', 'never'] as const)('with holes, or without: --sparse %s', async (sparse) => {
    await same(make(), { sparse });
  });

  it('cut off anywhere', async () => {
    const whole = make();
    for (const share of [0.0005, 0.3, 0.97, 0.9999]) {
      await same(whole.subarray(0, Math.floor(whole.length * share)));
      await same(whole.subarray(0, Math.floor(whole.length * share)), { type: 'bitmap' });
    }
  });

  it('with other bytes behind it', async () => {
    await same(Buffer.concat([make(), Buffer.alloc(5000, 0x5a)]));
  });

  it('with nothing patched, and with its patches listed', async () => {
    await same(make(), { patch: false });
    await same(make(), { patches: at('patches.json') });
  });
});

describe('a temporary file', () => {
  const spooled = async (bytes: Buffer, options: Partial<ConvertOptions> = {}) => (await same(bytes, options)).spooled;

  it('is not written where the first bytes say where the pages go', async () => {
    for (const type of ['auto', 'full', 'bitmap'] as const)
      expect(await spooled(writeElf(guest), { type })).toBe(false);
    expect(await spooled(writeElf(guest, { runs: SCATTERED }))).toBe(false);
    expect(await spooled(writeWinDump(guest, 1))).toBe(false);
    expect(await spooled(writeWinDump(guest, 5))).toBe(false);
    expect(await spooled(INPUTS['raw memory']!())).toBe(false);
    expect(await spooled(writeStream(guest))).toBe(false);
  });

  it('is written where the pages that are kept depend on what is in them, and for dumps that are read at random', async () => {
    const elf = writeElf(guest);
    expect(await spooled(elf, { dropZeroPages: true })).toBe(true);
    expect(await spooled(elf, { ram: 'windows' })).toBe(true);
    expect(await spooled(elf, { type: 'triage' })).toBe(true);
    expect(await spooled(elf, { compress: 'gzip' })).toBe(true);
    expect(await spooled(elf, { verify: true })).toBe(true);
    expect(await spooled(INPUTS['raw memory']!(), { type: 'bitmap' })).toBe(true);
    expect(await spooled(kdumpOf(guest).file)).toBe(true);
    expect(await spooled(writeStream(guest, { mappedRam: true }))).toBe(true);
  });
});

describe('program headers that are not as QEMU writes them', () => {
  const PHDR = 0xc0;
  /** Changes a field of a program header of the ELF file. */
  const changed = (index: number, field: number, value: bigint): Buffer => {
    const elf = writeElf(guest);
    elf.writeBigUInt64LE(value, PHDR + 56 * index + field);
    return elf;
  };
  const P_OFFSET = 0x08;
  const P_PADDR = 0x18;
  const P_FILESZ = 0x20;

  it.each([
    ['the same bytes at two addresses', () => changed(2, P_OFFSET, 0x1000n)],
    ['memory within the header', () => changed(1, P_OFFSET, 0x10n)],
    ['memory at overlapping addresses', () => changed(2, P_PADDR, 0x80000n)],
    ['an address beyond 52 bits', () => changed(2, P_PADDR, 1n << 53n)],
    ['an address near 2^52', () => changed(1, P_PADDR, (1n << 52n) - 0x100000n)],
    ['more than the file has', () => changed(2, P_FILESZ, 1n << 40n)],
    ['an odd address', () => changed(1, P_PADDR, 0x800n)],
    ['an offset at the end of all', () => changed(2, P_OFFSET, (1n << 52n) - 0x1000n)],
  ])('%s', async (_, make) => {
    await same(make());
    await same(make(), { type: 'bitmap' });
  });
});
