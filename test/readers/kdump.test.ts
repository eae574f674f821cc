import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { deflateSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Elf2dmpError } from '../../src/core/errors.ts';
import type { MemoryImage } from '../../src/memory/image.ts';
import { convert } from '../../src/operations/convert.ts';
import { FlattenedSource } from '../../src/readers/kdump/flattened.ts';
import { inflateByZlib, loadLibdeflate } from '../../src/readers/kdump/inflate.ts';
import { BATCH_BYTES, PageDecoder, type PageJob, PageJobs } from '../../src/readers/kdump/page-decoder.ts';
import { decodeSnappy } from '../../src/readers/kdump/snappy.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { decodeLzo1x } from '../../src/source/lzo.ts';
import { elfNote, writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import {
  type FlatRecord,
  flatten,
  flattened,
  guestNotes,
  type KdumpFile,
  type KdumpRecipe,
  kdumpFile,
  kdumpOf,
  qemuRecords,
} from '../guest/kdump.ts';
import { loadCompressors } from '../support/compressors.ts';
import fc from '../support/properties.ts';

const open = (file: Buffer): MemoryImage => openSource(new BufferSource(file, 'test.kdump'));

/** Pages with text, noise (which does not compress) and zeros. */
function samplePage(n: number, size = 4096): Buffer {
  if (n % 5 === 3) return Buffer.alloc(size);
  const page = Buffer.alloc(size);
  let state = n + 1;
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    page[i] = n % 5 === 4 || i % 64 < 8 ? state >>> 24 : (i >> 3) + n;
  }
  return page;
}

const samplePages = (numbers: readonly number[], size?: number) =>
  new Map(numbers.map((n) => [n, samplePage(n, size)] as const));

/** Pages 0 to 39 and 64 to 103. */
const NUMBERS = Array.from({ length: 80 }, (_, i) => (i < 40 ? i : i + 24));
const RUNS = [
  { start: 0, size: 40 * 4096 },
  { start: 64 * 4096, size: 40 * 4096 },
];

const sample = (recipe: Partial<KdumpRecipe> = {}): KdumpFile => kdumpFile({ pages: samplePages(NUMBERS), ...recipe });

/** All memory of an image, by both ways of reading. */
async function contents(image: MemoryImage): Promise<{ start: number; bytes: Buffer }[]> {
  const result = [];
  for (const { start, size } of image.runs) {
    const [bytes, again] = [Buffer.alloc(size, 0xee), Buffer.alloc(size, 0xdd)];
    expect(image.readSync(start, bytes)).toBe(true);
    await image.read(start, again);
    expect(again.equals(bytes)).toBe(true);
    result.push({ start, bytes });
  }
  return result;
}

/** Buffers of many MiB: vitest's own comparison takes minutes. */
function expectEqualContents(a: Awaited<ReturnType<typeof contents>>, b: typeof a): void {
  expect(a.map((r) => [r.start, r.bytes.length])).toEqual(b.map((r) => [r.start, r.bytes.length]));
  a.forEach((run, i) => {
    expect(run.bytes.equals(b[i]!.bytes)).toBe(true);
  });
}

const codes = (image: MemoryImage) => image.diagnostics.list.map((d) => d.code);

async function expectSample(file: Buffer, pages = samplePages(NUMBERS)): Promise<MemoryImage> {
  const image = open(file);
  expect(image.runs).toEqual(RUNS);
  for (const { start, bytes } of await contents(image)) {
    for (let at = 0; at < bytes.length; at += 4096) {
      expect(bytes.subarray(at, at + 4096).equals(pages.get((start + at) / 4096)!)).toBe(true);
    }
  }
  image.close();
  return image;
}

