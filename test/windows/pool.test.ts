// Blocks of pool, by pages of headers laid out by literal offsets.
import { describe, expect, it } from 'vitest';
import { type PoolScene, poolAt } from '../../src/windows/pool.ts';
import { knownGuest } from '../support/known-guest.ts';

const PAGE = 0x1000;
const AT = 0xffff9a80_01234000n;
const WINDOWS_7 = 7601;
const SERVER_2003 = 3790;
/** PoolType of an allocated block since Windows Vista. */
const NONPAGED = 2;
const PAGED = 3;

interface Block {
  size: number;
  type: number;
  tag: string;
}

/** A page of blocks, each led back to the one before. */
function pageOf(blocks: readonly Block[]): Buffer {
  const page = Buffer.alloc(PAGE, 0xa5);
  let [at, previous] = [0, 0];
  for (const { size, type, tag } of blocks) {
    page.fill(0, at, at + 16);
    page.writeUInt8(previous / 16, at);
    page.writeUInt8(size / 16, at + 2);
    page.writeUInt8(type, at + 3);
    page.write(tag, at + 4, 'latin1');
    previous = size;
    at += size;
  }
  return page;
}

const BLOCKS: readonly Block[] = [
  { size: 0x50, type: NONPAGED, tag: 'Irp ' },
  { size: 0x1d0, type: NONPAGED, tag: 'Demo' },
  // PROTECTED_POOL.
  { size: 0x400, type: PAGED, tag: 'CM1\xb6' },
  { size: 0x9d0, type: 0, tag: '\0\x01\0\0' },
  { size: 0x10, type: 0, tag: 'MmSt' },
];

const SECOND = AT + 0x50n;

function sceneOf(
  page: Buffer,
  build: number = WINDOWS_7,
  change: (write: (rva: number, value: bigint) => void) => void = () => undefined,
) {
  const { space, kernel, kdbg } = knownGuest({}, (guest) => {
    guest.kernel.mapNew(AT, PAGE);
    guest.kernel.write(AT, page);
    change((rva, value) => guest.kernel.u64(guest.truth.kernelBase + BigInt(rva), value));
  });
  return { space, kernel, kdbg, version: { build } } satisfies PoolScene;
}

const at = (scene: PoolScene, offset: bigint) => poolAt(scene, AT + offset);
const nameOf = (scene: PoolScene, offset: bigint) => at(scene, offset)?.block?.tag;

describe('a page whose headers agree', () => {
  const scene = sceneOf(pageOf(BLOCKS));

  it('names the block of each address, from its header on', () => {
    const second = { address: SECOND, size: 0x1d0, tag: 'Demo', isFree: false };
    for (const offset of [0x50n, 0x60n, 0x21fn]) expect(at(scene, offset)).toEqual({ kind: 'nonpaged', block: second });
    expect(nameOf(scene, 0x4fn)).toBe('Irp ');
    expect(at(scene, 0x220n)).toEqual({
      kind: 'paged',
      block: { address: AT + 0x220n, size: 0x400, tag: 'CM16', isFree: false },
    });
    expect(at(scene, 0xfffn)).toEqual({
      kind: undefined,
      block: { address: AT + 0xff0n, size: 0x10, tag: 'MmSt', isFree: true },
    });
  });

  it('says of a free block without a tag that it is one', () => {
    expect(at(scene, 0x700n)?.block).toMatchObject({ tag: undefined, isFree: true, size: 0x9d0 });
  });

  it('has types as they are stored before Windows Vista', () => {
    const old = sceneOf(pageOf(BLOCKS), SERVER_2003);
    expect([at(old, 0x60n)?.kind, at(old, 0x220n)?.kind]).toEqual(['paged', 'nonpaged']);
  });

  it.each([18362, 19041, 26100])('names nothing in build %i, whose headers are not linked', (build) => {
    expect(at(sceneOf(pageOf(BLOCKS), build), 0x60n)).toBeUndefined();
    expect(at(sceneOf(pageOf(BLOCKS), 17763), 0x60n)).toBeDefined();
  });
});

