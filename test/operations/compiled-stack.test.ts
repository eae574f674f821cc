// Stacks of code from a real compiler that ran in a real QEMU, against what went in and what the real debugger shows.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import type { CodeImage } from '../../src/machines/unwinding.ts';
import { convert } from '../../src/operations/convert.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { chooseContexts } from '../../src/plan/contexts.ts';
import { openImage } from '../../src/readers/registry.ts';
import type { ProcessorStackReport } from '../../src/report/stacks.ts';
import { functionEntry, readRva } from '../../src/windows/pe-image.ts';
import {
  askDebugger,
  attempt,
  complaints,
  debuggerAvailable,
  openInDebugger,
  stack,
  text,
} from '../debugger/debugger.ts';
import { compileImages, compilerAvailable } from '../guest/compiled.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { dumpWithQemu, qemuAvailable } from '../support/qemu.ts';

// User modules' names are in capitals where they come from the loader's list.
const RECURSION = 'ntoskrnl.exe!KiRecurse';
const DRIVER = ['demo.sys!DemoWork', 'demo.sys!DemoTransfer', 'demo.sys!DemoDispatch'];
const TO_DRIVER = [
  'ntoskrnl.exe!HalHaltProcessor',
  ...DRIVER,
  'ntoskrnl.exe!KeDelayExecutionThread',
  'ntoskrnl.exe!IoCallDriver',
];
const PROGRAM = [
  'APP.EXE!AppWait',
  ...Array(4).fill('APP.EXE!AppWork'),
  'APP.EXE!AppMain',
  'NTDLL.DLL!RtlUserThreadStart',
];
/** By processor; those behind `~` were interrupted. */
const CALLS: readonly (readonly string[])[] = [
  [
    ...TO_DRIVER,
    'ntoskrnl.exe!KiSwitchStack',
    'ntoskrnl.exe!KeFloatingWork',
    ...Array(4).fill(RECURSION),
    'ntoskrnl.exe!KiIdleLoop',
    'ntoskrnl.exe!KiThreadStartup',
  ],
  [
    ...['HalHaltProcessor', 'KiChainedWait', 'MmAccessFault', 'KiPageFault'].map((name) => `ntoskrnl.exe!${name}`),
    '~ntoskrnl.exe!KdReadMissing',
    'ntoskrnl.exe!KdTrap',
    'ntoskrnl.exe!KiBreakpointTrap',
    '~ntoskrnl.exe!KiDebugBreak',
    'ntoskrnl.exe!KiTrapLoop',
    'ntoskrnl.exe!KiThreadStartup',
  ],
  [
    ...TO_DRIVER,
    'ntoskrnl.exe!NtDelayExecution',
    'ntoskrnl.exe!KiSystemService',
    '~NTDLL.DLL!NtDelayExecution',
    ...PROGRAM,
  ],
  ['APP.EXE!AppSpin', ...PROGRAM],
];

/** Where the builder has words that look like return addresses, for stacks in code that never ran. */
const WORDS = 0x40000n;
const TEXT = 0x1000;

const calls = ({ frames }: ProcessorStackReport) =>
  frames.map((f) => `${f.how === 'trap' ? '~' : ''}${f.at?.module}!${f.at?.nearestExport?.name}`);

