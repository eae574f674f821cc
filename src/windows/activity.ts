/**
 * What the processors of a guest that runs do: idle or not, in which thread, at which IRQL, in a DPC. Each value has what
 * shows it, or why it is not known; offsets are the KDBG's and those of public headers, and with the kernel's PDB its
 * types'.
 */
import { isKernelAddress } from '../core/bits.ts';
import { Reason } from '../core/reason.ts';
import { hex, hex64 } from '../core/units.ts';
import {
  KDPC_ROUTINE,
  LOCK_QUEUE_OWNER,
  LOCK_QUEUE_WAIT,
  SPIN_LOCK_NAMES,
  SpinLockQueue64,
} from '../formats/win-kernel.ts';
import type { Symbols } from '../symbols/symbols.ts';
import { type KernelTypes, kernelTypes, type MemberName, typesOrNone } from './kernel-types.ts';
import { isProcessObject, type Process, readProcesses } from './processes.ts';
import type { Processor } from './processors.ts';
import { busyFrame, isKernelFunction } from './signature.ts';
import { type StackFrame, walkStack } from './stacks.ts';
import { findThreadIds, type KnownThread, type ThreadIds } from './thread-ids.ts';
import { currentThread, leadsTo, runsIdleThread } from './thread-stack.ts';
import type { Windows } from './windows.ts';

/** A value, and what shows it; undefined: it is not known, and why. */
export interface Fact<T> {
  value: T | undefined;
  /** A clause without final stop. */
  from: string;
}

/**
 * `idle`: in the idle thread, and in nothing that interrupted it. `dpc`: runs DPCs. `interrupt`: on the stack for
 * interrupts, or in what interrupted the idle thread. `user`: in user mode. `thread`: in the kernel, in a thread.
 */
export type ProcessorState = 'idle' | 'dpc' | 'interrupt' | 'thread' | 'user';

/** The thread that a processor runs. */
export interface RunningThread {
  address: bigint;
  /** It is the processor's idle thread. */
  idle: boolean;
}

/** The process in whose address space a thread runs; of an idle thread, none on the list. */
export type RunningProcess = Pick<Process, 'pid' | 'name'> & { address: bigint };

/** A numbered spin lock, and what a processor has to do with it. */
export interface SpinLockUse {
  /** KSPIN_LOCK_QUEUE_NUMBER. */
  number: number;
  /** Of those numbers that mean the same in all versions. */
  name: string | null;
  address: bigint;
  use: 'owns' | 'waits';
}

/** Counters of the DPC watchdog, in clock ticks; a limit of 0 is none. */
export interface DpcWatchdog {
  /** Since the processor was last below DISPATCH_LEVEL. */
  total: number;
  totalLimit: number;
  /** Of the DPC that runs. */
  single: number;
  singleLimit: number;
}

/**
 * How a processor waits without rest: for a queued spin lock, by its number; in the kernel's code that acquires spin
 * locks; in a loop with PAUSE, which may be for a device or another processor. Nothing shows that it does not.
 */
export type SpinKind = 'queued spin lock' | 'spin lock' | 'loop';

/** What a processor does. */
export interface Activity {
  processor: Processor;
  state: Fact<ProcessorState>;
  thread: Fact<RunningThread>;
  threadId: Fact<number>;
  process: Fact<RunningProcess>;
  /** `exact: false`: at least that. */
  irql: Fact<{ level: number; exact: boolean }>;
  interrupts: Fact<boolean>;
  /** PRCB.DpcRoutineActive. */
  dpcActive: Fact<boolean>;
  onDpcStack: Fact<boolean>;
  /** Where the function begins of the DPC that runs. */
  dpcRoutine: Fact<bigint>;
  watchdog: Fact<DpcWatchdog>;
  /** Ticks that the thread has run, in the kernel and in user mode. */
  ticks: Fact<{ kernel: number; user: number }>;
  /** Those that it owns or waits for. */
  locks: Fact<readonly SpinLockUse[]>;
  spins: Fact<SpinKind>;
  /** Its stack, from the innermost frame; none where its registers are unknown. */
  frames: readonly StackFrame[];
}

/** A processor's registers. */
export interface KnownContext {
  processor: Processor;
  /** A CONTEXT; undefined: they are unknown. */
  frame: Buffer | undefined;
}

