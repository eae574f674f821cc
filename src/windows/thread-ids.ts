/**
 * Ids of threads. The KDBG does not say where ETHREAD has them: the kernel's types do, or else they are inferred, as the
 * ids of processes are, from all threads of the processes that run.
 */
import { isKernelAddress } from '../core/bits.ts';
import { type FoundRange, RangesFound } from '../core/ranges-found.ts';
import { because, type Reason } from '../core/reason.ts';
import { hex } from '../core/units.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { DebuggerFields } from './kdbg.ts';
import type { KernelTypes } from './kernel-types.ts';

/** A thread that is known, and the process that it should belong to. */
export interface KnownThread {
  thread: bigint;
  process: bigint;
  pid: number;
}

/** Ids of threads by where ETHREAD has them. */
export interface ThreadIds {
  /** undefined where what is there can't be ids. */
  of(thread: bigint): { pid: number; tid: number } | undefined;
  /** How that is known. */
  from: string;
}

/** Bytes of KPROCESS that the head of its threads' list is looked for in. */
const HEAD_WITHIN = 0x100;
const MIN_ETHREAD = 0x200;
const MAX_ETHREAD = 0x2000;
/** Threads of a process that are looked at. */
const MAX_THREADS = 4096;
/** Threads that have to agree where no type says it. */
const MIN_WITNESSES = 3;

/** How ids are found, or why they are not. */
export function findThreadIds(
  space: AddressSpace,
  { SizeEThread: size = 0 }: DebuggerFields,
  { types, known }: { types: KernelTypes | undefined; known: readonly KnownThread[] },
): ThreadIds | Reason {
  const cid = types?.member('_ETHREAD', 'Cid');
  const [process, thread] = [types?.member('_CLIENT_ID', 'UniqueProcess'), types?.member('_CLIENT_ID', 'UniqueThread')];
  if (cid && process && thread) {
    const at = { pid: cid.offset + process.offset, tid: cid.offset + thread.offset };
    return { of: (address) => idsAt(space, address, at), from: 'ETHREAD.Cid, by the PDB' };
  }
  if (size < MIN_ETHREAD || size > MAX_ETHREAD) return because('the KDBG gives no possible size of ETHREAD');
  const witnesses = witnessesOf(space, size, known);
  if (witnesses.length < MIN_WITNESSES) {
    return because(`where ETHREAD has its ids is not known: ${witnesses.length} threads are too few to infer it from`);
  }
  const offsets: number[] = [];
  const { pointerSize } = space.image.machine;
  for (let at = 0; at + 2 * pointerSize <= size; at += pointerSize) {
    if (fits(space, witnesses, at)) offsets.push(at);
  }
  const [offset] = offsets;
  if (offset === undefined || offsets.length > 1) {
    return because(`where ETHREAD has its ids is not known: ${offsets.length} places fit all threads`);
  }
  return {
    of: (address) => idsAt(space, address, { pid: offset, tid: offset + pointerSize }),
    from: `ETHREAD + ${hex(offset)}, inferred from ${witnesses.length} threads`,
  };
}

function idsAt(
  space: AddressSpace,
  thread: bigint,
  at: { pid: number; tid: number },
): { pid: number; tid: number } | undefined {
  const pid = idIn(space.readPointer(thread + BigInt(at.pid)));
  const tid = idIn(space.readPointer(thread + BigInt(at.tid)));
  return pid === undefined || tid === undefined ? undefined : { pid, tid };
}

/** Ids of processes and threads are handles of one table. */
const idIn = (value: bigint | undefined): number | undefined =>
  value !== undefined && value % 4n === 0n && value < 2n ** 32n ? Number(value) : undefined;

/** Whether each has its process's id there, and an id of its own behind it. */
function fits(space: AddressSpace, witnesses: readonly Omit<KnownThread, 'process'>[], at: number): boolean {
  const seen = new Set<number>();
  return witnesses.every(({ thread, pid }) => {
    const ids = idsAt(space, thread, { pid: at, tid: at + space.image.machine.pointerSize });
    if (!ids || ids.pid !== pid || ids.tid === 0 || seen.has(ids.tid)) return false;
    seen.add(ids.tid);
    return true;
  });
}

/** A list in a process, whose entries are found by address. */
interface LinkList {
  links: readonly bigint[];
  found: RangesFound<FoundRange>;
}

/** All threads of the processes that these belong to, where KPROCESS leads to them. */
function witnessesOf(
  space: AddressSpace,
  size: number,
  known: readonly KnownThread[],
): readonly Omit<KnownThread, 'process'>[] {
  const witnesses = new Map<bigint, number>();
  const lists = new Map<bigint, readonly LinkList[]>();
  // Threads with their links at the same offset lead to the same others.
  const told = new Map<LinkList, Set<bigint>>();
  for (const { thread, process, pid } of known) {
    const own = lists.get(process) ?? listsIn(space, process);
    lists.set(process, own);
    const place = placeOf(own, thread, size);
    if (!place) continue;
    const offsets = told.get(place.list) ?? new Set();
    told.set(place.list, offsets);
    if (offsets.has(place.offset)) continue;
    offsets.add(place.offset);
    for (const link of place.list.links) witnesses.set(link - place.offset, pid);
  }
  return [...witnesses].map(([thread, pid]) => ({ thread, pid }));
}

/** The first of the lists that has this thread, and where the thread has its link. */
function placeOf(
  lists: readonly LinkList[],
  thread: bigint,
  size: number,
): { list: LinkList; offset: bigint } | undefined {
  for (const list of lists) {
    const own = list.found.first(thread + 1n, size - 1);
    if (own !== undefined) return { list, offset: own.from - thread };
  }
  return undefined;
}

/** Lists whose heads are in KPROCESS. */
function listsIn(space: AddressSpace, process: bigint): readonly LinkList[] {
  const lists: LinkList[] = [];
  const { pointerSize } = space.image.machine;
  for (let at = pointerSize; at < HEAD_WITHIN; at += pointerSize) {
    const links = linksOf(space, process + BigInt(at));
    if (links.length > 0) lists.push({ links, found: new RangesFound(links.map((from) => ({ from, size: 1 }))) });
  }
  return lists;
}

/** The entries of a list that comes back to its head, each linking back; none where there is no such list. */
function linksOf(space: AddressSpace, head: bigint): readonly bigint[] {
  const links: bigint[] = [];
  const back = BigInt(space.image.machine.pointerSize);
  let previous = head;
  for (let link = space.readPointer(head); link !== head; link = space.readPointer(link)) {
    if (link === undefined || !isKernelAddress(link) || links.length >= MAX_THREADS) return [];
    if (space.readPointer(link + back) !== previous) return [];
    links.push(link);
    previous = link;
  }
  return space.readPointer(head + back) === previous ? links : [];
}
