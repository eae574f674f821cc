/** Which pages a kernel dump or a dump of active memory keeps, and why. */

import { type Diagnostic, Diagnostics } from '../core/errors.ts';
import { Pulse } from '../core/pulse.ts';
import { Reason } from '../core/reason.ts';
import { PAGE_SIZE, pa } from '../core/units.ts';
import { HoleMap } from '../files/holes.ts';
import { PageLocation } from '../formats/win-kernel.ts';
import { isHole } from '../memory/holes.ts';
import { PageMap, type PageRun } from '../memory/page-map.ts';
import { append, type Extent, endOf } from '../memory/runs.ts';
import { Mapped, walkTables } from '../memory/table-walk.ts';
import { MAX_SAMPLE, type PageState, type PageStates, readPageStates } from '../windows/page-states.ts';
import { findProcessRoots } from '../windows/process-roots.ts';
import type { Windows } from '../windows/windows.ts';

/** Whose page it is: the kernel's, a process's, or, if nothing maps it, its state in Windows' own database. The first match counts. */
export type PageKind =
  /** Page tables of the kernel's half, and every process's root. */
  | 'kernelPageTables'
  | 'userPageTables'
  | 'kernel'
  /** The kernel's, no longer mapped but still in memory: in transition, or reached through a prototype entry. */
  | 'kernelInTransition'
  | 'user'
  | 'userInTransition'
  /** In use, but mapped by no process. */
  | 'otherInUse'
  | 'modified'
  | 'standby'
  | 'free'
  | 'zeroed'
  | 'bad'
  /** Mapped by nothing, and nothing more is known. */
  | 'unknown'
  /** Mapped by nothing, and not counted as RAM by Windows: firmware, video memory. */
  | 'notRam';

export type PageCounts = Partial<Record<PageKind, number>>;

export interface PageSelection {
  type: 'kernel' | 'active';
  extents: Extent[];
  kept: PageCounts;
  leftOut: PageCounts;
  /** How pages in use were recognised: by Windows' page frame database, or only by what processes map. */
  statesFrom: 'page frame database' | 'page tables';
  /** Evidence for that, or why the database was not believed. */
  statesDetail: string;
  processes: number;
  /** Page-table roots followed. */
  roots: number;
  /** Why pages that belong to the dump may be left out. */
  diagnostics: readonly Diagnostic[];
}

const STATE_KINDS: Record<number, PageKind> = {
  [PageLocation.zeroed]: 'zeroed',
  [PageLocation.free]: 'free',
  [PageLocation.standby]: 'standby',
  [PageLocation.modified]: 'modified',
  [PageLocation.modifiedNoWrite]: 'modified',
  [PageLocation.bad]: 'bad',
  [PageLocation.active]: 'otherInUse',
  [PageLocation.transition]: 'otherInUse',
};

const KERNEL_KINDS = new Set<PageKind>(['kernelPageTables', 'kernel', 'kernelInTransition']);
const UNUSED_KINDS = new Set<PageKind>(['standby', 'free', 'zeroed', 'notRam']);

const MAPPED = Mapped.kernelTable | Mapped.userTable | Mapped.kernel | Mapped.user;

/**
 * A kernel dump keeps what the kernel's half of any process maps, pages in transition included: the
 * debugger follows those. A dump of active memory keeps what any process maps, and what Windows itself keeps: pages
 * in use, and standby and modified ones that no file has (MiAddPhysicalPagesToCrashDump).
 */
