/**
 * Processes from PsActiveProcessHead. The KDBG gives EPROCESS's size and the offsets of its page-table root, PEB and
 * parent, but not those of its list link, process ID and name. Those are inferred, and believed only if they fit
 * most processes at once. What a process lacks harms itself only: some have no page tables any more, and a damaged one
 * may have no name.
 */

import { isCanonical, isKernelAddress } from '../core/bits.ts';
import { RangesFound } from '../core/ranges-found.ts';
import { because, Reason } from '../core/reason.ts';
import { hex64, PAGE_SIZE, type PhysicalAddress, pa, type VirtualAddress, va } from '../core/units.ts';
import { rootIn, tableSize } from '../machines/paging-mode.ts';
import { AddressSpace } from '../memory/address-space.ts';
import type { DebuggerFields } from './kdbg.ts';
import type { Processor } from './processors.ts';

/** A process on the list. */
export interface Process {
  /** Its link in the list, the only address that is certain. */
  link: VirtualAddress;
  /** EPROCESS. */
  address: VirtualAddress | undefined;
  pid: number | undefined;
  parentPid: number | undefined;
  /** ImageFileName: at most 15 characters. May hold any character. */
  name: string | undefined;
  /** Its page tables' root, where they are present. */
  directoryTableBase: PhysicalAddress | undefined;
  /**
   * `gone`: its root's page has another use. Windows lets go of the tables of processes that it swaps out and of
   * those that exited; Secure System has none of this kind. `missing`: the root is not in the input. undefined: where
   * the process begins is unknown.
   */
  pageTables: 'present' | 'gone' | 'missing' | undefined;
  peb: VirtualAddress | undefined;
}

/** The processes that can be reached, and what is known of their layout. */
export interface ProcessList {
  processes: readonly Process[];
  /** Where the list's walk ended early and why; undefined when it came back to its head. */
  broken: string | undefined;
  /** Offsets within EPROCESS as inferred; undefined: not determined. */
  layout: { link: number | undefined; pid: number | undefined; name: number | undefined };
  /** What was not determined, and why. */
  doubts: readonly string[];
}

/** Systems with more were not seen. */
const MAX_PROCESSES = 1 << 15;

/** EPROCESS has some 2 KiB. */
const MIN_EPROCESS = 0x100;
const MAX_EPROCESS = 0x2000;

/** UCHAR ImageFileName[16] with a NUL in older builds; [15], then the byte PriorityClass, in later ones. */
const NAME_BYTES = 16;
const MAX_NAME = 15;
const SYSTEM_NAME = Buffer.from('System\0', 'latin1');
/** Process ID of System. */
export const SYSTEM_PID = 4;

/** Places that fit the first process and are tried on all: real data has a few. */
const MAX_CANDIDATES = 16;

/** DISPATCHER_HEADER.Type of a process. */
const PROCESS_OBJECT = 3;

/** KPROCESS begins with its dispatcher header, and EPROCESS with KPROCESS: its links lie behind them. */
const MIN_LINK = 0x80;

/** The list, or the reason why there is none. */
export function readProcesses(
  space: AddressSpace,
  fields: DebuggerFields,
  processors: readonly Processor[],
): ProcessList | Reason {
  if (space.image.triage) return because('a triage dump holds only the current one, without a list');
  const head = fields.PsActiveProcessHead;
  const size = fields.SizeEProcess ?? 0;
  if (head === undefined || !isKernelAddress(head)) return because('the KDBG names no PsActiveProcessHead');
  const { links, broken } = walk(space, head);
  const layout: ProcessList['layout'] = { link: undefined, pid: undefined, name: undefined };
  const doubts: string[] = [];
  const usable = size >= MIN_EPROCESS && size <= MAX_EPROCESS;
  const tables = pageTableTest(space, fields);
  let pids: readonly (number | undefined)[] = [];
  if (!usable) doubts.push(`the KDBG gives an impossible size of EPROCESS (0x${size.toString(16)})`);
  if (usable && links.length > 0) {
    const link = inferLink(links, { space, fields, processors, tables });
    if (link instanceof Reason) doubts.push(link.text);
    else layout.link = link;
    const ids = readPids(space, links);
    if (ids instanceof Reason) doubts.push(ids.text);
    else {
      layout.pid = -space.image.machine.pointerSize;
      pids = ids;
    }
    const name = inferName(space, size, links);
    if (name instanceof Reason) doubts.push(name.text);
    else layout.name = name;
  }
  const { sound, doubts: offsetDoubts } = soundOffsets(fields, space.image.machine.pointerSize);
  doubts.push(...offsetDoubts);
  const read = links.map((at, i) => describe(space, sound, at, { ...layout, pid: pids[i], tables }));
  const { processes, doubts: valueDoubts } = withoutImpossible(read);
  doubts.push(...valueDoubts);
  if (layout.pid !== undefined) doubts.push(...exceptions('process ID', processes, ({ pid }) => pid === undefined));
  if (layout.name !== undefined) doubts.push(...exceptions('name', processes, ({ name }) => name === undefined));
  const { link, pid, name } = layout;
  return {
    processes,
    broken,
    layout: {
      link,
      // Relative to the link, until here.
      pid: link === undefined || pid === undefined ? undefined : link + pid,
      name: link === undefined || name === undefined ? undefined : link + name,
    },
    doubts,
  };
}

