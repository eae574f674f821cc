/**
 * Decoder for raw snappy blocks, by google/snappy's format_description.txt. Own, because it is short:
 * of npm's packages the pure one (snappyjs) checks no bounds of its output and the others are native or WebAssembly.
 */

/** Decodes all of `source` into `target`. Returns the bytes written, -1 if the block is damaged or too large. */
export function decodeSnappy(source: Uint8Array, target: Uint8Array): number {
  const inEnd = source.length;
  let ip = 0;
  let op = 0;
  let total = 0;
  for (let scale = 1; ; scale *= 128) {
    if (ip >= inEnd || ip === 5) return -1;
    const byte = source[ip++]!;
    total += (byte & 0x7f) * scale;
    if (byte < 0x80) break;
  }
  if (total > target.length) return -1;
  while (ip < inEnd) {
    const tag = source[ip++]!;
    const kind = tag & 3;
    let length = (tag >> 2) + 1;
    let distance: number;
    if (kind === 0) {
      if (length > 60) {
        const more = length - 60;
        if (ip + more > inEnd) return -1;
        length = 1;
        for (let i = 0; i < more; i++) length += source[ip++]! * 256 ** i;
      }
      if (ip + length > inEnd || op + length > total) return -1;
      if (length > 32) {
        target.set(source.subarray(ip, ip + length), op);
        ip += length;
        op += length;
      } else for (let i = 0; i < length; i++) target[op++] = source[ip++]!;
      continue;
    }
    const size = kind === 3 ? 4 : kind;
    if (ip + size > inEnd) return -1;
    if (kind === 1) {
      length = ((tag >> 2) & 7) + 4;
      distance = ((tag >> 5) << 8) | source[ip]!;
    } else {
      distance = source[ip]! | (source[ip + 1]! << 8);
      if (kind === 3) distance += source[ip + 2]! * 0x10000 + source[ip + 3]! * 0x1000000;
    }
    ip += size;
    if (distance === 0 || distance > op || op + length > total) return -1;
    for (let from = op - distance, end = op + length; op < end; ) target[op++] = target[from++]!;
  }
  return op === total ? op : -1;
}