describe.skipIf(!compilerAvailable() || !qemuAvailable())('stacks of compiled code', () => {
  let dir: string;
  let input: string;
  let guest: Guest;
  let code: Buffer;
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-compiled-stack-'));
    input = join(dir, 'vm.elf');
    guest = buildGuest({ compiled: compileImages(), processors: 4, order: [0, 1, 2, 3], user: [2, 3] });
    const { kernelBase } = guest.truth;
    // Up to the section behind the code.
    code = guest.kernel.read(kernelBase + BigInt(TEXT), 0x1000);
    code = code.subarray(0, code.findLastIndex((byte) => byte !== 0) + 1);
    const returns: bigint[] = [];
    for (let at = 5; at < code.length; at++) {
      const target = at + code.readInt32LE(at - 4);
      if (code[at - 5] === 0xe8 && target >= 0 && target < code.length) returns.push(kernelBase + BigInt(TEXT + at));
    }
    for (let i = 0; i < 0x800; i++) guest.kernel.u64(kernelBase + WORDS + BigInt(8 * i), returns[i % returns.length]!);
    await dumpWithQemu(guest, input);
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('are the calls that were made, through traps and into user mode', async () => {
    const report = await stacks({ input });
    expect(report.stacks.map(calls)).toEqual(CALLS);
    for (const { frames, end, doubts } of report.stacks) {
      expect(frames.every((f) => f.certain)).toBe(true);
      expect(frames.at(-1)?.returnAddress).toBe('0x0000000000000000');
      expect([end, doubts]).toEqual(['the return address is 0, as in the first function of a thread', []]);
    }
  });

  it("are the same where the process's list of modules is missing", async () => {
    const elf = readFileSync(input);
    const [image, list] = [guest.options.compiled!.program[0]!.base, 0xd5_40020000n];
    const peb = Buffer.alloc(16);
    peb.writeBigUInt64LE(image, 0);
    peb.writeBigUInt64LE(list, 8);
    const at = elf.indexOf(peb);
    expect(at).toBeGreaterThan(0);
    elf.fill(0, at, at + 16);
    const changed = join(dir, 'no-list.elf');
    writeFileSync(changed, elf);
    const fromExports = CALLS.map((lines) =>
      lines.map((l) => l.replace(/^~?(APP|NTDLL)\.[A-Z]+/, (n) => n.toLowerCase())),
    );
    expect((await stacks({ input: changed })).stacks.map(calls)).toEqual(fromExports);
  });

  describe.skipIf(!debuggerAvailable())('in the debugger', () => {
    let dump: string;
    beforeAll(async () => {
      dump = join(dir, 'out.dmp');
      await convert({ input, output: dump });
    });

    it("are the debugger's, frame by frame", async () => {
      const { program } = guest.options.compiled!;
      const load = ({ name, base, bytes }: (typeof program)[number]) =>
        attempt(`.reload /f ${name}=0x${base.toString(16)},0x${bytes.length.toString(16)}`, 2);
      const seen = await askDebugger(dump, {
        complaints: complaints(),
        // Without symbols of its kernel the debugger doesn't find a process's modules.
        app: load(program[0]!),
        ntdll: load(program[1]!),
        // `k` is what makes it read the exports.
        ...Object.fromEntries(CALLS.map((_, number) => [`k${number}`, text('k', number)])),
        ...Object.fromEntries(CALLS.map((_, number) => [`stack${number}`, stack(number)])),
      });
      expect(seen.complaints).toEqual([]);
      const ours = (await stacks({ input })).stacks;
      ours.forEach(({ processor, frames }) => {
        const theirs = (seen as unknown as Record<string, Awaited<ReturnType<ReturnType<typeof stack>['read']>>>)[
          `stack${processor}`
        ]!;
        const name = (module: string) =>
          module
            .toLowerCase()
            .replace('ntoskrnl.exe', 'nt')
            .replace(/\.\w+$/, '');
        expect(
          frames.map((f) => [
            f.stackPointer,
            f.returnAddress,
            `${name(f.at!.module!)}!${f.at!.nearestExport!.name}`,
            Number(f.at!.nearestExport!.offset),
          ]),
        ).toEqual(theirs.map((f) => [hex(f.stack), hex(f.return), f.symbol, Number(f.offset)]));
        expect(frames.length).toBeGreaterThan(7);
      });
    });

    it("take the debugger's step from every byte of the kernel's code", async () => {
      const image = openImage(input);
      try {
        const windows = await locateWindows(image);
        const { kernel, space } = windows;
        const { processor, frame } = chooseContexts(windows, 'cpu').shown[1]!;
        const [rsp, rbp] = [kernel.base + WORDS + 0x800n, kernel.base + WORDS + 0x1000n];
        const places = Array.from(code, (_, i) => kernel.base + BigInt(TEXT + i));
        const session = await openInDebugger(dump, [
          `!cpu ${processor.number}`,
          `r rbp=${rbp.toString(16)}`,
          ...places.map((rip) => `k = ${rsp.toString(16)} ${rip.toString(16)} 2`),
        ]);
        const kernelCode: CodeImage = {
          ...kernel,
          read: (rva, length) => readRva(space, kernel, rva, length),
          functionAt: (rva) => functionEntry(space, kernel, rva),
        };
        const different = places.flatMap((rip, i) => {
          // Lines of RSP and return address, behind a heading.
          const lines = session.results[i + 2]!.output.replaceAll('`', '').split('\n').slice(1);
          const [[, returns], [next]] = lines.map((line) => line.split(' ')) as [string[], string[]];
          const context = Buffer.from(frame);
          context.writeBigUInt64LE(rsp, 0x98);
          context.writeBigUInt64LE(rbp, 0xa0);
          context.writeBigUInt64LE(rip, 0xf8);
          const step = image.machine.unwind(image.machine.frameState(context), kernelCode, (at, n) =>
            space.read(at, n),
          );
          if ('stopped' in step) return `${hex(rip)}: ${step.stopped}`;
          const ours = `${hex(step.state.instructionPointer)} ${hex(step.state.stackPointer)}`;
          return ours === `0x${returns} 0x${next}` ? [] : `${hex(rip)}: ${ours}, not ${returns} ${next}`;
        });
        expect(different).toEqual([]);
        expect(places.length).toBeGreaterThan(1000);
      } finally {
        image.close();
      }
    });
  });
});

const hex = (value: bigint) => `0x${value.toString(16).padStart(16, '0')}`;
