// Crash dumps whose writer went by the numbers of CPUs: the registers go to their processors, where memory proves it.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ConvertOptions, convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { verify } from '../../src/operations/verify.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { PageTables } from '../guest/memory.ts';
import { buildTrueGuest } from '../guest/true-guest.ts';
import { writeWinDump } from '../guest/win-dump.ts';
import { held } from '../support/schemas.ts';

let dir: string;
const at = (name: string) => join(dir, name);
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-exchanged-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const CRASH = { code: 0xd1, parameters: [1n, 2n, 3n, 4n], processor: 0 } as const;

/** Processor i has the CPU of processor order[i]. */
const exchanged = <G extends Guest>(guest: G, order: readonly number[]): G => {
  const { processors } = guest.truth;
  const next = processors.map((p, i) => ({ ...p, cpu: processors[order[i]!]!.cpu }));
  return { ...guest, truth: { ...guest.truth, processors: next } };
};

/** A full dump's bytes of a kernel address: two runs, from 0x1000 and from 0x100000 on. */
function memoryAt(dump: Buffer, { kernel }: Guest, virtual: bigint, length: number): Buffer {
  const physical = kernel.translate(virtual)!;
  const offset = 0x2000 + physical - (physical < 0xa0000 ? 0x1000 : 0x61000);
  return dump.subarray(offset, offset + length);
}

/** Only the frames: frame i is that of processor order[i]. */
function exchangeFrames(dump: Buffer, guest: Guest, order: readonly number[]): Buffer {
  const changed = Buffer.from(dump);
  const { processors } = guest.truth;
  processors.forEach((p, i) => {
    const from = memoryAt(dump, guest, processors[order[i]!]!.context, 0x4d0);
    from.copy(memoryAt(changed, guest, p.context, 0x4d0));
  });
  return changed;
}

const made = async (output: string, options: Partial<ConvertOptions> = {}) =>
  held('convert', await convert({ input: at('in.dmp'), output: at(output), force: true, ...options }));

/** Converts a dump, holds the new one to what it should be, and returns what the report says of it. */
async function repaired(wrong: Buffer, right: Buffer) {
  writeFileSync(at('in.dmp'), wrong);
  const { dump, diagnostics, outcome, windows, verification } = await made('out.dmp', { verify: true });
  expect(readFileSync(at('out.dmp')).equals(right)).toBe(true);
  expect([outcome, verification?.outcome]).toEqual(['good', 'sound']);
  expect(diagnostics.map((d) => d.code)).not.toContain('processor-exchanged');
  expect(await verify({ dump: at('out.dmp') })).toMatchObject({ outcome: 'sound', findings: [] });
  expect(await verify({ dump: at('out.dmp'), against: at('in.dmp') })).toMatchObject({ outcome: 'sound' });
  const kept = await made('kept.dmp', { patch: false });
  expect([kept.dump.repairs, kept.outcome]).toEqual([[], 'losses']);
  expect(kept.diagnostics.map((d) => d.code)).toContain('processor-exchanged');
  expect(readFileSync(at('kept.dmp')).equals(wrong)).toBe(true);
  return { repairs: dump.repairs, windows };
}

/** Nothing is changed, and that is a loss. */
async function leftAlone(wrong: Buffer) {
  writeFileSync(at('in.dmp'), wrong);
  const { dump, diagnostics } = await made('out.dmp');
  expect([dump.repairs, dump.patches]).toEqual([[], []]);
  expect(readFileSync(at('out.dmp')).equals(wrong)).toBe(true);
  return diagnostics.filter(({ severity }) => severity === 'loss').map(({ code }) => code);
}

const bare = <G extends Guest>(guest: G): G => ({
  ...guest,
  cpus: guest.cpus.map((cpu) => ({ ...cpu, gsBase: 0n, kernelGsBase: 0n })),
});

