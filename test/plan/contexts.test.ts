import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { renderPage } from '../../src/cli/html/page.ts';
import { convertAndDescribe } from '../../src/operations/convert.ts';
import { inspect, inspectAndDescribe } from '../../src/operations/inspect.ts';
import { stacks } from '../../src/operations/stacks.ts';
import type { ContextChoice } from '../../src/options/choices.ts';
import { type ElfOptions, writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest, type GuestOptions } from '../guest/guest.ts';
import { pagesOf } from '../support/dumps.ts';

const CHOICES: readonly ContextChoice[] = ['auto', 'cpu', 'captured'];

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-contexts-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

interface State {
  guest: GuestOptions;
  elf?: ElfOptions;
  change?: (guest: Guest) => void;
  /** Whose registers each processor shows, and on which the debugger opens, for each choice. */
  shows: Record<ContextChoice, { sources: string[]; opens: number | null }>;
}

const same = (sources: string[], opens: number | null): State['shows'] => ({
  auto: { sources, opens },
  cpu: { sources, opens },
  captured: { sources, opens },
});
const crash = { code: 0xd1, parameters: [0x10n, 2n, 0n, 1n] as const, processor: 1 };
const CRASHED = {
  ...same(['cpu', 'captured'], 1),
  cpu: { sources: ['cpu', 'cpu'], opens: 1 },
};

const STATES: Record<string, State> = {
  running: { guest: {}, shows: same(['cpu', 'cpu'], 0) },
  'in user mode': { guest: { user: [0, 1] }, shows: same(['cpu', 'cpu'], 0) },
  'with the first processor in 32-bit code': { guest: { wow64: [0] }, shows: same(['cpu', 'cpu'], 1) },
  'with only 32-bit code': { guest: { wow64: [0, 1] }, shows: same(['cpu', 'cpu'], 0) },
  'with a CPU that was never started': { guest: { neverStarted: 1 }, shows: same(['cpu', 'cpu'], 0) },
  'with a CPU state missing': { guest: {}, elf: { withoutNote: [1] }, shows: same(['unknown', 'cpu'], 1) },
  'without CPU states': { guest: {}, elf: { withoutNotes: true }, shows: same(['unknown', 'unknown'], null) },
  crashed: { guest: { crash }, shows: CRASHED },
  'crashed, the other in 32-bit code': { guest: { crash, wow64: [0] }, shows: CRASHED },
  'crashed without a captured frame': {
    guest: { crash: { ...crash, captured: false } },
    shows: same(['cpu', 'cpu'], 1),
  },
  'crashed with a damaged captured frame': {
    guest: { crash },
    change: ({ kernel, truth }) => kernel.u64(truth.processors[1]!.context + 0x98n, 0x1233n),
    shows: same(['cpu', 'cpu'], 1),
  },
  'crashed, its CPU state missing': {
    guest: { crash },
    elf: { withoutNote: [0] },
    shows: { ...same(['cpu', 'captured'], 1), cpu: { sources: ['cpu', 'unknown'], opens: 0 } },
  },
};

/** RIP and RSP of a CONTEXT; null for one without registers. */
const registersOf = (frame: Buffer) => {
  const [rip, rsp] = [frame.readBigUInt64LE(0xf8), frame.readBigUInt64LE(0x98)];
  return rip === 0n ? null : [address(rip), address(rsp)];
};
const address = (value: bigint) => `0x${value.toString(16).padStart(16, '0')}`;

/** What the dump's own bytes show. */
function written(guest: Guest, dump: Buffer) {
  const { kernel, truth } = guest;
  const pages = pagesOf(dump);
  const read = (virtual: bigint, length: number) => {
    const result = Buffer.alloc(length);
    for (let done = 0; done < length; ) {
      const physical = kernel.translate(virtual + BigInt(done))!;
      const [page, at] = [physical - (physical % 0x1000), physical % 0x1000];
      done += pages.get(page)!.copy(result, done, at);
    }
    return result;
  };
  const frames = truth.processors.map(({ context }) => read(context, 0x4d0));
  // The debugger opens on the first processor whose RSP is the header's.
  const rsp = dump.readBigUInt64LE(0x348 + 0x98);
  const opens = frames.findIndex((frame) => frame.readBigUInt64LE(0xf8) !== 0n && frame.readBigUInt64LE(0x98) === rsp);
  return { registers: frames.map(registersOf), opens: opens < 0 ? null : opens };
}

