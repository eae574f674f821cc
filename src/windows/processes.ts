/**
 * Processes from PsActiveProcessHead. The KDBG gives EPROCESS's size and the offsets of its page-table root, PEB and
 * parent, but not those of its list link, process ID and name. Those are inferred, and believed only if they fit
 * every process at once; the others are left undefined.
 */

import { isCanonical, isKernelAddress } from '../core/bits.ts';
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
  /** ImageFileName: at most 14 characters. May hold any character. */
  name: string | undefined;
  directoryTableBase: PhysicalAddress | undefined;
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

/** UCHAR ImageFileName[15] in all builds; the last byte is NUL. */
const NAME_BYTES = 15;
const SYSTEM_NAME = Buffer.from('System\0', 'latin1');
const SYSTEM_PID = 4n;

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
  const head = fields.PsActiveProcessHead;
  const size = fields.SizeEProcess ?? 0;
  if (head === undefined || !isKernelAddress(head)) return because('the KDBG names no PsActiveProcessHead');
  const { links, broken } = walk(space, head);
  const layout: ProcessList['layout'] = { link: undefined, pid: undefined, name: undefined };
  const doubts: string[] = [];
  const usable = size >= MIN_EPROCESS && size <= MAX_EPROCESS;
  if (!usable) doubts.push(`the KDBG gives an impossible size of EPROCESS (0x${size.toString(16)})`);
  if (usable && links.length > 0) {
    const link = inferLink(space, fields, links, processors);
    if (link instanceof Reason) doubts.push(link.text);
    else layout.link = link;
    if (inferPid(space, links)) layout.pid = -8;
    else doubts.push('no process IDs before the links: the first is not 4, or some are not IDs');
    const name = inferName(space, size, links);
    if (name instanceof Reason) doubts.push(name.text);
    else layout.name = name;
  }
  const { link, pid, name } = layout;
  return {
    processes: links.map((at) => describe(space, fields, at, layout)),
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

function walk(space: AddressSpace, head: bigint): { links: VirtualAddress[]; broken: string | undefined } {
  const links: VirtualAddress[] = [];
  const seen = new Set<bigint>([head]);
  let previous = head;
  for (let link = space.readU64(head); ; ) {
    if (link === undefined) return { links, broken: `the entry at ${hex64(previous)} is not present` };
    if (link === head) return { links, broken: undefined };
    if (seen.has(link)) return { links, broken: `the list turns back to ${hex64(link)}` };
    if (seen.size > MAX_PROCESSES) return { links, broken: `the list has more than ${MAX_PROCESSES} entries` };
    if (!isKernelAddress(link)) return { links, broken: `the entry at ${hex64(previous)} links to ${hex64(link)}` };
    if (space.readU64(link + 8n) !== previous) {
      return { links, broken: `the entry at ${hex64(link)} does not link back to ${hex64(previous)}` };
    }
    seen.add(link);
    links.push(va(link));
    previous = link;
    link = space.readU64(link);
  }
}

/** Offset of the link in EPROCESS, or why it is not known. */
function inferLink(
  space: AddressSpace,
  fields: DebuggerFields,
  links: readonly bigint[],
  processors: readonly Processor[],
): number | Reason {
  const { SizeEProcess: size = 0, OffsetEprocessDirectoryTableBase: rootAt = 0 } = fields;
  const { machine } = space.image;
  const sharedPage = space.translate(machine.sharedUserData);
  const roots = new Map<number, boolean>();
  /** Whether tables map SharedUserData to the page that the kernel's do. */
  const isRoot = (value: bigint): boolean => {
    const root = rootIn(space.mode, value);
    if (root === 0 || !space.image.has(root, tableSize(space.mode, 0))) return false;
    let known = roots.get(root);
    if (known === undefined) {
      // Of 5-level tables, a crash dump's header names only the part that debuggers walk.
      known = machine.pagingModes.some(
        (mode) => new AddressSpace(space.image, pa(root), mode).translate(machine.sharedUserData) === sharedPage,
      );
      roots.set(root, known);
    }
    return known;
  };
  const isProcess = (base: bigint): boolean => {
    const type = space.read(base, 1)?.readUInt8();
    const root = space.readU64(base + BigInt(rootAt));
    // Process objects are allocated from pool, at multiples of 16.
    return type === PROCESS_OBJECT && base % 16n === 0n && root !== undefined && isRoot(root);
  };
  const offsets = new Set<number>();
  // The processes that CPUs run are known by their address.
  for (const base of currentProcesses(space, fields, processors)) {
    const link = links.find((at) => at >= base + BigInt(MIN_LINK) && at < base + BigInt(size));
    if (link !== undefined) offsets.add(Number(link - base));
  }
  if (offsets.size === 0) {
    const [first] = links;
    for (let at = MIN_LINK; first !== undefined && at < size; at += 8) {
      if (isProcess(first - BigInt(at))) offsets.add(at);
    }
  }
  if (offsets.size > MAX_CANDIDATES) return because('too many offsets of the links in EPROCESS fit the first process');
  const holding = [...offsets].filter((offset) => links.every((link) => isProcess(link - BigInt(offset))));
  const [only] = holding;
  if (holding.length === 1 && only !== undefined) return only;
  return because(
    `${holding.length === 0 ? 'no offset of the links in EPROCESS fits' : `${holding.length} offsets of the links in EPROCESS fit`} all processes`,
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
    const thread = space.readU64(prcb + BigInt(threadAt));
    const process =
      thread !== undefined && isKernelAddress(thread) ? space.readU64(thread + BigInt(processAt)) : undefined;
    if (process !== undefined && isKernelAddress(process)) yield process;
  }
}

/** Whether UniqueProcessId is right before ActiveProcessLinks, as in every 64-bit build: System's is 4, and no two are the same. */
function inferPid(space: AddressSpace, links: readonly bigint[]): boolean {
  const seen = new Set<bigint>();
  return links.every((link, i) => {
    const pid = space.readU64(link - 8n);
    if (pid === undefined || pid % 4n !== 0n || pid >= 2n ** 32n || seen.has(pid)) return false;
    seen.add(pid);
    return i > 0 || pid === SYSTEM_PID;
  });
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
  const fitting = places.filter((at) => links.every((link) => readName(space, link + BigInt(at)) !== undefined));
  const [only] = fitting;
  if (fitting.length === 1 && only !== undefined) return only;
  const which = fitting.length === 0 ? 'no place behind the links holds' : `${fitting.length} places hold`;
  return because(`${which} "System" in the first process and a name in all others`);
}

/** A name of at most 14 characters, padded with zeros. */
function readName(space: AddressSpace, address: bigint): string | undefined {
  const bytes = space.read(address, NAME_BYTES);
  const end = bytes?.indexOf(0) ?? -1;
  if (!bytes || end <= 0) return undefined;
  const name = bytes.subarray(0, end);
  return name.every((byte) => byte >= 0x20 && byte !== 0x7f) ? name.toString('latin1') : undefined;
}

function describe(
  space: AddressSpace,
  fields: DebuggerFields,
  link: VirtualAddress,
  { link: linkAt, pid: pidAt, name: nameAt }: ProcessList['layout'],
): Process {
  const address = linkAt === undefined ? undefined : va(link - BigInt(linkAt));
  const word = (offset: number | undefined) =>
    address === undefined || !offset ? undefined : space.readU64(address + BigInt(offset));
  const pid = pidAt === undefined ? undefined : space.readU64(link + BigInt(pidAt));
  const parent = word(fields.OffsetEprocessParentCID);
  const root = word(fields.OffsetEprocessDirectoryTableBase);
  const peb = word(fields.OffsetEprocessPeb);
  return {
    link,
    address,
    pid: pid === undefined ? undefined : Number(pid),
    parentPid: parent !== undefined && parent < 2n ** 32n && parent % 4n === 0n ? Number(parent) : undefined,
    name: nameAt === undefined ? undefined : readName(space, link + BigInt(nameAt)),
    directoryTableBase: root === undefined ? undefined : pa(rootIn(space.mode, root)),
    // System processes have none.
    peb: peb !== undefined && peb !== 0n && !isKernelAddress(peb) && isCanonical(peb) ? va(peb) : undefined,
  };
}