/** Fields of EPROCESS whose offsets the KDBG has, each as wide as a pointer. */
const OFFSETS = ['OffsetEprocessPeb', 'OffsetEprocessParentCID', 'OffsetEprocessDirectoryTableBase'] as const;

/** The fields without offsets that EPROCESS has no such field at. */
function soundOffsets(fields: DebuggerFields, width: number): { sound: DebuggerFields; doubts: string[] } {
  const size = fields.SizeEProcess ?? 0;
  const bad = OFFSETS.filter((name) => {
    const offset = fields[name] ?? 0;
    return offset % width !== 0 || offset + width > size;
  });
  const doubts = bad.map((name) => `the KDBG gives an impossible ${name} (0x${(fields[name] ?? 0).toString(16)})`);
  return { sound: { ...fields, ...Object.fromEntries(bad.map((name) => [name, undefined])) }, doubts };
}

/**
 * The processes without what none of them can have: System, the first, has no parent and no PEB; the session manager is
 * its child; and PEBs begin pages. Without all of it where most is wrong: the offset is.
 */
function withoutImpossible(processes: readonly Process[]): { processes: readonly Process[]; doubts: string[] } {
  const [system, ...others] = processes;
  const doubts: string[] = [];
  let sound = processes;
  const located = others.filter(({ address }) => address !== undefined);
  if (system?.parentPid || (located.length > 0 && !located.some(({ parentPid }) => parentPid === SYSTEM_PID))) {
    doubts.push('OffsetEprocessParentCID in the KDBG does not lead to parents: none is shown');
    sound = sound.map((process) => ({ ...process, parentPid: undefined }));
  }
  const pebs = processes.filter(({ peb }) => peb !== undefined);
  const isPeb = pebs.length > 0 || located.length < MIN_WITHOUT_PEB;
  if (system?.peb !== undefined || !isPeb || pebs.some(({ peb }) => peb! % BigInt(PAGE_SIZE) !== 0n)) {
    doubts.push('OffsetEprocessPeb in the KDBG does not lead to PEBs: none is shown');
    sound = sound.map((process) => ({ ...process, peb: undefined }));
  }
  return { processes: sound, doubts };
}

/** So many processes beside System do not all run in the kernel. */
const MIN_WITHOUT_PEB = 2;

/** Processes that a doubt names. */
const MAX_NAMED = 4;

/** Which processes lack something that the others have. */
function exceptions(what: string, processes: readonly Process[], lacks: (process: Process) => boolean): string[] {
  const bad = processes.filter(lacks);
  if (bad.length === 0) return [];
  const named = bad
    .slice(0, MAX_NAMED)
    .map(({ pid, link }) => (pid === undefined ? `the process at ${hex64(link)}` : `process ${pid}`));
  const more = bad.length > MAX_NAMED ? [`${bad.length - MAX_NAMED} more`] : [];
  return [`damaged or not present: the ${what} of ${[...named, ...more].join(', ')}`];
}

/** Fits most of them: what one process lacks does not void what the others show. */
const isMost = (count: number, links: readonly bigint[]): boolean => 2 * count > links.length;