const DISPATCH_LEVEL = 2;
/** Bytes around the instruction pointer that are searched for the hint of a loop. */
const HINT_REACH = 16n;
/** Frames from the innermost among which a function of spin locks shows that it waits. */
const SPIN_FRAMES = 2;

const known = <T>(value: T, from: string): Fact<T> => ({ value, from });
const unknown = <T>(from: string): Fact<T> => ({ value: undefined, from });

/** What each of these processors does. */
export function findActivity(
  windows: Windows,
  contexts: readonly KnownContext[],
  symbols?: Symbols,
): { activities: readonly Activity[]; types: KernelTypes | Reason } {
  const types = kernelTypes(windows, symbols);
  const observer = new Observer(windows, typesOrNone(types), symbols);
  const ids = observer.threadIds(contexts);
  return { activities: contexts.map((context) => observer.observe(context, ids)), types };
}

/** Whether a processor surely idles. */
export const isIdle = (windows: Windows, { processor, frame }: KnownContext, frames: readonly StackFrame[]): boolean =>
  new Observer(windows, undefined, undefined).state({ processor, frame }, frames).value === 'idle';

class Observer {
  readonly #windows: Windows;
  readonly #types: KernelTypes | undefined;
  readonly #symbols: Symbols | undefined;
  #processes: ReadonlyMap<bigint, Process> | undefined;

  constructor(windows: Windows, types: KernelTypes | undefined, symbols: Symbols | undefined) {
    this.#windows = windows;
    this.#types = types;
    this.#symbols = symbols;
  }

  observe(context: KnownContext, ids: ThreadIds | Reason): Activity {
    const { processor, frame } = context;
    const frames = frame ? walkStack(this.#windows, processor, frame, { symbols: this.#symbols }).frames : [];
    const state = this.state(context, frames);
    const thread = this.#thread(processor);
    const locks = this.#locks(processor);
    const spins = this.#spins(context, frames, locks);
    return {
      processor,
      state,
      thread,
      threadId: threadIdOf(thread, state, ids),
      process: this.#process(thread),
      irql: this.#irql(context, { state, locks, frames }),
      interrupts: this.#interrupts(frame),
      dpcActive: this.#dpcActive(processor),
      onDpcStack: this.#onStack(context, 'DpcStack'),
      dpcRoutine: this.#dpcRoutine(processor, state),
      watchdog: this.#watchdog(processor),
      ticks: this.#ticks(thread),
      locks,
      spins,
      frames,
    };
  }

  /** How ids of threads are found, by the threads that run. */
  threadIds(contexts: readonly KnownContext[]): ThreadIds | Reason {
    const { space, kdbg } = this.#windows;
    const running = contexts.flatMap(({ processor }): KnownThread[] => {
      const thread = this.#thread(processor);
      const { value: process } = this.#process(thread);
      if (!thread.value || !process || process.pid === undefined) return [];
      return [{ thread: thread.value.address, process: process.address, pid: process.pid }];
    });
    return findThreadIds(space, kdbg.fields, { types: this.#types, known: running });
  }

  state(context: KnownContext, frames: readonly StackFrame[]): Fact<ProcessorState> {
    const { processor, frame } = context;
    if (!frame) return unknown('its registers are unknown');
    if (this.#isUser(processor, frame)) return known('user', 'its registers are those of user mode');
    const dpc = this.#dpcActive(processor);
    if (dpc.value) return known('dpc', dpc.from);
    const onDpc = this.#onStack(context, 'DpcStack');
    if (onDpc.value) return known('dpc', onDpc.from);
    const onIsr = this.#onStack(context, 'IsrStack');
    if (onIsr.value) return known('interrupt', onIsr.from);
    const thread = this.#thread(processor);
    if (!thread.value) return unknown(thread.from);
    if (!thread.value.idle) return known('thread', thread.from);
    const trap = frames.findIndex(({ how, certain }) => how === 'trap' && certain);
    if (trap >= 0)
      return known('interrupt', `frame ${trap} of its stack was interrupted, and its thread is the idle thread`);
    const driver = busyFrame(frames);
    if (driver) return unknown(`${thread.from}, but its stack leads through ${driver.module?.name}`);
    return known('idle', thread.from);
  }

  /** A kernel pointer in the PRCB; undefined where it is null, missing or none. */
  #pointer(at: bigint): bigint | undefined {
    const value = this.#windows.space.readPointer(at);
    return value !== undefined && isKernelAddress(value) ? value : undefined;
  }

  /** Where the PRCB has a member: the KDBG's word counts before the types', which do not contradict it. */
  #inPrcb(member: MemberName<'_KPRCB'>, inKdbg: number | undefined): { offset: number; by: string } | undefined {
    const name = `PRCB.${member}`;
    if (inKdbg) return { offset: inKdbg, by: `${name} (at ${hex(inKdbg)}, by the KDBG)` };
    const typed = this.#types?.member('_KPRCB', member);
    return typed && { offset: typed.offset, by: `${name} (at ${hex(typed.offset)}, by the PDB)` };
  }

  #isUser({ cpu }: Processor, frame: Buffer): boolean {
    const { machine } = this.#windows.image;
    const registers = cpu?.registers;
    return registers ? machine.isUserMode(registers) : !isKernelAddress(machine.viewContext(frame).instructionPointer);
  }

  #thread({ prcb }: Processor): Fact<RunningThread> {
    const { space, kdbg } = this.#windows;
    const address = currentThread(space, kdbg.fields, prcb);
    if (address === undefined) return unknown('PRCB.CurrentThread is not known, or no address of the kernel');
    const idle = runsIdleThread(space, kdbg.fields, prcb);
    if (idle === undefined) return unknown('PRCB.IdleThread is not present, or no address of the kernel');
    return known({ address, idle }, `PRCB.CurrentThread ${idle ? 'is' : 'is not'} PRCB.IdleThread`);
  }

