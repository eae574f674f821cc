import { describe, expect, it } from 'vitest';
import { Reason } from '../../src/core/reason.ts';
import { pa } from '../../src/core/units.ts';
import { Evidence } from '../../src/windows/evidence.ts';
import { findExport, nearestExport, readExports, readPeImage } from '../../src/windows/pe-image.ts';
import { missingRam, ramRanges, readPhysicalMemoryBlock } from '../../src/windows/physical-memory.ts';
import { findProcessors } from '../../src/windows/processors.ts';
import { readSharedUserData, type SharedData } from '../../src/windows/shared-user-data.ts';
import { findVersion } from '../../src/windows/version.ts';
import { imageOf } from '../support/images.ts';
import { knownGuest } from '../support/known-guest.ts';

describe('SharedUserData', () => {
  it('has the times, the product and the suites', () => {
    const { space, truth } = knownGuest();
    const { systemTime, upTime, productType, suiteMask } = truth;
    expect(readSharedUserData(space)).toMatchObject({ systemTime, interruptTime: upTime, productType, suiteMask });
  });

  it('has no time while the time is being written', () => {
    const { space } = knownGuest({}, (guest) => guest.kernel.write(0xfffff780_0000001cn, Buffer.alloc(4, 0xee)));
    expect(readSharedUserData(space)).toMatchObject({ systemTime: undefined });
  });

  it('has no time that no clock can show', () => {
    const { space } = knownGuest({}, ({ kernel }) => {
      for (const high of [0x18n, 0x1cn]) kernel.u32(0xfffff780_00000000n + high, 2 ** 26);
    });
    expect(readSharedUserData(space)).toMatchObject({ systemTime: undefined });
  });

  it.each([
    ['of all bits', [0xeeee_eeee, 0xeeee_eeee]],
    ['that no Windows has', [10, 2]],
    ['of 32-bit Windows alone', [5, 1]],
  ])('is refused with a version %s', (_, [major, minor]) => {
    const { space } = knownGuest({}, ({ kernel }) => {
      kernel.u32(0xfffff780_0000026cn, major!);
      kernel.u32(0xfffff780_00000270n, minor!);
    });
    expect(readSharedUserData(space)).toBeInstanceOf(Reason);
  });
});

describe('MmPhysicalMemoryBlock', () => {
  it('lists the RAM', () => {
    const { space, fields, truth } = knownGuest();
    const ranges = readPhysicalMemoryBlock(space, fields.MmPhysicalMemoryBlock);
    expect(ranges).toEqual(
      truth.physicalMemory.map(({ basePage, pageCount }) => ({ start: basePage * 4096, size: pageCount * 4096 })),
    );
  });

  it.each([
    ['runs that overlap', [1n, 8n, 8n, 4n], 12n],
    ['an empty run', [1n, 0n], 0n],
    ['runs beyond the physical addresses', [2n ** 40n, 1n], 1n],
    ['a total that is not the sum', [1n, 8n], 9n],
  ])('is refused with %s', (_, words, total) => {
    const runs = Array.from({ length: words.length / 2 }, (_, i) => ({
      basePage: words[2 * i]!,
      pageCount: words[2 * i + 1]!,
    }));
    expect(ramRanges(runs, total, 'test')).toBeInstanceOf(Reason);
  });

  it.each([0, 4097, 0xffff_ffff])('is refused with %i runs, whatever follows them', (count) => {
    const variable = knownGuest().fields.MmPhysicalMemoryBlock!;
    const { space, fields } = knownGuest({}, ({ kernel }) =>
      kernel.u32(kernel.read(variable, 8).readBigUInt64LE(), count),
    );
    const found = readPhysicalMemoryBlock(space, fields.MmPhysicalMemoryBlock);
    expect(`${found}`).toMatch(new RegExp(`claims ${count} runs$`));
  });
});

describe("Windows' RAM", () => {
  const MEMORY = [
    { start: 0x1000, bytes: Buffer.alloc(0x4000) },
    { start: 0x8000, bytes: Buffer.alloc(0x2000) },
  ];
  const ram = (...ranges: [start: number, size: number][]) =>
    ranges.map(([start, size]) => ({ start: pa(start), size }));

  it.each([
    ['all there', ram([0x1000, 0x4000], [0x8000, 0x1000]), undefined],
    ['a run that is not there', ram([0x1000, 0x1000], [0x10000, 0x2000]), '8 KiB .*: 0x10000-0x12000$'],
    ['the end of one', ram([0x3000, 0x4000]), '8 KiB .*: 0x5000-0x7000$'],
    ['what lies between two', ram([0x1000, 0x9000]), '12 KiB .*: 0x5000-0x8000$'],
  ])('is compared with the file: %s', (_, ranges, expected) => {
    const missing = missingRam(imageOf(MEMORY), ranges);
    if (expected === undefined) expect(missing).toBeUndefined();
    else
      expect(missing).toMatch(
        new RegExp(`^${expected.replace('.*', 'of what Windows counts as RAM is not in the file')}`),
      );
  });
});

describe('the PE image of the kernel', () => {
  it('names itself, its PDB and its exports', () => {
    const { space, kernel, truth } = knownGuest();
    expect([kernel.exportName, kernel.pdb?.name]).toEqual(['ntoskrnl.exe', 'ntkrnlmp.pdb']);
    for (const [name, address] of truth.exports)
      expect([name, findExport(space, kernel, name)]).toEqual([name, address]);
    expect(findExport(space, kernel, 'KeNoSuchThing')).toBeUndefined();
  });

  it('gives the nearest export at or below an address', () => {
    const { space, kernel, truth } = knownGuest();
    expect(nearestExport(space, readExports(space, kernel)!, truth.exports.get('PoIdle')! + 5n)).toMatchObject({
      name: 'PoIdle',
      offset: 5,
    });
  });

  it('is refused without MZ, and for another machine', () => {
    const { space, truth } = knownGuest();
    expect(readPeImage(space, truth.kernelBase + 0x1000n, 0x8664)).toBeInstanceOf(Reason);
    expect(readPeImage(space, truth.kernelBase, 0xaa64)).toBeInstanceOf(Reason);
  });
});

it('the version has the build, and a warning where the sources disagree', () => {
  const versionOf = ({ space, kernel, kdbg, fields, image }: ReturnType<typeof knownGuest>) => {
    const { processors } = findProcessors(space, fields);
    const shared = readSharedUserData(space) as SharedData;
    const version = findVersion({ space, kernel, kdbg, processors, shared }, new Evidence());
    return { version, codes: image.diagnostics.list.map(({ code }) => code) };
  };
  const sound = versionOf(knownGuest());
  expect([sound.version?.build, sound.codes]).toEqual([19041, []]);
  const other = versionOf(
    knownGuest({}, ({ kernel, truth }) => kernel.write(truth.kernelBase + 0x36200n, Buffer.from([1, 0, 0, 0xf0]))),
  );
  expect(other.codes).not.toEqual([]);
  // The block that the KPCR names is another kernel's.
  const foreign = versionOf(
    knownGuest({ build: 'server2003' }, ({ kernel, truth }) => {
      const block = kernel.read(truth.processors[0]!.kpcr + 0x108n, 8).readBigUInt64LE();
      kernel.u64(block + 0x10n, truth.kernelBase + 0x20_0000n);
    }),
  );
  expect([foreign.version?.kdVersionBlock, foreign.version?.build]).toEqual([undefined, 3790]);
  expect(versionOf(knownGuest({ build: 'server2003' })).version?.kdVersionBlock).toBeDefined();
});
