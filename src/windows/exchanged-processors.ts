/** Processors of a crash dump that show the registers of others: some writers go by the number of a CPU. */
import { byKey, countOf } from '../core/by-key.ts';
import { type FoundRange, RangesFound } from '../core/ranges-found.ts';
import { hex64 } from '../core/units.ts';
import type { Registers } from '../machines/machine.ts';
import type { Processor } from './processors.ts';
import { currentThreadStack, currentUserStack, isOnStack, leadsTo, processorStackTops } from './thread-stack.ts';
import type { Windows } from './windows.ts';

/** A processor, and what about its registers belongs to another one. */
export interface Exchanged {
  processor: Processor;
  /** A clause: `its descriptor tables are those of processor 2`. */
  why: string;
}

type Running = Processor & { registers: Registers };

/** The processors with registers, found by what registers may lead to. */
class RunningProcessors {
  readonly #windows: Windows;
  readonly list: readonly Running[];
  readonly #byKpcr: ReadonlyMap<bigint, Running>;
  readonly #indexes: ReadonlyMap<Running, number>;
  /** Where stack pointers may be on a stack, by mode. */
  readonly #stacks: Partial<Record<'kernel' | 'user', RangesFound<FoundRange & { owner: Running }>>> = {};

  constructor(windows: Windows, list: readonly Running[]) {
    this.#windows = windows;
    this.list = list;
    this.#byKpcr = byKey(list, ({ kpcr }) => kpcr as bigint);
    this.#indexes = new Map(list.map((running, i) => [running, i]));
  }

