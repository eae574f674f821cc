/** Reads crash dumps by literal offsets, for tests. */

/** The pages of a dump by physical address, read by literal offsets. */
export function pagesOf(dump: Buffer): Map<number, Buffer> {
  const pages = new Map<number, Buffer>();
  let at = 0x2000;
  const take = (pfn: number) => {
    pages.set(pfn * 0x1000, dump.subarray(at, at + 0x1000));
    at += 0x1000;
  };
  if ([5, 6].includes(dump.readUInt32LE(0xf98))) {
    at = Number(dump.readBigUInt64LE(0x2020));
    const bits = Number(dump.readBigUInt64LE(0x2030));
    for (let pfn = 0; pfn < bits; pfn++) if ((dump[0x2038 + (pfn >> 3)]! >> (pfn & 7)) & 1) take(pfn);
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
