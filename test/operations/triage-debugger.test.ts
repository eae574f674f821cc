// The real debugger shows from a triage dump what it shows from the full dump of the same guest.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { openCrashDump } from '../../src/readers/registry.ts';
import { FileSource } from '../../src/source/file.ts';
import {
  askDebugger,
  bugCheck,
  complaints,
  debuggerAvailable,
  modules,
  type Question,
  registers,
  stack,
  text,
  virtualMemory,
} from '../debugger/debugger.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { buildRealCrash } from '../guest/real-crash.ts';
import { buildTrueGuest } from '../guest/true-guest.ts';
import { buildGuest32, type GuestOptions32 } from '../guest/x86/guest.ts';
import { realDump } from '../support/real-data.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-triage-debugger-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const CRASH = { code: 0x7e, parameters: [0xffffffff_c0000005n, 2n, 3n, 4n], processor: 1 } as const;

interface Wanted {
  /** Processors that are asked about. */
  processors: readonly number[];
  /** Processors whose stacks are in the dump. Default: all. */
  stacks?: readonly number[];
}

async function same(guest: Guest, { processors, stacks = processors }: Wanted): Promise<void> {
  const input = join(dir, 'vm.elf');
  writeFileSync(input, writeElf(guest));
  const questions: Record<string, Question<unknown>> = { bugCheck: bugCheck(), bugCheckText: text('.bugcheck') };
  for (const number of processors) {
    questions[`registers ${number}`] = registers(number);
    // With the instruction, which is not in the dump where it is one of user mode.
    if (stacks.includes(number)) questions[`r ${number}`] = text('r', number);
  }
  const frames = Object.fromEntries(stacks.map((number) => [`stack ${number}`, stack(number)]));
  const answers = async (type: 'full' | 'triage') => {
    const output = join(dir, `${type}.dmp`);
    const more = type === 'triage' && stacks.length > 1 ? { triageCpus: 'all' as const } : {};
    const report = await convert({ input, output, type, force: true, ...more });
    expect(report.dump.bytes <= 0x20_0000 || type === 'full').toBe(true);
    const common = { ...frames, modules: modules(), lm: text('lm'), complaints: complaints() };
    return await askDebugger(output, { ...common, ...(questions as Record<'r 0', Question<string>>) });
  };
  const [full, triage] = [await answers('full'), await answers('triage')] as Record<string, unknown>[];
  expect(triage!['complaints']).toEqual([]);
  for (const name of [...Object.keys(questions), 'lm']) expect(triage![name], name).toEqual(full![name]);
  for (const name of Object.keys(frames)) expect(triage![name], name).toEqual(full![name]);
  // Images are named by their paths; full dumps name those with a debug directory by that.
  const shown = (list: unknown) => (list as { name: string; base: bigint }[]).map(({ name, base }) => ({ name, base }));
  expect(shown(triage!['modules'])).toEqual(shown(full!['modules']));
}