function walk(space: AddressSpace, head: bigint): { links: VirtualAddress[]; broken: string | undefined } {
  const links: VirtualAddress[] = [];
  const seen = new Set<bigint>([head]);
  let previous = head;
  const back = BigInt(space.image.machine.pointerSize);
  for (let link = space.readPointer(head); ; ) {
    if (link === undefined) return { links, broken: `the entry at ${hex64(previous)} is not present` };
    if (link === head) return { links, broken: undefined };
    if (seen.has(link)) return { links, broken: `the list turns back to ${hex64(link)}` };
    if (seen.size > MAX_PROCESSES) return { links, broken: `the list has more than ${MAX_PROCESSES} entries` };
    if (!isKernelAddress(link)) return { links, broken: `the entry at ${hex64(previous)} links to ${hex64(link)}` };
    if (space.readPointer(link + back) !== previous) {
      return { links, broken: `the entry at ${hex64(link)} does not link back to ${hex64(previous)}` };
    }
    seen.add(link);
    links.push(va(link));
    previous = link;
    link = space.readPointer(link);
  }
}

/** Whether memory has a process's type where its EPROCESS begins. */
export const isProcessObject = (space: AddressSpace, address: bigint): boolean =>
  space.read(address, 1)?.[0] === PROCESS_OBJECT;

/** Whether a value of DirectoryTableBase leads to page tables. */
type PageTableTest = (value: bigint) => Exclude<Process['pageTables'], undefined>;

/** Page tables of a process map the kernel and SharedUserData to where the kernel's own do. */
function pageTableTest(space: AddressSpace, { KernBase }: DebuggerFields): PageTableTest {
  const { machine } = space.image;
  const places = [machine.sharedUserData, ...(KernBase === undefined ? [] : [va(KernBase)])].flatMap((virtual) => {
    const physical = space.translate(virtual);
    return physical === undefined ? [] : [{ virtual, physical }];
  });
  const leads = (root: number): boolean =>
    // Of 5-level tables, a crash dump's header names only the part that debuggers walk.
    machine.pagingModes.some((mode) => {
      const other = new AddressSpace(space.image, pa(root), mode);
      return places.length > 0 && places.every(({ virtual, physical }) => other.translate(virtual) === physical);
    });
  const known = new Map<number, ReturnType<PageTableTest>>();
  return (value) => {
    const root = rootIn(space.mode, value);
    let state = known.get(root);
    if (state === undefined) {
      if (root === 0) state = 'gone';
      else if (!space.image.has(root, tableSize(space.mode, 0))) state = 'missing';
      else state = leads(root) ? 'present' : 'gone';
      known.set(root, state);
    }
    return state;
  };
}

/** What the offset of the links is inferred from. */
interface LinkClues {
  space: AddressSpace;
  fields: DebuggerFields;
  processors: readonly Processor[];
  tables: PageTableTest;
}

/** Processes whose every offset is tried where no processor names one. */
const MAX_SAMPLES = 4;

/** Offset of the link in EPROCESS, or why it is not known. */
function inferLink(links: readonly bigint[], { space, fields, processors, tables }: LinkClues): number | Reason {
  const { SizeEProcess: size = 0, OffsetEprocessDirectoryTableBase: rootAt = 0 } = fields;
  const { pointerSize } = space.image.machine;
  const isProcess = (base: bigint): boolean => {
    // Process objects are allocated from pool, at multiples of two pointers. The cheapest test comes first: most fail it.
    if (Number(base & 0xffn) % (2 * pointerSize) !== 0 || !isProcessObject(space, base)) return false;
    const root = space.readPointer(base + BigInt(rootAt));
    return root !== undefined && tables(root) === 'present';
  };
  const offsets = new Set<number>();
  // The processes that CPUs run are known by their address.
  const found = new RangesFound(links.map((from) => ({ from, size: 1 })));
  for (const base of currentProcesses(space, fields, processors)) {
    const link = found.first(base + BigInt(MIN_LINK), size - MIN_LINK)?.from;
    if (link !== undefined) offsets.add(Number(link - base));
  }
  for (const link of offsets.size === 0 ? links.slice(0, MAX_SAMPLES) : []) {
    for (let at = MIN_LINK; at < size; at += pointerSize) if (isProcess(link - BigInt(at))) offsets.add(at);
  }
  if (offsets.size > MAX_CANDIDATES)
    return because('too many offsets of the links in EPROCESS fit the first processes');
  const holding = [...offsets].filter((offset) =>
    isMost(links.filter((link) => isProcess(link - BigInt(offset))).length, links),
  );
  const [only] = holding;
  if (holding.length === 1 && only !== undefined) return only;
  return because(
    `${holding.length === 0 ? 'no offset of the links in EPROCESS fits' : `${holding.length} offsets of the links in EPROCESS fit`} most processes`,
  );
}

