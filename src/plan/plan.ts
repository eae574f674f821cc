/** A dump as a pure value: segments of bytes and of the guest's pages, and what is changed in the pages. */
import { alignUp } from '../core/bits.ts';
import { type Diagnostic, Diagnostics, Elf2dmpError } from '../core/errors.ts';
import { bytes, hex, MIB, PAGE_SIZE } from '../core/units.ts';
import type { DumpHeader, HeaderPages, HeaderValues } from '../formats/dump-header.ts';
import { DUMP_ATTRIBUTE_FILTERED, DUMP_ATTRIBUTE_SECURE_KERNEL, DumpType, isFiltered } from '../formats/win-dump.ts';
import type { MemoryImage } from '../memory/image.ts';
import { type Extent, intersect, sum } from '../memory/runs.ts';
import { bitmapSize, encodeBitmap } from './bitmap.ts';
import type { Patch } from './patches.ts';

/** Bytes of the file that the plan itself holds. */
export interface BytesSegment {
  kind: 'bytes';
  /** File offset. */
  position: number;
  bytes: Buffer;
}

/** Pages of the guest, changed by the plan's patches, one after the other. */
export interface PagesSegment {
  kind: 'pages';
  /** File offset. */
  position: number;
  /** Sorted. */
  extents: readonly Extent[];
}

/** A part of the file. */
export type Segment = BytesSegment | PagesSegment;

/** All that writing a dump takes. */
export interface DumpContents {
  /** In the order of the file, without overlaps; what lies between them is zeros. */
  segments: readonly Segment[];
  /** Bytes of the finished file. */
  size: number;
  /** Sorted; what they change lies in the segments of pages. */
  patches: readonly Patch[];
}

/** Types of dumps that hold pages. */
export type PageDumpType = 'full' | 'bitmap' | 'kernel' | 'active';

/** A dump: a header that says which pages follow, and the pages; a triage dump is all header and has none. */
export interface DumpPlan extends DumpContents {
  type: PageDumpType | 'triage';
  /** The file's first bytes: header, and bitmap if there is one. */
  prefix: Buffer;
  /** File offset of the first page. */
  firstPage: number;
  /** Sorted; their pages follow each other from `firstPage` on. */
  extents: readonly Extent[];
  pages: number;
  /** What the dump lacks, or differs in from what was asked for. */
  diagnostics: readonly Diagnostic[];
}

export interface PlanValues extends Omit<HeaderValues, keyof HeaderPages> {
  /** Windows runs beside a secure kernel. */
  secureKernel: boolean;
}

/** Only its attributes distinguish a dump of active memory from a full bitmap dump. */
const DUMP_TYPES = {
  full: DumpType.full,
  bitmap: DumpType.bitmapFull,
  kernel: DumpType.bitmapKernel,
  active: DumpType.bitmapFull,
} as const;

/** A dump's header, and what of it is to be changed. */
export interface RevisedHeader {
  header: DumpHeader;
  changes: Partial<DumpHeader>;
}

export interface PlanOptions {
  /** What the header says of Windows; of a dump that is converted, its own header. */
  values: PlanValues | RevisedHeader;
  patches: readonly Patch[];
  /** `auto`: full where the header can list all runs. */
  type: 'auto' | PageDumpType;
  /** Sorted, disjoint ranges of whole pages: only what lies in them is kept. undefined: all. */
  ranges?: readonly Extent[] | undefined;
  /** Sorted, disjoint: only these pages are kept, which makes a bitmap dump. */
  kept?: readonly Extent[] | undefined;
  /** Where a bitmap dump's pages begin, given the bytes of header and bitmap. Default: the next page. */
  firstPage?: ((prefix: number) => number) | undefined;
}

/** The type that `planDump` gave a header like this, or that comes nearest to what another writer gave it. */
export function dumpTypeOf(header: { DumpType: number; Attributes: number }): DumpPlan['type'] {
  switch (header.DumpType) {
    case DumpType.full:
      return 'full';
    case DumpType.triage:
      return 'triage';
    case DumpType.bitmapKernel:
    case DumpType.kernelSummary:
    case DumpType.rangesKernel:
      return 'kernel';
    case DumpType.rangesActive:
      return 'active';
    case DumpType.rangesFull:
      return 'bitmap';
    default:
      return isFiltered(header) ? 'active' : 'bitmap';
  }
}

