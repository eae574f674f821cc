/** Reads crash dumps by literal offsets, for tests. */

/** The pages of a dump by physical address, read by literal offsets. */
export function pagesOf(dump: Buffer): Map<number, Buffer> {
  const pages = new Map<number, Buffer>();
  const is32 = dump.toString('latin1', 0, 8) === 'PAGEDUMP';
  const header = is32 ? 0x1000 : 0x2000;
  let at = header;
  const take = (pfn: number) => {
    pages.set(pfn * 0x1000, dump.subarray(at, at + 0x1000));
    at += 0x1000;
  };
  if ([5, 6].includes(dump.readUInt32LE(is32 ? 0xf88 : 0xf98))) {
    at = Number(dump.readBigUInt64LE(header + 0x20));
    const bits = Number(dump.readBigUInt64LE(header + 0x30));
    for (let pfn = 0; pfn < bits; pfn++) if ((dump[header + 0x38 + (pfn >> 3)]! >> (pfn & 7)) & 1) take(pfn);
  } else if (is32) {
    for (let i = 0; i < dump.readUInt32LE(0x64); i++) {
      const count = dump.readUInt32LE(0x70 + 8 * i);
      for (let n = 0; n < count; n++) take(dump.readUInt32LE(0x6c + 8 * i) + n);
    }
  } else {
    for (let i = 0; i < dump.readUInt32LE(0x88); i++) {
      const base = Number(dump.readBigUInt64LE(0x98 + 16 * i));
      const count = Number(dump.readBigUInt64LE(0xa0 + 16 * i));
      for (let n = 0; n < count; n++) take(base + n);
    }
  }
  if (at !== dump.length) throw new Error(`the pages end at ${at}, the file at ${dump.length}`);
  return pages;
}
