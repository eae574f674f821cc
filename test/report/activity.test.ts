// What processors of guests that run do: each guest in several orders and at several addresses, with the kernel's types
// and without.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { stacks } from '../../src/operations/stacks.ts';
import type { ActivityReport, HangReport } from '../../src/report/activity.ts';
import { writeElf } from '../guest/elf.ts';
import { GENERATIONS, type GenerationName } from '../guest/generations.ts';
import { buildGuest, type Guest, type GuestOptions, watchdogOf } from '../guest/guest.ts';
import { BUSY_DRIVER, buildTrueGuest } from '../guest/true-guest.ts';
import { KERNEL_TYPES, kernelPdb } from '../support/kernel-pdb.ts';

const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-activity-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const input = join(dir, 'vm.elf');
const symbols = join(dir, 'symbols');
mkdirSync(symbols);
const pdb = join(symbols, 'ntkrnlmp.pdb');
writeFileSync(pdb, kernelPdb());

async function infoOf(options: GuestOptions, more: { symbols?: string; change?: (guest: Guest) => void } = {}) {
  const guest = buildGuest(options);
  more.change?.(guest);
  writeFileSync(input, writeElf(guest));
  return (await inspect({ input, symbols: more.symbols })).windows!;
}

const activityOf = async (...args: Parameters<typeof infoOf>): Promise<HangReport> => (await infoOf(...args)).activity!;

/** What is known of a processor, without evidence. */
const shortOf = (p: ActivityReport) => ({
  state: p.state.value,
  thread: p.threadId.value,
  process: p.process.value && [p.process.value.name, p.process.value.pid],
  irql: p.irql.value && `${p.irql.value.exact ? '' : '>='}${p.irql.value.level}`,
  interrupts: p.interrupts.value,
  dpc: [p.dpcActive.value, p.onDpcStack.value],
  spins: p.spins.value,
  driver: p.driver.value?.nearestExport?.name ?? null,
});

const IDLE = {
  state: 'idle',
  thread: 0,
  process: [null, null],
  irql: null,
  interrupts: true,
  dpc: [false, false],
  spins: null,
  driver: null,
};

type Seen = ReturnType<typeof shortOf>;

/** Guests with four processors: what they do, and what is to be seen on each; the others idle. */
const GUESTS: Readonly<
  Record<string, { options: GuestOptions; seen: Record<number, Partial<Seen>>; reading: RegExp[] }>
> = {
  'all idle': {
    options: { doing: {} },
    seen: {},
    reading: [/^All 4 known processors idle\.$/, /^Nothing keeps a processor/],
  },
  'stuck in a DPC': {
    options: { doing: { 2: 'dpc' } },
    seen: {
      2: { state: 'dpc', process: ['System', 4], irql: '>=2', dpc: [true, true], spins: 'loop', driver: 'DemoDpc' },
    },
    reading: [
      /^Processor 2: in a DPC of demo\.sys \(demo\.sys!DemoDpc\+0x6\), .*interrupts on\.$/,
      /; the others: 3 idle\.$/,
    ],
  },
  'stuck in a DPC over the idle thread, interrupts off': {
    options: { doing: { 3: 'dpc in idle' }, masked: [3] },
    seen: {
      3: {
        state: 'dpc',
        thread: 0,
        irql: '>=2',
        interrupts: false,
        dpc: [true, false],
        spins: 'loop',
        driver: 'DemoDpc',
      },
    },
    reading: [/^Processor 3: in a DPC of demo\.sys .*, interrupts off\.$/, /^While a DPC runs/],
  },
  'spinning on a spin lock': {
    options: { doing: { 1: 'spin lock' } },
    seen: {
      1: { state: 'thread', process: ['System', 4], irql: '>=2', spins: 'spin lock', driver: 'DemoDispatch' },
    },
    reading: [
      /^Processor 1: in code of demo\.sys \(demo\.sys!DemoDispatch\+0x9\), waits for a spin lock, in System \(4\), thread \d+, IRQL 2 \(DISPATCH_LEVEL\) or above, interrupts on\.$/,
      /^Until the lock is let go.*; the others: 3 idle\.$/,
    ],
  },
  'waiting for a queued spin lock, whose owner is known': {
    options: { doing: { 0: 'spin lock', 2: 'driver' }, lock: { number: 7, owner: 2, waiter: 0 } },
    seen: {
      0: { state: 'thread', process: ['System', 4], irql: '>=2', spins: 'queued spin lock', driver: 'DemoDispatch' },
      2: { state: 'thread', process: ['System', 4], irql: '>=2', spins: 'loop', driver: 'DemoDpc' },
    },
    reading: [
      /^Processor 0: .* waits for queued spin lock 7 \(IoCancelLock\)/,
      /processor 2 owns queued spin lock 7: in code of demo\.sys/,
    ],
  },
  'in a driver, interrupts off': {
    options: { doing: { 1: 'driver' }, masked: [1] },
    seen: { 1: { state: 'thread', process: ['System', 4], interrupts: false, spins: 'loop', driver: 'DemoDpc' } },
    reading: [/^Processor 1: .*IRQL not known, interrupts off\.$/, /^With interrupts off/],
  },
  'in a user loop': {
    options: { doing: {}, user: [3] },
    seen: { 3: { state: 'user', process: ['notepad.exe', 0x1a2c], irql: '0' } },
    reading: [
      /^Processor 3: in user mode, in notepad\.exe \(6700\), thread \d+, IRQL 0 \(PASSIVE_LEVEL\)/,
      /^Nothing of the kernel/,
    ],
  },
};

