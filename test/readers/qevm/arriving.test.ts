// Migration streams that are read once, against the same streams read from a file that is looked into again and again.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { Elf2dmpError } from '../../../src/core/errors.ts';
import { type ConvertOptions, convert } from '../../../src/operations/convert.ts';
import type { ConversionReport } from '../../../src/report/conversion.ts';
import { OnePass } from '../../../src/write/one-pass.ts';
import { buildGuest, type Guest } from '../../guest/guest.ts';
import { type StreamOptions, writeStream } from '../../guest/qevm.ts';
import fc from '../../support/properties.ts';

let dir: string;
let guest: Guest;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-arriving-'));
  guest = buildGuest({ processors: 2, user: [1], seed: 11 });
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));
afterEach(() => vi.restoreAllMocks());

interface Made {
  bytes: Buffer | undefined;
  /** Or the code of the error. */
  report: object | string;
  /** Whether the pages that had come were the dump's. */
  onePass: boolean;
}

type Choices = Pick<ConvertOptions, 'type' | 'sparse' | 'verify'>;

async function make(input: ConvertOptions['input'], choices: Choices = {}): Promise<Made> {
  const finish = vi.spyOn(OnePass.prototype, 'finish');
  finish.mockClear();
  const output = join(dir, 'vm.dmp');
  rmSync(output, { force: true });
  try {
    const report = await convert({ input, output, ...choices });
    const onePass = (await finish.mock.results.at(-1)?.value) as boolean;
    return { bytes: readFileSync(output), report: comparable(report), onePass };
  } catch (error) {
    if (error instanceof Elf2dmpError) return { bytes: undefined, report: error.code, onePass: false };
    throw error;
  }
}

/** Without what differs by the way that was taken: damaged pages are told when they come, or when they are read. */
function comparable({ input, dump, diagnostics, windows }: ConversionReport): object {
  const sorted = diagnostics.map((each) => JSON.stringify(each)).sort();
  return { input: { ...input, path: '' }, dump: { ...dump, path: '' }, diagnostics: sorted, windows };
}

/** A stream in pieces of sizes that nothing is aligned to. */
async function* inPieces(bytes: Buffer, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield Uint8Array.from(bytes.subarray(at, at + size));
}

/** By way of a file that is read where it is needed. */
async function slowly(bytes: Buffer, choices: Choices = {}): Promise<Made> {
  const path = join(dir, 'vm.stream');
  writeFileSync(path, bytes);
  const made = await make(path, { ...choices, verify: true });
  expect(made.onePass).toBe(false);
  return made;
}

async function expectSame(bytes: Buffer, { onePass = true, ...choices }: Choices & { onePass?: boolean } = {}) {
  const expected = await slowly(bytes, choices);
  const path = join(dir, 'vm.stream');
  const gzip = join(dir, 'vm.gz');
  writeFileSync(gzip, gzipSync(bytes, { level: 1 }));
  for (const [what, input] of [
    ['file', path],
    ['pieces of 77,777 bytes', inPieces(bytes, 77_777)],
    ['gzip', gzip],
  ] as const) {
    const made = await make(input, choices);
    expect(made.report, what).toEqual(expected.report);
    if (!expected.bytes) continue;
    expect(made.bytes!.equals(expected.bytes), what).toBe(true);
    expect(made.onePass, what).toBe(onePass);
  }
}

describe('a migration stream that is read once', () => {
  it.each<[string, StreamOptions, (Choices & { onePass?: boolean })?]>([
    ['plain pages', {}],
    ['compressed pages', { pages: 'compressed' }],
    ['differences to pages', { pages: 'xbzrle' }],
    ['two rounds, of which the last counts', { rounds: 2 }],
    ['two rounds, all of it written', { rounds: 2 }, { sparse: 'never' }],
    ['holes wherever they can be', { rounds: 2 }, { sparse: 'always' }],
    ['no description of the devices', { withoutDescription: true }],
    ['no footers and no configuration', { old: true }],
    ['no CMOS', { withoutCmos: true }],
    ['bytes behind it', { trailing: Buffer.alloc(3_000_000, 0x33) }],
    ['q35', { machineType: 'pc-q35-10.0' }],
    ['a bitmap dump', {}, { type: 'bitmap' }],
    ['RAM above 4 GiB, of which only CMOS knows', { low: 0xe0_0000 }],
    // Its page map is larger than was foreseen.
    ['the same as a bitmap dump', { low: 0xe0_0000 }, { type: 'bitmap', onePass: false }],
    ['a device in front of memory', { earlyDevice: true }],
    ['pages at fixed places', { mappedRam: true }, { onePass: false }],
  ])('becomes the same dump: %s', async (_, options, choices) => {
    await expectSame(writeStream(guest, options), choices);
  });

  it('becomes the same dump where libvirt wrote something in front of it', async () => {
    const header = Buffer.alloc(92);
    header.write('LibvirtQemudSave', 'latin1');
    header.writeUInt32LE(2, 16);
    header.writeUInt32LE(100_000, 20);
    await expectSame(Buffer.concat([header, Buffer.alloc(100_000, 0x20), writeStream(guest, { pages: 'xbzrle' })]));
  });

  it('has the losses of one that is cut, and of pages that are damaged', async () => {
    const stream = writeStream(guest);
    await expectSame(stream.subarray(0, stream.length - 150_000));
    const compressed = Buffer.from(writeStream(guest, { pages: 'compressed' }));
    // The data of some pages: zlib notices by its checksum.
    for (let at = 40_000; at < 60_000; at += 5_000) {
      const page = compressed.indexOf(Buffer.from([0x78, 0x9c]), at);
      compressed[page + 3]! ^= 0x40;
    }
    await expectSame(compressed);
    expect(JSON.stringify((await slowly(compressed)).report)).toContain('page-damaged');
  });

  it('becomes the same dump, or the same error, whatever is wrong with it', async () => {
    const streams = (['plain', 'xbzrle', 'compressed'] as const).map((pages) => writeStream(guest, { pages }));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...streams),
        fc.array(fc.tuple(fc.nat(600), fc.nat(255)), { maxLength: 2 }),
        fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(255)), { maxLength: 4 }),
        fc.integer({ min: 1, max: 500_000 }),
        async (whole, front, anywhere, size) => {
          const bytes = Buffer.from(whole);
          for (const [at, value] of front) bytes[at] = value;
          for (const [at, value] of anywhere) bytes[Math.floor(at * (bytes.length - 1))] = value;
          const expected = await slowly(bytes);
          const made = await make(inPieces(bytes, Math.max(size, bytes.length >> 8)));
          expect(made.report).toEqual(expected.report);
          expect(made.bytes?.equals(expected.bytes!)).toBe(expected.bytes && true);
        },
      ),
      { numRuns: 25, seed: 20 },
    );
  });
});
