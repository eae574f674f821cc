// Raw memory says nothing of its layout: what Windows says of its RAM, and what is reached, has to tell it.
import { describe, expect, it } from 'vitest';
import { pa } from '../../src/core/units.ts';
import { layoutsFor } from '../../src/locate/layouts.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import { openRaw } from '../../src/readers/raw.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import type { Windows } from '../../src/windows/windows.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const ram = (...ranges: [start: number, end: number][]) =>
  ranges.map(([start, end]) => ({ start: pa(start), size: end - start }));

describe("layouts by Windows' list of its RAM", () => {
  const LOW: [number, number] = [0x1000, 0x9f000];
  it.each([
    ['RAM below 4 GiB only', ram(LOW, [MIB, 2 * GIB]), 2 * GIB, []],
    ['1 GiB below the hole', ram(LOW, [MIB, GIB], [4 * GIB, 5 * GIB]), 2 * GIB, ['0+1G 4G+1G']],
    [
      'reserved memory at the end of the low part',
      ram([MIB, 3 * GIB - 8 * MIB], [4 * GIB, 6 * GIB]),
      5 * GIB,
      ['0+3G 4G+2G'],
    ],
    ['a file that lacks some of it', ram(LOW, [MIB, 3 * GIB], [4 * GIB, 6 * GIB]), 4 * GIB, []],
    [
      'ranges one after another',
      ram([0, MIB], [2 * MIB, 4 * MIB]),
      3 * MIB,
      ['0+0.0009765625G 0.001953125G+0.001953125G'],
    ],
  ])('%s', (_, list, size, expected) => {
    const layouts = layoutsFor(list, size);
    expect(
      layouts.map((runs) =>
        runs.map(({ start, size: bytes }) => `${start / GIB}${start > 0 ? 'G' : ''}+${bytes / GIB}G`).join(' '),
      ),
    ).toEqual(expected);
    for (const runs of layouts) expect(runs.map((run) => run.fileOffset)).toEqual([0, runs[0]!.size]);
  });
});

/** Pieces of a guest's memory, one after another. */
const pieces = ({ memory }: Guest, ...ranges: readonly [from: number, to: number][]): Buffer =>
  Buffer.concat(ranges.map(([from, to]) => memory.read(from, to - from)));

async function located(bytes: Buffer): Promise<Windows> {
  const image = openRaw(new BufferSource(bytes, 'raw'));
  return locateWindows(image);
}

describe('raw memory whose addresses are off', () => {
  const guest = buildGuest({ seed: 90, ramMiB: 16 });
  const list = guest.truth.physicalMemory.map(
    ({ basePage, pageCount }) => [basePage * 4096, (basePage + pageCount) * 4096] as [number, number],
  );

  it('because what is not RAM was left out, has the ranges that Windows lists', async () => {
    const { image, kernel, modules, evidence } = await located(pieces(guest, ...list));
    expect(image.runs.map(({ start, size }) => [start, start + size])).toEqual(list);
    expect(kernel.base).toBe(guest.truth.kernelBase);
    expect(modules.map((m) => m.name)).toEqual(guest.truth.modules.map((m) => m.name));
    expect(evidence.filter((a) => a.step === 'memory layout' && a.accepted)).toHaveLength(1);
  });

  it('because something comes before the memory', async () => {
    const bytes = Buffer.concat([Buffer.alloc(0x3000, 0x37), pieces(guest, [0, 16 * MIB])]);
    const { image, kernel } = await located(bytes);
    expect(image.runs).toEqual([{ start: 0, size: 16 * MIB, fileOffset: 0x3000 }]);
    expect(kernel.base).toBe(guest.truth.kernelBase);
  });

  it('is named where nothing helps: the hint speaks of --runs', async () => {
    await expect(located(Buffer.alloc(2 * MIB))).rejects.toMatchObject({
      code: 'windows-not-found',
      details: { hint: expect.stringContaining('--runs') },
    });
  });
});