describe('kdump-compressed', () => {
  it('reads the raw and the flattened form', async () => {
    expect((await expectSample(sample().file)).format).toBe('kdump');
    const image = await expectSample(flatten(sample()));
    expect([image.format, image.diagnostics.list]).toEqual(['kdump-flattened', []]);
  });

  it('reads parts of pages', () => {
    const image = open(sample().file);
    const part = Buffer.alloc(5000);
    expect(image.readSync(0xf00, part)).toBe(true);
    const all = Buffer.concat([0, 1, 2].map((n) => samplePage(n)));
    expect(part.equals(all.subarray(0xf00, 0xf00 + 5000))).toBe(true);
    // Page 40 is absent.
    expect(image.readSync(39 * 4096, part)).toBe(false);
  });

  it('reads the parts of pages that are larger than 4 KiB', async () => {
    const blockSize = 0x4000;
    const image = open(kdumpFile({ pages: samplePages([0, 1, 2, 7], blockSize), blockSize }).file);
    expect(image.runs).toEqual([
      { start: 0, size: 3 * blockSize },
      { start: 7 * blockSize, size: blockSize },
    ]);
    expect(image.page(0x5000 as never)!.equals(samplePage(1, blockSize).subarray(0x1000, 0x2000))).toBe(true);
    const part = Buffer.alloc(0x5000);
    await image.read(0x3800, part);
    const all = Buffer.concat([0, 1, 2].map((n) => samplePage(n, blockSize)));
    expect(part.equals(all.subarray(0x3800, 0x8800))).toBe(true);
  });

  it('finds each page among many, by its rank', () => {
    // Every third page of 60,000, so that counts of whole groups of words matter.
    const numbers = Array.from({ length: 20_000 }, (_, i) => 3 * i);
    const pages = new Map(
      numbers.map((n) => {
        const page = Buffer.alloc(4096);
        page.writeUInt32LE(n + 1);
        return [n, page] as const;
      }),
    );
    const image = open(kdumpFile({ pages }).file);
    const word = Buffer.alloc(4);
    for (const n of numbers) {
      if (!image.readSync(n * 4096, word) || word.readUInt32LE() !== n + 1) expect.fail(`page ${n}`);
    }
    expect(image.runs.length).toBe(20_000);
  });

  it('takes CPU states and other notes from a guest', async () => {
    const guest = buildGuest({});
    const note = elfNote('VMCOREINFO', 0, Buffer.from('OSRELEASE=6.1\n'));
    const made = kdumpOf(guest, { notes: Buffer.concat([guestNotes(guest), note]) });
    const elf = openSource(new BufferSource(writeElf(guest)));
    for (const file of [made.file, flatten(made)]) {
      const image = open(file);
      expect(image.cpus.map((c) => c.registers)).toEqual(elf.cpus.map((c) => c.registers));
      expect(image.notes.map((n) => n.name)).toEqual(['VMCOREINFO']);
      expectEqualContents(await contents(image), await contents(elf));
    }
  });

  it('lists no page beyond the last page number', () => {
    const { file, places } = sample();
    for (const copy of [0, 1]) file[places.bitmap + copy * places.bitmapSize + 200]! = 0xff;
    expect(open(file).runs).toEqual(RUNS);
  });

  describe('decompression', () => {
    const target = (size = 64) => Buffer.alloc(size, 0xee);
    const hex = (text: string) => Buffer.from(text.replace(/ /g, ''), 'hex');
    // By hand, from the formats' descriptions.
    const lzo: [string, string, string][] = [
      ['literals of the first byte', '15 61626364 11 0000', 'abcd'],
      ['a long run, then M2 of length 4 (6c: distance 4)', '15 61626364 6c 00 11 0000', 'abcdabcd'],
      ['M3 with a longer length', '12 61 20 07 0000 11 0000', `a${'a'.repeat(40)}`],
      ['a run of literals with a long count', `00 02 ${'61'.repeat(20)} 11 0000`, 'a'.repeat(20)],
    ];
    for (const [name, from, to] of lzo) {
      it(`LZO: ${name}`, () => {
        const out = target();
        const count = decodeLzo1x(hex(from), out);
        expect(out.toString('latin1', 0, count)).toBe(to);
      });
    }
    it('LZO: two bytes after a literal (M1)', () => {
      const out = target();
      // abcd, 4 from 4 back with one literal x behind, then 2 from 4 back.
      const count = decodeLzo1x(hex('15 61626364 6d 00 78 0c 00 11 0000'), out);
      expect(out.toString('latin1', 0, count)).toBe('abcdabcdxbc');
    });
    const snappy: [string, string, string][] = [
      ['literals', '04 0c 61626364', 'abcd'],
      ['a copy with 11 bits', '08 0c 61626364 01 04', 'abcdabcd'],
      ['a copy with 16 bits that overlaps itself', '0b 00 61 26 0100', 'a'.repeat(11)],
      ['a copy with 32 bits', '05 00 61 0f 01000000', 'a'.repeat(5)],
      ['a long literal', `3d f0 3c ${'62'.repeat(61)}`, 'b'.repeat(61)],
    ];
    for (const [name, from, to] of snappy) {
      it(`snappy: ${name}`, () => {
        const out = target();
        const count = decodeSnappy(hex(from), out);
        expect(out.toString('latin1', 0, count)).toBe(to);
      });
    }

    it('refuses blocks that end early, reach before their start or beyond their end', () => {
      for (const bad of [
        '',
        '15 61',
        '15 61626364',
        '15 61626364 6c',
        '15 61626364 6c 01 11 0000',
        '12 61 20 0000',
        '11 0000 00',
        '0000',
      ]) {
        expect([bad, decodeLzo1x(hex(bad), target())]).toEqual([bad, -1]);
      }
      expect(decodeLzo1x(hex('12 61 20 2f 0000 11 0000'), target(81))).toBe(81);
      expect(decodeLzo1x(hex('12 61 20 2f 0000 11 0000'), target(80))).toBe(-1);
      for (const bad of [
        '',
        '80',
        '8080808080 00',
        '41',
        '04 0c 6162',
        '05 0c 61626364',
        '08 0c 61626364 01 05',
        '08 0c 61626364 01 00',
        '07 0c 61626364 01 04',
        '04 fc ffffffff',
        '04 0c 61626364 02 04',
      ]) {
        expect([bad, decodeSnappy(hex(bad), target())]).toEqual([bad, -1]);
      }
    });

    it('never writes outside, whatever it is given', () => {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, withStart) => {
          const source = Buffer.concat([Buffer.from(withStart ? '15616263' : '', 'hex'), bytes]);
          for (const decode of [decodeLzo1x, decodeSnappy]) {
            const room = Buffer.alloc(300, 0xee);
            const count = decode(source, room.subarray(50, 250));
            expect(count).toBeLessThanOrEqual(200);
            expect(room.subarray(0, 50).every((b) => b === 0xee) && room.subarray(250).every((b) => b === 0xee)).toBe(
              true,
            );
          }
        }),
        { numRuns: 3000 },
      );
    });
  });

  const compressors = loadCompressors();
  describe.skipIf(!compressors)("pages of Debian's liblzo2 and libsnappy", () => {
    const kinds = [
      ['lzo', 2, decodeLzo1x],
      ['snappy', 4, decodeSnappy],
    ] as const;
    for (const [name, flags, decode] of kinds) {
      it(`reads ${name} pages`, async () => {
        const made = sample({ flags, compress: compressors![name] });
        await expectSample(made.file);
        await expectSample(flatten(made));
      });

      it(`decodes any ${name} block, and none of one byte less room`, () => {
        const chunk = fc.oneof(
          fc.uint8Array({ maxLength: 300 }),
          fc
            .tuple(fc.uint8Array({ minLength: 1, maxLength: 9 }), fc.nat(700))
            .map(([b, n]) => Buffer.concat(Array(n).fill(b))),
        );
        fc.assert(
          fc.property(
            fc.array(chunk, { minLength: 1, maxLength: 30 }),
            fc.array(fc.nat(29), { maxLength: 30 }),
            (chunks, order) => {
              const plain = Buffer.concat([...chunks, ...order.map((i) => chunks[i % chunks.length]!)]);
              if (plain.length === 0) return;
              const block = compressors![name](plain);
              const out = Buffer.alloc(plain.length);
              expect(decode(block, out)).toBe(plain.length);
              expect(out.equals(plain)).toBe(true);
              expect(decode(block, Buffer.alloc(plain.length - 1))).toBe(-1);
              expect(decode(block.subarray(0, -1), out)).not.toBe(plain.length);
            },
          ),
        );
      });
    }
  });

  describe('malformed files', () => {
    const failure = (file: Buffer): Elf2dmpError => {
      try {
        open(file);
      } catch (error) {
        if (error instanceof Elf2dmpError) return error;
        throw error;
      }
      throw new Error('opened');
    };
    const patched = (change: (file: Buffer, made: KdumpFile) => void, recipe: Partial<KdumpRecipe> = {}): Buffer => {
      const made = sample(recipe);
      change(made.file, made);
      return made.file;
    };
    const whole = sample();
    const record = (offset: number | bigint, size: bigint): FlatRecord => ({ offset, size, bytes: Buffer.alloc(0) });
    const cases: [name: string, file: Buffer, code: string, kind: string][] = [
      ['truncated header', whole.file.subarray(0, 463), 'kdump-truncated-header', 'corrupt'],
      ['truncated sub header', whole.file.subarray(0, 4096 + 103), 'kdump-truncated-header', 'corrupt'],
      ['another version', patched((f) => f.writeUInt32LE(5, 8)), 'kdump-version', 'unsupported'],
      ['big-endian', patched((f) => f.writeUInt32BE(6, 8)), 'kdump-big-endian', 'unsupported'],
      [
        '32-bit header form',
        patched((f) => {
          f.writeUInt32LE(1, 0x19c);
          f.writeUInt32LE(4096, 0x1a0);
        }),
        'kdump-32-bit',
        'unsupported',
      ],
      ['block size 0', patched((f) => f.writeUInt32LE(0, 0x1ac)), 'kdump-block-size', 'corrupt'],
      ['block size 0x80000000', patched((f) => f.writeUInt32LE(0x80000000, 0x1ac)), 'kdump-block-size', 'corrupt'],
      ['block size 4097', patched((f) => f.writeUInt32LE(4097, 0x1ac)), 'kdump-block-size', 'corrupt'],
      ['split file', patched((f) => f.writeUInt32LE(1, 4096 + 0xc)), 'kdump-split', 'unsupported'],
      [
        '32-bit Arm notes',
        sample({ notes: elfNote('CORE', 1, Buffer.alloc(148)) }).file,
        'kdump-machine',
        'unsupported',
      ],
      [
        'notes of another size',
        sample({ notes: elfNote('CORE', 1, Buffer.alloc(504)) }).file,
        'kdump-machine',
        'unsupported',
      ],
      ['odd number of bitmap blocks', patched((f) => f.writeUInt32LE(3, 0x1b4)), 'kdump-bitmap-size', 'corrupt'],
      ['no bitmap', patched((f) => f.writeUInt32LE(0, 0x1b4)), 'kdump-bitmap-size', 'corrupt'],
      [
        'more pages than the bitmap has bits',
        patched((f) => f.writeBigUInt64LE(32769n, 4096 + 0x60)),
        'kdump-bitmap-size',
        'corrupt',
      ],
      [
        '2^64 - 1 pages',
        patched((f) => f.writeBigUInt64LE(2n ** 64n - 1n, 4096 + 0x60)),
        'kdump-bitmap-size',
        'corrupt',
      ],
      [
        'an immense bitmap',
        patched((f) => {
          f.writeUInt32LE(0xfffffffe, 0x1b4);
          f.writeBigUInt64LE(2n ** 40n, 4096 + 0x60);
        }),
        'kdump-bitmap-size',
        'corrupt',
      ],
      [
        'bitmap beyond the end',
        patched((f) => f.writeUInt32LE(0xffffffff, 0x1b0)),
        'kdump-truncated-bitmap',
        'corrupt',
      ],
      ['truncated bitmap', whole.file.subarray(0, whole.places.bitmap + 4096), 'kdump-truncated-bitmap', 'corrupt'],
      ['truncated before the first page', whole.file.subarray(0, whole.places.data), 'kdump-no-memory', 'corrupt'],
      [
        'empty bitmap',
        patched((f, { places }) => f.fill(0, places.bitmap, places.descriptors)),
        'kdump-no-memory',
        'corrupt',
      ],
      [
        'zstd',
        patched((f, { places }) => {
          for (let at = places.descriptors; at < places.data; at += 24) f.writeUInt32LE(0x20, at + 12);
        }),
        'kdump-compression',
        'unsupported',
      ],
      ['truncated flattened header', flatten(whole).subarray(0, 100), 'kdump-flattened-truncated-header', 'corrupt'],
      [
        'flattened version',
        (() => {
          const file = flatten(whole);
          file.writeBigInt64BE(2n, 0x18);
          return file;
        })(),
        'kdump-flattened-version',
        'unsupported',
      ],
      ['record with negative size', flattened([record(0, -2n)]), 'kdump-flattened-record', 'corrupt'],
      ['record with negative offset', flattened([record(-1n, 5n)]), 'kdump-flattened-record', 'corrupt'],
      ['record with an immense offset', flattened([record(2n ** 62n, 5n)]), 'kdump-flattened-record', 'corrupt'],
      ['no records', flattened([]), 'kdump-flattened-empty', 'corrupt'],
      ['no records and no end mark', flattened([], false), 'kdump-flattened-empty', 'corrupt'],
      [
        'flattened, but not a kdump',
        flattened([{ offset: 0, bytes: Buffer.alloc(4096, 1) }]),
        'kdump-signature',
        'corrupt',
      ],
      [
        'flattened without bitmap',
        flattened([{ offset: 0, bytes: whole.file.subarray(0, whole.places.bitmap) }]),
        'kdump-truncated-bitmap',
        'corrupt',
      ],
    ];
    for (const [name, file, code, kind] of cases) {
      it(`${name}: ${code}`, () => {
        const error = failure(file);
        expect([error.code, error.kind]).toEqual([code, kind]);
        expect(error.message).toContain('test.kdump: ');
        expect(error.details.hint ?? error.details.expected).toBeTruthy();
      });
    }

    /** Page 1's descriptor, changed; that page then is to be missing. */
    const descriptors: [name: string, code: string, change: (d: Buffer) => void][] = [
      ['size 0xffffffff', 'page-descriptors-damaged', (d) => d.writeUInt32LE(0xffffffff, 8)],
      ['size 0', 'page-descriptors-damaged', (d) => d.writeUInt32LE(0, 8)],
      [
        'a raw page of half a block',
        'page-descriptors-damaged',
        (d) => d.writeUInt32LE(2048, 8) && d.writeUInt32LE(0, 12),
      ],
      ['data within the header', 'page-descriptors-damaged', (d) => d.writeBigUInt64LE(100n)],
      ['offset 2^64 - 1', 'page-descriptors-damaged', (d) => d.writeBigUInt64LE(2n ** 64n - 1n)],
      ['data beyond the end', 'input-truncated', (d) => d.writeBigUInt64LE(2n ** 40n)],
      ['unknown flags', 'page-compression-unknown', (d) => d.writeUInt32LE(0x40, 12)],
    ];
    for (const [name, code, change] of descriptors) {
      it(`descriptor with ${name}: ${code}`, async () => {
        for (const shape of [(m: KdumpFile) => m.file, flatten]) {
          const made = sample();
          change(made.file.subarray(made.places.descriptors + 24, made.places.descriptors + 48));
          const image = open(shape(made));
          expect(image.runs.slice(0, 2)).toEqual([
            { start: 0, size: 4096 },
            { start: 2 * 4096, size: 38 * 4096 },
          ]);
          expect(image.diagnostics.losses).toMatchObject([{ code, where: { physical: '0x1000' } }]);
          await contents(image);
        }
      });
    }

    it('leaves out what a cut raw file lacks', async () => {
      const { file, places } = whole;
      const image = open(file.subarray(0, places.data + 4096 + 30_000));
      expect(codes(image)).toEqual(['input-truncated']);
      expect(image.size).toBeLessThan(80 * 4096);
      for (const { start, bytes } of await contents(image)) {
        for (let at = 0; at < bytes.length; at += 4096) {
          expect(bytes.subarray(at, at + 4096).equals(samplePage((start + at) / 4096))).toBe(true);
        }
      }
    });

    it('leaves out what a cut or damaged flattened file lacks', async () => {
      const records = qemuRecords(whole, 512);
      const file = flattened(records);
      const variants = [file.subarray(0, file.length - 20_000), flattened(records.toSpliced(-2, 1))];
      for (const variant of variants) {
        const image = open(variant);
        expect(codes(image)).toEqual(['input-truncated']);
        expect(image.size).toBeLessThan(80 * 4096);
        for (const { start, bytes } of await contents(image)) {
          for (let at = 0; at < bytes.length; at += 4096) {
            expect(bytes.subarray(at, at + 4096).equals(samplePage((start + at) / 4096))).toBe(true);
          }
        }
      }
    });

    it('warns of a flattened file that only lacks its end mark', async () => {
      const image = await expectSample(flattened(qemuRecords(whole), false));
      expect(image.diagnostics.list.map((d) => [d.severity, d.code])).toEqual([['warning', 'kdump-no-end-mark']]);
    });

    it('says so when the notes are cut or lie outside', () => {
      const file = patched((f) => f.writeBigUInt64LE(2n ** 63n, 4096 + 0x30), {
        notes: elfNote('X', 1, Buffer.alloc(8)),
      });
      expect(codes(open(file))).toEqual(['notes-truncated']);
    });

    /** Replaces the data of page 1. */
    const withPage = (data: Buffer, flags = 1): Buffer => {
      const made = sample();
      const descriptor = made.file.subarray(made.places.descriptors + 24, made.places.descriptors + 48);
      descriptor.writeBigUInt64LE(BigInt(made.file.length));
      descriptor.writeUInt32LE(data.length, 8);
      descriptor.writeUInt32LE(flags, 12);
      return Buffer.concat([made.file, data]);
    };
    const damaged: [string, Buffer, number?][] = [
      ['corrupt zlib', Buffer.from('789c0102030405', 'hex')],
      ['zlib of less than a page', deflateSync(Buffer.alloc(4095, 1))],
      ['zlib of more than a page', deflateSync(Buffer.alloc(4097, 1))],
      ['a zlib bomb', deflateSync(Buffer.alloc(1 << 20)).subarray(0, 4096)],
      ['a cut zlib stream', deflateSync(samplePage(1)).subarray(0, 100)],
      ['corrupt LZO', Buffer.alloc(100, 0x40), 2],
      ['corrupt snappy', Buffer.alloc(100, 0x40), 4],
    ];
    for (const [name, data, flags] of damaged) {
      it(`${name}: a lost page, not a failure`, async () => {
        const image = open(withPage(data, flags));
        expect([image.runs, codes(image)]).toEqual([RUNS, []]);
        const bytes = Buffer.alloc(3 * 4096, 0xee);
        expect(image.readSync(0, bytes)).toBe(false);
        expect(image.page(0x1000 as never)).toBeUndefined();
        await image.read(0, bytes);
        expect(bytes.equals(Buffer.concat([samplePage(0), Buffer.alloc(4096), samplePage(2)]))).toBe(true);
        expect(image.diagnostics.losses).toMatchObject([{ code: 'page-damaged', where: { physical: '0x1000' } }]);
      });
    }

    it('names the first damaged pages and then says that there are more', async () => {
      const made = sample();
      made.file.fill(0, made.places.data + 4096);
      const image = open(made.file);
      await image.read(0, Buffer.alloc(40 * 4096));
      const seen = codes(image);
      // Pages that are stored as they are can't be told from damaged ones.
      expect([seen.length, seen.at(0), seen.at(-1)]).toEqual([11, 'page-damaged', 'pages-damaged']);
    });

    it('gives a typed error or an image with losses for any damage', async () => {
      const raw = sample({ pages: samplePages([0, 1, 2, 3, 4, 9]), notes: elfNote('CORE', 1, Buffer.alloc(336)) });
      const flat = flatten(raw, 4096);
      const headers = [0, 0x8, 0x1a8, 0x1ac, 0x1b0, 0x1b4, 0x1b8, 0x1030, 0x1038, 0x1060, 0x1068];
      const spots = [
        ...headers.flatMap((at) => [at, at + 1, at + 3, at + 7]),
        ...Array.from({ length: 300 }, (_, i) => raw.places.descriptors + i),
        ...Array.from({ length: 8 }, (_, i) => raw.places.bitmap + raw.places.bitmapSize + i),
      ];
      const spot = fc.oneof(fc.constantFrom(...spots), fc.nat(flat.length));
      await fc.assert(
        fc.asyncProperty(
          fc.boolean(),
          fc.option(fc.nat(flat.length)),
          fc.array(fc.tuple(spot, fc.nat(255)), { maxLength: 6 }),
          async (isFlat, cut, changes) => {
            const good = isFlat ? flat : raw.file;
            const file = Buffer.from(good.subarray(0, cut ?? good.length));
            // In the flattened form the headers are behind its own and the record's.
            for (const [at, value] of changes) {
              const place = isFlat && at % 2 === 0 ? at + 4112 : at;
              if (place < file.length) file[place] = value;
            }
            let image: MemoryImage;
            try {
              image = open(file);
            } catch (error) {
              expect(error).toBeInstanceOf(Elf2dmpError);
              return;
            }
            for (const run of image.runs.slice(0, 20)) {
              const target = Buffer.alloc(Math.min(run.size, 0x10000));
              const sound = image.readSync(run.start, target);
              const again = Buffer.alloc(target.length, 0xcc);
              await image.read(run.start, again);
              expect(again.equals(target)).toBe(true);
              if (!sound) expect(image.diagnostics.losses.length).toBeGreaterThan(0);
            }
            image.close();
          },
        ),
        { numRuns: 1500 },
      );
    });
  });

  describe('the flattened form', () => {
    const flat = (records: FlatRecord[], endMark = true) =>
      FlattenedSource.open(new BufferSource(flattened(records, endMark)));

    it('puts records in order, whatever theirs is, and the later one on top', async () => {
      const piece = fc.tuple(fc.nat(500), fc.integer({ min: 0, max: 120 }), fc.boolean());
      await fc.assert(
        fc.asyncProperty(
          fc.array(piece, { minLength: 1, maxLength: 60 }),
          fc.nat(650),
          fc.nat(300),
          async (pieces, at, length) => {
            const model: (number | undefined)[] = [];
            let value = 0;
            let end = 0;
            const records = pieces.map(([offset, size, goesOn]) => {
              const start = goesOn ? end : offset;
              const bytes = Buffer.from(Array.from({ length: size }, (_, i) => ((value + i) % 251) + 1));
              value += size;
              bytes.forEach((b, i) => {
                model[start + i] = b;
              });
              end = start + size;
              return { offset: start, bytes };
            });
            if (model.length === 0) return;
            const source = flat(records);
            expect([source.size, source.complete]).toEqual([model.length, true]);
            const all = Buffer.from(Array.from(model, (b) => b ?? 0));
            const [from, to] = [Math.min(at, model.length), Math.min(at + length, model.length)];
            const [sync, later] = [Buffer.alloc(to - from, 0xff), Buffer.alloc(to - from, 0xff)];
            source.readSync(from, sync);
            await source.read(from, later);
            expect(sync).toEqual(all.subarray(from, to));
            expect(later).toEqual(sync);
            const known = Array.from(model.slice(from, to)).every((b) => b !== undefined);
            expect(source.covers(from, to - from)).toBe(known);
            expect(source.hasHolesFrom(from)).toBe(Array.from(model.slice(from)).some((b) => b === undefined));
          },
        ),
        { numRuns: 500 },
      );
    });

    it('keeps many records in strands', async () => {
      const bytes = Buffer.alloc(3000, 0).map((_, i) => i % 253);
      const records = Array.from({ length: 3000 }, (_, i) => ({
        offset: i,
        bytes: Buffer.from(bytes.subarray(i, i + 1)),
      }));
      const source = flat(records);
      const all = Buffer.alloc(3000);
      await source.read(0, all);
      expect(all.equals(Buffer.from(bytes))).toBe(true);
      expect([source.overlaps, source.covers(0, 3000), source.covers(2999, 2)]).toEqual([0, true, false]);
    });

    it('refuses to read outside', () => {
      const source = flat([{ offset: 10, bytes: Buffer.alloc(10) }]);
      expect(() => source.readSync(15, Buffer.alloc(6))).toThrow(RangeError);
      expect(() => source.readSync(-1, Buffer.alloc(1))).toThrow(RangeError);
    });
  });

  describe('decoding several pages at once', () => {
    const shared = (bytes: Buffer): Uint8Array<SharedArrayBuffer> => {
      const memory = new Uint8Array(new SharedArrayBuffer(bytes.length));
      memory.set(bytes);
      return memory;
    };
    /** Every page of a batch. */
    const BATCH = BATCH_BYTES / 4096;
    const isBad = (i: number) => i % 50 === 7;
    const jobs = (count: number): PageJobs => {
      const stored = Array.from({ length: count }, (_, i) =>
        isBad(i) ? Buffer.from('789c01', 'hex') : deflateSync(samplePage(i)),
      );
      let from = 0;
      const list: PageJob[] = stored.map(({ length: size }, i) => {
        from += size;
        // The last page comes first.
        return { flags: 1, from: from - size, size, to: 4096 * (count - 1 - i) };
      });
      const target = shared(Buffer.alloc(4096 * count, 0xee));
      return PageJobs.of({ source: shared(Buffer.concat(stored)), target, pageSize: 4096 }, list);
    };
    const check = (done: PageJobs) => {
      for (let i = 0; i < done.count; i++) {
        expect(done.isGood(i)).toBe(!isBad(i));
        const to = 4096 * (done.count - 1 - i);
        const page = Buffer.from(done.memory.target.subarray(to, to + 4096));
        if (!page.equals(isBad(i) ? Buffer.alloc(4096) : samplePage(i))) expect.fail(`page ${i}`);
      }
    };

    const startWorker = (workerData: unknown) =>
      new Worker(new URL('../support/page-worker.mjs', import.meta.url), { workerData });

    for (const workers of [0, 1, 3]) {
      it(`gives the same with ${workers} workers`, async () => {
        const decoder = new PageDecoder({ workers, bytesBeforeWorkers: 0, startWorker });
        for (let round = 0; round < 3; round++) {
          const lists = [jobs(BATCH * 5 + 3), jobs(1), jobs(200)];
          await Promise.all(lists.map((list) => decoder.decode(list)));
          lists.forEach(check);
        }
        expect(decoder.workers).toBe(workers);
        decoder.close();
      });
    }

    it('does without workers that do not start', async () => {
      const decoder = new PageDecoder({
        workers: 2,
        bytesBeforeWorkers: 0,
        startWorker: () => new Worker('process.exit(1)', { eval: true }),
      });
      const list = jobs(BATCH * 9);
      await decoder.decode(list);
      check(list);
      await decoder.decode(jobs(3));
      decoder.close();
    });

    it('starts workers only for more than a little', async () => {
      const decoder = new PageDecoder({ workers: 1, startWorker });
      await decoder.decode(jobs(BATCH * 2));
      expect(decoder.workers).toBe(0);
      await decoder.decode(jobs(BATCH * 8));
      expect(decoder.workers).toBe(1);
      decoder.close();
    });
  });

  describe('inflating by what the system has', () => {
    it('takes and refuses the same pages as zlib, damaged ones included', async () => {
      const byLibrary = (await loadLibdeflate()) ?? inflateByZlib;
      const change = fc.record({ at: fc.nat(5000), to: fc.nat(255) });
      const cut = fc.oneof(fc.constant(0), fc.integer({ min: -20, max: 20 }));
      fc.assert(
        fc.property(
          fc.nat(1000),
          fc.constantFrom(0, 1, 6, 9),
          fc.array(change, { maxLength: 3 }),
          cut,
          fc.constantFrom(4096, 4095, 4097),
          (seed, level, changes, longer, size) => {
            const whole = deflateSync(Buffer.concat([samplePage(seed), Buffer.from('x')]).subarray(0, size), { level });
            const stored = Buffer.concat([whole, Buffer.alloc(20)]).subarray(0, whole.length + longer);
            for (const { at, to } of changes) stored[at % stored.length] = to;
            const [one, other] = [Buffer.alloc(4096, 1), Buffer.alloc(4096, 2)];
            const good = inflateByZlib(stored, one);
            expect(byLibrary(stored, other)).toBe(good);
            if (good) expect(other.equals(one)).toBe(true);
          },
        ),
        { numRuns: 1500 },
      );
    });
  });

  it('reads any part of memory alike, into memory that threads share and into any other', async () => {
    const guest = buildGuest({});
    const image = open(flatten(kdumpOf(guest)));
    const { start, size } = image.runs.find((run) => run.size > 4 * 2 ** 20)!;
    const all = guest.memory.flat(0, guest.ramBytes);
    const sizes = fc.oneof(fc.integer({ min: 0, max: 9000 }), fc.integer({ min: 0, max: 3 * 2 ** 20 }));
    await fc.assert(
      fc.asyncProperty(fc.nat(size - 1), sizes, fc.boolean(), async (at, wanted, isAligned) => {
        const from = isAligned ? at - (at % 4096) : at;
        const length = Math.min(wanted, size - from);
        const [sync, later] = [Buffer.alloc(length, 1), Buffer.alloc(length, 2)];
        const inShared = Buffer.from(new SharedArrayBuffer(length));
        expect(image.readSync(start + from, sync)).toBe(true);
        await Promise.all([image.read(start + from, later), image.read(start + from, inShared)]);
        expect([later.equals(sync), inShared.equals(sync)]).toEqual([true, true]);
        expect(sync.equals(all.subarray(start + from, start + from + length))).toBe(true);
      }),
      { numRuns: 60 },
    );
    image.close();
  });
});

