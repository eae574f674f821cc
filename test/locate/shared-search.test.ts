// Raw memory of an unknown machine: one search serves all machines, and finds what one for each would.
import { describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { areSameBytes, everyPage, MemorySearch, searchMemory } from '../../src/locate/memory-search.ts';
import { MACHINES } from '../../src/machines/index.ts';
import type { MemoryImage } from '../../src/memory/image.ts';
import { openRaw } from '../../src/readers/raw.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import { buildArm64Guest } from '../guest/arm64.ts';
import { buildGuest } from '../guest/guest.ts';
import { buildGuest32 } from '../guest/x86/guest.ts';
import { imageOf } from '../support/images.ts';

const MIB = 2 ** 20;
const PAGE = 0x1000;
const RAM_OF_VIRT = 0x4000_0000;
const SHARED_USER_DATA = 0xfffff780_00000000n;

const GUESTS: Record<string, () => Buffer> = {
  x64: () => buildGuest({ seed: 101, ramMiB: 16, processors: 3 }).memory.flat(0, 16 * MIB),
  x86: () => {
    const guest = buildGuest32({ seed: 102, processors: 2 });
    return guest.memory.flat(0, guest.ramBytes);
  },
  ARM64: () =>
    buildArm64Guest({ seed: 103, processors: 2, ramMiB: 16 }).memory.flat(RAM_OF_VIRT, RAM_OF_VIRT + 16 * MIB),
};
const guests = Object.keys(GUESTS);

/** Counts what is read by the search, which does not wait for it. */
class CountingSource extends BufferSource {
  searched = 0;

  override async read(offset: number, target: Uint8Array): Promise<void> {
    this.searched += target.length;
    await super.read(offset, target);
  }
}

/** The image of each machine that a search goes through, in the machines' order. */
const firstOfEach = (image: MemoryImage): MemoryImage[] =>
  MACHINES.map((machine) => [image, ...image.alternatives].find((each) => each.machine === machine)!);

const summary = ({ root, kernel, kdbg, processors, modules, image }: Awaited<ReturnType<typeof locateWindows>>) => ({
  root,
  kernel,
  kdbg,
  processors,
  modules,
  runs: image.runs,
  machine: image.machine.name,
});

describe('one search for all machines', () => {
  it.each(guests)('finds what one for each finds: %s', async (name) => {
    const bytes = GUESTS[name]!();
    const images = firstOfEach(openRaw(new BufferSource(bytes, 'raw')));
    expect(images.every((image) => areSameBytes(images[0]!, image))).toBe(true);
    const shared = new MemorySearch(images);
    let clues = 0;
    for (const image of images) {
      const result = await shared.run(() => false, image);
      for (const scan of [undefined, everyPage()]) expect(result).toEqual(await searchMemory(image, { scan }));
      if (image.machine.name === name) clues = result.roots.length * result.kpcrs.length;
    }
    expect(clues).toBeGreaterThan(0);
  });

  it.each(guests)('reads memory once: %s', async (name) => {
    const bytes = Buffer.concat([GUESTS[name]!(), Buffer.alloc(48 * MIB)]);
    const source = new CountingSource(bytes, 'raw');
    const windows = await locateWindows(openRaw(source));
    // 32-bit Windows with PAE is known by tables alone, of which the newest have to be chosen; that of ARM64 is looked for
    // at other places too.
    expect(source.searched).toBeLessThan(name === 'x64' ? 8 * MIB : bytes.length + (bytes.length / MIB) * PAGE);
    const alone = MACHINES.filter((machine) => machine.name === name);
    expect(summary(windows)).toEqual(
      summary(await locateWindows(openRaw(new BufferSource(bytes, 'raw'), undefined, alone))),
    );
  });

  it('goes on for the one of them that it is narrowed to', async () => {
    const images = firstOfEach(openRaw(new BufferSource(GUESTS['ARM64']!(), 'raw')));
    const search = new MemorySearch(images);
    await search.run(({ rank }) => rank === 0);
    expect(search.finished).toBe(false);
    const last = images.at(-1)!;
    search.narrowTo(last);
    expect(await search.run(() => false, last)).toEqual(await searchMemory(last));
    expect(search.finished).toBe(true);
  });

  it('reads memory once where no Windows is in it, and once more for shifted layouts', async () => {
    const source = new CountingSource(Buffer.alloc(32 * MIB, 0x41), 'raw');
    await expect(locateWindows(openRaw(source))).rejects.toMatchObject({ code: 'windows-not-found' });
    const overlaps = 32 * PAGE;
    expect(source.searched).toBeLessThanOrEqual(2 * source.size + overlaps);
  });

  it('has the newest of two systems in raw memory, wherever they are', async () => {
    const guest = buildGuest({ seed: 104, ramMiB: 16, startBlock: false });
    const { memory, truth } = guest;
    const bytes = memory.flat(0, 16 * MIB);
    const time = (at: number) => bytes.readUInt32LE(at + 0x18);
    // An earlier boot's root in the first block: its own tables lead to a SharedUserData with an older time.
    const [root, ...tables] = [0x3000, 0x4000, 0x5000, 0x6000, 0x7000];
    bytes.copy(bytes, root, truth.root, truth.root + PAGE);
    for (let i = 256; i < 512; i++) {
      const entry = bytes.readBigUInt64LE(root! + 8 * i);
      if ((entry & 0xf_ffff_ffff_f000n) === BigInt(truth.root))
        bytes.writeBigUInt64LE(BigInt(root!) | 0x63n, root! + 8 * i);
    }
    const shared = guest.kernel.translate(SHARED_USER_DATA)!;
    [39n, 30n, 21n, 12n].forEach((shift, level) => {
      const entry = 8 * Number((SHARED_USER_DATA >> shift) & 0x1ffn);
      bytes.writeBigUInt64LE(BigInt(tables[level]!) | 0x63n, (level === 0 ? root! : tables[level - 1]!) + entry);
    });
    const old = tables[3]!;
    bytes.copy(bytes, old, shared, shared + PAGE);
    for (const at of [0x18, 0x1c]) bytes.writeInt32LE(bytes.readInt32LE(old + at) - 1, old + at);
    // The running system's tables are in a later block.
    expect(time(old)).not.toBe(time(shared));
    const found = await locateWindows(openRaw(new BufferSource(bytes, 'raw')));
    expect(found.root).toBe(truth.root);
    expect(found.diagnostics.list.map(({ code }) => code)).toContain('rival-windows');
  });

  it('has the machine first whose Windows is in memory, whatever comes first in the list', async () => {
    const bytes = GUESTS['ARM64']!();
    for (const machines of [MACHINES, MACHINES.toReversed()]) {
      const { image } = await locateWindows(openRaw(new BufferSource(bytes, 'raw'), undefined, machines));
      expect(image.machine.name).toBe('ARM64');
    }
  });
});

describe('images of the same bytes', () => {
  const source = new BufferSource(Buffer.alloc(4 * MIB), 'raw');
  it('are those whose pieces of the input are the same, at whatever addresses', () => {
    const [zero, high] = [[{ start: 0, size: 4 * MIB }], [{ start: RAM_OF_VIRT, size: 4 * MIB }]].map((ranges) =>
      openRaw(source, ranges),
    );
    expect(areSameBytes(zero!, high!)).toBe(true);
    const split = openRaw(source, [
      { start: 0, size: MIB },
      { start: 8 * MIB, size: 3 * MIB },
    ]);
    expect(areSameBytes(zero!, split)).toBe(false);
    const swapped = openRaw(source, [
      { start: 8 * MIB, size: 3 * MIB },
      { start: 0, size: MIB },
    ]);
    expect(areSameBytes(split, swapped)).toBe(false);
    // What is decoded has no place in the input.
    const decoded = imageOf([{ start: 0, bytes: Buffer.alloc(PAGE) }]);
    expect(areSameBytes(decoded, decoded)).toBe(false);
  });
});
