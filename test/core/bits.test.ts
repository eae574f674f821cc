import { describe, expect, it } from 'vitest';
import { bswap64, isCanonical, isKernelAddress, rol64, ror64 } from '../../src/core/bits.ts';
import fc from '../support/properties.ts';

const word = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });

describe('64-bit operations', () => {
  it('rotates', () => {
    expect(rol64(0x8000_0000_0000_0001n, 1)).toBe(3n);
    expect(rol64(0x0123456789abcdefn, 0)).toBe(0x0123456789abcdefn);
    expect(ror64(1n, 1)).toBe(0x8000_0000_0000_0000n);
    fc.assert(fc.property(word, fc.nat(63), (x, n) => ror64(rol64(x, n), n) === x));
  });

  it('swaps bytes', () => {
    expect(bswap64(0x0102030405060708n)).toBe(0x0807060504030201n);
    fc.assert(fc.property(word, (x) => bswap64(bswap64(x)) === x));
  });

  it('knows canonical addresses', () => {
    expect(isCanonical(0x0000_7fff_ffff_ffffn)).toBe(true);
    expect(isCanonical(0x0000_8000_0000_0000n)).toBe(false);
    expect(isCanonical(0xffff_7fff_ffff_ffffn)).toBe(false);
    expect(isCanonical(0xffff_8000_0000_0000n)).toBe(true);
    expect(isCanonical(0xff00_0000_0000_0000n, 57)).toBe(true);
    expect(isCanonical(0xfe00_0000_0000_0000n, 57)).toBe(false);
  });

  it('knows kernel addresses', () => {
    expect(isKernelAddress(0xfffff800_00000000n)).toBe(true);
    expect(isKernelAddress(0n)).toBe(false);
    expect(isKernelAddress(0x7fff_ffff_ffffn)).toBe(false);
    expect(isKernelAddress(0x8000_0000_0000_0000n)).toBe(false);
  });
});