/** PRCB.CurrentThread → KTHREAD.ApcState.Process. */
function* currentProcesses(
  space: AddressSpace,
  fields: DebuggerFields,
  processors: readonly Processor[],
): Generator<bigint> {
  const { OffsetPrcbCurrentThread: threadAt, OffsetKThreadApcProcess: processAt } = fields;
  if (!threadAt || !processAt) return;
  for (const { prcb } of processors) {
    const thread = space.readPointer(prcb + BigInt(threadAt));
    const process =
      thread !== undefined && isKernelAddress(thread) ? space.readPointer(thread + BigInt(processAt)) : undefined;
    if (process !== undefined && isKernelAddress(process)) yield process;
  }
}

/** UniqueProcessId, right before ActiveProcessLinks in every build: System's is 4, and no two are the same. */
function readPids(space: AddressSpace, links: readonly bigint[]): (number | undefined)[] | Reason {
  const { pointerSize } = space.image.machine;
  const seen = new Set<bigint>();
  const pids = links.map((link) => {
    const pid = space.readPointer(link - BigInt(pointerSize));
    if (pid === undefined || pid % 4n !== 0n || pid >= 2n ** 32n || seen.has(pid)) return undefined;
    seen.add(pid);
    return Number(pid);
  });
  const known = pids.filter((pid) => pid !== undefined).length;
  if (pids[0] === SYSTEM_PID && isMost(known, links)) return pids;
  return because('no process IDs before the links: the first is not 4, or most are not IDs');
}

/** Offset of ImageFileName from the link, or why it is not known. */
function inferName(space: AddressSpace, size: number, links: readonly bigint[]): number | Reason {
  const [first] = links;
  // The memory after EPROCESS need not be mapped.
  const pageEnd = first === undefined ? 0 : PAGE_SIZE - Number(first & 0xfffn);
  const bytes =
    first === undefined ? undefined : (space.read(first, size) ?? space.read(first, Math.min(size, pageEnd)));
  const places: number[] = [];
  for (let at = bytes?.indexOf(SYSTEM_NAME) ?? -1; bytes && at >= 0; at = bytes.indexOf(SYSTEM_NAME, at + 1)) {
    places.push(at);
  }
  if (places.length > MAX_CANDIDATES) return because('too many places hold "System" in the first process');
  const fitting = places.filter((at) =>
    isMost(links.filter((link) => readName(space, link + BigInt(at)) !== undefined).length, links),
  );
  const [only] = fitting;
  if (fitting.length === 1 && only !== undefined) return only;
  const which = fitting.length === 0 ? 'no place behind the links holds' : `${fitting.length} places hold`;
  return because(`${which} "System" in the first process and a name in most others`);
}

/** A name of at most 15 characters that are text, up to a byte that is none: NUL or PriorityClass. */
function readName(space: AddressSpace, address: bigint): string | undefined {
  const bytes = space.read(address, NAME_BYTES);
  const end = bytes?.findIndex((byte) => byte < 0x20) ?? -1;
  if (!bytes || end <= 0 || (bytes[end] !== 0 && end !== MAX_NAME)) return undefined;
  const name = bytes.subarray(0, end);
  return name.includes(0x7f) ? undefined : name.toString('latin1');
}

function describe(
  space: AddressSpace,
  fields: DebuggerFields,
  link: VirtualAddress,
  { link: linkAt, name: nameAt, pid, tables }: ProcessList['layout'] & { tables: PageTableTest },
): Process {
  const address = linkAt === undefined ? undefined : va(link - BigInt(linkAt));
  const word = (offset: number | undefined) =>
    address === undefined || !offset ? undefined : space.readPointer(address + BigInt(offset));
  const parent = word(fields.OffsetEprocessParentCID);
  const root = word(fields.OffsetEprocessDirectoryTableBase);
  const peb = word(fields.OffsetEprocessPeb);
  const pageTables = root === undefined ? undefined : tables(root);
  return {
    link,
    address,
    pid,
    parentPid: parent !== undefined && parent < 2n ** 32n && parent % 4n === 0n ? Number(parent) : undefined,
    name: nameAt === undefined ? undefined : readName(space, link + BigInt(nameAt)),
    directoryTableBase: root !== undefined && pageTables === 'present' ? pa(rootIn(space.mode, root)) : undefined,
    pageTables,
    // System processes have none.
    peb: peb !== undefined && peb !== 0n && !isKernelAddress(peb) && isCanonical(peb) ? va(peb) : undefined,
  };
}
