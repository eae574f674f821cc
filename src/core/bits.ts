/** 64-bit operations that BigInt lacks. */

const MASK64 = 0xffff_ffff_ffff_ffffn;

/** `value` rotated left; `count` counts modulo 64. */
export const rol64 = (value: bigint, count: number): bigint => {
  const n = BigInt(count & 63);
  return ((value << n) | (value >> (64n - n))) & MASK64;
};

/** `value` rotated right; `count` counts modulo 64. */
export const ror64 = (value: bigint, count: number): bigint => rol64(value, 64 - (count & 63));

const scratch = new DataView(new ArrayBuffer(8));

/** The eight bytes of `value` in reverse. */
export const bswap64 = (value: bigint): bigint => {
  scratch.setBigUint64(0, value, true);
  return scratch.getBigUint64(0, false);
};

/** The four bytes of `value` in reverse. */
export const bswap32 = (value: number): number =>
  ((value >>> 24) | ((value >>> 8) & 0xff00) | ((value << 8) & 0xff0000) | (value << 24)) >>> 0;

/** Bits 63..47 (or 63..56 with 57-bit addresses) all equal. */
export const isCanonical = (address: bigint, bits = 48): boolean => {
  const top = BigInt.asUintN(64, address) >> BigInt(bits - 1);
  return top === 0n || top === (1n << BigInt(65 - bits)) - 1n;
};

/** Kernel half: bit 63 set and canonical in 57 bits, which includes every 48-bit address. */
export const isKernelAddress = (address: bigint): boolean => address >> 63n === 1n && isCanonical(address, 57);

/** A pointer of the guest: 32-bit ones are sign-extended, so that kernel addresses have their upper bits set. */
export const pointerAt = (bytes: Buffer, at: number, size: 4 | 8): bigint =>
  size === 8 ? bytes.readBigUInt64LE(at) : BigInt.asUintN(64, BigInt(bytes.readInt32LE(at)));

/** A 64-bit field that holds a pointer of the guest: 32-bit ones come sign-extended or not, and leave sign-extended. */
export const widened = (value: bigint, size: 4 | 8): bigint =>
  size === 8 ? value : BigInt.asUintN(64, BigInt.asIntN(32, value));

const alignDown = (value: number, alignment: number): number => value - (value % alignment);

/** The next multiple of `alignment`, or `value` if it is one. */
export const alignUp = (value: number, alignment: number): number => alignDown(value + alignment - 1, alignment);

/** Bits that are set in the low 32 bits of `word`. */
export const popcount = (word: number): number => {
  let v = word - ((word >>> 1) & 0x55555555);
  v = (v & 0x33333333) + ((v >>> 2) & 0x33333333);
  return Math.imul((v + (v >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
};
