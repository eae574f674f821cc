import { describe, expect, it } from 'vitest';
import { pa } from '../../src/core/units.ts';
import { PAGING_4_LEVELS } from '../../src/machines/x64/paging.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import { MemoryImage } from '../../src/memory/image.ts';
import { PAGE, PageTables, PhysicalMemory } from '../guest/memory.ts';
import { imageOf } from '../support/images.ts';

const KERNEL = 0xfffff800_00000000n;
const MASK64 = (1n << 64n) - 1n;
const TRANSITION = 0x880n;
/** Of a page whose address has the swizzled bit itself. */
const NOT_SWIZZLED = 0x10n;

/** `samples` kernel pages in transition whose entries have `bits` besides their address, and one behind a prototype. */
function made(bits: bigint, samples = 1) {
  const memory = new PhysicalMemory(2 << 20, 1);
  const tables = new PageTables(memory);
  tables.mapNew(KERNEL, PAGE);
  const pages = Array.from({ length: samples }, () => memory.allocate());
  pages.forEach((page, i) => {
    tables.setEntry(KERNEL + BigInt((i + 1) * PAGE), BigInt(page) | TRANSITION | bits);
  });
  const shared = memory.allocate();
  tables.u64(KERNEL + 0x100n, BigInt(shared) | 0x63n);
  const prototype = ((KERNEL + 0x100n) << 16n) & MASK64;
  tables.setEntry(KERNEL + BigInt((samples + 1) * PAGE), prototype | 0x400n | bits);
  return { memory, tables, pages, shared, behindPrototype: KERNEL + BigInt((samples + 1) * PAGE) };
}

function spaceOf({ memory, tables }: ReturnType<typeof made>, cut = false): AddressSpace {
  const image = imageOf([{ start: 0, bytes: memory.flat(0, memory.bytes) }]);
  const missing = [{ what: 'memory', how: 'cut off', text: 'the file is cut off' }] as const;
  return new AddressSpace(cut ? cutOff(image, missing) : image, pa(tables.root), PAGING_4_LEVELS);
}

const cutOff = (image: MemoryImage, missing: ConstructorParameters<typeof MemoryImage>[0]['missing']) =>
  new MemoryImage({
    file: image.file,
    format: image.format,
    machine: image.machine,
    cpus: [],
    notes: [],
    diagnostics: image.diagnostics,
    missing,
    contents: {
      kind: 'decoded',
      runs: image.runs,
      reader: {
        readSync: (run, offset, target) => image.readSync(run.start + offset, target),
        read: (run, offset, target) => image.read(run.start + offset, target),
      },
      close: () => undefined,
    },
  });

describe('entries that are swizzled against L1TF', () => {
  it.each([35, 38, 39, 45, 47, 51])('with bit %i lead to their pages, prototypes too', (bit) => {
    const guest = made(1n << BigInt(bit));
    const space = spaceOf(guest);
    expect(space.translate(KERNEL + 0x1123n)).toBe(guest.pages[0]! + 0x123);
    expect(space.translate(guest.behindPrototype + 0x123n)).toBe(guest.shared + 0x123);
  });

  it('keep the bit where the page has it itself', () => {
    const guest = made(1n << 38n);
    guest.tables.setEntry(KERNEL + 0x20_0000n, (1n << 38n) | 0x5000n | TRANSITION | NOT_SWIZZLED);
    expect(spaceOf(guest).translate(KERNEL + 0x20_0000n)).toBe(2 ** 38 + 0x5000);
  });

  it('are as they say where no bit is in all of them', () => {
    const guest = made(0n, 8);
    guest.tables.setEntry(KERNEL + 0x20_0000n, (1n << 38n) | 0x5000n | TRANSITION);
    const space = spaceOf(guest);
    expect(space.translate(KERNEL + 0x20_0000n)).toBe(2 ** 38 + 0x5000);
    expect(space.translate(KERNEL + 0x1000n)).toBe(guest.pages[0]);
    expect(space.translate(guest.behindPrototype)).toBe(guest.shared);
  });

  it('are as they say where missing memory could have the bit, unless many have it', () => {
    const few = made(1n << 36n, 3);
    expect(spaceOf(few, true).translate(KERNEL + 0x1000n)).toBe(few.pages[0]! + 2 ** 36);
    const many = made(1n << 36n, 40);
    expect(spaceOf(many, true).translate(KERNEL + 0x1000n)).toBe(many.pages[0]);
  });
});

describe('entries that are pointers', () => {
  it.each([0x800n, 0x880n, 0x400n, 0xff0n])('are not taken for others (low bits %s)', (low) => {
    const pointer = 0xffff8000_00005000n | low;
    const { kind } = PAGING_4_LEVELS.decode(3, Number(pointer & 0xffff_ffffn), Number(pointer >> 32n));
    expect(kind).toBe('absent');
  });
});