/** Where a dump's pages lie, which does not depend on what is in them. */
export interface DumpLayout {
  type: PageDumpType;
  /** Sorted; their pages follow each other from `firstPage` on. */
  extents: readonly Extent[];
  pages: number;
  /** Bytes of header and page map. */
  prefixSize: number;
  /** File offset of the first page. */
  firstPage: number;
  /** Bytes of the finished file. */
  size: number;
  /** What is left out, or differs from what was asked for. */
  diagnostics: readonly Diagnostic[];
}

/** Throws `Elf2dmpError` when nothing is left to write, or `full` is asked for and can't be. */
export function layOutDump(
  image: MemoryImage,
  options: Pick<PlanOptions, 'type' | 'ranges' | 'kept' | 'firstPage'>,
): DumpLayout {
  const diagnostics = new Diagnostics();
  const { type, extents } = chooseExtents(image, options, diagnostics);
  const pages = sum(extents) / PAGE_SIZE;
  const last = extents.at(-1);
  if (!last) {
    throw new Elf2dmpError({
      code: 'no-pages',
      kind: 'corrupt',
      message: 'no whole page of memory is left to write',
      file: image.file,
    });
  }
  const form = image.machine.dumpHeader;
  const prefixSize = form.size + (type !== 'full' ? bitmapSize(last.start + last.size) : 0);
  const firstPage = options.firstPage?.(prefixSize) ?? alignUp(prefixSize, PAGE_SIZE);
  const size = firstPage + pages * PAGE_SIZE;
  if (type !== 'full' && firstPage > LEECHCORE_FIRST_PAGE) {
    diagnostics.add(
      'warning',
      'large-bitmap',
      `the page map takes ${bytes(prefixSize - form.size)}, so the pages begin at ${hex(firstPage)}: WinDbg reads such a dump, LeechCore and MemProcFS refuse it`,
    );
  }
  if (type !== 'full' && firstPage % PAGE_SIZE !== 0) {
    diagnostics.add(
      'warning',
      'unaligned-pages',
      `the pages begin at ${hex(firstPage)}, which is not a multiple of ${hex(PAGE_SIZE)}, because they stay where the input has them: WinDbg reads such a dump, LeechCore and MemProcFS refuse it; a dump that is copied has none of this`,
    );
  }
  return { type, extents, pages, prefixSize, firstPage, size, diagnostics: diagnostics.list };
}

/** As `layOutDump`, with header and patches. */
export function planDump(image: MemoryImage, options: PlanOptions): DumpPlan {
  const layout = layOutDump(image, options);
  const { type, extents, pages, firstPage, size } = layout;
  const diagnostics = new Diagnostics();
  diagnostics.addAll(layout.diagnostics);
  const form = image.machine.dumpHeader;
  const prefix = Buffer.alloc(layout.prefixSize);
  const { values } = options;
  const described: HeaderPages = {
    extents,
    pages,
    dumpType: DUMP_TYPES[type],
    // What the header of a dump says beside its type stays: `revise` sees to it.
    attributes: attributesOf(type, 'header' in values ? false : values.secureKernel),
    requiredSpace: size,
  };
  const header =
    'header' in values
      ? form.revise(values.header, described, values.changes)
      : form.encode({ ...values, ...described });
  header.copy(prefix);
  if (type !== 'full') encodeBitmap(extents, pages, firstPage).copy(prefix, form.size);
  const patches = keepPatches(options.patches, extents, diagnostics);
  const segments: Segment[] = [
    { kind: 'bytes', position: 0, bytes: prefix },
    { kind: 'pages', position: firstPage, extents },
  ];
  return { type, segments, prefix, firstPage, extents, pages, size, patches, diagnostics: diagnostics.list };
}

/** LeechCore refuses dumps whose pages begin beyond it: a map of almost 512 GiB. */
const LEECHCORE_FIRST_PAGE = 16 * MIB;