const VARIANTS: readonly [string, GuestOptions][] = [
  ['', {}],
  ['CPUs in another order', { order: [2, 0, 3, 1], seed: 5 }],
  ['the kernel elsewhere', { kernelPages: '2m', seed: 6 }],
  ['5-level paging', { la57: true, seed: 7 }],
];

describe.each(Object.entries(GUESTS))('%s', (_, { options, seen, reading }) => {
  it.each(VARIANTS)('is seen without symbols: %s', async (__, variant) => {
    const activity = await activityOf({ ...options, processors: 4, ...variant });
    expect(activity.types.value).toBeNull();
    for (const [i, line] of activity.reading.entries()) expect(line).toMatch(reading[i]!);
    for (const p of activity.processors) {
      const expected = { ...IDLE, ...seen[p.processor] };
      const { thread, ...rest } = shortOf(p);
      const { thread: expectedThread, ...expectedRest } = expected;
      expect(rest).toEqual(expectedRest);
      if (p.thread.value?.idle) expect(thread).toBe(expectedThread);
      else expect(thread! % 4 === 0 && thread! > 0, `thread ${thread}`).toBe(true);
      expect(Object.values(p).every((fact) => typeof fact !== 'object' || fact.from !== '')).toBe(true);
    }
  });

  it("is seen with the kernel's types, which add the DPC and its counters", async () => {
    const guest = { ...options, processors: 4, order: [1, 3, 2, 0] };
    const plain = await activityOf(guest);
    const typed = await activityOf(guest, { symbols });
    expect(typed.types).toEqual({ value: true, from: "the kernel's PDB" });
    for (const [i, p] of typed.processors.entries()) {
      expect(shortOf(p)).toEqual(shortOf(plain.processors[i]!));
      const inDpc = p.state.value === 'dpc';
      const { watchdog, time } = watchdogOf(p.processor);
      const counts = { total: inDpc ? watchdog : 0, totalLimit: 15000, single: inDpc ? time : 0, singleLimit: 1280 };
      expect(p.dpcWatchdog.value).toEqual(counts);
      expect(p.dpcRoutine.value?.nearestExport?.name ?? null).toBe(inDpc ? 'DemoDpc' : null);
      expect([plain.processors[i]!.dpcWatchdog.value, plain.processors[i]!.dpcRoutine.value]).toEqual([null, null]);
      expect(p.threadTicks.value).toEqual({ kernel: 0, user: 0 });
    }
  });
});

