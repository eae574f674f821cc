/** Compressed files that are read at random, and what damage and lies do to that. */

import { beforeAll, describe, expect, it } from 'vitest';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { identifyContainer } from '../../src/source/containers.ts';
import { FramedSource } from '../../src/source/framed.ts';
import { bgzfMember, bgzfOf, type SeekTable, seekableZstd, zstdFrame } from '../support/frames.ts';
import fc, { noise } from '../support/properties.ts';

const EACH = { gzip: 0x4000, zstd: 0x8000 } as const;
type Kind = keyof typeof EACH;
const KINDS = ['gzip', 'zstd'] as const;
/** Compressible, a run of zeros, and noise; no two pages are alike elsewhere. */
const CONTENTS = Buffer.alloc(0x45678);
for (let i = 0; i < CONTENTS.length; i += 4) {
  if (i < 0x10000 || i >= 0x20000) CONTENTS.writeUInt32LE(i < 0x30000 ? i : Math.imul(i, 2654435761) >>> 0, i);
}
const files: Record<Kind, Buffer> = { gzip: Buffer.alloc(0), zstd: Buffer.alloc(0) };
beforeAll(async () => {
  files.gzip = bgzfOf(CONTENTS, EACH.gzip);
  files.zstd = await seekableZstd(CONTENTS, EACH.zstd);
});

async function framed(file: Buffer): Promise<FramedSource | undefined> {
  const source = new BufferSource(file);
  const index = await identifyContainer(file)?.index?.(source, {});
  return index && new FramedSource(source, index, 'contents');
}

