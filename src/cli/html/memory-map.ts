/** Physical memory on a page: one map that flows with the page's width, with breaks for holes. */
import { bytes, hex } from '../../core/units.ts';
import { CELL_KINDS, type CellKind, type MemoryPicture } from '../../report/memory-picture.ts';
import { plural } from '../text/render.ts';
import { Html, html } from './html.ts';
import { code, table } from './parts.ts';

const LEGEND: Record<CellKind, string> = {
  patched: 'changed by the conversion',
  kernel: 'kernel image',
  tables: "the kernel's page tables",
  data: 'other contents',
  zero: 'zeros (by samples)',
  left: 'left out of the dump',
};

/** Ranges that the map labels; beyond, breaks stay. */
const LABELLED = 48;

/** @param converted a conversion may have changed cells */
export function memoryMap({ cellBytes, ranges }: MemoryPicture, converted: boolean): Html {
  const counts = new Map<CellKind, number>();
  for (const { cells } of ranges) for (const kind of cells) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  const shown = CELL_KINDS.filter((kind) => (kind === 'left' ? counts.has(kind) : converted || kind !== 'patched'));
  const total = ranges.reduce((sum, { size }) => sum + size, 0);
  const holes = holesOf(ranges);
  const summary = `${bytes(total)} in ${plural(ranges.length, 'range')}`;
  return html`
<p>${summary}, ${plural(holes.filter((size) => size > 0).length, 'hole')}. A square is ${bytes(cellBytes)} and shows the first of these that it contains:</p>
<ul class="legend">${shown.map(
    (kind) =>
      html`<li><i class="${kind}"></i> ${LEGEND[kind]} <span class="count">${counts.get(kind) ?? 0}</span></li>\n`,
  )}</ul>
<div class="map" role="img" aria-label="Map of physical memory: ${summary}">
${ranges.map(
  ({ start, cells }, i) =>
    html`${holes[i]! > 0 && i < LABELLED && html`<span class="hole">hole ${bytes(holes[i]!)}</span>`}${holes[i]! > 0 && i >= LABELLED && html`<span class="hole">\u2026</span>`}${i < LABELLED && html`<span class="start">${hex(start)}</span>`}${cells.map(cell)}\n`,
)}</div>
<details><summary>Ranges and holes</summary>
${table(
  'Ranges of memory',
  ['From', 'To', 'Size', 'Hole before it'],
  ranges.map(({ start, size }, i) => [
    code(hex(start)),
    code(hex(start + size)),
    bytes(size),
    holes[i]! > 0 ? bytes(holes[i]!) : null,
  ]),
)}
</details>`;
}

/** Bytes that are missing before each range. */
const holesOf = (ranges: MemoryPicture['ranges']): number[] =>
  ranges.map(({ start }, i) => start - (i === 0 ? 0 : ranges[i - 1]!.start + ranges[i - 1]!.size));

const CELLS: Record<CellKind, Html> = Object.fromEntries(
  CELL_KINDS.map((kind) => [kind, new Html(`<i class="${kind}"></i>`)]),
) as Record<CellKind, Html>;

const cell = (kind: CellKind): Html => CELLS[kind];
