import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type StackOptions, stacks } from '../../src/operations/stacks.ts';
import type { ProcessorStackReport } from '../../src/report/stacks.ts';
import { type ElfOptions, writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { random } from '../guest/memory.ts';
import { held } from '../support/schemas.ts';

let dir: string;
let input: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-stack-'));
  input = join(dir, 'vm.elf');
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

async function stacksOf(
  guest: Guest,
  options: Partial<StackOptions> & ElfOptions = {},
): Promise<ProcessorStackReport[]> {
  writeFileSync(input, writeElf(guest, options));
  return held('stack', await stacks({ ...options, input })).stacks;
}

const hex = (value: bigint) => `0x${value.toString(16).padStart(16, '0')}`;
const call = (f: ProcessorStackReport['frames'][number]) =>
  `${f.certain ? '' : '?'}${f.how} ${f.at?.module}!${f.at?.nearestExport?.name}+${f.at ? Number(f.at.nearestExport?.offset) : undefined}`;
const calls = (stack: ProcessorStackReport | undefined) => stack?.frames.map(call);

const WAITING = [
  'registers ntoskrnl.exe!PoIdle+5',
  'unwound ntoskrnl.exe!KiIdleLoop+9',
  'unwound ntoskrnl.exe!KeWaitForSingleObject+9',
  'unwound ntoskrnl.exe!NtWaitForSingleObject+9',
];
const guessed = (lines: readonly string[]) => lines.map((l, i) => (i === 0 ? l : l.replace('unwound', '?guess')));

describe('stacks', () => {
  it("begin at the CPU's registers, or in a crashed guest at those that Windows captured", async () => {
    const crash = { code: 0xd1, parameters: [1n, 2n, 3n, 4n] as const, processor: 1 };
    const guest = buildGuest({ crash });
    const [idle, crashed] = await stacksOf(guest);
    expect(idle).toMatchObject({ processor: 0, registers: 'cpu', doubts: [] });
    expect(calls(idle)).toEqual(WAITING);
    expect(idle?.frames.map((f) => f.returnAddress)).toEqual([
      ...guest.truth.processors[0]!.returns.map(hex),
      '0x0000000000000000',
    ]);
    expect(idle?.end).toMatch(/return address is 0/);
    expect(crashed).toMatchObject({ processor: 1, registers: 'captured' });
    expect(crashed?.frames[0]?.stackPointer).toBe(hex(guest.truth.captured!.rsp));
    expect(calls(crashed)?.[0]).toBe('registers ntoskrnl.exe!KeBugCheckEx+0');
    const [, own] = await stacksOf(guest, { context: 'cpu' });
    expect(calls(own)?.slice(0, 2)).toEqual([
      'registers ntoskrnl.exe!KdPollBreakIn+5',
      'unwound ntoskrnl.exe!KeBugCheckEx+9',
    ]);
  });

  it('are of one processor, if only that is asked for', async () => {
    expect(await stacksOf(buildGuest(), { processor: 1 })).toMatchObject([{ processor: 1 }]);
    await expect(stacksOf(buildGuest(), { processor: 7 })).rejects.toMatchObject({
      code: 'no-such-processor',
      kind: 'usage',
      details: { hint: 'its processors are 0, 1' },
    });
  });

  it('have no frames where registers are unknown, and one in 32-bit code', async () => {
    const [unknown] = await stacksOf(buildGuest(), { withoutNote: [1] });
    expect(unknown).toMatchObject({ registers: 'unknown', frames: [], end: 'its registers are unknown' });
    const [wow64] = await stacksOf(buildGuest({ wow64: [0] }), { processor: 0 });
    expect(wow64).toMatchObject({ frames: [{ returnAddress: null }], end: 'it is in 32-bit code (WoW64)' });
  });

  it.each<[string, (guest: Guest) => void, RegExp]>([
    [
      'the exception directory is paged out',
      (g) => g.kernel.setEntry(g.truth.kernelBase + 0x8000n, 0n),
      /exception directory is not in memory/,
    ],
    [
      'the unwind data is paged out',
      (g) => g.kernel.setEntry(g.truth.kernelBase + 0x7000n, 0n),
      /unwind data at RVA 0x7200 is not in memory/,
    ],
    ['the unwind data is a chain without end', loopUnwindData, /chain of more than 32/],
    [
      'the exception directory is not sorted, so that nothing is found',
      (g) => g.kernel.write(g.truth.kernelBase + 0x8000n, Buffer.alloc(12 * 19)),
      /no unwind data/,
    ],
  ])('are guessed, and say so, where %s', async (_, change, doubt) => {
    const guest = buildGuest();
    const { rsp } = guest.cpus[1]!.regs;
    // In a function, but behind no call.
    guest.kernel.u64(rsp + 8n, guest.truth.exports.get('KeBugCheck')! + 4n);
    change(guest);
    const [stack] = await stacksOf(guest, { processor: 0 });
    if (/sorted/.test(_)) {
      // Without entries nothing tells a return address from a word like one.
      expect(calls(stack)).toEqual(WAITING.slice(0, 1));
      expect(stack?.end).toMatch(doubt);
      return;
    }
    expect(calls(stack)).toEqual(guessed(WAITING));
    expect(stack?.frames[0]?.returnAddress).toBeNull();
    expect(stack?.doubts[0]).toMatch(doubt);
  });

  it('end with a reason where the module is gone', async () => {
    const guest = buildGuest();
    guest.cpus[1]!.regs.rip = 0xfffff804_90000000n;
    const [stack] = await stacksOf(guest, { processor: 0 });
    // Behind a guess, what is unwound is no more certain.
    expect(calls(stack)?.slice(1)).toEqual([
      '?guess ntoskrnl.exe!KiIdleLoop+9',
      ...WAITING.slice(2).map((line) => `?${line}`),
    ]);
    expect(stack?.frames[0]).toMatchObject({ at: null });
    expect(stack?.doubts).toEqual(expect.arrayContaining(['0xfffff80490000000 lies in no module']));
  });

  it('are named after the nearest export below, which no forwarder is', async () => {
    const guest = buildGuest();
    const { kernelBase, exports } = guest.truth;
    const { regs } = guest.cpus[1]!;
    // At the very beginning of a function, and its return address on top.
    regs.rip = exports.get('PoIdle')!;
    regs.rsp += 0x28n;
    const [stack] = await stacksOf(guest, { processor: 0 });
    expect(calls(stack)).toEqual(['registers ntoskrnl.exe!PoIdle+0', ...WAITING.slice(1)]);
    // Below all functions; the first export's "address" is text in the export directory.
    regs.rip = kernelBase + 0x9000n;
    guest.kernel.u32(kernelBase + 0x2000n, 0x4800);
    expect((await stacksOf(guest, { processor: 0 }))[0]?.frames[0]).toMatchObject({
      at: { module: 'ntoskrnl.exe', nearestExport: null },
    });
  });

  it('end at 256 frames, and where they come back to a frame', async () => {
    const guest = buildGuest();
    const { kernelBase, exports } = guest.truth;
    // Many frames of a function that calls itself, in what is left of the image.
    const stack = kernelBase + 0x40000n;
    const back = exports.get('KeWaitForSingleObject')! + 9n;
    for (let i = 0; i < 300; i++) guest.kernel.u64(stack + BigInt(0x30 * i) + 0x28n, back);
    guest.cpus[1]!.regs.rsp = stack;
    const [deep] = await stacksOf(guest, { processor: 0 });
    expect(deep?.frames.length).toBe(256);
    expect(deep?.end).toBe('there are more than 256 frames');
    // A machine frame that leads to itself.
    guest.kernel.write(kernelBase + 0x7200n, Buffer.from('010001000 00a0000'.replace(' ', ''), 'hex'));
    [exports.get('PoIdle')! + 5n, 0x10n, 0n, stack].forEach((word, i) => {
      guest.kernel.u64(stack + BigInt(8 * i), word);
    });
    const [loop] = await stacksOf(guest, { processor: 0 });
    expect(loop?.frames.length).toBe(1);
    expect(loop?.end).toMatch(/comes back to a frame/);
  });

  it('never fail, whatever the modules and stacks hold', async () => {
    const next = random(11);
    const noise = (length: number) => Buffer.from(Array.from({ length }, () => Math.floor(next() * 256)));
    for (let round = 0; round < 12; round++) {
      const guest = buildGuest({ user: [1] });
      const { kernelBase } = guest.truth;
      const at = (rva: number, length: number) => guest.kernel.write(kernelBase + BigInt(rva), noise(length));
      if (round % 3 === 0) at(0x7200, 0x100);
      if (round % 3 === 1) at(0x8000, 12 * 19);
      if (round % 4 === 0) at(0x1010, 0x18);
      if (round % 4 === 1) at(0x2000, 0x2000);
      if (round % 2 === 1) at(0x88 + 0x80 + 8 * 3, 8);
      // Addresses in the kernel everywhere on the stack.
      const { rsp } = guest.cpus[1]!.regs;
      for (let word = rsp & ~0xfffn; word < (rsp & ~0xfffn) + 0x1000n; word += 8n) {
        guest.kernel.u64(word, kernelBase + 0x10000n + BigInt(Math.floor(next() * 0x500)));
      }
      for (const stack of await stacksOf(guest)) {
        expect(stack.frames.length).toBeLessThanOrEqual(256);
        expect(stack.end).not.toBe('');
      }
    }
  });
});

/** Every function's unwind data is chained to an entry with that same data. */
function loopUnwindData(guest: Guest): void {
  guest.kernel.write(guest.truth.kernelBase + 0x7200n, Buffer.from('21000000000001001000010000720000', 'hex'));
}