  /** The first whose KPCR is among these. */
  byKpcr(named: readonly bigint[]): Running | undefined {
    const found = named.flatMap((kpcr) => this.#byKpcr.get(kpcr) ?? []);
    return found.sort((a, b) => this.#indexes.get(a)! - this.#indexes.get(b)!)[0];
  }

  /** Those on whose stacks a processor's stack pointer is. */
  onStack(processor: Running): Running[] {
    const { machine } = this.#windows.image;
    const mode = machine.isUserMode(processor.registers) ? 'user' : 'kernel';
    this.#stacks[mode] ??= new RangesFound(this.list.flatMap((owner) => this.#rangesOf(owner, mode)));
    const near = this.#stacks[mode].all(machine.stackPointer(processor.registers)).map(({ owner }) => owner);
    return [...new Set(near)]
      .filter((owner) => isOnStackOf(this.#windows, processor, owner))
      .sort((a, b) => this.#indexes.get(a)! - this.#indexes.get(b)!);
  }

  #rangesOf(owner: Running, mode: 'kernel' | 'user'): (FoundRange & { owner: Running })[] {
    const { space, kdbg, image } = this.#windows;
    const bounds = (mode === 'user' ? currentUserStack : currentThreadStack)(space, kdbg.fields, owner.prcb);
    const own = bounds ? [{ from: bounds.limit, size: Number(bounds.base - bounds.limit), owner }] : [];
    if (mode === 'user') return own;
    const size = image.machine.kernelStackSize;
    const tops = processorStackTops(space, kdbg.fields, owner.prcb);
    return [...own, ...tops.map((top) => ({ from: top - BigInt(size), size: size + 1, owner }))];
  }
}

const runningOf = ({ processors }: Windows): Running[] =>
  processors.flatMap((p): Running[] => (p.cpu?.registers ? [{ ...p, registers: p.cpu.registers }] : []));

/** Processors of a dump whose registers are not known to be their own. */
export interface RegisterDoubts {
  exchanged: Exchanged[];
  /**
   * Nothing in memory says that the registers are their own: no KPCR or descriptor table in them, and no stack. Windows
   * saves what tells; a hypervisor that goes by the numbers of its CPUs does not. Of several processors only: the
   * registers of a single one are its own.
   */
  unconfirmed: Processor[];
}

/**
 * A processor's registers name its KPCR and its descriptor tables, and lead to its thread's stack. Nothing is said of an
 * exchange where they name none: not all writers of dumps save all of them.
 */
export function registerDoubts(windows: Windows): RegisterDoubts {
  const running = new RunningProcessors(windows, runningOf(windows));
  const special = running.list.map((processor) => specialOwner(windows, processor, running));
  const exchanged = running.list.flatMap((processor, i) => {
    const why = ownerElsewhere(windows, processor, { running, special: special[i] });
    return why === undefined ? [] : [{ processor, why }];
  });
  return { exchanged, unconfirmed: unconfirmedOf(windows, running, special) };
}

function unconfirmedOf(
  windows: Windows,
  running: RunningProcessors,
  special: (SpecialOwner | undefined)[],
): Processor[] {
  if (running.list.length < 2) return [];
  const owners = running.list.map(
    (processor, i) => special[i]?.owner ?? (isOnStackOf(windows, processor, processor) ? processor : undefined),
  );
  const unconfirmed = running.list.filter((_, i) => owners[i] === undefined);
  const others = owners.filter((owner, i) => owner !== undefined && owner !== running.list[i]);
  // The only one that is left has what is left.
  return unconfirmed.length === 1 && others.length === 0 ? [] : unconfirmed;
}

function ownerElsewhere(
  windows: Windows,
  processor: Running,
  { running, special }: { running: RunningProcessors; special: SpecialOwner | undefined },
): string | undefined {
  if (special && special.owner !== processor) return special.why;
  const byStack = strayed(windows, processor)
    ? running.onStack(processor).find((other) => other !== processor)
    : undefined;
  // A stack that was just handed over looks the same; then the other one is still on its own.
  return byStack && strayed(windows, byStack) ? stackOf(byStack) : undefined;
}

interface SpecialOwner {
  owner: Running;
  /** A clause, as in `Exchanged`. */
  why: string;
}

/** Whose the special registers are that a processor shows; undefined where they say nothing. */
function specialOwner(
  { image: { machine }, space: { reader } }: Windows,
  processor: Running,
  running: RunningProcessors,
): SpecialOwner | undefined {
  const named = machine.kpcrCandidates(processor.registers, reader);
  const isNamed = named.includes(processor.kpcr);
  const byKpcr = isNamed ? undefined : running.byKpcr(named);
  if (byKpcr) return { owner: byKpcr, why: `they name the KPCR of processor ${byKpcr.number}, ${hex64(byKpcr.kpcr)}` };
  const runs = ({ kpcr }: Processor) => machine.runsKpcr(processor.registers, reader, kpcr);
  const byTables = runs(processor) === false ? running.list.find((other) => runs(other) === true) : undefined;
  if (byTables) return { owner: byTables, why: `their descriptor tables are those of processor ${byTables.number}` };
  return isNamed || runs(processor) === true ? { owner: processor, why: 'they are its own' } : undefined;
}

const stackOf = ({ number }: Processor): string => `they lead to the stack of processor ${number}`;

/** Its stack pointer is on none of the stacks that it runs on; programs can have others, if their own is unknown. */
function strayed(windows: Windows, processor: Running): boolean {
  if (isOnStackOf(windows, processor, processor)) return false;
  return (
    !windows.image.machine.isUserMode(processor.registers) ||
    currentUserStack(windows.space, windows.kdbg.fields, processor.prcb) !== undefined
  );
}

/** Whether registers lead to the stack of the thread that a processor runs, or to its stacks for DPCs and interrupts. */
function isOnStackOf({ image, space, kdbg }: Windows, { registers }: Running, { prcb }: Processor): boolean {
  const stackPointer = image.machine.stackPointer(registers);
  const isUser = image.machine.isUserMode(registers);
  const bounds = (isUser ? currentUserStack : currentThreadStack)(space, kdbg.fields, prcb);
  if (bounds && isOnStack(bounds, stackPointer)) return true;
  return !isUser && processorStackTops(space, kdbg.fields, prcb).some((top) => leadsTo(space, stackPointer, top));
}

/** Registers that a dump shows for one processor and that memory proves to be another's. */
export interface RegisterMove {
  /** Which processor shows them. */
  from: Processor;
  /** Whose they are. */
  to: Processor;
  /** The special registers go with the frame; false: they are in their place, only frames were exchanged. */
  whole: boolean;
  /** A clause: `they lead to the stack of processor 2`. */
  why: string;
}

interface Claim {
  owner: Running;
  /** undefined: nothing says whether the special registers belong to the frame. */
  whole: boolean | undefined;
  why: string;
}

/**
 * How the registers in a dump have to be moved so that each processor shows its own. Only whole exchanges count, in
 * which each set of registers proves its place: none is overwritten, and none is made up.
 */
export function provenMoves(windows: Windows): RegisterMove[] {
  // A frame that is not believed is neither read nor written.
  const running = new RunningProcessors(
    windows,
    runningOf(windows).filter(({ context }) => typeof context === 'bigint'),
  );
  const claims = new Map<Running, Claim>();
  for (const processor of running.list) {
    const claim = claimOf(windows, processor, running);
    if (claim) claims.set(processor, claim);
  }
  const owned = countOf([...claims.values()].map(({ owner }) => owner));
  for (const [processor, { owner }] of claims) if (owned.get(owner)! > 1) claims.delete(processor);
  addLast(windows, running, claims);
  return cyclesOf(claims).flatMap((cycle) => {
    const kinds = new Set(cycle.flatMap(({ claim: { whole } }) => whole ?? []));
    if (kinds.size > 1) return [];
    const whole = kinds.has(true);
    return cycle.map(({ processor: from, claim: { owner: to, why } }) => ({ from, to, whole, why }));
  });
}

/** Whose the registers are that a processor shows; undefined where that is unknown, or what is known contradicts itself. */
function claimOf(windows: Windows, processor: Running, running: RunningProcessors): Claim | undefined {
  const special = specialOwner(windows, processor, running);
  const stacks = running.onStack(processor);
  const stack = stacks.length === 1 ? stacks[0] : undefined;
  if (special && special.owner !== processor) {
    const contradicted = stacks.length > 0 && stack !== special.owner;
    return contradicted ? undefined : { ...special, whole: true };
  }
  return stack && { owner: stack, whole: special ? false : undefined, why: stackOf(stack) };
}

/** The only registers without a claim, in user mode, are those of the only processor that is left without any. */
function addLast(windows: Windows, running: RunningProcessors, claims: Map<Running, Claim>): void {
  const undecided = running.list.filter((processor) => !claims.has(processor));
  const owners = new Set([...claims.values()].map(({ owner }) => owner));
  const vacant = running.list.filter((processor) => !owners.has(processor));
  const [last, owner] = [undecided[0], vacant[0]];
  if (!last || !owner || undecided.length > 1 || !windows.image.machine.isUserMode(last.registers)) return;
  // Else they contradict themselves.
  if ((specialOwner(windows, last, running)?.owner ?? last) !== last) return;
  claims.set(last, { owner, whole: undefined, why: 'they are the only ones left, in user mode' });
}

/** Claims that lead around to where they began, of two processors and more. */
function cyclesOf(claims: ReadonlyMap<Running, Claim>): { processor: Running; claim: Claim }[][] {
  const seen = new Set<Running>();
  const cycles: { processor: Running; claim: Claim }[][] = [];
  for (const start of claims.keys()) {
    if (seen.has(start)) continue;
    const path: { processor: Running; claim: Claim }[] = [];
    for (let at = start, claim = claims.get(at); claim && !seen.has(at); at = claim.owner, claim = claims.get(at)) {
      seen.add(at);
      path.push({ processor: at, claim });
    }
    if (path.length > 1 && path.at(-1)?.claim.owner === start) cycles.push(path);
  }
  return cycles;
}
