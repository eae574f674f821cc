// Every type of dump made from every type: the real debugger answers as for the dump of the guest's own ELF file.
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ConvertOptions, convert } from '../../src/operations/convert.ts';
import {
  askDebugger,
  bugCheck,
  complaints,
  debuggerAvailable,
  modules,
  registers,
  stack,
  system,
  virtualMemory,
} from '../debugger/debugger.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { buildTrueGuest } from '../guest/true-guest.ts';
import { type WinDumpType, writeWinDump } from '../guest/win-dump.ts';

let dir: string;
const at = (name: string) => join(dir, name);
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-dump-input-debugger-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const CRASH = { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff8042c460004n], processor: 1 } as const;
const OUTPUTS = ['full', 'bitmap', 'kernel', 'active', 'triage'] as const;
const WRITTEN: readonly WinDumpType[] = [1, 2, 5, 6, 8, 9, 10];

/** What every type has of a guest. */
const questionsOf = ({ truth }: Guest) => ({
  complaints: complaints(),
  bugCheck: bugCheck(),
  modules: modules(),
  system: system(),
  registers0: registers(0),
  registers1: registers(1),
  stack: stack(truth.bugCheck ? 1 : 0),
  kdbg: virtualMemory(truth.kdbg, truth.kdbgBlock.length),
});

type Answers = Awaited<ReturnType<typeof ask>>;

async function ask(dump: string, guest: Guest) {
  const { system: told, modules: list, ...seen } = await askDebugger(dump, questionsOf(guest));
  // What names the type of the dump; and sizes, which only minidumps have of modules that no process here maps.
  const { class: _, qualifier: __, ...same } = told;
  return {
    ...seen,
    system: same,
    modules: list.map(({ name, base, timestamp }) => ({ name, base, timestamp })),
  };
}

/** Answers to files that are the same byte for byte need one session. */
class Answered {
  readonly #guest: Guest;
  readonly #byContent = new Map<string, Answers>();

  constructor(guest: Guest) {
    this.#guest = guest;
  }

  async to(dump: string): Promise<Answers> {
    const key = createHash('sha256').update(readFileSync(dump)).digest('hex');
    const known = this.#byContent.get(key) ?? (await ask(dump, this.#guest));
    this.#byContent.set(key, known);
    return known;
  }
}

const to = (input: string, output: string, type: ConvertOptions['type']) =>
  convert({
    input: at(input),
    output: at(output),
    type,
    triageCpus: type === 'triage' ? 'all' : undefined,
    force: true,
  });

describe.skipIf(!debuggerAvailable())('dumps made from dumps, in the real debugger', () => {
  it.each<[string, () => Guest]>([
    ['a running guest with a CPU in a program', () => buildGuest({ processors: 2, user: [1], seed: 61, ramMiB: 4 })],
    ['a crashed guest', () => buildGuest({ processors: 2, seed: 62, ramMiB: 4, crash: CRASH })],
    ['a crashed guest of true size', () => buildTrueGuest({ crash: CRASH })],
  ])('of our own, of %s', async (_, build) => {
    const guest = build();
    writeFileSync(at('vm.elf'), writeElf(guest));
    const answered = new Answered(guest);
    const inputs = ['vm.elf'];
    for (const type of ['full', 'bitmap', 'kernel', 'active'] as const) {
      await to('vm.elf', `in-${type}.dmp`, type);
      inputs.push(`in-${type}.dmp`);
    }
    writeFileSync(at('in-full.dmp.gz'), gzipSync(readFileSync(at('in-full.dmp')), { level: 1 }));
    inputs.push('in-full.dmp.gz');
    const first = await answered.to(at('in-full.dmp'));
    expect(first.complaints).toEqual([]);
    for (const input of inputs) {
      // A header has no room for the runs of those.
      const isSmaller = /kernel|active/.test(input);
      for (const type of isSmaller ? OUTPUTS.slice(1) : OUTPUTS) {
        await to(input, 'out.dmp', type);
        expect(await answered.to(at('out.dmp')), `${input} to ${type}`).toEqual(first);
      }
    }
  });

  it.each(WRITTEN)("of another writer's type %i, as the debugger reads that", async (type) => {
    const guest = buildGuest({ processors: 2, user: [0], kdbg: 'plain', seed: 63, ramMiB: 4, crash: CRASH });
    writeFileSync(at('in.dmp'), writeWinDump(guest, type));
    const answered = new Answered(guest);
    const first = await answered.to(at('in.dmp'));
    for (const output of OUTPUTS) {
      await to('in.dmp', 'out.dmp', output);
      expect(await answered.to(at('out.dmp')), `to ${output}`).toEqual(first);
    }
  });

  it('of one that shows registers under the numbers of CPUs: repaired, as if it never had', async () => {
    const guest = buildTrueGuest({ kdbg: 'plain' });
    writeFileSync(at('right.dmp'), writeWinDump(guest));
    const { processors } = guest.truth;
    const next = processors.map((p, i) => ({ ...p, cpu: processors[1 - i]!.cpu }));
    writeFileSync(at('wrong.dmp'), writeWinDump({ ...guest, truth: { ...guest.truth, processors: next } }));
    const [right, wrong] = [await ask(at('right.dmp'), guest), await ask(at('wrong.dmp'), guest)];
    expect(wrong.registers0['rsp']).toBe(right.registers1['rsp']);
    for (const type of OUTPUTS) {
      await to('wrong.dmp', 'out.dmp', type);
      expect(await ask(at('out.dmp'), guest), type).toEqual(right);
    }
  });
});
