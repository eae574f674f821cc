/**
 * Decoder for raw snappy blocks, by google/snappy's format_description.txt. Own, because it is short:
 * of npm's packages the pure one (snappyjs) checks no bounds of its output and the others are native or WebAssembly.
 */
import { copyLiterals, copyMatch } from '../../source/blocks.ts';

/** A varint has at most this many bytes. */
const MAX_VARINT = 5;

/** Decodes all of `source` into `target`. Returns the bytes written, -1 if the block is damaged or too large. */
export function decodeSnappy(source: Uint8Array, target: Uint8Array): number {
  const start = source.findIndex((byte, i) => byte < 0x80 || i >= MAX_VARINT) + 1;
  if (start === 0 || start > MAX_VARINT) return -1;
  let total = 0;
  for (let i = 0; i < start; i++) total += (source[i]! & 0x7f) * 128 ** i;
  return total > target.length ? -1 : decodeElements(source, start, target, total);
}

/** Decodes elements, literals and copies, from `start` on, which make `total` bytes. */
function decodeElements(source: Uint8Array, start: number, target: Uint8Array, total: number): number {
  const inEnd = source.length;
  let ip = start;
  let op = 0;
  while (ip < inEnd) {
    const tag = source[ip++]!;
    const kind = tag & 3;
    if (kind === 0) {
      const more = Math.max(0, (tag >> 2) + 1 - MAX_SHORT_LITERAL);
      if (ip + more > inEnd) return -1;
      const length = more === 0 ? (tag >> 2) + 1 : 1 + littleEndian(source, ip, more);
      ip += more;
      if (ip + length > inEnd || op + length > total) return -1;
      copyLiterals({ source, from: ip, count: length }, target, op);
      ip += length;
      op += length;
      continue;
    }
    const size = kind === 3 ? 4 : kind;
    if (ip + size > inEnd) return -1;
    const length = kind === 1 ? ((tag >> 2) & 7) + 4 : (tag >> 2) + 1;
    const distance = kind === 1 ? ((tag >> 5) << 8) | source[ip]! : littleEndian(source, ip, size);
    ip += size;
    if (distance === 0 || distance > op || op + length > total) return -1;
    copyMatch(target, op, distance, length);
    op += length;
  }
  return op === total ? op : -1;
}

/** Literals of more bytes have their length in the bytes after the tag. */
const MAX_SHORT_LITERAL = 60;

function littleEndian(source: Uint8Array, at: number, size: number): number {
  let value = 0;
  for (let i = size - 1; i >= 0; i--) value = value * 0x100 + source[at + i]!;
  return value;
}
