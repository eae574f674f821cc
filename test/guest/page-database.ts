/**
 * The page frame database of a made-up guest, and pages of which only it says what they are: free, standby, modified,
 * in use. MMPFN by literal offsets (types in public symbols).
 */
import type { Arm64Guest } from './arm64.ts';
import { RAM_BASE } from './arm64-memory.ts';
import { PAGE, type PhysicalMemory } from './memory.ts';
import type { BUILDS_32, Guest32 } from './x86/guest.ts';

const STATES = { zeroed: 0, free: 1, standby: 2, modified: 3, active: 6 } as const;
type State = keyof typeof STATES;

/** Where an entry has what. */
interface EntryForm {
  size: number;
  countAt: number;
  stateAt: number;
  originalPteAt: number;
}

export interface AddedPages {
  /** Pages that no page table maps; each but the zeroed one is filled with the last byte of its frame number. */
  unmapped: Record<State, number>;
  fill: (physical: number) => Buffer;
  setState: (physical: number, state: State) => void;
}

interface Target {
  memory: PhysicalMemory;
  /** [from, to) */
  ram: readonly (readonly [number, number])[];
  base: bigint;
  entry: EntryForm;
  translate: (virtual: bigint) => number | undefined;
  mapNew: (virtual: bigint) => void;
  write: (virtual: bigint, bytes: Buffer) => void;
  /** Pages in transition, which are on the standby list, with a file that has them. */
  transition: readonly number[];
}

function addDatabase({ memory, ram, base, entry, translate, mapNew, write, transition }: Target): AddedPages {
  const fill = (physical: number) => Buffer.alloc(PAGE, ((physical / PAGE) & 0xff) | 1);
  const filled = () => {
    const page = memory.allocate();
    fill(page).copy(memory.page(page));
    return page;
  };
  const entryOf = (physical: number) => base + BigInt((physical / PAGE) * entry.size);
  for (const [from, to] of ram) {
    const end = entryOf(to);
    for (let at = entryOf(from) & ~0xfffn; at < end; at += 0x1000n) if (translate(at) === undefined) mapNew(at);
  }
  const unmapped = {
    zeroed: memory.allocate(),
    free: filled(),
    standby: filled(),
    modified: filled(),
    active: filled(),
  };
  const setState = (physical: number, state: State) => {
    const bytes = Buffer.alloc(entry.size);
    // A reference count, and flags around the state: cached, wherever a build has that.
    bytes.writeUInt16LE(1, entry.countAt);
    bytes.writeUInt8(0x50 | STATES[state], entry.stateAt);
    // What is on standby is a file's here: bit 10 of the original PTE.
    bytes.writeUInt32LE(state === 'standby' ? 0x480 : 0x80, entry.originalPteAt);
    write(entryOf(physical), bytes);
  };
  for (const [from, to] of ram) {
    for (let at = from; at < to; at += PAGE) setState(at, memory.pages.has(at) ? 'active' : 'zeroed');
  }
  for (const [state, page] of Object.entries(unmapped)) setState(page, state as State);
  for (const page of transition) setState(page, 'standby');
  return { unmapped, fill, setState };
}

/** The form that a build has, without PAE and with it. */
const FORMS_32: Record<keyof typeof BUILDS_32, (pae: boolean) => EntryForm> = {
  xp: (pae) => ({ size: pae ? 0x1c : 0x18, countAt: 0xe, stateAt: 0xd, originalPteAt: 0x10 }),
  server2003: (pae) => ({ size: pae ? 0x1c : 0x18, countAt: 0xe, stateAt: 0xd, originalPteAt: 0x10 }),
  win7: (pae) => ({ size: pae ? 0x1c : 0x18, countAt: 0xc, stateAt: 0xe, originalPteAt: 0x10 }),
  win10: () => ({ size: 0x1c, countAt: 0x14, stateAt: 0x16, originalPteAt: 0x8 }),
};

const inTransition = (samples: readonly { what: string; physical?: number }[]): number[] =>
  samples.flatMap(({ what, physical }) =>
    physical === undefined || !what.includes('in transition') ? [] : [physical - (physical % PAGE)],
  );

/** Where the guest's MmPfnDatabase leads. */
export function addPageDatabase32(guest: Guest32): AddedPages {
  const { kernel, user, memory, options, lowBytes, ramBytes, truth } = guest;
  const number = (virtual: bigint) => Number(virtual);
  const added = addDatabase({
    memory,
    ram: [
      [0, lowBytes],
      [2 ** 32, 2 ** 32 + ramBytes - lowBytes],
    ],
    base: BigInt(kernel.read(truth.pfnDatabaseVariable, 4).readUInt32LE()),
    entry: FORMS_32[options.build ?? 'win7'](guest.pae),
    translate: (virtual) => kernel.translate(number(virtual)),
    mapNew: (virtual) => kernel.mapNew(number(virtual), PAGE),
    write: (virtual, bytes) => kernel.write(number(virtual), bytes),
    transition: inTransition(truth.samples),
  });
  user.shareFrom(kernel, options.threeGigabytes ? 0xc0000000 : 0x80000000);
  return added;
}

/** As `addPageDatabase32`. */
export function addPageDatabaseArm64(guest: Arm64Guest): AddedPages {
  const { kernel, memory, ramBytes, truth } = guest;
  const base = kernel.read(truth.kdbgBlock.readBigUInt64LE(0xc0), 8).readBigUInt64LE();
  const added = addDatabase({
    memory,
    ram: [[RAM_BASE, RAM_BASE + ramBytes]],
    base,
    entry: { size: 0x30, countAt: 0x20, stateAt: 0x22, originalPteAt: 0x10 },
    translate: (virtual) => kernel.translate(virtual),
    mapNew: (virtual) => kernel.mapNew(virtual, PAGE),
    write: (virtual, bytes) => kernel.write(virtual, bytes),
    transition: inTransition(truth.samples),
  });
  // Roots that were made before the database.
  const slot = Number((base >> 39n) & 511n);
  for (const { root } of truth.processes) memory.page(root).writeBigUInt64LE(kernel.topEntry(slot), slot * 8);
  return added;
}