describe.skipIf(!debuggerAvailable())('a triage dump in the real debugger', () => {
  it.each<[string, () => Guest, Wanted]>([
    ['of a small guest', () => buildGuest({ processors: 2, crash: CRASH }), { processors: [0, 1] }],
    ['of a live guest', () => buildGuest({ processors: 2 }), { processors: [0, 1] }],
    [
      'with only the crashing stack',
      () => buildGuest({ processors: 2, crash: CRASH }),
      { processors: [0, 1], stacks: [1] },
    ],
    ['with 5-level page tables', () => buildGuest({ processors: 2, la57: true, crash: CRASH }), { processors: [0, 1] }],
    [
      'with KVA shadow',
      () => buildGuest({ processors: 3, kernelRootAt: 0x9000, user: [1], crash: { ...CRASH, processor: 0 } }),
      { processors: [0, 1, 2], stacks: [0, 2] },
    ],
    // The engine takes triage dumps of this build for single-processor ones.
    ['of Server 2003', () => buildGuest({ build: 'server2003', processors: 2, crash: CRASH }), { processors: [1] }],
    ['of Windows 7', () => buildGuest({ build: 'win7', processors: 2, crash: CRASH }), { processors: [0, 1] }],
    ['of 16 processors', () => buildGuest({ processors: 16, crash: CRASH }), { processors: [0, 1, 7, 15] }],
  ])('%s', async (_, build, wanted) => {
    await same(build(), wanted);
  });

  it.each<[string, GuestOptions32]>([
    ['of Windows 10 with PAE', { build: 'win10' }],
    ['of Windows 10 without PAE', { build: 'win10', pae: false }],
    ['of Windows 7', { build: 'win7' }],
    ['of Server 2003', { build: 'server2003' }],
    ['of Windows 7 that runs', { build: 'win7' }],
  ])('of a 32-bit guest: %s', async (name, options) => {
    const crash = { code: 0xd1, parameters: [0x10, 2, 0, 0x8a460003] as const, processor: 1 };
    const guest = buildGuest32({ processors: 2, ...(!name.endsWith('runs') && { crash }), ...options });
    const input = join(dir, 'x86.elf');
    writeFileSync(input, writeElf(guest));
    const answers = async (type: 'full' | 'triage') => {
      const output = join(dir, `x86-${type}.dmp`);
      const more = type === 'triage' ? { triageCpus: 'all' as const } : {};
      const { diagnostics } = await convert({ input, output, type, force: true, ...more });
      expect(diagnostics).toEqual([]);
      // The engine takes triage dumps of Server 2003 for single-processor ones.
      const other = options.build === 'server2003' ? {} : { first: text('r', 0), firstStack: text('k', 0) };
      return await askDebugger(output, {
        bugCheck: text('.bugcheck'),
        crashed: text('r'),
        crashedStack: text('k'),
        modules: text('lm'),
        ...other,
        complaints: complaints(),
      });
    };
    const [full, triage] = [await answers('full'), await answers('triage')];
    expect(triage).toEqual(full);
  });

  it('of guests of true size, but for modules that only a session maps', async () => {
    for (const options of [{ crash: CRASH }, {}]) {
      const guest = buildTrueGuest({ ...options, processors: 2 });
      const input = join(dir, 'true.elf');
      writeFileSync(input, writeElf(guest));
      const answers = async (type: 'full' | 'triage') => {
        const output = join(dir, `true-${type}.dmp`);
        const report = await convert({
          input,
          output,
          type,
          force: true,
          ...(type === 'triage' && { triageCpus: 'all' }),
        });
        expect(report.outcome).toBe('good');
        return await askDebugger(output, {
          bugCheck: bugCheck(),
          registers0: registers(0),
          registers1: registers(1),
          stack0: stack(0),
          stack1: stack(1),
          r0: text('r', 0),
          r1: text('r', 1),
          modules: modules(),
        });
      };
      const [full, triage] = [await answers('full'), await answers('triage')];
      const shown = (list: typeof full.modules) => list.map(({ name, base, timestamp }) => ({ name, base, timestamp }));
      expect(shown(triage.modules)).toEqual(shown(full.modules));
      expect({ ...triage, modules: [] }).toEqual({ ...full, modules: [] });
    }
  });

  const real = realDump('triage_x64.dmp');
  if (real !== undefined) {
    it('by Windows: info says of it what the debugger says', async () => {
      const { windows, input } = await inspect({ input: real });
      const { blocks } = input;
      const sampled = blocks!.runs
        .filter((_, i) => i % 30 === 0)
        .map(({ start, size }) => ({ start, size: Math.min(size, 32) }));
      const memory = Object.fromEntries(
        sampled.map(({ start, size }) => [start, virtualMemory(BigInt(start), size)] as const),
      );
      const seen = await askDebugger(real, {
        bugCheck: bugCheck(),
        modules: modules(),
        lm: text('lm'),
        registers0: registers(0),
        registers5: registers(5),
        registers15: registers(15),
        stack0: stack(0),
      });
      const bytes = await askDebugger(real, memory);
      const { bugCheck: crash, modules: listed, unloadedModules, processors } = windows!;
      expect([Number(crash!.code), ...crash!.parameters.map((p) => BigInt(p.value))]).toEqual([
        seen.bugCheck.code,
        ...seen.bugCheck.parameters,
      ]);
      const byBase = (a: { base: bigint }, b: { base: bigint }) => (a.base < b.base ? -1 : 1);
      expect(
        listed
          .map((m) => ({ base: BigInt(m.base), size: m.size, image: m.path, stamp: Number(m.timeDateStamp) }))
          .sort(byBase),
      ).toEqual(
        seen.modules.map((m) => ({ base: m.base, size: m.size, image: m.image, stamp: m.timestamp })).sort(byBase),
      );
      for (const { name, from } of unloadedModules) {
        expect(seen.lm.replaceAll('`', '')).toMatch(new RegExp(`${from.slice(2)} .*${name}`));
      }
      for (const [number, of] of [
        [0, seen.registers0],
        [5, seen.registers5],
        [15, seen.registers15],
      ] as const) {
        const { instructionPointer, stackPointer, pageTableRoot } = processors[number]!;
        expect([instructionPointer, stackPointer, pageTableRoot].map((value) => BigInt(value!))).toEqual([
          of['rip'],
          of['rsp'],
          of['cr3'],
        ]);
      }
      const { stacks: walked } = await stacks({ input: real, processor: 0 });
      expect(BigInt(walked[0]!.frames[0]!.instructionPointer)).toBe(seen.stack0[0]!.instruction);
      // Without unwind data the debugger takes every word for a return address: our guesses are among them.
      const words = new Set(seen.stack0.map((f) => f.instruction));
      const guesses = walked[0]!.frames.slice(1, 4);
      expect(guesses.every((f) => !f.certain && words.has(BigInt(f.instructionPointer)))).toBe(true);
      const image = openCrashDump(FileSource.open(real));
      const { space } = await locateWindows(image);
      for (const { start, size } of sampled) expect(space.read(BigInt(start), size), start).toEqual(bytes[start]);
      image.close();
    });

    it('of a real crash', async () => {
      await same(buildRealCrash(real).guest, { processors: [0, 3, 15] });
    });
  }
});