describe.each(Object.keys(GENERATIONS) as GenerationName[])('in a guest of true size: %s', (generation) => {
  it('each processor is seen for what it does', async () => {
    const guest = buildTrueGuest({
      ...{ generation, processors: 5, order: [3, 0, 4, 1, 2] },
      ...{ doing: { 0: 'driver', 1: 'dpc', 2: 'dpc in idle' }, user: [3] },
    });
    writeFileSync(input, writeElf(guest));
    const { activity } = (await inspect({ input })).windows!;
    const withStack = guest.truth.kdbgBlock.length > 0x356;
    const short = activity!.processors.map((p) => [
      p.state.value,
      p.process.value?.name ?? null,
      (p.threadId.value ?? 0) > 0,
      p.dpcActive.value,
      p.onDpcStack.value,
      p.driver.value?.module ?? null,
    ]);
    const onStack = withStack ? true : null;
    const notOnStack = withStack ? false : null;
    expect(short).toEqual([
      ['thread', 'System', true, false, notOnStack, BUSY_DRIVER],
      ['dpc', 'System', true, true, onStack, BUSY_DRIVER],
      ['dpc', null, false, true, notOnStack, BUSY_DRIVER],
      ['user', 'explorer.exe', true, false, notOnStack, null],
      ['idle', null, false, false, notOnStack, null],
    ]);
    expect(activity!.reading[0]).toMatch(/^Processor 1: in a DPC of .*; Processor 2: in a DPC of /);
    expect(activity!.reading[1]).toMatch(/the others: 1 in the kernel, 1 in user mode, 1 idle\.$/);
  });
});

it('finds one of 64 processors that is stuck', async () => {
  const order = Array.from({ length: 64 }, (_, i) => (i * 37) % 64);
  const { reading, processors } = await activityOf({ doing: { 37: 'dpc' }, processors: 64, ramMiB: 64, order });
  expect(reading[0]).toMatch(/^Processor 37: in a DPC of demo\.sys/);
  expect(reading[1]).toMatch(/the others: 63 idle/);
  expect(processors.filter((p) => p.state.value === 'idle')).toHaveLength(63);
});

it('is the same in the dump, and in the report of stacks', async () => {
  const { activity, signatures } = await infoOf({ doing: { 1: 'dpc' }, user: [0] });
  const output = join(dir, 'out.dmp');
  await convert({ input, output });
  const back = (await inspect({ input: output })).windows!;
  expect([back.activity, back.signatures]).toEqual([activity, signatures]);
  expect((await stacks({ input })).activity).toEqual(activity);
});

it('is not told of a guest that crashed', async () => {
  const crash = { code: 0xd1, parameters: [0x10n, 2n, 0n, 1n] as const, processor: 1 };
  expect((await infoOf({ crash })).activity).toBeNull();
});