function chooseExtents(
  image: MemoryImage,
  { type, ranges, kept }: Pick<PlanOptions, 'type' | 'ranges' | 'kept'>,
  diagnostics: Diagnostics,
): { type: PageDumpType; extents: readonly Extent[] } {
  const { extents: present, partial } = image.pageExtents();
  const inRanges = ranges ? intersect(present, ranges) : present;
  const extents = kept ? intersect(inRanges, kept) : inRanges;
  if (ranges) {
    const left = sum(present) - sum(inRanges);
    if (left > 0)
      diagnostics.add('note', 'ram-left-out', `${bytes(left)} that Windows does not count as RAM were left out`);
  } else if (partial.length > 0) {
    const places = partial.slice(0, 4).map((p) => `${hex(p.start)}+${hex(p.size)}`);
    diagnostics.add(
      'loss',
      'partial-pages',
      `a dump holds whole pages: ${bytes(sum(partial))} in ${partial.length} incomplete page${partial.length === 1 ? '' : 's'} were left out (physical ${places.join(', ')}${partial.length > 4 ? ', …' : ''})`,
    );
  }
  const { maxRuns } = image.machine.dumpHeader;
  if (type === 'full' && extents.length > maxRuns) {
    throw new Elf2dmpError({
      code: 'too-many-runs',
      kind: 'unsupported',
      message: `the memory has ${extents.length} runs, and a full dump's header holds ${maxRuns}`,
      file: image.file,
      hint: 'use --type bitmap (or auto), or --ram windows, which leaves out firmware and video memory',
    });
  }
  if (type === 'full' || (type === 'auto' && !kept && extents.length <= maxRuns)) return { type: 'full', extents };
  return { type: type === 'auto' ? 'bitmap' : type, extents: dropFarExtents(extents, diagnostics) };
}

/** The page map may take this much, whatever the dump holds: it reaches over 512 GiB. */
const CHEAP_BITMAP = 16 * MIB;

/** Forged addresses near 2^52 must not cost gigabytes: while the map takes more than it has pages for, the last run goes. */
function dropFarExtents(extents: readonly Extent[], diagnostics: Diagnostics): readonly Extent[] {
  const kept = [...extents];
  const far: Extent[] = [];
  let total = sum(kept);
  for (let last = kept.at(-1); last; last = kept.at(-1)) {
    if (bitmapSize(last.start + last.size) <= Math.max(CHEAP_BITMAP, total)) break;
    far.push(last);
    kept.pop();
    total -= last.size;
  }
  if (far.length > 0) {
    diagnostics.add(
      'loss',
      'extents-too-far',
      `${bytes(sum(far))} in ${far.length} run${far.length === 1 ? '' : 's'} from physical ${hex(far.at(-1)!.start)} on lie so far out that the page map would be larger than they are: they were left out`,
      { physical: hex(far.at(-1)!.start) },
    );
  }
  return kept;
}

/** Patches of pages that are not written are losses. */
function keepPatches(patches: readonly Patch[], extents: readonly Extent[], diagnostics: Diagnostics): Patch[] {
  return patches.filter((patch) => {
    const kept = extents.some(
      (e) => patch.physical >= e.start && patch.physical + patch.bytes.length <= e.start + e.size,
    );
    if (!kept) {
      diagnostics.add(
        'loss',
        'patch-left-out',
        `${patch.what} lies at physical ${hex(patch.physical)}, which is not in the dump`,
      );
    }
    return kept;
  });
}

/** File offset of a physical address that the plan keeps. */
export function positionOf(plan: DumpPlan, physical: number): number {
  let position = plan.firstPage;
  for (const { start, size } of plan.extents) {
    if (physical >= start && physical < start + size) return position + physical - start;
    position += size;
  }
  throw new RangeError(`physical 0x${physical.toString(16)} is not in the plan`);
}

/** The header's Attributes, which Windows leaves unset in a full dump unless it has something to say. */
function attributesOf(type: PageDumpType, secureKernel: boolean): number | undefined {
  const attributes =
    (type === 'active' ? DUMP_ATTRIBUTE_FILTERED : 0) | (secureKernel ? DUMP_ATTRIBUTE_SECURE_KERNEL : 0);
  return type === 'full' && attributes === 0 ? undefined : attributes;
}
