/** Which pages a kernel dump or a dump of active memory keeps, and why. */

import { type Diagnostic, Diagnostics } from '../core/errors.ts';
import { Pulse } from '../core/pulse.ts';
import { Reason } from '../core/reason.ts';
import { PageLocation } from '../formats/win-kernel.ts';
import { PageMap } from '../memory/page-map.ts';
import type { Extent } from '../memory/runs.ts';
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
  const states = readPageStates(image, space, kdbg.fields.MmPfnDatabase, {
    mapped: await pagesWith(map, Mapped.kernelTable | Mapped.userTable | Mapped.kernel, { windows, pulse }),
    transition: walked.transition.filter((address) => ((map.bits[map.indexOf(address)] ?? MAPPED) & MAPPED) === 0),
  });
  const known = !(states instanceof Reason);
  const isRam = ramTest(windows);
  const counts: { kept: PageCounts; leftOut: PageCounts } = { kept: {}, leftOut: {} };
  const extents = await map.select((index, address) => {
    const outside = !isRam(address);
    const bits = outside && ram === 'windows' ? 0 : map.bits[index]!;
    const kind = kindOf(bits, outside, () => (known ? states.state(address)?.location : undefined));
    const keep = type === 'kernel' ? KERNEL_KINDS.has(kind) : keepsActive(kind, bits, address, states);
    const side = keep ? counts.kept : counts.leftOut;
    side[kind] = (side[kind] ?? 0) + 1;
    return keep;
  }, pulse);

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

function kindOf(bits: number, outside: boolean, state: () => number | undefined): PageKind {
  if ((bits & Mapped.kernelTable) !== 0) return 'kernelPageTables';
  if ((bits & Mapped.kernel) !== 0) return 'kernel';
  if ((bits & Mapped.kernelSoft) !== 0) return 'kernelInTransition';
  if ((bits & Mapped.userTable) !== 0) return 'userPageTables';
  if ((bits & Mapped.user) !== 0) return 'user';
  if ((bits & Mapped.userSoft) !== 0) return 'userInTransition';
  if (outside) return 'notRam';
  return STATE_KINDS[state() ?? -1] ?? 'unknown';
}

function keepsActive(kind: PageKind, bits: number, address: number, states: { state: PageStates } | Reason): boolean {
  if ((bits & MAPPED) !== 0) return true;
  if (states instanceof Reason) return kind !== 'unknown' && !UNUSED_KINDS.has(kind);
  if (kind === 'notRam') return false;
  const state = states.state(address);
  // Where the database is believed, it should have said so.
  return state === undefined || windowsKeeps(state);
}

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
  const isRam = ramTest(windows);
  const pages: number[] = [];
  await map.select((index, address) => {
    if (pages.length < MAX_SAMPLE && (map.bits[index]! & bits) !== 0 && isRam(address)) pages.push(address);
    return false;
  }, pulse);
  return pages;
}

/** Whether Windows counts a page as RAM; everything is where that is unknown. For ascending addresses. */
function ramTest({ physicalMemory }: Windows): (address: number) => boolean {
  if (physicalMemory instanceof Reason) return () => true;
  let at = 0;
  return (address) => {
    while (at < physicalMemory.length && physicalMemory[at]!.start + physicalMemory[at]!.size <= address) at++;
    const range = physicalMemory[at];
    return range !== undefined && address >= range.start;
  };
}
