import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HoleMap } from '../../src/files/holes.ts';
import { convert } from '../../src/index.ts';
import { MIN_HOLE, withoutHoles, withoutZeros } from '../../src/write/sparse.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import fc from '../support/properties.ts';

describe('what is worth writing', () => {
  it('leaves out holes that are long and unpatched, and nothing else', () => {
    const unit = MIN_HOLE / 4;
    const holes = fc
      .uniqueArray(fc.nat(64), { maxLength: 30 })
      .map((cuts) => cuts.sort((a, b) => a - b))
      .map((cuts) =>
        Array.from({ length: cuts.length >> 1 }, (_, i) => ({
          from: cuts[2 * i]! * unit,
          to: cuts[2 * i + 1]! * unit,
        })),
      );
    const patches = fc.array(fc.nat(64 * unit), { maxLength: 2 });
    fc.assert(
      fc.property(holes, patches, fc.nat(20), fc.nat(40), (all, places, start, length) => {
        const [from, to] = [start * unit, (start + length) * unit];
        const inside = all
          .map((hole) => ({ from: Math.max(from, hole.from), to: Math.min(to, hole.to) }))
          .filter((hole) => hole.from < hole.to);
        const patched = places.map((physical) => ({ physical, bytes: Buffer.alloc(8) }) as never);
        const spans = withoutHoles(from, to, inside, patched);
        for (let at = from; at < to; at += unit) {
          const hole = inside.find((h) => at >= h.from && at < h.to);
          const hit = hole && places.some((p) => p < hole.to && hole.from < p + 8);
          const out = hole !== undefined && hole.to - hole.from >= MIN_HOLE && !hit;
          expect(spans.some((s) => at >= s.from && at < s.to)).toBe(!out);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('finds zeros by blocks of the file, wherever the buffer begins', () => {
    fc.assert(
      fc.property(fc.nat(3 * MIN_HOLE), fc.array(fc.nat(6 * MIN_HOLE - 1), { maxLength: 4 }), (position, marks) => {
        const bytes = Buffer.alloc(6 * MIN_HOLE);
        for (const mark of marks) bytes[mark] = 1;
        const copy = Buffer.alloc(bytes.length);
        let written = 0;
        for (const part of withoutZeros(bytes, position)) {
          part.bytes.copy(copy, part.at);
          written += part.bytes.length;
        }
        expect(copy.equals(bytes)).toBe(true);
        const blocks = new Set(marks.map((mark) => Math.floor((position + mark) / MIN_HOLE)));
        expect(written).toBeLessThanOrEqual(blocks.size * MIN_HOLE);
      }),
      { numRuns: 200 },
    );
  });

  it('asks for holes in any order', () => {
    const holes = [
      { from: 0, to: 10 },
      { from: 30, to: 50 },
      { from: 90, to: 100 },
    ];
    const map = HoleMap.of(100, holes);
    expect([...map.within(0, 100)]).toEqual(holes);
    expect([...map.within(35, 95)]).toEqual([
      { from: 35, to: 50 },
      { from: 90, to: 95 },
    ]);
    expect([...map.within(5, 20)]).toEqual([{ from: 5, to: 10 }]);
    expect([...map.within(50, 90)]).toEqual([]);
  });
});

describe('a sparse input', () => {
  let dir: string;
  let guest: Guest;
  const at = (name: string) => join(dir, name);

  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-sparse-'));
    guest = buildGuest({ seed: 90, ramMiB: 32 });
    const elf = writeElf(guest);
    // Its pages lie across the file's blocks: holes are where both are zero.
    const fd = openSync(at('vm.elf'), 'w');
    ftruncateSync(fd, elf.length);
    for (let block = 0; block < elf.length; block += 4096) {
      const bytes = elf.subarray(block, block + 4096);
      if (bytes.some((byte) => byte !== 0)) writeSync(fd, bytes, 0, bytes.length, block);
    }
    closeSync(fd);
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  const dump = async (sparse: 'auto' | 'always' | 'never', input = at('vm.elf')) => {
    const output = at(`${sparse}.dmp`);
    await convert({ input, output, sparse, force: true });
    return { bytes: readFileSync(output), disk: statSync(output).blocks * 512 };
  };

  it('gives the same bytes in less room, and as much room as asked', async () => {
    const [auto, always, never] = [await dump('auto'), await dump('always'), await dump('never')];
    expect(auto.bytes.equals(never.bytes)).toBe(true);
    expect(always.bytes.equals(never.bytes)).toBe(true);
    expect(never.disk).toBeGreaterThanOrEqual(never.bytes.length);
    expect(auto.disk).toBeLessThan(never.disk / 2);
    expect(always.disk).toBeLessThan(never.disk / 2);
  });

  it('with zeros written out keeps them, unless told otherwise', async () => {
    const fd = openSync(at('full.elf'), 'w');
    writeSync(fd, writeElf(guest));
    closeSync(fd);
    const [auto, always] = [await dump('auto', at('full.elf')), await dump('always', at('full.elf'))];
    expect(always.bytes.equals(auto.bytes)).toBe(true);
    expect(auto.disk).toBeGreaterThanOrEqual(auto.bytes.length);
    expect(always.disk).toBeLessThan(auto.disk / 2);
  });

  it('that ends with a hole gives a dump of full size', async () => {
    const elf = writeElf(buildGuest({ seed: 91 }), {
      runs: [
        [0, 0xa0000],
        [0x100000, 0x1000000],
        [0x1_0000_0000, 0x1_0200_0000],
      ],
    });
    const fd = openSync(at('tail.elf'), 'w');
    writeSync(fd, elf.subarray(0, elf.length - 0x2000000));
    ftruncateSync(fd, elf.length);
    closeSync(fd);
    const { bytes } = await dump('auto', at('tail.elf'));
    expect(bytes.length).toBe(0x2000 + 0xa0000 + 0xf00000 + 0x2000000);
  });
});
