/** The registers of FXSAVE's area (Intel's manual, volume 1, 10.5.1), which CONTEXT has in both of its forms. */

/** Bytes from ST(i) to the next, and of its value. */
const ST_SLOT = 16;
const ST_SIZE = 10;
const XMM_SIZE = 16;

/** ST(0) to ST(7), 10 bytes each, in their slots. */
export const packSt = (st: readonly Buffer[]): Buffer =>
  Buffer.concat(st.map((value) => Buffer.concat([value, Buffer.alloc(ST_SLOT - value.length)])));

/** The values of ST(0) and on, out of their slots. */
export const unpackSt = (bytes: Buffer): Buffer[] => pieces(bytes, ST_SLOT, ST_SIZE);

/** XMM0 and on, 16 bytes each. */
export const unpackXmm = (bytes: Buffer): Buffer[] => pieces(bytes, XMM_SIZE, XMM_SIZE);

const pieces = (bytes: Buffer, slot: number, size: number): Buffer[] =>
  Array.from({ length: bytes.length / slot }, (_, i) => Buffer.from(bytes.subarray(i * slot, i * slot + size)));