/** What the page says of a processor that has an entry of its own. */
const aboutOnPage = (html: string, number: number): string | undefined =>
  new RegExp(`<(h3|strong)>Processor ${number}[< ][\\s\\S]*?<p>(.*?)</p>`).exec(html)?.[2];

describe.each(Object.entries(STATES))('a guest %s', (_, { guest: options, elf, change, shows }) => {
  it.each(CHOICES)('shows the same registers everywhere with --context %s', async (context) => {
    const guest = buildGuest(options);
    change?.(guest);
    const [input, output] = [join(dir, 'vm.elf'), join(dir, 'vm.dmp')];
    writeFileSync(input, writeElf(guest, elf));
    const { report, page } = await convertAndDescribe({ input, output, context, force: true }, { page: true });
    const { sources, opens } = shows[context];
    const dump = written(guest, readFileSync(output));

    // The report says whose they are, and the dump has just those.
    expect(report.windows.processors.map((p) => p.registers)).toEqual(sources);
    const shown = report.windows.processors.map((p) =>
      p.instructionPointer === null ? null : [p.instructionPointer, p.stackPointer],
    );
    expect(dump.registers).toEqual(shown);
    sources.forEach((source, i) => {
      const { cpu, number } = guest.truth.processors[i]!;
      const { captured } = guest.truth;
      const { rip, rsp } = source === 'captured' ? captured! : guest.cpus[cpu]!.regs;
      if (source === 'captured') expect(captured?.processor).toBe(number);
      expect(dump.registers[i]).toEqual(source === 'unknown' ? null : [address(rip), address(rsp)]);
    });
    expect(report.windows.currentProcessor).toBe(opens);
    expect(dump.opens).toBe(opens);

    // The page of the conversion.
    expect(page?.windows).toMatchObject(report.windows);
    const html = renderPage(page!);
    for (const { number, registers } of report.windows.processors) {
      const about = aboutOnPage(html, number);
      const whose = {
        cpu: 'the CPU&#39;s',
        captured: 'captured by Windows',
        dump: 'the dump&#39;s',
        unknown: 'unknown',
      };
      if (about !== undefined) expect(about).toContain(`registers: ${whose[registers]}`);
      // Several that run the same code share one entry, with a row for each.
      else expect(html).toContain(`<tr><td>${number}</td>`);
    }
    if (opens !== null) expect(html).toContain(`The debugger opens on processor ${opens}.`);

    // The stacks and the description of the input.
    const stack = await stacks({ input, context });
    expect(stack.windows).toEqual(report.windows);
    expect(stack.stacks.map((s) => [s.processor, s.registers, s.frames[0]?.instructionPointer ?? null])).toEqual(
      report.windows.processors.map((p) => [p.number, p.registers, p.instructionPointer]),
    );
    expect((await inspect({ input, context })).windows).toMatchObject(report.windows);

    // The dump, read back.
    const { report: back, page: pageOfDump } = await inspectAndDescribe({ input: output }, { page: true });
    expect(back.windows?.processors.map((p) => p.registers)).toEqual(
      sources.map((source) => (source === 'unknown' ? 'unknown' : 'dump')),
    );
    expect(
      back.windows?.processors.map((p) =>
        p.instructionPointer === null ? null : [p.instructionPointer, p.stackPointer],
      ),
    ).toEqual(dump.registers);
    expect(back.windows?.currentProcessor).toBe(opens);
    expect(pageOfDump?.windows).toEqual(back.windows);
  });
});

it("says on the page of a real conversion with --context cpu that the registers are the CPU's", async () => {
  const sample = new URL('../../samples/crashed-19041-2cpu.elf.gz', import.meta.url).pathname;
  const { report, page } = await convertAndDescribe(
    { input: sample, output: join(dir, 'sample.dmp'), context: 'cpu' },
    { page: true },
  );
  const { captured, instructionPointer } = report.windows.processors[1]!;
  expect(captured?.instructionPointer).not.toBe(instructionPointer);
  const html = renderPage(page!);
  expect(aboutOnPage(html, 1)).toContain('registers: the CPU&#39;s');
});
