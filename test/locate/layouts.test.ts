// Raw memory says nothing of its layout: what Windows says of its RAM, and what is reached, has to tell it.
import { beforeAll, describe, expect, it } from 'vitest';
import { Diagnostics } from '../../src/core/errors.ts';
import { type PhysicalAddress, pa } from '../../src/core/units.ts';
import { layoutsFor, locateInDump, locateInLayouts } from '../../src/locate/layouts.ts';
import { locateWindows } from '../../src/locate/locator.ts';
import type { MemoryImage } from '../../src/memory/image.ts';
import { openRaw } from '../../src/readers/raw.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import type { Windows } from '../../src/windows/windows.ts';
import { buildArm64Guest } from '../guest/arm64.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { imageOf } from '../support/images.ts';

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

describe('a choice of layouts', () => {
  /** How many of its modules Windows has through a layout, and the RAM that it has beyond, in pages. */
  type Found = [modules: number, missing: number];
  let windows: Windows;
  beforeAll(async () => {
    windows = await locateWindows(openSource(new BufferSource(writeElf(buildGuest({ decoys: false })))));
    expect(windows.modules.length).toBeGreaterThan(2);
  });
  const through = (image: MemoryImage, [modules, missing]: Found): Windows => {
    const [{ start, size }] = image.runs as [{ start: PhysicalAddress; size: number }];
    const physicalMemory = [{ start, size: size + missing * 0x1000 }];
    const diagnostics = new Diagnostics();
    return { ...windows, image, modules: windows.modules.slice(0, modules), physicalMemory, diagnostics, evidence: [] };
  };

  it.each<[string, Found[], number, string[]]>([
    [
      'more is reached, though less of the RAM is there',
      [
        [3, 1],
        [2, 0],
      ],
      0,
      [],
    ],
    [
      'more is reached, and more of the RAM is there',
      [
        [2, 1],
        [3, 0],
      ],
      1,
      [],
    ],
    [
      'as much is reached, and more of the RAM is there',
      [
        [3, 2],
        [3, 1],
      ],
      1,
      ['layout-doubtful'],
    ],
  ])('takes the one through which %s', async (_, found, expected, codes) => {
    const [first, ...others] = found.map((__, i) => imageOf([{ start: 0, bytes: Buffer.alloc((i + 1) * 0x1000) }]));
    const image = imageOf([{ start: 0, bytes: Buffer.alloc(0x1000) }], { alternatives: others });
    expect(image.runs).toEqual(first!.runs);
    const layouts = [image, ...others];
    const best = await locateInLayouts(image, {
      locate: async (layout) => through(layout, found[layouts.indexOf(layout)]!),
    });
    expect(layouts.indexOf(best.image)).toBe(expected);
    expect(best.diagnostics.list.map(({ code }) => code)).toEqual(codes);
  });

  it.each([
    [2, 'the header has'],
    [3, 'the header has'],
    [4, 'Windows has'],
  ])(
    "takes Windows' own runs of a dump only if more is reached: with %i of 3 those that %s",
    async (modules, whose) => {
      const own = imageOf([{ start: 0x4000, bytes: Buffer.alloc(0x2000) }]);
      const image = imageOf([{ start: 0, bytes: Buffer.alloc(0x2000) }], { arrange: () => own });
      const all = [...windows.modules, windows.modules[0]!];
      const found = await locateInDump(image, async (layout) => ({
        ...through(layout, [0, 0]),
        modules: all.slice(0, layout === own ? modules : 3),
        physicalMemory: [{ start: pa(0x4000), size: 0x2000 }],
      }));
      expect(found.image).toBe(whose === 'Windows has' ? own : image);
    },
  );
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

  it('because something comes before the memory of a machine whose RAM does not begin at 0', async () => {
    const { memory, truth } = buildArm64Guest({ seed: 91, ramMiB: 16 });
    const bytes = Buffer.concat([Buffer.alloc(0x3000, 0x37), memory.flat(GIB, GIB + 16 * MIB)]);
    const { image, kernel } = await located(bytes);
    expect(image.machine.name).toBe('ARM64');
    expect(image.runs[0]!.start).toBe(GIB - 0x3000);
    expect(kernel.base).toBe(truth.kernelBase);
  });

  it('is named where nothing helps: the hint speaks of --runs', async () => {
    await expect(located(Buffer.alloc(2 * MIB))).rejects.toMatchObject({
      code: 'windows-not-found',
      details: { hint: expect.stringContaining('--runs') },
    });
  });
});
