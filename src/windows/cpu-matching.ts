/** Which CPU state belongs to which processor. */
import { byKey, countOf } from '../core/by-key.ts';
import { RangesFound } from '../core/ranges-found.ts';
import { hex64 } from '../core/units.ts';
import type { CpuState, Registers } from '../machines/machine.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import { currentTeb } from './current-process.ts';
import type { DebuggerFields } from './kdbg.ts';
import { type Processor, readContextFrame } from './processors.ts';
import { currentRoot, currentThreadStack, isOnThreadStack } from './thread-stack.ts';

/**
 * Gives each processor the CPU whose registers name its KPCR; in user mode, where not every input has that
 * address, the CPU with the TEB of the thread that it runs. Two claims to one KPCR are decided by what else is known,
 * or not at all: see `Processor.claimants`. Returns the CPUs left over.
 */
export function matchProcessors(
  processors: readonly Processor[],
  cpus: readonly CpuState[],
  space: AddressSpace,
  fields: DebuggerFields,
): CpuState[] {
  matchByKpcr(processors, cpus, space, fields);
  const matched = new Set(processors.map(({ cpu }) => cpu));
  const left = cpus.filter((cpu) => !matched.has(cpu));
  const open = processors.filter(({ claimants }) => claimants === undefined);
  const running = matchByTeb(open, left, space, fields);
  // The only one left is its CPU: any other that is left, whatever its KPCR seems to be, could be that as well.
  const [processor, ...others] = processors.filter((p) => p.cpu === undefined);
  const [cpu, ...rivals] = running.filter(({ registers }) => registers && isInWindows(space, registers));
  const isOnlyOne = others.length === 0 && rivals.length === 0 && processor?.claimants === undefined;
  if (processor && cpu?.registers && isOnlyOne && isHidden(space, cpu.registers)) {
    const mode = space.image.machine.isUserMode(cpu.registers) ? ', in user mode' : '';
    assign(processor, cpu, `as the only one left${mode}`);
    return running.filter((other) => other !== cpu);
  }
  return running;
}

function assign(processor: Processor, cpu: CpuState, how: string): void {
  processor.cpu = cpu;
  processor.cpuBy = how;
}

/** A CPU whose registers name a processor's KPCR. */
interface Claim {
  cpu: CpuState;
  registers: Registers;
  processor: Processor;
}

/** Something other than its KPCR's address that a CPU can share with the processor that it runs. */
interface Witness {
  /** For evidence: `its descriptor tables`. */
  what: string;
  speaksFor(claim: Claim): boolean;
}

function matchByKpcr(
  processors: readonly Processor[],
  cpus: readonly CpuState[],
  space: AddressSpace,
  fields: DebuggerFields,
): void {
  const claims = claimsOf(processors, cpus, space);
  const threads = new ThreadUse(processors, cpus, space, fields);
  let open = claims.filter((claim) => !isContradicted(claim, processors, space, threads));
  const settle = (some: readonly Claim[], witness?: Witness): boolean => {
    const only = uncontested(some);
    for (const { processor, cpu } of only) {
      assign(processor, cpu, `by the KPCR ${hex64(processor.kpcr)}${witness ? ` and ${witness.what}` : ''}`);
    }
    const done = new Set<CpuState | Processor>(only.flatMap((claim) => [claim.cpu, claim.processor]));
    open = open.filter(({ cpu, processor }) => !done.has(cpu) && !done.has(processor));
    return only.length > 0;
  };
  const witnesses = witnessesOf(space, fields);
  for (let progress = true; progress && open.length > 0; ) {
    progress = settle(open) || witnesses.some((w) => settle(open.filter(w.speaksFor), w));
  }
  const matched = new Set(processors.map(({ cpu }) => cpu));
  for (const { processor, cpu } of claims) {
    if (processor.cpu || matched.has(cpu)) continue;
    processor.claimants = [...(processor.claimants ?? []), cpu];
  }
}

function claimsOf(
  processors: readonly Processor[],
  cpus: readonly CpuState[],
  { image, reader }: AddressSpace,
): Claim[] {
  const byKpcr = new Map(processors.map((p) => [p.kpcr as bigint, p]));
  return cpus.flatMap((cpu) => {
    const { registers } = cpu;
    if (!registers) return [];
    const named = image.machine.kpcrCandidates(registers, reader).map((address) => byKpcr.get(address));
    return named.flatMap((processor) => (processor ? [{ cpu, registers, processor }] : []));
  });
}

/** The CPU has another processor's descriptor tables loaded, or, where those are unknown, their stacks contradict it. */
function isContradicted(
  claim: Claim,
  processors: readonly Processor[],
  { image: { machine }, reader }: AddressSpace,
  threads: ThreadUse,
): boolean {
  const runs = ({ kpcr }: Processor): boolean | undefined => machine.runsKpcr(claim.registers, reader, kpcr);
  const own = runs(claim.processor);
  return own === undefined ? threads.contradict(claim) : !own && processors.some((other) => runs(other) === true);
}

/** Which CPUs run the processors' current threads: by stack, in user mode by TEB. Found out when it is first asked for. */
class ThreadUse {
  readonly #isOwn: (claim: Claim) => boolean;
  readonly #find: () => ReadonlyMap<CpuState, Processor>;
  readonly #findPrograms: () => readonly Processor[];
  #found: { on: ReadonlyMap<CpuState, Processor>; used: ReadonlySet<Processor> } | undefined;

