/** What the processors of a guest that runs do, as plain data; and a reading of it for a guest that hangs (docs/hangs.md). */

import { codeName } from '../core/code-name.ts';
import { Reason } from '../core/reason.ts';
import { hex64 } from '../core/units.ts';
import type { Contexts } from '../plan/contexts.ts';
import {
  type Activity,
  type DpcWatchdog,
  type Fact,
  findActivity,
  type ProcessorState,
  type SpinKind,
} from '../windows/activity.ts';
import { busyFrame } from '../windows/signature.ts';
import type { Windows } from '../windows/windows.ts';
import { reportFramePlace } from './frame-place.ts';
import { type CodePlace, codePlace, type Images } from './processors.ts';

/** A value with what shows it; null: it is not known, and `from` says why. */
export interface FactReport<T> {
  value: T | null;
  from: string;
}

export interface ThreadReport {
  address: string;
  /** It is the processor's idle thread. */
  idle: boolean;
}

/** The process whose address space is used; `pid` and `name` are null where it is not on the list, or lacks them. */
export interface RunningProcessReport {
  address: string;
  pid: number | null;
  name: string | null;
}

export interface IrqlReport {
  level: number;
  /** PASSIVE_LEVEL to HIGH_LEVEL, where it has a name. */
  name: string | null;
  /** false: at least that. */
  exact: boolean;
}

export interface SpinLockReport {
  number: number;
  name: string | null;
  address: string;
  use: 'owns' | 'waits';
}

/** What one processor does. */
export interface ActivityReport {
  processor: number;
  /** In a line, for people: a reading. */
  reading: string;
  state: FactReport<ProcessorState>;
  thread: FactReport<ThreadReport>;
  threadId: FactReport<number>;
  process: FactReport<RunningProcessReport>;
  irql: FactReport<IrqlReport>;
  /** Whether it takes interrupts. */
  interrupts: FactReport<boolean>;
  dpcActive: FactReport<boolean>;
  onDpcStack: FactReport<boolean>;
  /** The function of the DPC that runs. */
  dpcRoutine: FactReport<CodePlace>;
  dpcWatchdog: FactReport<DpcWatchdog>;
  /** Clock ticks that the thread has run. */
  threadTicks: FactReport<{ kernel: number; user: number }>;
  /** Numbered spin locks that it owns or waits for. */
  spinLocks: FactReport<readonly SpinLockReport[]>;
  /** How it waits without rest; null: nothing shows that it does. */
  spins: FactReport<SpinKind>;
  /** The innermost frame of a driver, unless it only interrupted one. */
  driver: FactReport<CodePlace>;
}

/** What a guest that runs is doing. */
export interface HangReport {
  /** Two lines for people. A reading of what follows, not a verdict. */
  reading: readonly [string, string];
  /** Whether offsets are those of the kernel's PDB too; and why not. */
  types: FactReport<true>;
  processors: ActivityReport[];
}

/** null in a guest that crashed: its processors were stopped. */
export function reportActivity(windows: Windows, { shown }: Contexts, images: Images): HangReport | null {
  if (windows.crash) return null;
  const contexts = shown.map(({ processor, source, frame }) => ({
    processor,
    frame: source === 'unknown' ? undefined : frame,
  }));
  const { activities, types } = findActivity(windows, contexts, images.symbols);
  const processors = activities.map((activity) => reportOne(windows, activity, images));
  return {
    reading: readingOf(processors),
    types: types instanceof Reason ? { value: null, from: types.text } : { value: true, from: "the kernel's PDB" },
    processors,
  };
}

const mapped = <T, R>({ value, from }: Fact<T>, map: (value: T) => R): FactReport<R> => ({
  value: value === undefined ? null : map(value),
  from,
});
const same = <T>(fact: Fact<T>): FactReport<T> => mapped(fact, (value) => value);