async function streamed(file: Buffer): Promise<Buffer> {
  const parts: Buffer[] = [];
  const source = async function* () {
    yield file;
  };
  for await (const part of identifyContainer(file)!.unpack(source())) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

async function readAll(source: FramedSource): Promise<Buffer> {
  const all = Buffer.alloc(source.size, 0xee);
  await source.read(0, all);
  return all;
}

const flipped = (bytes: Buffer, at: number): Buffer => {
  const copy = Buffer.from(bytes);
  copy[at]! ^= 0x55;
  return copy;
};

describe.each(KINDS)('a %s file in frames', (kind) => {
  it('reads as the stream does, any part of it', async () => {
    expect((await streamed(files[kind])).equals(CONTENTS)).toBe(true);
    const source = (await framed(files[kind]))!;
    expect(source.size).toBe(CONTENTS.length);
    expect((await readAll(source)).equals(CONTENTS)).toBe(true);
    const ranges = fc
      .tuple(fc.nat(CONTENTS.length), fc.nat(3 * EACH[kind]))
      .map(([from, length]) => [from, Math.min(CONTENTS.length, from + length)] as const);
    await fc.assert(
      fc.asyncProperty(ranges, fc.boolean(), async ([from, to], sync) => {
        const target = Buffer.alloc(to - from);
        if (sync) source.readSync(from, target);
        else await source.read(from, target);
        expect(target.equals(CONTENTS.subarray(from, to))).toBe(true);
      }),
      { numRuns: 200 },
    );
    expect(source.damagedPages.size).toBe(0);
    expect(() => source.readSync(CONTENTS.length - 1, Buffer.alloc(2))).toThrow(RangeError);
  });

  it('unpacks a frame once for all who read it at the same time', async () => {
    const source = (await framed(files[kind]))!;
    const targets = Array.from({ length: 8 }, () => Buffer.alloc(0x3000));
    await Promise.all(targets.map((target, i) => source.read(0x1000 * i, target)));
    targets.forEach((target, i) => {
      expect(target.equals(CONTENTS.subarray(0x1000 * i, 0x1000 * i + 0x3000))).toBe(true);
    });
  });

  it('loses of a damaged frame that frame only, and says so', async () => {
    // In the noise, of which each frame is nearly as long as its contents.
    const source = (await framed(flipped(files[kind], files[kind].length - 0x3000)))!;
    const said: string[] = [];
    const all = await readAll(source);
    source.onDamage((message) => said.push(message));
    const zeros = [...all.keys()].filter((i) => all[i] !== CONTENTS[i]);
    const first = zeros[0]! - (zeros[0]! % EACH[kind]);
    expect(said).toEqual([expect.stringMatching(new RegExp(`^the ${kind} file is damaged at byte 0x`))]);
    expect(said[0]).toContain(`from byte 0x${first.toString(16)} on`);
    expect(zeros.at(-1)! - first).toBeLessThan(EACH[kind]);
    expect(all.subarray(first, first + EACH[kind]).every((byte) => byte === 0)).toBe(true);
    expect([first - 0x1000, first, first + 0x1000].map((at) => source.damagedPages.has(at))).toEqual([
      false,
      true,
      true,
    ]);
    await source.unpackRest();
    expect(said).toHaveLength(1);
  });

  it('gives no page of a damaged frame as the guest’s', async () => {
    const contents = noise(0x180000);
    const file = kind === 'gzip' ? bgzfOf(contents, EACH.gzip) : await seekableZstd(contents, EACH.zstd);
    const source = (await framed(flipped(file, file.length - 0x1000)))!;
    const image = openSource(source, { format: 'raw', runs: [{ start: 0, size: undefined }] });
    await source.unpackRest();
    const sound = (page: number) => image.readSync(page, Buffer.alloc(0x1000));
    const pages = Array.from({ length: contents.length / 0x1000 }, (_, i) => i * 0x1000);
    const lost = pages.filter((page) => !sound(page));
    expect(lost).toHaveLength(EACH[kind] / 0x1000);
    expect(lost.every((page) => source.damagedPages.has(page))).toBe(true);
  });

  it('names a few damaged frames, and sums up the others', async () => {
    const contents = Buffer.alloc(40 * EACH[kind], 'some text');
    const file = kind === 'gzip' ? bgzfOf(contents, EACH.gzip) : await seekableZstd(contents, EACH.zstd);
    const sound = (await framed(file))!;
    const damaged = Buffer.from(file);
    for (let i = 0, from = 0; i < 40; i++) {
      const next = kind === 'gzip' ? from + damaged.readUInt16LE(from + 16) + 1 : from + (await frameSize());
      damaged[next - 9]! ^= 1;
      from = next;
    }
    const source = (await framed(damaged))!;
    await source.unpackRest();
    expect(source.damage).toHaveLength(11);
    expect(source.damage[10]).toBe(`further parts of the ${kind} file are damaged: their contents are zeros`);
    expect(sound.damage).toEqual([]);

    async function frameSize(): Promise<number> {
      return (await zstdFrame(contents.subarray(0, EACH.zstd))).length;
    }
  });

  it('is read as a stream when it is cut off', async () => {
    for (const cut of [1, 12, 30, 500]) expect(await framed(files[kind].subarray(0, -cut))).toBeUndefined();
  });

  it('never gives a wrong byte, wherever its bytes are changed', async () => {
    const file = files[kind];
    // Of the first and last bytes every one matters.
    const place = fc.oneof(
      fc.nat(file.length - 1),
      fc.nat(64),
      fc.nat(0x100).map((back) => file.length - 1 - back),
    );
    const changes = fc.array(fc.tuple(place, fc.nat(255)), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(changes, async (all) => {
        const changed = Buffer.from(file);
        for (const [at, value] of all) changed[at] = value;
        const source = await framed(changed);
        if (!source) return;
        const read = await readAll(source);
        for (let page = 0; page < read.length; page += 0x1000) {
          const bytes = read.subarray(page, page + 0x1000);
          const isLost = source.damagedPages.has(page) && bytes.every((byte) => byte === 0);
          expect(isLost || bytes.equals(CONTENTS.subarray(page, page + 0x1000))).toBe(true);
        }
        expect(read.length === CONTENTS.length || source.damage.length > 0).toBe(true);
      }),
      { numRuns: 300 },
    );
  });
});

describe('a BGZF file', () => {
  const parts = [0, 1, 2, 3].map((i) => CONTENTS.subarray(0x4000 * i, 0x4000 * (i + 1)));
  const members = parts.map(bgzfMember);

  it('may lack its end-of-file marker, or have several', async () => {
    for (const ends of [0, 1, 3]) {
      const file = Buffer.concat([...members, ...Array.from({ length: ends }, () => bgzfMember(Buffer.alloc(0)))]);
      expect((await readAll((await framed(file))!)).equals(Buffer.concat(parts))).toBe(true);
    }
  });

  it('with members of different sizes, or other members between, is read as a stream', async () => {
    const short = bgzfMember(CONTENTS.subarray(0, 0x100));
    const [first, ...others] = members as [Buffer, ...Buffer[]];
    for (const file of [
      Buffer.concat([first, short, ...others]),
      Buffer.concat([short, first, ...others]),
      Buffer.concat([first, bgzfMember(Buffer.alloc(0)), ...others]),
      Buffer.concat([bgzfMember(Buffer.alloc(0)), first]),
      Buffer.concat([first, Buffer.from('and more')]),
    ]) {
      expect(await framed(file)).toBeUndefined();
    }
  });

  it('whose trailer is damaged keeps every other member in its place', async () => {
    const file = Buffer.concat(members);
    const source = (await framed(flipped(file, members[0]!.length + members[1]!.length - 1)))!;
    const all = await readAll(source);
    expect(all.subarray(0, 0x4000).equals(parts[0]!)).toBe(true);
    expect(all.subarray(0x4000, 0x8000).every((byte) => byte === 0)).toBe(true);
    expect(all.subarray(0x8000).equals(Buffer.concat(parts.slice(2)))).toBe(true);
    expect(source.damage).toHaveLength(1);
  });
});

describe('a seek table', () => {
  const lies: [string, (table: SeekTable) => void][] = [
    ['moves a frame', ({ entries }) => move(entries, 'compressed')],
    ['moves contents', ({ entries }) => move(entries, 'contents')],
    ['leaves a frame out', (table) => table.entries.shift() && resize(table, -1)],
    ['has a frame too many', (table) => table.entries.push({ compressed: 8, contents: 0 }) && resize(table, 1)],
    ['exchanges frames', ({ entries }) => entries.reverse()],
    ['makes contents enormous', ({ entries }) => Object.assign(entries[2]!, { contents: 0xffffffff })],
    ['has an empty frame', ({ entries }) => Object.assign(entries[1]!, { compressed: 0 })],
    ['says that it has no frame', (table) => Object.assign(table, { count: 0 })],
    ['says that it has more frames than bytes', (table) => Object.assign(table, { count: 0x7ffffff })],
    ['says that it has checksums', (table) => Object.assign(table, { descriptor: 0x80 })],
    ['uses a reserved bit', (table) => Object.assign(table, { descriptor: 4 })],
    ['lies in another kind of frame', (table) => Object.assign(table, { skippable: 0x184d2a50 })],
    ['has another magic', (table) => Object.assign(table, { magic: 0x8f92eab0 })],
  ];
  it.each(lies)('that %s is not used', async (_, lie) => {
    const file = await seekableZstd(CONTENTS, EACH.zstd, lie);
    expect(await framed(file)).toBeUndefined();
    expect((await streamed(file)).equals(CONTENTS)).toBe(true);
  });

  it('is not used where it is longer than it says', async () => {
    const longer = (table: SeekTable) => Object.assign(table, { size: table.size + 8 });
    expect(await framed(await seekableZstd(CONTENTS, EACH.zstd, longer))).toBeUndefined();
  });

  it('may have checksums, and unused bits', async () => {
    const plain = await seekableZstd(CONTENTS, EACH.zstd);
    const unused = Buffer.from(plain);
    unused[plain.length - 5] = 3;
    expect((await readAll((await framed(unused))!)).equals(CONTENTS)).toBe(true);
  });

  it('is used although the header of a frame is damaged', async () => {
    const plain = files.zstd;
    const second = (await zstdFrame(CONTENTS.subarray(0, EACH.zstd))).length;
    const source = (await framed(flipped(plain, second)))!;
    const all = await readAll(source);
    expect(all.subarray(EACH.zstd, 2 * EACH.zstd).every((byte) => byte === 0)).toBe(true);
    expect(all.subarray(2 * EACH.zstd).equals(CONTENTS.subarray(2 * EACH.zstd))).toBe(true);
    expect(source.damage).toHaveLength(1);
  });

  function move(entries: SeekTable['entries'], what: 'compressed' | 'contents'): void {
    entries[2]![what] -= 16;
    entries[3]![what] += 16;
  }
  function resize(table: SeekTable, frames: number): void {
    table.count += frames;
    table.size += 8 * frames;
  }
});
