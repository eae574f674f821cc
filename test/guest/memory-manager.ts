/**
 * What Windows' memory manager keeps, added to a made-up guest by literal offsets: a process with session space, pages
 * in transition, on the free, zeroed, standby and modified lists, and the page frame database that says so.
 */
import type { Guest } from './guest.ts';
import { PAGE, PageTables } from './memory.ts';

export const PFN_DATABASE = 0xffffe000_00000000n;
export const SESSION = 0xfffff901_00000000n;
export const PROCESS_MEMORY = 0x00000123_45670000n;
/** Kernel addresses whose pages are in transition: one on the standby list, one on the modified list. */
export const IN_TRANSITION = { standby: 0xffffa58f_23450000n, modified: 0xffffa58f_23451000n };

const STATES = { zeroed: 0, free: 1, standby: 2, modified: 3, active: 6 } as const;

export interface AddedMemory {
  /** Root of the process that has the session. */
  root: number;
  session: number;
  user: number;
  /** Physical addresses of pages that no page table maps. */
  unmapped: Record<keyof typeof STATES, number>;
  transition: { standby: number; modified: number };
  /** Content of the pages above, but the zeroed one: each page is filled with the last byte of its frame number. */
  fill: (physical: number) => Buffer;
  /** Sets a page's state in the database. */
  setState: (physical: number, state: number) => void;
}

/** For guests of 4-level page tables. `stateAt`: where an entry of the database has its state; default: where the build has it. */
export function addMemoryManager(guest: Guest, stateAt: number = guest.build.pageLocation): AddedMemory {
  const { memory, kernel, build } = guest;
  const fill = (physical: number) => Buffer.alloc(PAGE, ((physical / PAGE) & 0xff) | 1);
  const filled = () => {
    const page = memory.allocate();
    fill(page).copy(memory.page(page));
    return page;
  };
  // Every root shares the kernel's slots but that of the self-map and the session's.
  const slotOf = (virtual: bigint) => Number((virtual >> 39n) & 511n);
  const links: bigint[] = [];
  const head = guest.truth.psActiveProcessHead;
  for (let link = kernel.read(head, 8).readBigUInt64LE(); link !== head; ) {
    links.push(link);
    link = kernel.read(link, 8).readBigUInt64LE();
  }
  const tableBase = (link: bigint) => link - BigInt(build.eprocess.links) + 0x28n;

  for (let pfn = 0; pfn * 0x30 < (guest.ramBytes / PAGE) * 0x30; pfn += Math.floor(PAGE / 0x30)) {
    const virtual = PFN_DATABASE + BigInt(pfn * 0x30 - ((pfn * 0x30) % PAGE));
    if (kernel.translate(virtual) === undefined) kernel.mapNew(virtual, PAGE);
  }
  const last = PFN_DATABASE + BigInt(Math.ceil((guest.ramBytes / PAGE) * 0x30 - 1));
  if (kernel.translate(last) === undefined) kernel.mapNew(last - (last % BigInt(PAGE)), PAGE);
  const transition = { standby: filled(), modified: filled() };
  kernel.setEntry(IN_TRANSITION.standby, BigInt(transition.standby) | 0x880n);
  kernel.setEntry(IN_TRANSITION.modified, BigInt(transition.modified) | 0x880n);

  const process = new PageTables(memory);
  for (let slot = 256; slot < 512; slot++) {
    const entry = kernel.topEntry(slot);
    const self = Number(entry & 0xf_ffff_ffff_f000n) === kernel.root;
    process.setTopEntry(slot, self ? BigInt(process.root) | 0x63n : entry);
  }
  const session = filled();
  process.map(SESSION, session);
  const user = filled();
  process.map(PROCESS_MEMORY, user, true);
  kernel.u64(tableBase(links[1]!), BigInt(process.root));
  // Roots that were made before the database.
  for (const link of links) {
    const root = Number(kernel.read(tableBase(link), 8).readBigUInt64LE());
    memory.page(root).writeBigUInt64LE(kernel.topEntry(slotOf(PFN_DATABASE)), slotOf(PFN_DATABASE) * 8);
  }

  const unmapped = {
    zeroed: memory.allocate(),
    free: filled(),
    standby: filled(),
    modified: filled(),
    active: filled(),
  };
  const setState = (physical: number, state: number) => {
    const entry = PFN_DATABASE + BigInt((physical / PAGE) * 0x30);
    // A reference count, and flags around the state.
    kernel.u16(entry + BigInt(stateAt === 0x19 ? 0x1a : stateAt - 2), 1);
    kernel.u8(entry + BigInt(stateAt), 0x50 | state);
    // What is on standby is a file's here: bit 10 of the original PTE.
    kernel.u64(entry + (stateAt === 0x22 ? 0x10n : 0x20n), state === STATES.standby ? 0x480n : 0x80n);
  };
  for (let at = 0; at < guest.ramBytes; at += PAGE) setState(at, memory.pages.has(at) ? STATES.active : STATES.zeroed);
  for (const [name, page] of Object.entries(unmapped)) setState(page, STATES[name as keyof typeof STATES]);
  setState(transition.standby, STATES.standby);
  setState(transition.modified, STATES.modified);
  return { root: process.root, session, user, unmapped, transition, fill, setState };
}
