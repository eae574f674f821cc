// What the search of memory goes by on ARM64: the fast first look has to find all that the second does.
import { describe, expect, it } from 'vitest';
import { ARM64 } from '../../src/machines/arm64/index.ts';
import { createScanMemory } from '../../src/machines/page-scan.ts';
import { buildArm64Guest } from '../guest/arm64.ts';

const PAGE = 0x1000;

/** Clues of pages, as the search asks for them. */
function cluesOf(pages: readonly { at: number; bytes: Buffer }[]) {
  const memory = createScanMemory(pages.length * PAGE + PAGE, 1);
  const scan = ARM64.createPageScan(memory)!;
  const buffer = memory.buffers[0]!;
  pages.forEach(({ bytes }, i) => {
    bytes.copy(buffer, i * PAGE);
  });
  const words = new Uint32Array(buffer.buffer, buffer.byteOffset, buffer.length / 4);
  const all = pages.map(({ at }, i) => [...ARM64.pageClues(words, (i * PAGE) / 4, at)]);
  return { all: all.flat(), scan, length: pages.length * PAGE };
}

describe('clues of Windows in ARM64 memory', () => {
  const guest = buildArm64Guest({ processors: 3 });
  const { truth, kernel, memory } = guest;
  const page = (at: number) => ({ at, bytes: memory.page(at) });
  const kpcr = page(kernel.translate(truth.processors[1]!.kpcr)!);
  const changed = (change: (bytes: Buffer) => void) => {
    const bytes = Buffer.from(kpcr.bytes);
    change(bytes);
    return cluesOf([{ at: kpcr.at, bytes }]).all;
  };

  it('are a KPCR with the root, the kernel and its address, and self-maps', () => {
    expect(cluesOf([kpcr]).all).toEqual([
      { kind: 'root', root: truth.root, how: 'use by a KPCR', rank: 0 },
      { kind: 'kpcr', virtual: truth.processors[1]!.kpcr, leadsTo: { code: guest.vbar } },
    ]);
    expect(cluesOf([page(truth.root)]).all).toEqual([{ kind: 'root', root: truth.root, how: 'self-map', rank: 1 }]);
    const user = truth.processes[2]!.root;
    expect(cluesOf([page(user)]).all).toMatchObject([{ root: user, rank: 1 }]);
  });

  it('are all seen by the first look, and few pages besides', () => {
    const addresses = [...memory.pages.keys()].sort((a, b) => a - b);
    // The scan takes pages that lie one behind another.
    const from = addresses[0]!;
    const count = (addresses.at(-1)! - from) / PAGE + 1;
    const { all, scan, length } = cluesOf(Array.from({ length: count }, (_, i) => page(from + i * PAGE)));
    const seen = scan.scan(0, length, length, from);
    const expected = addresses.filter((at) => cluesOf([page(at)]).all.length > 0);
    expect(all.length).toBeGreaterThan(4);
    expect([...seen].map((offset) => from + offset)).toEqual(expect.arrayContaining(expected));
    expect(seen.length).toBeLessThan(expected.length + 4);
  });

  it('are none where the saved state contradicts itself', () => {
    expect(changed((b) => b.writeBigUInt64LE(b.readBigUInt64LE(0xa88) + 0x1000n, 0xa90))).toEqual([]);
    // T0SZ of 16, an unaligned root, vectors that are not the kernel's or not aligned.
    expect(changed((b) => b.writeUInt8(0x10, 0xa80))).toEqual([]);
    const unaligned = (b: Buffer) => {
      for (const at of [0xa88, 0xa90]) b.writeUInt8(b[at]! | 0x10, at);
    };
    expect(changed(unaligned)).toEqual([]);
    expect(changed((b) => b.writeBigUInt64LE(0x1000n, 0xcd0))).toEqual([]);
    expect(changed((b) => b.writeUInt8(0x80, 0xcd0))).toEqual([]);
    expect(changed((b) => b.fill(0, 0xa80, 0xcd8))).toEqual([]);
  });

  it('have the KPCR by its locks where the thread register was not saved', () => {
    expect(changed((b) => b.writeBigUInt64LE(0n, 0x9e0))[1]).toMatchObject({ virtual: truth.processors[1]!.kpcr });
  });
});
