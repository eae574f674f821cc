/** Physical memory as a picture of some hundred cells, each of one kind. */

import { firstIndex } from '../core/sorted.ts';
import { PAGE_SIZE } from '../core/units.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { MemoryImage } from '../memory/image.ts';
import { sum } from '../memory/runs.ts';
import { tablesBelow } from '../memory/table-walk.ts';
import type { Windows } from '../windows/windows.ts';
import type { Span } from '../write/sparse.ts';

/** Kinds of cells, by precedence: a cell shows the first that it contains. */
export const CELL_KINDS = ['patched', 'kernel', 'tables', 'data', 'zero', 'left'] as const;
export type CellKind = (typeof CELL_KINDS)[number];

export interface MemoryPicture {
  /** Bytes for each cell; the last cell of a range may have fewer. */
  cellBytes: number;
  /** Ranges that the input has, in order. */
  ranges: { start: number; size: number; cells: CellKind[] }[];
}

const CELLS = 1536;

/** Pages sampled in each cell to see whether it is all zeros. */
const SAMPLES = 4;

/** A guest with 4 GiB has some thousand of the kernel's own. */
const MAX_TABLES = 65_536;

/**
 * @param patched physical ranges that a conversion changes
 * @param kept what a dump holds of the input, sorted; a cell without any of it is `left` out
 */
export async function drawMemory(
  windows: Windows,
  patched: readonly Span[],
  kept?: readonly { start: number; size: number }[],
): Promise<MemoryPicture> {
  const { image, space, kernel } = windows;
  const { extents } = image.pageExtents();
  const total = sum(extents);
  const cellBytes = Math.max(PAGE_SIZE, Math.ceil(total / CELLS / PAGE_SIZE) * PAGE_SIZE);
  const pagesOf: [CellKind, number[]][] = [
    ['patched', patched.map(({ from }) => from)],
    ['kernel', imagePages(space, kernel)],
    ['tables', [...tablePages(space)]],
  ];
  const marks = pagesOf.map(([kind, pages]) => [kind, Float64Array.from(pages).sort()] as const);
  const ranges: MemoryPicture['ranges'] = [];
  let next = 0;
  /** Cells come in order. */
  const isLeftOut = (from: number, to: number): boolean => {
    if (!kept) return false;
    while (next < kept.length && kept[next]!.start + kept[next]!.size <= from) next++;
    return next === kept.length || kept[next]!.start >= to;
  };
  for (const { start, size } of extents) {
    const cells: CellKind[] = [];
    for (let at = 0; at < size; at += cellBytes) {
      const [from, to] = [start + at, start + Math.min(size, at + cellBytes)];
      if (isLeftOut(from, to)) {
        cells.push('left');
        continue;
      }
      const mark = marks.find(([, pages]) => hasBetween(pages, from, to));
      if (mark) cells.push(mark[0]);
      else cells.push((await isZero(image, from, to)) ? 'zero' : 'data');
    }
    ranges.push({ start, size, cells });
  }
  return { cellBytes, ranges };
}

function hasBetween(sorted: Float64Array, from: number, to: number): boolean {
  const first = sorted[firstIndex(sorted.length, (i) => sorted[i]! >= from)];
  return first !== undefined && first < to;
}

const ZEROS = Buffer.alloc(PAGE_SIZE);

async function isZero(image: MemoryImage, from: number, to: number): Promise<boolean> {
  const page = Buffer.allocUnsafe(PAGE_SIZE);
  const pages = (to - from) / PAGE_SIZE;
  for (let i = 0; i < Math.min(SAMPLES, pages); i++) {
    await image.read(from + Math.floor((i * pages) / SAMPLES) * PAGE_SIZE, page);
    if (!page.equals(ZEROS)) return false;
  }
  return true;
}

function imagePages(space: AddressSpace, { base, size }: { base: bigint; size: number }): number[] {
  const pages: number[] = [];
  for (const { physical, length } of space.pieces(base, size)) {
    for (let at = 0; physical !== undefined && at < length; at += PAGE_SIZE) pages.push(physical + at);
  }
  return pages;
}

/** The tables below the kernel's root, each once: entries that lead back lead to nothing new. */
function tablePages({ image, root, mode }: AddressSpace): Set<number> {
  const seen = new Set<number>([root]);
  let tables = [root as number];
  for (let level = 0; level < mode.levels.length - 1; level++) {
    const next: number[] = [];
    for (const table of tables) {
      for (const below of tablesBelow(image, mode, table, level)) {
        if (seen.has(below) || seen.size >= MAX_TABLES) continue;
        seen.add(below);
        next.push(below);
      }
    }
    tables = next;
  }
  return seen;
}