function reportOne(windows: Windows, a: Activity, images: Images): ActivityReport {
  const driver = busyFrame(a.frames);
  const at = driver && reportFramePlace(driver);
  const routine = a.dpcRoutine.value === undefined ? null : codePlace(windows, a.dpcRoutine.value, images);
  const facts: Omit<ActivityReport, 'reading'> = {
    processor: a.processor.number,
    state: same(a.state),
    thread: mapped(a.thread, ({ address, idle }) => ({ address: hex64(address), idle })),
    threadId: same(a.threadId),
    process: mapped(a.process, ({ address, pid, name }) => ({
      address: hex64(address),
      pid: pid ?? null,
      name: name ?? null,
    })),
    irql: mapped(a.irql, ({ level, exact }) => ({ level, name: IRQL_NAMES.get(level) ?? null, exact })),
    interrupts: same(a.interrupts),
    dpcActive: same(a.dpcActive),
    onDpcStack: same(a.onDpcStack),
    dpcRoutine:
      routine || a.dpcRoutine.value === undefined
        ? { value: routine, from: a.dpcRoutine.from }
        : { value: null, from: `${hex64(a.dpcRoutine.value)} lies in no module` },
    dpcWatchdog: same(a.watchdog),
    threadTicks: same(a.ticks),
    spinLocks: mapped(a.locks, (locks) => locks.map((lock) => ({ ...lock, address: hex64(lock.address) }))),
    spins: same(a.spins),
    driver: at ? { value: at, from: 'its stack' } : { value: null, from: "its stack shows no code but Windows' own" },
  };
  return { ...facts, reading: describe(facts) };
}

/** wdm.h; what devices have is between. */
const IRQL_NAMES: ReadonlyMap<number, string> = new Map([
  [0, 'PASSIVE_LEVEL'],
  [1, 'APC_LEVEL'],
  [2, 'DISPATCH_LEVEL'],
  [12, 'CMCI_LEVEL'],
  [13, 'CLOCK_LEVEL'],
  [14, 'IPI_LEVEL'],
  [15, 'HIGH_LEVEL'],
]);

type Facts = Omit<ActivityReport, 'reading'>;

/** `in a DPC of demo.sys (demo.sys!DemoDpc+0x6), IRQL 2 or above, interrupts on` */
function describe(p: Facts): string {
  if (p.state.value === null) return `not known: ${p.state.from}`;
  return [doingOf(p), ...(p.state.value === 'idle' ? [] : [irqlOf(p), interruptsOf(p)]), watchdogOf(p)]
    .filter((part) => part !== undefined)
    .join(', ');
}

function doingOf(p: Facts): string {
  const { value: driver } = p.driver;
  const routine = p.dpcRoutine.value;
  const own = driver && `of ${driver.module ?? 'an image without name'} (${codeName(driver)})`;
  const waits = waitOf(p);
  const behind = waits === undefined ? '' : `, ${waits}`;
  switch (p.state.value) {
    case 'idle':
      return 'idle';
    case 'user':
      return `in user mode, in ${processOf(p)}`;
    case 'dpc':
      if (routine) return `in the DPC ${codeName(routine)}${behind}`;
      return `in a DPC${own ? ` ${own}` : ''}${behind}`;
    case 'interrupt':
      return `in an interrupt${own ? `, in code ${own}` : ''}${behind}`;
    default:
      return `in ${own ? `code ${own}` : 'the kernel'}${behind}, in ${processOf(p)}`;
  }
}

function waitOf({ spins, spinLocks }: Facts): string | undefined {
  if (spins.value === 'loop') return 'in a loop that pauses';
  if (spins.value === 'spin lock') return 'waits for a spin lock';
  const lock = spinLocks.value?.find(({ use }) => use === 'waits');
  return lock && `waits for queued spin lock ${lock.number}${lock.name === null ? '' : ` (${lock.name})`}`;
}

function processOf({ process, threadId, thread }: Facts): string {
  const name = process.value?.name ?? 'a process without known name';
  const id = process.value?.pid ?? null;
  const pid = id === null ? '' : ` (${id})`;
  const tid = threadId.value === null ? thread.value?.address : `${threadId.value}`;
  return `${name}${pid}${tid === undefined ? '' : `, thread ${tid}`}`;
}

function irqlOf({ irql: { value } }: Facts): string {
  if (!value) return 'IRQL not known';
  return `IRQL ${value.level}${value.name === null ? '' : ` (${value.name})`}${value.exact ? '' : ' or above'}`;
}

function interruptsOf({ interrupts: { value } }: Facts): string | undefined {
  if (value === null) return undefined;
  return value ? 'interrupts on' : 'interrupts off';
}