describe('a page with damage', () => {
  const damaged = (offset: number, ...bytes: number[]) => {
    const page = pageOf(BLOCKS);
    Buffer.from(bytes).copy(page, offset);
    return sceneOf(page);
  };

  it('names the blocks before it, as far as what follows confirms their size', () => {
    // The header at 0x620 was overrun.
    const scene = damaged(0x620, 0x41, 0x41, 0x41, 0x41);
    expect([0n, 0x50n, 0x220n, 0x620n].map((offset) => nameOf(scene, offset))).toEqual([
      'Irp ',
      'Demo',
      undefined,
      undefined,
    ]);
  });

  it.each<[string, number, number[]]>([
    ['a first block with one before it', 0, [1]],
    ['a size of nothing', 2, [0]],
    ['a back size that is another', 0x50, [4]],
    ['a block in use without a tag', 0x54, [0, 0, 0, 0]],
    ['a tag of blanks', 4, [0x20, 0x20, 0x20, 0x20]],
    ['only one size that is confirmed', 0x220, [0]],
  ])('names nothing with %s', (_, offset, bytes) => {
    expect(at(damaged(offset, ...bytes), 0x10n)).toBeUndefined();
  });

  it('names nothing where a size leads beyond the page', () => {
    expect(nameOf(damaged(0x52, 0xff), 0x60n)).toBeUndefined();
  });
});

it.each<[string, Buffer]>([
  ['zeros', Buffer.alloc(PAGE)],
  ['text', Buffer.from('All work and no play makes Jack a dull boy. '.repeat(PAGE / 32)).subarray(0, PAGE)],
  ['pointers', Buffer.from('40316212 8fa5ffff'.replace(' ', '').repeat(PAGE / 8), 'hex')],
  ['small numbers', Buffer.from(Array.from({ length: PAGE }, (_, i) => (i % 4 === 0 ? (i / 4) & 0xff : 0)))],
])('a page of %s is not pool', (_, page) => {
  expect(at(sceneOf(page), 0x60n)).toBeUndefined();
});

it('an address that is not present, or not of the kernel, is not pool', () => {
  const scene = sceneOf(pageOf(BLOCKS));
  expect(poolAt(scene, AT + BigInt(PAGE))).toBeUndefined();
  expect(poolAt(scene, 0x7ff6_12340000n)).toBeUndefined();
});

describe("the kernel's bounds of paged pool", () => {
  const [START, END] = [0x36300, 0x36308];
  const within = (build: number, page: Buffer, end = AT + 0x7fff_ffffn) => {
    const scene = sceneOf(page, build, (write) => {
      write(START, AT - 0x1000n);
      write(END, end);
    });
    const { base } = scene.kernel;
    const fields = { ...scene.kdbg.fields, MmPagedPoolStart: base + BigInt(START), MmPagedPoolEnd: base + BigInt(END) };
    return { ...scene, kdbg: { ...scene.kdbg, fields } };
  };
  const bare = Buffer.alloc(PAGE, 0x11);

  it('name a large allocation, which has no header, before Windows 8', () => {
    expect(at(within(WINDOWS_7, bare), 0x60n)).toEqual({ kind: 'paged', block: undefined });
    expect(at(within(9200, bare), 0x60n)).toBeUndefined();
    expect(at(within(WINDOWS_7, bare, AT), 0x60n)).toBeUndefined();
    // No pool is so large.
    expect(at(within(WINDOWS_7, bare, 0xffffffff_ffffffffn), 0x60n)).toBeUndefined();
  });

  it('say of a free block what it is of, and contradict headers of nonpaged pool', () => {
    const scene = within(WINDOWS_7, pageOf(BLOCKS));
    expect(at(scene, 0x700n)).toMatchObject({ kind: 'paged', block: { isFree: true } });
    expect(at(scene, 0x220n)?.kind).toBe('paged');
    expect(at(scene, 0x60n)).toBeUndefined();
  });
});
