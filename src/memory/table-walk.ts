/** Which pages the page tables map: all roots at once, each table once, whatever the tables say. */
import { PAGE_SIZE, pa } from '../core/units.ts';
import type { AddressSpace } from './address-space.ts';
import type { PageMap } from './page-map.ts';

/** Bits of a `PageMap`; the ten lowest are the walk's own. */
export const Mapped = {
  /** Holds a page table of the kernel's half, or a root. */
  kernelTable: 1 << 10,
  userTable: 1 << 11,
  kernel: 1 << 12,
  user: 1 << 13,
  /** Not mapped, but still in memory: in transition, or behind a prototype entry. */
  kernelSoft: 1 << 14,
  userSoft: 1 << 15,
} as const;

const MAX_TRANSITION = 16_384;

/** Missing tables that are told apart. */
const MAX_MISSING = 65_536;

export interface TableWalk {
  /** Tables read. */
  tables: number;
  /** Tables that entries name and that are not in the image. */
  missingTables: number;
  /** Some of the pages that the kernel's half has in transition. */
  transition: number[];
  /** There were more tables than there are pages: the tables are damaged, and not all were followed. */
  endless: boolean;
}

/**
 * Marks what the tables under `roots` map in `map`.
 *
 * An entry of a root that leads to a root is the self-map, through which Windows sees its own tables: it
 * is not followed, and its tables are marked as tables. Each page is read at most once as a table of each
 * level and half, each large page is marked once, and all together no more tables are read than there
 * are pages: tables that point back or anywhere cost no more than that.
 *
 * @param space resolves prototype entries, and has the roots' paging mode
 */
export function walkTables(space: AddressSpace, roots: readonly number[], map: PageMap): TableWalk {
  const { mode, image } = space;
  const { levels } = mode;
  const result: TableWalk = { tables: 0, missingTables: 0, transition: [], endless: false };
  const rootSet = new Set(roots);
  const largePages = [new Set<number>(), new Set<number>()] as const;
  const missing = new Set<number>();

  const walk = (table: number, level: number, half: 0 | 1): void => {
    const index = map.indexOf(table);
    if (index < 0) {
      if (missing.size < MAX_MISSING) missing.add(table);
      return;
    }
    const visited = 1 << (level + half * 5);
    if ((map.bits[index]! & visited) !== 0) return;
    if (result.tables >= map.pages) {
      result.endless = true;
      return;
    }
    result.tables++;
    map.bits[index]! |= visited | (level === 0 || half === 0 ? Mapped.kernelTable : Mapped.userTable);
    const page = image.page(pa(table));
    if (!page) return; // damaged
    const { shift, largePages: mayBeLarge } = levels[level]!;
    const last = level === levels.length - 1;
    const count = PAGE_SIZE / 8;
    const from = level === 0 && half === 0 ? mode.kernelFrom : 0;
    const to = level === 0 && half === 1 ? mode.kernelFrom : count;
    for (let i = from; i < to; i++) {
      const low = page.readUInt32LE(i * 8);
      const high = page.readUInt32LE(i * 8 + 4);
      if ((low & 1) === 0) {
        if (!last || (low === 0 && high === 0)) continue;
        const soft = space.softwarePage(low, high);
        if (soft === undefined) continue;
        map.mark(soft, PAGE_SIZE, half === 0 ? Mapped.kernelSoft : Mapped.userSoft);
        const inTransition = half === 0 && mode.softwareEntry(low, high)?.kind === 'transition';
        if (inTransition && result.transition.length < MAX_TRANSITION) result.transition.push(soft);
        continue;
      }
      const address = (high & 0xf_ffff) * 2 ** 32 + ((low & 0xffff_f000) >>> 0);
      const bit = half === 0 ? Mapped.kernel : Mapped.user;
      if (last) {
        const at = map.indexOf(address);
        if (at >= 0) map.bits[at]! |= bit;
      } else if (mayBeLarge && (low & 0x80) !== 0) {
        const size = 2 ** shift;
        const base = address - (address % size);
        const key = base + level;
        if (!largePages[half].has(key) && map.mark(base, size, bit)) largePages[half].add(key);
      } else if (level !== 0 || !rootSet.has(address)) {
        walk(address, level + 1, half);
      }
    }
  };
  for (const half of [0, 1] as const) for (const root of roots) walk(root, 0, half);
  result.missingTables = missing.size;
  return result;
}
