/** Holds one input's memory and registers against another's of the same paused guest. */
import { pa } from '../../src/core/units.ts';
import type { MemoryImage } from '../../src/memory/image.ts';

/** Where an ELF has the firmware's shadow, which a stream keeps in another block. */
const FIRMWARE = { start: 0xc0000, end: 0x100000 };

/** Pages of the stream's image that the ELF has alike. Throws at the first that differs, is missing, or is only in the ELF. */
export function samePages(stream: MemoryImage, elf: MemoryImage): number {
  let same = 0;
  for (const { start, size } of stream.pageExtents().extents) {
    for (let at: number = start; at < start + size; at += 4096) {
      if (at >= FIRMWARE.start && at < FIRMWARE.end) continue;
      const [a, b] = [stream.page(pa(at)), elf.page(pa(at))];
      if (!a || !b?.equals(a)) throw new Error(`page 0x${at.toString(16)} differs`);
      same++;
    }
  }
  for (const { start, size } of elf.runs) {
    for (let at: number = start; at < start + size; at += 4096) {
      // Video memory and the firmware below 4 GiB are devices' in a stream.
      const device = (at >= 0xa0000 && at < FIRMWARE.end) || (at >= 0xc000_0000 && at < 2 ** 32);
      if (!device && !stream.has(at)) throw new Error(`page 0x${at.toString(16)} is missing`);
    }
  }
  return same;
}

/** Without the keys that only some inputs have. */
export const definite = (registers: object): object =>
  Object.fromEntries(Object.entries(registers).filter(([, value]) => value !== undefined));