describe('registers of exchanged processors', () => {
  it.each([
    [
      'by their KPCRs',
      (guest: Guest) => guest,
      /^those that the dump has for processor 2: they name the KPCR of processor 0,/,
    ],
    [
      'by their descriptor tables',
      bare,
      /^those that the dump has for processor 2: their descriptor tables are those of processor 0$/,
    ],
  ])('go to their processors %s', async (_, change, evidence) => {
    const guest = change(buildTrueGuest({ kdbg: 'plain', processors: 3 }));
    const right = writeWinDump(guest);
    const { repairs, windows } = await repaired(writeWinDump(exchanged(guest, [1, 2, 0])), right);
    const cpuOf = (i: number) => guest.cpus[guest.truth.processors[i]!.cpu]!;
    const place = (i: number) => {
      const text = (value: bigint) => `0x${value.toString(16).padStart(16, '0')}`;
      return `rip ${text(cpuOf(i).regs.rip)}, rsp ${text(cpuOf(i).regs.rsp)}`;
    };
    expect(repairs).toEqual([
      {
        what: 'registers of processor 0',
        before: place(1),
        after: place(0),
        evidence: expect.stringMatching(evidence),
      },
      { what: 'registers of processor 1', before: place(2), after: place(1), evidence: expect.any(String) },
      { what: 'registers of processor 2', before: place(0), after: place(2), evidence: expect.any(String) },
    ]);
    expect(windows.processors.map((p) => BigInt(p.stackPointer!))).toEqual([0, 1, 2].map((i) => cpuOf(i).regs.rsp));
  });

  it('go with their frames where the special registers are in place: by the stacks', async () => {
    const guest = buildTrueGuest({ kdbg: 'plain', processors: 4 });
    const right = writeWinDump(guest);
    const { repairs } = await repaired(exchangeFrames(right, guest, [1, 2, 0, 3]), right);
    expect(repairs.map((r) => r.what)).toEqual([0, 1, 2].map((i) => `registers of processor ${i}`));
    expect(repairs[0]?.evidence).toMatch(/they lead to the stack of processor \d$/);
  });

  it('go with their frames in a crashed guest, and the crash is on its processor', async () => {
    const guest = buildTrueGuest({ kdbg: 'plain', processors: 3, crash: CRASH });
    const right = writeWinDump(guest);
    const { windows } = await repaired(exchangeFrames(right, guest, [1, 0, 2]), right);
    expect(windows.bugCheck?.processor).toBe(0);
  });

  it('go to the processor that is left, if only one is in user mode', async () => {
    const guest = buildTrueGuest({ kdbg: 'plain', processors: 3, user: [1] });
    const right = writeWinDump(guest);
    const { repairs } = await repaired(exchangeFrames(right, guest, [2, 0, 1]), right);
    expect(repairs.map((r) => r.evidence)).toContainEqual(
      expect.stringMatching(/they are the only ones left, in user mode$/),
    );
  });

  it('go by the stacks of programs, if their TEBs are there', async () => {
    const { guest, right } = withPrograms();
    const { repairs } = await repaired(exchangeFrames(right, guest, [1, 0]), right);
    expect(repairs).toHaveLength(2);
  });

  it('go by the stacks for DPCs too, on which no thread runs', async () => {
    const guest = buildGuest({ processors: 3, seed: 71, kdbg: 'plain', doing: { 1: 'dpc' } });
    const right = writeWinDump(guest);
    writeFileSync(at('in.dmp'), exchangeFrames(right, guest, [1, 2, 0]));
    const { dump, windows } = await made('out.dmp');
    expect(dump.repairs.map((r) => r.what)).toEqual([0, 1, 2].map((i) => `registers of processor ${i}`));
    const rsp = (i: number) => guest.cpus[guest.truth.processors[i]!.cpu]!.regs.rsp;
    expect(windows.processors.map((p) => BigInt(p.stackPointer!))).toEqual([0, 1, 2].map(rsp));
  });

  it('are said to be unconfirmed where neither special registers nor stacks tell whose they are', async () => {
    const said = async (guest: Guest, change: (dump: Buffer) => void) => {
      const dump = writeWinDump(guest);
      change(dump);
      writeFileSync(at('in.dmp'), dump);
      const { diagnostics } = await made('out.dmp');
      return diagnostics.find(({ code }) => code === 'registers-unconfirmed');
    };
    const guest = buildTrueGuest({ kdbg: 'plain', processors: 3, user: [2] });
    expect(await said(guest, () => {})).toBeUndefined();
    const without = (numbers: readonly number[], stacks: boolean) => (dump: Buffer) => {
      for (const n of numbers) {
        const { context, specialRegisters } = guest.truth.processors[n]!;
        memoryAt(dump, guest, specialRegisters, 0xf0).fill(0);
        if (!stacks) memoryAt(dump, guest, context, 0x4d0).writeBigUInt64LE(0xffffd00011112000n, 0x98);
      }
    };
    expect(await said(guest, without([0, 1], true))).toBeUndefined();
    expect(await said(guest, without([0, 1], false))).toMatchObject({
      severity: 'warning',
      message: expect.stringContaining('processors 0, 1 are their own'),
    });
    // The only one left has what is left.
    expect(await said(guest, without([0], false))).toBeUndefined();
  });

  it('stay, as a loss, where one of them proves nothing: none is overwritten', async () => {
    const guest = buildTrueGuest({ kdbg: 'plain', processors: 2 });
    const wrong = exchangeFrames(writeWinDump(guest), guest, [1, 0]);
    // A stack that is no thread's.
    memoryAt(wrong, guest, guest.truth.processors[1]!.context, 0x4d0).writeBigUInt64LE(0xffffd00011112000n, 0x98);
    expect(await leftAlone(wrong)).toContain('processor-exchanged');
  });

  it('stay where two processors show the same', async () => {
    const guest = buildTrueGuest({ kdbg: 'plain', processors: 3 });
    for (const order of [
      [1, 1, 0],
      [1, 0, 0],
    ]) {
      const wrong = exchangeFrames(writeWinDump(guest), guest, order);
      expect(await leftAlone(wrong)).toContain('processor-exchanged');
    }
  });

  it('stay where frame and special registers contradict each other', async () => {
    const guest = buildTrueGuest({ kdbg: 'plain', processors: 3 });
    const right = writeWinDump(guest);
    const wrong = exchangeFrames(writeWinDump(exchanged(guest, [1, 2, 0])), guest, [1, 0, 2]);
    expect(wrong.equals(right)).toBe(false);
    expect(await leftAlone(wrong)).toContain('processor-exchanged');
  });

  it("stay where none is exchanged, and on a stack that is no thread's", async () => {
    const guest = buildTrueGuest({ kdbg: 'plain', processors: 3, user: [2] });
    const dump = writeWinDump(guest);
    expect(await leftAlone(dump)).toEqual([]);
    memoryAt(dump, guest, guest.truth.processors[1]!.context, 0x4d0).writeBigUInt64LE(0xffffd00011112000n, 0x98);
    expect(await leftAlone(dump)).toEqual([]);
  });

  it('are a loss for info and stack, which show what the debugger shows', async () => {
    const guest = buildTrueGuest({ kdbg: 'plain', processors: 2 });
    writeFileSync(at('in.dmp'), exchangeFrames(writeWinDump(guest), guest, [1, 0]));
    const { windows, diagnostics } = held('info', await inspect({ input: at('in.dmp') }));
    const rsp = (i: number) => guest.cpus[guest.truth.processors[i]!.cpu]!.regs.rsp;
    expect(windows?.processors.map((p) => BigInt(p.stackPointer!))).toEqual([rsp(1), rsp(0)]);
    expect(diagnostics.map((d) => d.code)).toEqual(['processor-exchanged', 'processor-exchanged']);
    const report = held('stack', await stacks({ input: at('in.dmp') }));
    expect(report.outcome).toBe('losses');
  });

  it('are in place in a triage dump of the dump', async () => {
    const guest = buildTrueGuest({ kdbg: 'plain', processors: 2 });
    const right = writeWinDump(guest);
    writeFileSync(at('right.dmp'), right);
    await convert({ input: at('right.dmp'), output: at('right-mini.dmp'), type: 'triage', force: true });
    writeFileSync(at('in.dmp'), exchangeFrames(right, guest, [1, 0]));
    const { dump } = await made('mini.dmp', { type: 'triage' });
    expect(dump.repairs).toHaveLength(2);
    expect(readFileSync(at('mini.dmp')).equals(readFileSync(at('right-mini.dmp')))).toBe(true);
  });
});

const TEB = 0x000000d5_40000000n;
const USER_STACK = 0x000000d5_43210000n;

/** Two processors in one program, each with a stack that its thread's TEB knows. */
function withPrograms(): { guest: Guest; right: Buffer } {
  const made = buildTrueGuest({ kdbg: 'plain', processors: 2, user: [0, 1] });
  const { kernel, truth, memory } = made;
  const program = new PageTables(memory, 4, truth.processes.find(({ name }) => name === 'explorer.exe')!.root);
  const teb = truth.kdbgBlock.readUInt16LE(0x29a);
  const cpus = [...made.cpus];
  for (const { number, prcb, cpu } of truth.processors) {
    const [own, stack] = [TEB + BigInt(0x800 * number), USER_STACK + BigInt(0x800 * number)];
    kernel.u64(kernel.read(prcb + 8n, 8).readBigUInt64LE() + BigInt(teb), own);
    program.u64(own + 8n, stack + 0x800n);
    program.u64(own + 0x10n, stack);
    const { regs } = cpus[cpu]!;
    cpus[cpu] = { ...cpus[cpu]!, regs: { ...regs, rsp: stack + 0x700n } };
  }
  const guest = { ...made, cpus };
  return { guest, right: writeWinDump(guest) };
}
