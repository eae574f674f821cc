/** Which address bit Windows sets in page-table entries that are not present, found by what the entries have in common. */
import { PAGE_SIZE, pa } from '../core/units.ts';
import { entryAt, type PagingMode, tableSize } from '../machines/paging-mode.ts';
import type { MemoryImage } from './image.ts';
import { endOf } from './runs.ts';

/** Processors implement 36 to 52 bits of physical addresses; the bit is the last one. */
const [LOWEST, HIGHEST] = [35, 51];

const MAX_TABLES = 2048;
const MAX_SAMPLES = 256;

/** So many samples show a bit even where there could be memory. */
const MANY_SAMPLES = 32;

/** Entries are read while the system changes them, and not all are what they look like. */
const NEEDED = 0.95;

/**
 * The bit, or undefined where none is set, or too little shows it: memory that the input lacks could be there too.
 *
 * @param root with the kernel's half, whose entries are looked at
 */
export function findSwizzledBit(image: MemoryImage, root: number, mode: PagingMode): number | undefined {
  const samples = [...sampleTransition(image, root, mode)];
  const last = image.runs.at(-1);
  if (!last || samples.length === 0) return undefined;
  for (let bit = HIGHEST; bit >= LOWEST; bit--) {
    const having = samples.filter((physical) => Math.floor(physical / 2 ** bit) % 2 === 1).length;
    if (having < samples.length * NEEDED) continue;
    const beyondMemory = 2 ** bit >= endOf(last) && image.missing.every(({ what }) => what !== 'memory');
    return beyondMemory || samples.length >= MANY_SAMPLES ? bit : undefined;
  }
  return undefined;
}

/** Addresses in transition entries of the kernel's half that can have the bit set. */
function* sampleTransition(image: MemoryImage, root: number, mode: PagingMode): Generator<number> {
  const last = mode.levels.length - 1;
  const seen = new Set<number>([root]);
  const waiting = [{ table: root, level: 0 }];
  let samples = 0;
  for (let next = waiting.pop(); next && samples < MAX_SAMPLES; next = waiting.pop()) {
    const { table, level } = next;
    const offset = table % PAGE_SIZE;
    const page = image.page(pa(table - offset));
    const size = tableSize(mode, level);
    for (let at = level === 0 ? mode.kernelFrom * mode.entrySize : 0; page && at < size; at += mode.entrySize) {
      const entry = entryAt(mode, level, page, offset + at);
      if (level === last && entry.kind === 'transition' && entry.swizzled) {
        samples++;
        yield entry.physical;
      }
      // The root was seen, so that the self-map is not followed.
      if (entry.kind !== 'table' || seen.has(entry.physical) || seen.size >= MAX_TABLES) continue;
      seen.add(entry.physical);
      waiting.push({ table: entry.physical, level: level + 1 });
    }
  }
}