export async function selectPages(
  windows: Windows,
  type: 'kernel' | 'active',
  ram: 'all' | 'windows',
  signal?: AbortSignal,
): Promise<PageSelection> {
  const { image, space, kdbg } = windows;
  const pulse = new Pulse(signal);
  const found = findProcessRoots(windows);
  const map = new PageMap(image);
  const walked = await walkTables(space, found.roots, map, pulse);
  const holes = image.stored && (await HoleMap.open(image.stored.fd));
  const states = readPageStates(image, space, kdbg.fields.MmPfnDatabase, {
    mapped: await pagesWith(map, Mapped.kernelTable | Mapped.userTable | Mapped.kernel, { windows, pulse }),
    transition: walked.transition.filter((address) => ((map.bits[map.indexOf(address)] ?? MAPPED) & MAPPED) === 0),
    // The database of a guest that uses little of its memory is large, and most of it was never written to.
    isZero: holes && ((physical, size) => isHole(image, holes, physical, size)),
  });
  const known = !(states instanceof Reason);
  const { extents, counts } = await sortPages(windows, map, states, { type, ram, pulse });

  const diagnostics = new Diagnostics();
  if (found.doubt !== undefined) {
    const lost = type === 'kernel' ? "other processes' session memory" : "other processes' memory";
    const severity = type === 'active' && known ? 'warning' : 'loss';
    diagnostics.add(
      severity,
      'processes-unknown',
      `not all processes are known (${found.doubt}): ${lost} may be left out`,
    );
  }
  if (found.gone > 0) {
    diagnostics.add(
      'note',
      'processes-gone',
      `${found.gone} of ${found.processes} processes have no page tables any more: what is left of their memory is not known to be theirs`,
    );
  }
  if (walked.endless) {
    diagnostics.add('loss', 'page-tables-damaged', 'there are more page tables than pages: some were not followed');
  }
  if (walked.missingTables > 0) {
    diagnostics.add(
      'warning',
      'page-tables-missing',
      `${walked.missingTables} page tables are not in the input: what they map was not found`,
    );
  }
  if (type === 'active' && !known) {
    diagnostics.add(
      'loss',
      'page-states-unknown',
      `which pages Windows uses is known only from the page tables of ${found.roots.length} roots (${states}): pages in use that no process maps are left out`,
    );
  }
  return {
    type,
    extents,
    ...counts,
    statesFrom: known ? 'page frame database' : 'page tables',
    statesDetail: known ? states.how : states.text,
    processes: found.processes,
    roots: found.roots.length,
    diagnostics: diagnostics.list,
  };
}

/** Pages that are looked at in some milliseconds. */
const BEAT_PAGES = 1 << 12;

/** Says, for each further number of pages, whether it is time for a look at signals. */
function pacing(): (pages: number) => boolean {
  let looked = 0;
  return (pages) => {
    looked += pages;
    if (looked < BEAT_PAGES) return false;
    looked = 0;
    return true;
  };
}

/** What to keep. */
interface Choice {
  type: 'kernel' | 'active';
  ram: 'all' | 'windows';
  pulse: Pulse;
}

/** Decides on every page; on adjacent ones of which the same is known together: most of a large guest's are such. */
async function sortPages(
  windows: Windows,
  map: PageMap,
  known: { states: PageStates } | Reason,
  { type, ram, pulse }: Choice,
): Promise<{ extents: Extent[]; counts: { kept: PageCounts; leftOut: PageCounts } }> {
  const counts: { kept: PageCounts; leftOut: PageCounts } = { kept: {}, leftOut: {} };
  const extents: Extent[] = [];
  const add = (start: number, pages: number, kind: PageKind, keep: boolean) => {
    const side = keep ? counts.kept : counts.leftOut;
    side[kind] = (side[kind] ?? 0) + pages;
    if (keep) append(extents, { start: pa(start), size: pages * PAGE_SIZE });
  };
  const addByStates = (run: PageRun, kind: PageKind | undefined, states: PageStates) => {
    for (let page = 0; page < run.pages; ) {
      const address = run.start + page * PAGE_SIZE;
      const { state, pages } = states.run(address, run.pages - page);
      const own = kind ?? STATE_KINDS[state?.location ?? -1] ?? 'unknown';
      // Where the database is believed, it should have said so.
      add(address, pages, own, type === 'active' && (state === undefined || windowsKeeps(state)));
      page += pages;
    }
  };
  const isTime = pacing();
  for (const run of splitByRam(map.runs(), windows)) {
    if (isTime(run.pages)) await pulse.beat();
    const bits = !run.isRam && ram === 'windows' ? 0 : run.bits;
    const kind = kindOf(bits, !run.isRam);
    if (!(known instanceof Reason) && needsStates(type, kind, bits)) addByStates(run, kind, known.states);
    else {
      const keep = type === 'kernel' ? kind !== undefined && KERNEL_KINDS.has(kind) : keepsActive(kind, bits);
      add(run.start, run.pages, kind ?? 'unknown', keep);
    }
  }
  return { extents, counts };
}