describe('converting a kdump', () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-kdump-'));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('gives the same dump as the ELF of the same guest', async () => {
    const guest = buildGuest({});
    const made = kdumpOf(guest);
    const outputs: Buffer[] = [];
    for (const [name, bytes] of [
      ['elf', writeElf(guest)],
      ['raw', made.file],
      ['flat', flatten(made)],
    ] as const) {
      writeFileSync(join(dir, name), bytes);
      const report = await convert({ input: join(dir, name), output: join(dir, `${name}.dmp`) });
      expect(report.outcome).toBe('good');
      outputs.push(readFileSync(join(dir, `${name}.dmp`)));
    }
    expect(outputs.slice(1).map((o) => o.equals(outputs[0]!))).toEqual([true, true]);
  });

  it('reports a page that turns out damaged while it is copied, and refuses it with strict', async () => {
    const guest = buildGuest({});
    // A page that nothing in Windows looks at.
    const number = 0xf00;
    guest.memory.page(number * 4096).fill(0x5a);
    const made = kdumpOf(guest);
    const descriptor = made.places.descriptors + 24 * (number - 0x60);
    made.file.fill(
      0xff,
      Number(made.file.readBigUInt64LE(descriptor)),
      Number(made.file.readBigUInt64LE(descriptor)) + 10,
    );
    const input = join(dir, 'damaged');
    writeFileSync(input, made.file);
    const report = await convert({ input, output: join(dir, 'damaged.dmp') });
    expect(report.outcome).toBe('losses');
    expect(report.diagnostics).toMatchObject([{ code: 'page-damaged', where: { physical: '0xf00000' } }]);
    await expect(convert({ input, output: join(dir, 'strict.dmp'), strict: true })).rejects.toMatchObject({
      code: 'strict-losses',
    });
    expect(existsSync(join(dir, 'strict.dmp'))).toBe(false);
  });
});