function watchdogOf({ dpcWatchdog: { value }, state }: Facts): string | undefined {
  if (!value || state.value !== 'dpc') return undefined;
  return `DPC watchdog at ${value.total} of ${value.totalLimit} ticks, ${value.single} of ${value.singleLimit} in this DPC`;
}

/** What keeps a processor, the most telling first; and what that may mean. */
const KINDS: readonly { is: (p: ActivityReport) => boolean; means: string }[] = [
  {
    is: (p) => p.spins.value === 'queued spin lock',
    means: 'Processors that wait for a spin lock do nothing else until its owner lets go of it',
  },
  {
    is: (p) => p.spins.value === 'spin lock',
    means: 'Until the lock is let go, nothing else runs there; no public structure says who owns it',
  },
  {
    is: (p) => p.state.value === 'dpc',
    means: 'While a DPC runs, no thread and no other DPC runs on its processor',
  },
  {
    is: (p) => p.interrupts.value === false && (p.state.value === 'thread' || p.state.value === 'interrupt'),
    means: 'With interrupts off it answers no other processor, and those that need its answer wait',
  },
  {
    is: (p) => (p.irql.value?.level ?? 0) >= 2 && p.state.value !== 'idle',
    means: 'At DISPATCH_LEVEL or above, no other thread runs on its processor',
  },
  {
    is: (p) => p.state.value === 'interrupt',
    means: 'Whether it comes back from the interrupt, only another dump shows',
  },
  {
    is: (p) => p.state.value === 'thread',
    means: 'Whether that thread gets on, only another dump shows',
  },
  {
    is: (p) => p.state.value === 'user',
    means: 'Nothing of the kernel keeps a processor: what hangs waits, or is a program that loops',
  },
  {
    is: (p) => p.state.value === 'idle',
    means: 'Nothing keeps a processor: what hangs waits for an event, a lock or a device',
  },
];

/** Processors that the first line names. */
const MAX_NAMED = 3;

function readingOf(processors: readonly ActivityReport[]): readonly [string, string] {
  const kind = KINDS.find(({ is }) => processors.some(is));
  if (!kind) return ['What the processors do is not known.', 'Their registers or their PRCBs are missing.'];
  const told = processors.filter(kind.is);
  const others = processors.filter((p) => !kind.is(p));
  const idle = told.every((p) => p.state.value === 'idle');
  const more = told.length > MAX_NAMED ? [`${told.length - MAX_NAMED} more like these`] : [];
  const named = told.slice(0, MAX_NAMED).map((p) => `Processor ${p.processor}: ${p.reading}`);
  const first = idle ? idleLine(told.length) : [...named, ...more].join('; ');
  const second = [kind.means, ...ownersOf(processors), ...(others.length > 0 ? [restOf(others)] : [])];
  return [`${first}.`, `${second.join('; ')}.`];
}

/** `processor 0 owns queued spin lock 7: in code of …`, of those that another waits for. */
function ownersOf(processors: readonly ActivityReport[]): string[] {
  const uses = processors.flatMap((p) => (p.spinLocks.value ?? []).map((lock) => ({ p, lock })));
  const wanted = new Set(uses.filter(({ lock }) => lock.use === 'waits').map(({ lock }) => lock.address));
  return uses
    .filter(({ lock }) => lock.use === 'owns' && wanted.has(lock.address))
    .map(({ p, lock }) => `processor ${p.processor} owns queued spin lock ${lock.number}: ${p.reading}`);
}

const idleLine = (count: number): string =>
  count === 1 ? 'The only processor that is known idles' : `All ${count} known processors idle`;

/** `of the others, 3 idle, 1 in user mode` */
function restOf(others: readonly ActivityReport[]): string {
  const counts = new Map<string, number>();
  for (const { state } of others) {
    const what = STATES[state.value ?? 'unknown'];
    counts.set(what, (counts.get(what) ?? 0) + 1);
  }
  return `the others: ${[...counts].map(([what, count]) => `${count} ${what}`).join(', ')}`;
}

const STATES: Record<ProcessorState | 'unknown', string> = {
  idle: 'idle',
  dpc: 'in a DPC',
  interrupt: 'in an interrupt',
  thread: 'in the kernel',
  user: 'in user mode',
  unknown: 'not known',
};