  #process({ value: thread, from }: Fact<RunningThread>): Fact<RunningProcess> {
    const { OffsetKThreadApcProcess: at } = this.#windows.kdbg.fields;
    if (!thread) return unknown(from);
    if (!at) return unknown('the KDBG does not say where KTHREAD has its process');
    const address = this.#pointer(thread.address + BigInt(at));
    if (address === undefined) return unknown('KTHREAD.ApcState.Process is not present, or no address of the kernel');
    const listed = this.#listed().get(address);
    if (!listed && !isProcessObject(this.#windows.space, address)) {
      return unknown('KTHREAD.ApcState.Process, by the KDBG, leads to no process that is present');
    }
    const how = listed ? 'a process on the list' : 'a process that is not on the list';
    return known(
      { address, pid: listed?.pid, name: listed?.name },
      `KTHREAD.ApcState.Process at ${hex(at)} by the KDBG, ${how}`,
    );
  }

  #listed(): ReadonlyMap<bigint, Process> {
    const { space, kdbg, processors } = this.#windows;
    if (!this.#processes) {
      const list = readProcesses(space, kdbg.fields, processors);
      const processes = list instanceof Reason ? [] : list.processes;
      this.#processes = new Map(processes.flatMap((p) => (p.address === undefined ? [] : [[p.address, p] as const])));
    }
    return this.#processes;
  }

  #interrupts(frame: Buffer | undefined): Fact<boolean> {
    if (!frame) return unknown('its registers are unknown');
    return known(this.#windows.image.machine.interruptsEnabled(frame), 'its flags register');
  }

  #dpcActive({ prcb }: Processor): Fact<boolean> {
    const place = this.#inPrcb('DpcRoutineActive', this.#windows.kdbg.fields.OffsetPrcbDpcRoutine);
    if (!place) return unknown('where the PRCB has DpcRoutineActive is not known of this build');
    const value = this.#windows.space.read(prcb + BigInt(place.offset), 1)?.readUInt8();
    // A flag: anything else is not what is there.
    if (value === undefined || value > 1) return unknown(`${place.by} is ${value ?? 'not present'}`);
    return known(value === 1, `${place.by} is ${value}`);
  }

  /** Whether its stack pointer is on the stack that begins where the PRCB says: as far as pages are present. */
  #onStack({ processor, frame }: KnownContext, member: 'DpcStack' | 'IsrStack'): Fact<boolean> {
    const { image, space, kdbg } = this.#windows;
    const place = this.#inPrcb(member, kdbg.fields[`OffsetPrcb${member}`]);
    if (!place) return unknown(`where the PRCB has ${member} is not known of this build`);
    if (!frame) return unknown('its registers are unknown');
    const top = this.#pointer(processor.prcb + BigInt(place.offset));
    if (top === undefined) return unknown(`${place.by} is not present, or no address of the kernel`);
    const { stackPointer } = image.machine.viewContext(frame);
    const bounds = `${place.by} is ${hex64(top)}, the stack pointer ${hex64(stackPointer)}`;
    const leads = leadsTo(space, stackPointer, top);
    return known(leads ?? false, leads === undefined ? `${bounds}, and between them a page is missing` : bounds);
  }

  #dpcRoutine({ prcb }: Processor, { value: state }: Fact<ProcessorState>): Fact<bigint> {
    if (state !== 'dpc') return unknown('it runs no DPC');
    const data = this.#types?.member('_KPRCB', 'DpcData');
    const active = this.#types?.member('_KDPC_DATA', 'ActiveDpc');
    if (!data || !active) return unknown('where the PRCB has the DPC that runs is not known of this build');
    const dpc = this.#pointer(prcb + BigInt(data.offset + active.offset));
    if (dpc === undefined) return unknown('PRCB.DpcData[0].ActiveDpc is null or not present');
    const { pointerSize } = this.#windows.image.machine;
    const at =
      this.#types?.member('_KDPC', 'DeferredRoutine')?.offset ?? (pointerSize === 8 ? KDPC_ROUTINE : undefined);
    if (at === undefined) return unknown('where a KDPC has its routine is not known of this build');
    const routine = this.#pointer(dpc + BigInt(at));
    if (routine === undefined) return unknown(`the KDPC at ${hex64(dpc)} has no routine, or is not present`);
    return known(routine, `PRCB.DpcData[0].ActiveDpc, ${hex64(dpc)}, by the PDB`);
  }

  #watchdog({ prcb }: Processor): Fact<DpcWatchdog> {
    const word = (...names: MemberName<'_KPRCB'>[]): number | undefined => {
      const member = names.map((name) => this.#types?.member('_KPRCB', name)).find((m) => m?.size === 4);
      return member && this.#windows.space.read(prcb + BigInt(member.offset), 4)?.readUInt32LE();
    };
    const [total, totalLimit] = [word('DpcWatchdogCount'), word('DpcWatchdogPeriodTicks', 'DpcWatchdogPeriod')];
    const [single, singleLimit] = [word('DpcTimeCount'), word('DpcTimeLimitTicks', 'DpcTimeLimit')];
    if (total === undefined || totalLimit === undefined || single === undefined || singleLimit === undefined) {
      return unknown('where the PRCB has the counters is not known of this build');
    }
    return known({ total, totalLimit, single, singleLimit }, 'PRCB.DpcWatchdogCount and DpcTimeCount, by the PDB');
  }

  #ticks({ value: thread, from }: Fact<RunningThread>): Fact<{ kernel: number; user: number }> {
    if (!thread) return unknown(from);
    const [kernel, user] = (['KernelTime', 'UserTime'] as const).map((name) => {
      const member = this.#types?.member('_KTHREAD', name);
      return member?.size === 4
        ? this.#windows.space.read(thread.address + BigInt(member.offset), 4)?.readUInt32LE()
        : undefined;
    });
    if (kernel === undefined || user === undefined)
      return unknown('where KTHREAD has its times is not known of this build');
    return known({ kernel, user }, 'KTHREAD.KernelTime and UserTime, by the PDB');
  }

  /** KPCR.LockArray: believed if it lies in the processor's PRCB and holds addresses of the kernel. */
  #locks({ kpcr, prcb }: Processor): Fact<readonly SpinLockUse[]> {
    const { image, space, kdbg } = this.#windows;
    const { lockArray } = image.machine.kpcr;
    if (lockArray === undefined) return unknown('where the KPCR leads to them is not known of this machine');
    const array = this.#pointer(kpcr + BigInt(lockArray));
    const size = SPIN_LOCK_NAMES.length * SpinLockQueue64.size;
    const end = prcb + BigInt(kdbg.fields.SizePrcb ?? 0) - BigInt(size);
    if (array === undefined || array % 8n !== 0n || array < prcb || array > end) {
      return unknown('KPCR.LockArray does not lead into the PRCB');
    }
    const bytes = space.read(array, size);
    if (!bytes) return unknown('the queued spin locks of the PRCB are not present');
    const uses: SpinLockUse[] = [];
    for (const [number, name] of SPIN_LOCK_NAMES.entries()) {
      const { Lock } = SpinLockQueue64.read(bytes, number * SpinLockQueue64.size);
      const flags = Lock & 7n;
      const address = Lock - flags;
      if (Lock !== 0n && !isKernelAddress(address)) return unknown(`queued spin lock ${number} has no kernel address`);
      const use = useOf(flags);
      if (use === 'neither known') return unknown(`queued spin lock ${number} has flags ${flags}`);
      if (use) uses.push({ number, name, address, use });
    }
    return known(uses, `KPCR.LockArray, ${SPIN_LOCK_NAMES.length} numbered locks (wdm.h)`);
  }

  #spins(
    { processor, frame }: KnownContext,
    frames: readonly StackFrame[],
    locks: Fact<readonly SpinLockUse[]>,
  ): Fact<SpinKind> {
    if (!frame) return unknown('its registers are unknown');
    if (this.#isUser(processor, frame)) return unknown('it is in user mode');
    const waits = locks.value?.find(({ use }) => use === 'waits');
    if (waits) return known('queued spin lock', `it waits for number ${waits.number}`);
    const inLock = frames.slice(0, SPIN_FRAMES).find(isSpinLock);
    if (inLock) return known('spin lock', 'its innermost frames are in a function that acquires spin locks');
    const { instructionPointer } = this.#windows.image.machine.viewContext(frame);
    const from = instructionPointer - HINT_REACH;
    const code = this.#windows.space.read(from, 2 * Number(HINT_REACH));
    const hint = code?.indexOf(this.#windows.image.machine.spinHint) ?? -1;
    if (hint < 0) return unknown('neither its stack nor the code around its instruction pointer shows it');
    return known(
      'loop',
      `a PAUSE instruction is at ${hex64(from + BigInt(hint))}, ${hint - Number(HINT_REACH)} bytes from its own`,
    );
  }

  #irql(
    { processor, frame }: KnownContext,
    {
      state,
      locks,
      frames,
    }: { state: Fact<ProcessorState>; locks: Fact<readonly SpinLockUse[]>; frames: readonly StackFrame[] },
  ): Activity['irql'] {
    const { machine } = this.#windows.image;
    const registers = processor.cpu?.registers;
    const held = registers && machine.priority(registers);
    if (held) return known({ level: held.value, exact: true }, held.register);
    if (frame && state.value === 'user') return known({ level: 0, exact: true }, 'user mode runs at no other');
    const atLeast = (why: string): Activity['irql'] => known({ level: DISPATCH_LEVEL, exact: false }, why);
    if (state.value === 'dpc') return atLeast('DPCs run at DISPATCH_LEVEL or above');
    if (locks.value?.length) return atLeast('queued spin locks are taken at DISPATCH_LEVEL or above');
    if (frames.slice(0, SPIN_FRAMES).some(isSpinLock))
      return atLeast('spin locks are waited for at DISPATCH_LEVEL or above');
    return unknown('the input has no CR8, and nothing else shows it');
  }
}