describe('what is not known', () => {
  it('is said where the KDBG has no word for it', async () => {
    const { processors } = await activityOf({ build: 'win7' });
    expect(processors.map((p) => [p.state.value, p.dpcActive, p.onDpcStack.value])).toEqual(
      [0, 1].map(() => [
        'idle',
        { value: null, from: 'where the PRCB has DpcRoutineActive is not known of this build' },
        null,
      ]),
    );
  });

  it('is said of a processor without registers', async () => {
    writeFileSync(input, writeElf(buildGuest({ doing: { 1: 'dpc' }, order: [0, 1] }), { withoutNote: [1] }));
    const { activity } = (await inspect({ input })).windows!;
    expect(activity!.processors[1]).toMatchObject({
      state: { value: null, from: 'its registers are unknown' },
      dpcActive: { value: true },
      interrupts: { value: null },
      driver: { value: null },
    });
    expect(activity!.reading[0]).toBe('The only processor that is known idles.');
  });

  it("is the thread's id where two places could have it, or none has", async () => {
    const guest: GuestOptions = { doing: { 0: 'driver' } };
    const other = (from: bigint) => ({
      change: ({ kernel, truth }: Guest) => {
        const [system] = truth.processes;
        const threads: bigint[] = [];
        const head = system!.address + 0x30n;
        for (let at = kernel.read(head, 8).readBigUInt64LE(); at !== head; ) {
          threads.push(at - 0x2f8n);
          at = kernel.read(at, 8).readBigUInt64LE();
        }
        expect(threads).toHaveLength(4);
        threads.forEach((thread, i) => {
          kernel.u64(thread + from, 4n);
          kernel.u64(thread + from + 8n, BigInt(from === 0x478n ? 0x40 : 0x100 + 4 * i));
        });
      },
    });
    const idIn = async (more: { change: (g: Guest) => void }) =>
      (await activityOf(guest, more)).processors[0]!.threadId;
    expect(await idIn(other(0x600n))).toEqual({
      value: null,
      from: 'where ETHREAD has its ids is not known: 2 places fit all threads',
    });
    // All threads with one id: none is its own.
    expect((await idIn(other(0x478n))).from).toMatch(/0 places fit all threads$/);
  });

  it('is a lock whose array lies elsewhere, or holds what no lock is', async () => {
    const locks = async (change: (guest: Guest) => void) =>
      (await activityOf({ doing: {} }, { change })).processors[0]!.spinLocks;
    const [kpcr, prcb] = [0xfffff804_05670000n, 0xfffff804_05670180n];
    expect(await locks(() => undefined)).toEqual({ value: [], from: 'KPCR.LockArray, 17 numbered locks (wdm.h)' });
    expect((await locks(({ kernel }) => kernel.u64(kpcr + 0x28n, kpcr - 8n))).value).toBeNull();
    expect((await locks(({ kernel }) => kernel.u64(prcb + 0x678n, 0x1234n))).from).toMatch(/no kernel address$/);
    expect((await locks(({ kernel }) => kernel.u64(prcb + 0x678n, 0xfffff804_05670003n))).from).toMatch(/has flags 3$/);
  });

  it("is a thread's id in user mode, where its thread is said to be the idle one", async () => {
    const { processors } = await activityOf({ user: [0] });
    expect([processors[0]!.state.value, processors[0]!.threadId]).toEqual([
      'user',
      { value: null, from: 'no idle thread runs in user mode' },
    ]);
  });

  it('is the DPC stack where memory is mapped from the stack pointer on, but no stack is as large', async () => {
    const onStack = async (pages: number) => {
      const change = ({ kernel, truth, cpus }: Guest) => {
        const { prcb, cpu } = truth.processors[0]!;
        const first = (cpus[cpu]!.regs.rsp & ~0xfffn) + 0x1000n;
        for (let i = 0; i < pages; i++) {
          const at = first + BigInt(i) * 0x1000n;
          if (kernel.translate(at) === undefined) kernel.mapNew(at, 0x1000);
        }
        kernel.u64(prcb + 0x3110n, first + BigInt(pages) * 0x1000n);
      };
      return (await activityOf({ doing: {} }, { change })).processors[0]!.onDpcStack.value;
    };
    expect([await onStack(0x10), await onStack(0x12), await onStack(0x40)]).toEqual([true, false, false]);
  });

  it('is DpcRoutineActive where the flag is none', async () => {
    const change = ({ kernel, truth }: Guest) => kernel.u8(truth.processors[0]!.prcb + 0x312an, 0x5a);
    const { processors } = await activityOf({ doing: {} }, { change });
    expect(processors[0]!.dpcActive).toEqual({
      value: null,
      from: 'PRCB.DpcRoutineActive (at 0x312a, by the KDBG) is 90',
    });
  });
});

describe("the kernel's types", () => {
  const typesOf = async (types: typeof KERNEL_TYPES) => {
    writeFileSync(pdb, kernelPdb(types));
    try {
      return await activityOf({ doing: { 1: 'dpc' } }, { symbols });
    } finally {
      writeFileSync(pdb, kernelPdb());
    }
  };

  it('are not used where they contradict the KDBG', async () => {
    const { types, processors } = await typesOf(
      KERNEL_TYPES.map((type) => ({
        ...type,
        members: type.members.map(([name, offset, kind]) =>
          name === 'DpcStack' ? ([name, offset + 8, kind] as const) : ([name, offset, kind] as const),
        ),
      })),
    );
    expect(types).toEqual({
      value: null,
      from: 'the PDB has _KPRCB.DpcStack at 0x3118, the KDBG at 0x3110: its types are not used',
    });
    expect(processors[1]!.dpcWatchdog.value).toBeNull();
  });

  it('may lack members: public ones of late builds do', async () => {
    const { types, processors } = await typesOf(
      KERNEL_TYPES.filter(({ name }) => name === '_ETHREAD' || name === '_CLIENT_ID'),
    );
    expect(types.value).toBe(true);
    expect(processors[1]).toMatchObject({
      state: { value: 'dpc' },
      threadId: { from: 'ETHREAD.Cid, by the PDB' },
      dpcWatchdog: { value: null, from: 'where the PRCB has the counters is not known of this build' },
    });
  });

  it('are none in a stripped PDB', async () => {
    const { types } = await typesOf([]);
    expect(types).toEqual({ value: null, from: "the kernel's PDB has no types of the kernel" });
  });
});