  constructor(
    processors: readonly Processor[],
    cpus: readonly CpuState[],
    space: AddressSpace,
    fields: DebuggerFields,
  ) {
    const { machine } = space.image;
    this.#isOwn = ({ registers, processor: { prcb } }) =>
      isOnThreadStack(space, fields, prcb, machine.stackPointer(registers));
    this.#find = () => {
      const stacks = new RangesFound(
        processors.flatMap((processor) => {
          const bounds = currentThreadStack(space, fields, processor.prcb);
          return bounds ? [{ from: bounds.limit, size: Number(bounds.base - bounds.limit) + 1, processor }] : [];
        }),
      );
      return new Map(
        cpus.flatMap((cpu) => {
          const { registers } = cpu;
          const isKernel = registers !== undefined && !machine.isUserMode(registers);
          const stack = isKernel ? stacks.first(machine.stackPointer(registers)) : undefined;
          return stack ? [[cpu, stack.processor] as const] : [];
        }),
      );
    };
    this.#findPrograms = () => byTeb(processors, cpus, space, fields).map(({ processor }) => processor);
  }

  /** The CPU is on another's stack, or another CPU is on that of the processor or in the program that it runs. */
  contradict(claim: Claim): boolean {
    if (this.#isOwn(claim)) return false;
    if (!this.#found) {
      const on = this.#find();
      this.#found = { on, used: new Set([...on.values(), ...this.#findPrograms()]) };
    }
    return this.#found.on.has(claim.cpu) || this.#found.used.has(claim.processor);
  }
}

/** The claims of CPUs that have no other, to processors that no other has one to. */
function uncontested(claims: readonly Claim[]): Claim[] {
  const byCpu = countOf(claims.map(({ cpu }) => cpu));
  const byProcessor = countOf(claims.map(({ processor }) => processor));
  return claims.filter(({ cpu, processor }) => byCpu.get(cpu) === 1 && byProcessor.get(processor) === 1);
}

/** The strongest first. */
function witnessesOf(space: AddressSpace, fields: DebuggerFields): Witness[] {
  const { machine } = space.image;
  return [
    {
      what: 'its descriptor tables',
      speaksFor: ({ registers, processor }) => machine.runsKpcr(registers, space.reader, processor.kpcr) === true,
    },
    {
      what: 'its mode',
      // In user mode the address is one that only the kernel loads.
      speaksFor: ({ registers }) => machine.isUserMode(registers),
    },
    {
      what: "the current thread's stack",
      speaksFor: ({ registers, processor }) =>
        !machine.isUserMode(registers) &&
        isOnThreadStack(space, fields, processor.prcb, machine.stackPointer(registers)),
    },
    {
      what: 'the registers that its PRCB has saved',
      speaksFor: ({ registers, processor }) => {
        const frame = machine.isUserMode(registers) ? undefined : readContextFrame(space, processor);
        const above = frame ? machine.viewContext(frame).stackPointer - machine.stackPointer(registers) : -1n;
        return above >= 0n && above < BigInt(machine.kernelStackSize);
      },
    },
    {
      what: "the current process's page tables",
      speaksFor: ({ registers, processor }) => {
        const root = currentRoot(space, fields, processor.prcb);
        return root !== undefined && root === machine.pageTables(registers)?.root;
      },
    },
  ];
}

/** Gives the processors that have none the CPUs that run their threads' programs. Returns the CPUs left over. */
function matchByTeb(
  processors: readonly Processor[],
  cpus: readonly CpuState[],
  space: AddressSpace,
  fields: DebuggerFields,
): CpuState[] {
  const free = processors.filter((processor) => !processor.cpu);
  const found = byTeb(free, cpus, space, fields);
  for (const { processor, cpu, teb } of found) assign(processor, cpu, `by the TEB ${hex64(teb)} of its thread`);
  const matched = new Set(found.map(({ cpu }) => cpu));
  return cpus.filter((cpu) => !matched.has(cpu));
}

/** PRCB.CurrentThread → KTHREAD.Teb. Processes can have TEBs at one address: only what is unique is believed. */
function byTeb(
  processors: readonly Processor[],
  cpus: readonly CpuState[],
  space: AddressSpace,
  fields: DebuggerFields,
): { processor: Processor; cpu: CpuState; teb: bigint }[] {
  if (!fields.OffsetKThreadTeb) return [];
  const running = processors.flatMap((processor) => {
    const teb = currentTeb(space, fields, processor.prcb);
    return teb === undefined || teb === 0n ? [] : [{ processor, teb }];
  });
  const tebs = cpus.map(({ registers }): bigint | undefined =>
    registers && isHidden(space, registers) ? space.image.machine.teb(registers, space.reader) : undefined,
  );
  const uses = countOf(tebs);
  const waiting = countOf(running.map(({ teb }) => teb));
  const known = byKey(running, ({ teb }) => teb);
  return cpus.flatMap((cpu, i) => {
    const teb = tebs[i];
    const match = teb === undefined ? undefined : known.get(teb);
    return match && waiting.get(match.teb) === 1 && uses.get(match.teb) === 1 ? [{ ...match, cpu }] : [];
  });
}

/**
 * In user mode the KPCR's address is in a register that not every input has. A machine that swaps it by instructions has
 * the program's value in the kernel too, for the first few of them.
 */
function isHidden(space: AddressSpace, registers: Registers): boolean {
  const { machine } = space.image;
  if (machine.kpcrCandidates(registers, space.reader).length > 0) return false;
  if (machine.isUserMode(registers)) return true;
  return !machine.systemRegisters && isInWindows(space, registers);
}

const isInWindows = ({ image: { machine } }: AddressSpace, registers: Registers): boolean =>
  !machine.neverStarted(registers) && machine.outsideWindows(registers) === undefined;
