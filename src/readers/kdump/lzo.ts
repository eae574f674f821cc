/**
 * Decoder for raw LZO1X blocks, by Linux' Documentation/staging/lzo.rst. npm's packages for LZO do not
 * load in Node or need a bundler. Nothing is believed: every read and write is checked.
 */

/** Decodes all of `source` into `target`. Returns the bytes written, -1 if the block is damaged or too large. */
export function decodeLzo1x(source: Uint8Array, target: Uint8Array): number {
  const inEnd = source.length;
  const outEnd = target.length;
  let ip = 0;
  let op = 0;
  /** Literals behind the last instruction: 0 to 3, and 4 for a long run of them. */
  let state = 0;

  /** A length that goes on in the next bytes; beyond `outEnd` where they do not end. */
  const longer = (base: number): number => {
    let length = base;
    while (ip < inEnd && source[ip] === 0) {
      length += 255;
      ip++;
      if (length > outEnd) return length;
    }
    return ip < inEnd ? length + source[ip++]! : outEnd + 1;
  };

  if (inEnd > 0 && source[0]! > 17) {
    const count = source[ip++]! - 17;
    if (ip + count > inEnd || op + count > outEnd) return -1;
    for (let i = 0; i < count; i++) target[op++] = source[ip++]!;
    state = Math.min(count, 4);
  }
  while (ip < inEnd) {
    const code = source[ip++]!;
    let length: number;
    let distance: number;
    let literals: number;
    if (code < 16) {
      if (state === 0) {
        const count = 3 + (code || longer(15));
        if (ip + count > inEnd || op + count > outEnd) return -1;
        if (count > 32) {
          target.set(source.subarray(ip, ip + count), op);
          ip += count;
          op += count;
        } else for (let i = 0; i < count; i++) target[op++] = source[ip++]!;
        state = 4;
        continue;
      }
      if (ip >= inEnd) return -1;
      distance = (source[ip++]! << 2) + (code >> 2) + (state === 4 ? 2049 : 1);
      length = state === 4 ? 3 : 2;
      literals = code & 3;
    } else if (code >= 64) {
      if (ip >= inEnd) return -1;
      distance = (source[ip++]! << 3) + ((code >> 2) & 7) + 1;
      length = (code >> 5) + 1;
      literals = code & 3;
    } else {
      length = code >= 32 ? 2 + (code & 31 || longer(31)) : 2 + (code & 7 || longer(7));
      if (ip + 2 > inEnd) return -1;
      const word = source[ip]! | (source[ip + 1]! << 8);
      ip += 2;
      literals = word & 3;
      if (code >= 32) distance = (word >> 2) + 1;
      else {
        distance = ((code & 8) << 11) + (word >> 2);
        if (distance === 0) return ip === inEnd && length === 3 ? op : -1; // the end mark
        distance += 16384;
      }
    }
    if (distance > op || op + length > outEnd) return -1;
    for (let from = op - distance, end = op + length; op < end; ) target[op++] = target[from++]!;
    if (ip + literals > inEnd || op + literals > outEnd) return -1;
    for (let i = 0; i < literals; i++) target[op++] = source[ip++]!;
    state = literals;
  }
  return -1; // no end mark
}