/** undefined where only Windows' own database can tell. */
function kindOf(bits: number, outside: boolean): PageKind | undefined {
  if ((bits & Mapped.kernelTable) !== 0) return 'kernelPageTables';
  if ((bits & Mapped.kernel) !== 0) return 'kernel';
  if ((bits & Mapped.kernelSoft) !== 0) return 'kernelInTransition';
  if ((bits & Mapped.userTable) !== 0) return 'userPageTables';
  if ((bits & Mapped.user) !== 0) return 'user';
  if ((bits & Mapped.userSoft) !== 0) return 'userInTransition';
  return outside ? 'notRam' : undefined;
}

/** Whether the database decides on a page's kind, or on whether it is kept. */
function needsStates(type: 'kernel' | 'active', kind: PageKind | undefined, bits: number): boolean {
  if (kind === undefined) return true;
  return type === 'active' && (bits & MAPPED) === 0 && kind !== 'notRam';
}

/** Whether a dump of active memory keeps a page, as far as the page tables tell. */
const keepsActive = (kind: PageKind | undefined, bits: number): boolean =>
  (bits & MAPPED) !== 0 || (kind !== undefined && !UNUSED_KINDS.has(kind));

/** Windows' rule for its own dumps of active memory; a page that is being read or written is in use too. */
function windowsKeeps({ location, cached, isPrivate }: PageState): boolean {
  if (!cached) return false;
  const kind = STATE_KINDS[location];
  return kind === 'otherInUse' || (isPrivate && (kind === 'standby' || kind === 'modified'));
}

/** The first pages of Windows' RAM that have any of `bits`, as many as a sample takes. */
async function pagesWith(
  map: PageMap,
  bits: number,
  { windows, pulse }: { windows: Windows; pulse: Pulse },
): Promise<number[]> {
  const pages: number[] = [];
  const isTime = pacing();
  for (const run of splitByRam(map.runs(), windows)) {
    if (isTime(run.pages)) await pulse.beat();
    if ((run.bits & bits) === 0 || !run.isRam) continue;
    for (let page = 0; page < run.pages && pages.length < MAX_SAMPLE; page++) pages.push(run.start + page * PAGE_SIZE);
    if (pages.length === MAX_SAMPLE) break;
  }
  return pages;
}

/** Runs of pages that Windows counts as RAM, all of them, or does not; all are RAM where that is unknown. */
function* splitByRam(runs: Iterable<PageRun>, { physicalMemory }: Windows): Generator<PageRun & { isRam: boolean }> {
  let at = 0;
  for (const run of runs) {
    if (physicalMemory instanceof Reason) {
      yield { ...run, isRam: true };
      continue;
    }
    const end = run.start + run.pages * PAGE_SIZE;
    for (let start = run.start; start < end; ) {
      while (at < physicalMemory.length && endOf(physicalMemory[at]!) <= start) at++;
      const range = physicalMemory[at];
      const isRam = range !== undefined && start >= range.start;
      const stop = Math.min(end, (isRam ? endOf(range) : range?.start) ?? end);
      // A page counts by its first byte.
      const pages = Math.ceil((stop - start) / PAGE_SIZE);
      yield { start, pages, bits: run.bits, isRam };
      start += pages * PAGE_SIZE;
    }
  }
}
