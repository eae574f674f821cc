/** Which pages the page tables map: all roots at once, each table once, whatever the tables say. */
import { Pulse } from '../core/pulse.ts';
import { PAGE_SIZE, pa } from '../core/units.ts';
import { entryAt, type PageEntry, type PagingMode, tableSize } from '../machines/paging-mode.ts';
import type { AddressSpace } from './address-space.ts';
import type { MemoryImage } from './image.ts';
import type { PageMap } from './page-map.ts';

/** Tables that are read in some milliseconds. */
const BEAT_TABLES = 64;

/** Tables of at most this many levels are walked. */
const MAX_LEVELS = 5;

/** Bits of a `PageMap`; the ten lowest are the walk's own: one for each level and half. */
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

/** What the walk of the page tables met. */
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
 * An entry that leads back to a table of the self-map's level is the self-map, through which Windows sees its own
 * tables: it is not followed, and its tables are marked as tables. Each page is read at most once as a table of each
 * level and half, each large page is marked once, and all together no more tables are read than there
 * are pages: tables that point back or anywhere cost no more than that.
 *
 * @param space resolves prototype entries, and has the roots' paging mode
 */
export async function walkTables(
  space: AddressSpace,
  roots: readonly number[],
  map: PageMap,
  pulse: Pick<Pulse, 'beat'> = new Pulse(),
): Promise<TableWalk> {
  const walk = new Walk(space, roots, map);
  for (const half of HALVES) {
    for (const root of new Set(roots)) for (const _ of walk.table(root, 0, half)) await pulse.beat();
  }
  return walk.result();
}

const HALVES = ['kernel', 'user'] as const;
type Half = (typeof HALVES)[number];

class Walk {
  readonly #space: AddressSpace;
  readonly #mode: PagingMode;
  readonly #map: PageMap;
  readonly #selfMapped: ReadonlySet<number>;
  readonly #largePages = { kernel: new Set<number>(), user: new Set<number>() };
  readonly #missing = new Set<number>();
  readonly #transition: number[] = [];
  #tables = 0;
  #endless = false;

  constructor(space: AddressSpace, roots: readonly number[], map: PageMap) {
    this.#space = space;
    this.#mode = space.mode;
    this.#map = map;
    this.#selfMapped = new Set(tablesOfLevel(space.image, space.mode, roots, space.mode.selfMapLevel));
  }

  result(): TableWalk {
    return {
      tables: this.#tables,
      missingTables: this.#missing.size,
      transition: this.#transition,
      endless: this.#endless,
    };
  }

  /** Marks the table at a physical address and all that it maps. Yields now and then. */
  *table(table: number, level: number, half: Half): Generator<undefined> {
    const index = this.#map.indexOf(table);
    if (index < 0) {
      if (this.#missing.size < MAX_MISSING) this.#missing.add(table);
      return;
    }
    // Several roots can share a page, and each comes once.
    const visited = level === 0 ? 0 : 1 << (level + (half === 'user' ? MAX_LEVELS : 0));
    if ((this.#map.bits[index]! & visited) !== 0) return;
    if (this.#tables >= this.#map.pages) {
      this.#endless = true;
      return;
    }
    this.#tables++;
    this.#map.bits[index]! |= visited | (level === 0 || half === 'kernel' ? Mapped.kernelTable : Mapped.userTable);
    const offset = table % PAGE_SIZE;
    const page = this.#space.image.page(pa(table - offset));
    if (!page) return; // damaged
    const { entrySize, kernelFrom } = this.#mode;
    const count = tableSize(this.#mode, level) / entrySize;
    const from = level === 0 && half === 'kernel' ? kernelFrom : 0;
    const to = level === 0 && half === 'user' ? kernelFrom : count;
    if (this.#tables % BEAT_TABLES === 0) yield;
    for (let i = from; i < to; i++) {
      const at = offset + i * entrySize;
      if (isZero(page, at, entrySize)) continue;
      const entry = entryAt(this.#mode, level, page, at);
      if (entry.kind !== 'table') this.#entry(entry, level, half);
      else if (level !== this.#mode.selfMapLevel || !this.#selfMapped.has(entry.physical))
        yield* this.table(entry.physical, level + 1, half);
    }
  }

  #entry(entry: Exclude<PageEntry, { kind: 'table' }>, level: number, half: Half): void {
    switch (entry.kind) {
      case 'absent':
        return;
      case 'page':
        this.#page(entry, level, half);
        return;
      default:
        this.#soft(entry, half);
    }
  }

  #page({ physical, size }: { physical: number; size: number }, level: number, half: Half): void {
    if (size === PAGE_SIZE) {
      const at = this.#map.indexOf(physical);
      if (at >= 0) this.#map.bits[at]! |= Mapped[half];
      return;
    }
    const known = this.#largePages[half];
    const key = physical + level;
    if (!known.has(key) && this.#map.mark(physical, size, Mapped[half])) known.add(key);
  }

  #soft(entry: PageEntry, half: Half): void {
    const physical = this.#space.softwarePage(entry);
    if (physical === undefined) return;
    this.#map.mark(physical, PAGE_SIZE, half === 'kernel' ? Mapped.kernelSoft : Mapped.userSoft);
    const inTransition = half === 'kernel' && entry.kind === 'transition';
    if (inTransition && this.#transition.length < MAX_TRANSITION) this.#transition.push(physical);
  }
}

/** Most entries are zeros, which map nothing in any mode: no need to decode them. */
const isZero = (page: Buffer, at: number, entrySize: 4 | 8): boolean =>
  page.readInt32LE(at) === 0 && (entrySize === 4 || page.readInt32LE(at + 4) === 0);

/** The tables of a level below `roots`, each once, as far as they are in the image. */
function tablesOfLevel(image: MemoryImage, mode: PagingMode, roots: Iterable<number>, level: number): Set<number> {
  let tables = new Set(roots);
  for (let above = 0; above < level; above++) {
    const next = new Set<number>();
    for (const table of tables) for (const below of tablesBelow(image, mode, table, above)) next.add(below);
    tables = next;
  }
  return tables;
}

/** The tables in the image that the entries of a table lead to. */
export function* tablesBelow(image: MemoryImage, mode: PagingMode, table: number, level: number): Generator<number> {
  const offset = table % PAGE_SIZE;
  const page = image.page(pa(table - offset));
  const size = tableSize(mode, level);
  for (let at = 0; page && at < size; at += mode.entrySize) {
    const entry = entryAt(mode, level, page, offset + at);
    if (entry.kind === 'table' && image.has(entry.physical, tableSize(mode, level + 1))) yield entry.physical;
  }
}