/** Of the low bits of KSPIN_LOCK_QUEUE.Lock. */
function useOf(flags: bigint): SpinLockUse['use'] | undefined | 'neither known' {
  if (flags === 0n) return undefined;
  if (flags === LOCK_QUEUE_WAIT) return 'waits';
  return flags === LOCK_QUEUE_OWNER ? 'owns' : 'neither known';
}

/** In the kernel's code that waits for a spin lock. */
const isSpinLock = (frame: StackFrame): boolean => frame.certain && isKernelFunction(frame, SPIN_LOCKS);
const SPIN_LOCKS = /^(?:K[ei]Acquire\w*SpinLock|KxWaitFor(?:SpinLock|LockOwner)|Ex(?:pWaitFor|Acquire)SpinLock)\w*$/;

function threadIdOf(
  { value: thread, from }: Fact<RunningThread>,
  state: Fact<ProcessorState>,
  ids: ThreadIds | Reason,
): Fact<number> {
  if (!thread) return unknown(from);
  if (thread.idle && state.value === 'user') return unknown('no idle thread runs in user mode');
  if (thread.idle) return known(0, 'idle threads have this one');
  if (ids instanceof Reason) return unknown(ids.text);
  const found = ids.of(thread.address);
  return found ? known(found.tid, ids.from) : unknown(`${ids.from}: there is no id`);
}
