/** A dump as a pure value: its first bytes, which pages follow in which order, and what is changed in them. */

import { alignUp } from '../core/bits.ts';
import type { Diagnostics } from '../core/errors.ts';
import { bytes, hex, PAGE_SIZE } from '../core/units.ts';
import { DUMP_HEADER64_SIZE, DumpType, MAX_HEADER_RUNS } from '../formats/win-dump.ts';
import type { MemoryImage } from '../memory/image.ts';
import { bitmapSize, encodeBitmap } from './bitmap.ts';
import { type Extent, encodeHeader, type HeaderValues } from './header.ts';
import type { Patch } from './patches.ts';

export interface DumpPlan {
  type: 'full' | 'bitmap';
  /** Everything before the first page. */
  prefix: Buffer;
  /** Sorted; their pages follow the prefix back to back. */
  extents: readonly Extent[];
  pages: number;
  /** Bytes of the finished file. */
  size: number;
  patches: readonly Patch[];
}

export type PlanValues = Omit<HeaderValues, 'extents' | 'pages' | 'requiredSpace' | 'dumpType'>;

export function planDump(
  image: MemoryImage,
  values: PlanValues,
  patches: readonly Patch[],
  diagnostics: Diagnostics,
): DumpPlan {
  const { extents, partial } = image.pageExtents();
  if (partial.length > 0) {
    const total = partial.reduce((sum, p) => sum + p.size, 0);
    const places = partial.slice(0, 4).map((p) => `${hex(p.start)}+${hex(p.size)}`);
    diagnostics.add(
      'loss',
      'partial-pages',
      `a dump holds whole pages: ${bytes(total)} in ${partial.length} incomplete page${partial.length === 1 ? '' : 's'} were left out (physical ${places.join(', ')}${partial.length > 4 ? ', …' : ''})`,
    );
  }
  const pages = extents.reduce((sum, e) => sum + e.size / PAGE_SIZE, 0);
  const type = extents.length <= MAX_HEADER_RUNS ? 'full' : 'bitmap';
  let prefixSize = DUMP_HEADER64_SIZE;
  const last = extents.at(-1);
  if (type === 'bitmap' && last) prefixSize = alignUp(prefixSize + bitmapSize(last.start + last.size), PAGE_SIZE);
  const size = prefixSize + pages * PAGE_SIZE;
  const header = encodeHeader({
    ...values,
    extents,
    pages,
    dumpType: type === 'full' ? DumpType.full : DumpType.bitmapFull,
    requiredSpace: size,
  });
  const prefix = Buffer.alloc(prefixSize);
  header.copy(prefix);
  if (type === 'bitmap') encodeBitmap(extents, pages, prefixSize).copy(prefix, DUMP_HEADER64_SIZE);
  return { type, prefix, extents, pages, size, patches };
}
