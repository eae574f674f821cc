import { describe, expect, it } from 'vitest';
import { decodeBlock, KdbgSearch, searchWithoutBase } from '../../src/locate/kdbg.ts';
import fc, { noise } from '../support/properties.ts';

// Written from the documented formula, not with the code under test.
const MASK = 2n ** 64n - 1n;
const swap = (x: bigint) => Buffer.from(x.toString(16).padStart(16, '0'), 'hex').readBigUInt64LE();
const right = (x: bigint, n: bigint) => ((x >> n) | (x << (64n - n))) & MASK;
const encode = (x: bigint, w: bigint, a: bigint, e: bigint) => right(swap(x ^ a) ^ e, w & 63n) ^ w;

/** The vectors of an implementation that reads real dumps. */
const W = 0x8642097531fedcban;
const A = 0x0f1e2d3c4b5a6978n;
const E = 0xfffff80000222610n;

function block(size: number, kernBase: bigint): Buffer {
  const plain = noise(size, Number((kernBase >> 12n) & 0xffffn));
  plain.writeUInt32LE(0x4742444b, 0x10);
  plain.writeUInt32LE(size, 0x14);
  plain.writeBigUInt64LE(kernBase, 0x18);
  return plain;
}

function encodeBlock(plain: Buffer, w: bigint, a: bigint, e: bigint): Buffer {
  const encoded = Buffer.alloc(plain.length);
  for (let i = 0; i < plain.length; i += 8) encoded.writeBigUInt64LE(encode(plain.readBigUInt64LE(i), w, a, e), i);
  return encoded;
}

describe('search for encoded KDBGs', () => {
  it('agrees with the known vectors', () => {
    expect(encode(0xfffff80000222040n, W, A, E)).toBe(0x6be21bba0c0f248bn);
    expect(encode(0x000003804742444bn, W, A, E)).toBe(0xb2fa0a5a32f0db49n);
    expect(encode(0xfffff80000220000n, W, A, E)).toBe(0x63e21bba0c0f249bn);
    const encoded = Buffer.alloc(32);
    [0x6be21bba0c0f248bn, 0x6be21bba0c0f248bn, 0xb2fa0a5a32f0db49n, 0x63e21bba0c0f249bn].forEach((w, i) => {
      encoded.writeBigUInt64LE(w, 8 * i);
    });
    const found = new KdbgSearch(0xfffff80000220000n).search(encoded);
    expect(found).toEqual([{ offset: 0, size: 0x380, rotation: Number(W & 63n) }]);
    const decoded = decodeBlock(encoded, 0xfffff80000220000n, Number(W & 63n));
    expect(decoded.readBigUInt64LE(0)).toBe(0xfffff80000222040n);
    expect(decoded.readBigUInt64LE(16)).toBe(0x000003804742444bn);
  });

  it('finds a block among zeros, wherever it begins', () => {
    const kernBase = 0xfffff80000220000n;
    const plain = block(0x340, kernBase);
    for (const bytes of [plain, encodeBlock(plain, W, A, E)]) {
      for (let at = 0; at < 0x500; at += 8) {
        const image = Buffer.alloc(0x1000);
        bytes.copy(image, at);
        const offsets = new KdbgSearch(kernBase).search(image).map(({ offset }) => offset);
        expect(offsets, `at 0x${at.toString(16)}`).toEqual([at]);
      }
    }
  });

  it('finds and decodes any block in random data, without the keys', () => {
    const word = fc.bigInt({ min: 0n, max: MASK });
    fc.assert(
      fc.property(
        word,
        word,
        fc.integer({ min: 0, max: (0x1000 - 0x290) / 8 }),
        fc.integer({ min: 0, max: 500 }),
        (w, a, step, before) => {
          const size = 0x290 + 8 * step;
          const kernBase = 0xfffff800_00000000n + BigInt(before) * 0x1000n;
          const e = kernBase + 0x123450n;
          const plain = block(size, kernBase);
          const image = Buffer.concat([noise(before * 8, 1), encodeBlock(plain, w, a, e), noise(512, 2)]);
          const hit = new KdbgSearch(kernBase).search(image).find((c) => c.offset === before * 8 && c.size === size);
          expect(hit?.rotation).toBe(Number(w & 63n));
          expect(decodeBlock(image.subarray(before * 8, before * 8 + size), kernBase, hit!.rotation!)).toEqual(plain);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('finds a block and its kernel’s base from an address in the kernel alone', () => {
    const word = fc.bigInt({ min: 0n, max: MASK });
    const reach = 64 << 20;
    fc.assert(
      fc.property(
        word,
        word,
        fc.integer({ min: 0, max: (0x1000 - 0x290) / 8 }),
        fc.bigInt({ min: 0n, max: 0x7f_ffffn }),
        fc.nat(reach - 1),
        fc.boolean(),
        (w, a, step, page, above, plainly) => {
          const size = 0x290 + 8 * step;
          const kernBase = 0xfffff800_00000000n + page * 0x1000n;
          const plain = block(size, kernBase);
          const stored = plainly ? plain : encodeBlock(plain, w, a, kernBase + 0x5678n);
          const image = Buffer.concat([noise(0x800, 1), stored, noise(0x800, 2)]);
          const hits = searchWithoutBase(image, kernBase + BigInt(above), reach, 8);
          const rotation = plainly ? undefined : Number(w & 63n);
          expect(hits).toContainEqual({ offset: 0x800, size, rotation, kernBase });
        },
      ),
      { numRuns: 200 },
    );
  });

  it('finds plain blocks by their tag', () => {
    const plain = block(0x380, 0xfffff80000220000n);
    const image = Buffer.concat([Buffer.alloc(0x100), plain]);
    expect(new KdbgSearch(0xfffff80000220000n).search(image)).toEqual([
      { offset: 0x100, size: 0x380, rotation: undefined },
    ]);
  });

  it('does not take a tag with an impossible size for a block', () => {
    for (const size of [0, 0x288, 0x1008, 0x381, 0xffffffff]) {
      const plain = block(0x380, 0xfffff80000220000n);
      plain.writeUInt32LE(size, 0x14);
      expect(new KdbgSearch(0xfffff80000220000n).search(plain)).toEqual([]);
    }
  });

  it('finds nothing in zeros or another kernel’s block', () => {
    expect(new KdbgSearch(0xfffff80000220000n).search(Buffer.alloc(1 << 20))).toEqual([]);
    const other = encodeBlock(block(0x380, 0xfffff80000440000n), W, A, E);
    expect(new KdbgSearch(0xfffff80000220000n).search(other)).toEqual([]);
  });
});
