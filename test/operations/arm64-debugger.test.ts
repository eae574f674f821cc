// ARM64 guests that a real QEMU ran and dumped: their registers, stacks and memory in the real debugger.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { locateWindows } from '../../src/locate/locator.ts';
import type { CodeImage } from '../../src/machines/unwinding.ts';
import { convert } from '../../src/operations/convert.ts';
import { stacks } from '../../src/operations/stacks.ts';
import { openImage } from '../../src/readers/registry.ts';
import type { PeImage } from '../../src/windows/pe-image.ts';
import { functionEntry, readPeImage, readRva } from '../../src/windows/pe-image.ts';
import { askDebugger, attempt, debuggerAvailable, openInDebugger, stack, text } from '../debugger/debugger.ts';
import { type Arm64Options, buildArm64Guest } from '../guest/arm64.ts';
import { type Arm64Compiled, compileArm64 } from '../guest/arm64-compiled.ts';
import { arm64Notes } from '../guest/arm64-elf.ts';
import { compilerAvailable } from '../guest/compiled.ts';
import { ARM64_CASES, runArm64Case } from '../matrix/arm64.ts';
import { arm64QemuAvailable, dumpArm64WithQemu } from '../support/qemu-arm64.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-arm64-debugger-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const hex = (value: bigint) => `0x${value.toString(16).padStart(16, '0')}`;

/** Notes by name, type and content; those of SVE by their size alone. */
function notesIn(notes: Buffer) {
  const list: string[] = [];
  for (let at = 0; at < notes.length; ) {
    const [nameSize, descSize, type] = [0, 4, 8].map((o) => notes.readUInt32LE(at + o)) as [number, number, number];
    const desc = at + 12 + Math.ceil(nameSize / 4) * 4;
    const content = type === 0x405 ? '' : notes.toString('hex', desc, desc + descSize);
    list.push(`${type.toString(16)} ${descSize} ${content}`);
    at = desc + Math.ceil(descSize / 4) * 4;
  }
  return list;
}

const CRASH = { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff806_86040004n], processor: 1 } as const;
describe.skipIf(!arm64QemuAvailable())('an ARM64 guest that QEMU ran', () => {
  it('has notes as our own ELF writer makes them', async () => {
    const guest = buildArm64Guest({ processors: 2, user: [1], neverStarted: 1 });
    const file = readFileSync(await dumpArm64WithQemu(guest, join(dir, 'notes.elf')));
    const size = Number(file.readBigUInt64LE(0xc0 + 0x20));
    const at = Number(file.readBigUInt64LE(0xc0 + 8));
    expect(notesIn(file.subarray(at, at + size))).toEqual(notesIn(arm64Notes(guest)));
    expect(file.readUInt16LE(0x12)).toBe(183);
  });

  it('becomes the same dump from kdump-compressed files, and from raw memory and its backing file what those have', async () => {
    const options: Arm64Options = { processors: 2, crash: CRASH, seed: 5 };
    const dumps: Buffer[] = [];
    const forms = [{}, { format: 'kdump-zlib' }, { raw: 'pmemsave' }, { raw: 'backend' }] as const;
    for (const more of forms) {
      const input = await dumpArm64WithQemu(buildArm64Guest(options), join(dir, 'vm.in'), more);
      const output = join(dir, 'vm.dmp');
      await convert({ input, output, force: true });
      dumps.push(readFileSync(output));
    }
    expect(dumps[1]!.equals(dumps[0]!)).toBe(true);
    expect(dumps[2]!.subarray(0, 0x348)).toEqual(dumps[0]!.subarray(0, 0x348));
    expect(dumps[3]!.equals(dumps[2]!)).toBe(true);
  });

  it.skipIf(!debuggerAvailable()).each(ARM64_CASES.map((c) => [c.name, c] as const))(
    'shows all in the debugger: %s',
    async (_, c) => {
      const { problems, checks } = await runArm64Case(c);
      expect(problems).toEqual([]);
      expect(checks).toBeGreaterThan(15);
    },
  );
});

const TO_HALT = ['HalHaltProcessor', 'DemoDelay', 'DemoLarge'].map((name) => `demo.sys!${name}`);
const THREAD = [
  ...TO_HALT,
  ...['DemoSigned', 'DemoSmall', 'DemoOnOtherStack', 'DemoSwitchStack', 'DemoFloating'].map(
    (name) => `demo.sys!${name}`,
  ),
];
const PROGRAM = [...Array(4).fill('APP.EXE!AppWork'), 'APP.EXE!AppMain', 'APP.EXE!AppThread'];
const END = ['demo.sys!DemoNever', 'demo.sys!DemoThread'];
const recursion = (depth: number) => Array(depth).fill('demo.sys!DemoRecurse');
/** By processor; that behind `~` was interrupted. */
const CALLS: readonly (readonly string[])[] = [
  [...THREAD, ...recursion(4), ...END],
  ['APP.EXE!AppSpin', ...PROGRAM],
  [...TO_HALT, 'demo.sys!DemoSystemCall', 'demo.sys!DemoSystemService', '~APP.EXE!AppSystemCall', ...PROGRAM],
  [...THREAD, ...recursion(7), ...END],
];

/** In the driver: its unused stacks, and code. */
const DRIVER = 0xfffff806_86030000n;
const WORDS = DRIVER + 0x1c000n;
const RETURNS = [0x1060n, 0x1100n, 0x1184n, 0x1208n, 0x128cn];

describe.skipIf(!arm64QemuAvailable() || !compilerAvailable())('stacks of compiled ARM64 code', () => {
  let compiled: Arm64Compiled;
  let input: string;
  beforeAll(async () => {
    compiled = compileArm64();
    input = join(dir, 'compiled.elf');
    const guest = buildArm64Guest({ compiled, processors: 4, order: [0, 1, 2, 3], user: [1, 2] });
    // Where no code runs: words that look like return addresses.
    for (let i = 0; i < 0x800; i++) guest.kernel.u64(WORDS + BigInt(8 * i), DRIVER + RETURNS[i % RETURNS.length]!);
    await dumpArm64WithQemu(guest, input);
  });

  it('are the calls that were made, through signed return addresses and a trap frame into user mode', async () => {
    const report = await stacks({ input });
    expect(
      report.stacks.map(({ frames }) =>
        frames.map((f) => `${f.how === 'trap' ? '~' : ''}${f.at?.module}!${f.at?.nearestExport?.name}`),
      ),
    ).toEqual(CALLS);
    for (const { frames, end, doubts } of report.stacks) {
      expect(frames.every((f) => f.certain)).toBe(true);
      expect([end, doubts]).toEqual(['the return address is 0, as in the first function of a thread', []]);
    }
  });

  describe.skipIf(!debuggerAvailable())('in the debugger', () => {
    let dump: string;
    beforeAll(async () => {
      dump = join(dir, 'compiled.dmp');
      await convert({ input, output: dump, force: true });
    });

    it("are the debugger's, frame by frame, up to return addresses that it does not read without their signatures", async () => {
      const { program } = compiled;
      const seen = (await askDebugger(dump, {
        app: attempt(`.reload /f app.exe=${hex(program.base)},0x${program.bytes.length.toString(16)}`, 2),
        ...Object.fromEntries(CALLS.map((_, number) => [`k${number}`, text('k', number)])),
        ...Object.fromEntries(CALLS.map((_, number) => [`stack${number}`, stack(number)])),
      })) as Record<string, unknown>;
      const ours = (await stacks({ input })).stacks;
      const lengths = ours.map(({ processor, frames }) => {
        const theirs = seen[`stack${processor}`] as { stack: bigint; return: bigint }[];
        const signed = theirs.findIndex((f) => f.return !== 0n && ![0n, 0x1ffffn].includes(f.return >> 47n));
        const count = signed < 0 ? theirs.length : signed;
        expect(frames.slice(0, count).map((f) => [f.stackPointer, f.returnAddress])).toEqual(
          theirs.slice(0, count).map((f) => [hex(f.stack), hex(f.return)]),
        );
        return count;
      });
      expect(lengths).toEqual([3, CALLS[1]!.length, CALLS[2]!.length, 3]);
    });

    it("take the debugger's step from every instruction", async () => {
      const image = openImage(input);
      try {
        const { space, modules: loaded } = await locateWindows(image);
        const { machine } = image;
        const base = loaded.find(({ name }) => name === 'demo.sys')!.base;
        const pe = readPeImage(space, base, 0xaa64) as PeImage;
        const code: CodeImage = {
          base,
          size: pe.size,
          read: (rva, length) => readRva(space, pe, rva, length),
          functionAt: (rva) => functionEntry(space, pe, rva),
        };
        // .text; a page of the image's own data is the stack.
        const bytes = space.read(base + 0x1000n, 0x1000)!;
        const end = bytes.findLastIndex((byte) => byte !== 0) + 1;
        const places = Array.from({ length: Math.ceil(end / 4) }, (_, i) => base + BigInt(0x1000 + 4 * i));
        const [sp, fp, lr] = [WORDS + 0x400n, WORDS + 0x800n, base + RETURNS[0]!];
        const session = await openInDebugger(dump, [
          '!cpu 0',
          `r fp=${fp.toString(16)}`,
          `r lr=${lr.toString(16)}`,
          ...places.map((pc) => `k = ${sp.toString(16)} ${pc.toString(16)} 2`),
        ]);
        const different = places.flatMap((pc, i) => {
          const lines = session.results[i + 3]!.output.replaceAll('`', '').split('\n').slice(1);
          const [first, second] = lines.map((line) => line.split(' '));
          const integers = [...Array<bigint>(29).fill(0n), fp, lr];
          const state = { instructionPointer: pc, stackPointer: sp, integers, native: true };
          const step = machine.unwind(state, code, (at, n) => space.read(at, n));
          const theirs = `0x${first?.[1]} 0x${second?.[0]}`;
          if ('stopped' in step) return `${hex(pc)}: ${step.stopped}, not ${theirs}`;
          const mine = `${hex(step.state.instructionPointer)} ${hex(step.state.stackPointer)}`;
          return mine === theirs ? [] : `${hex(pc)}: ${mine}, not ${theirs}`;
        });
        expect(different).toEqual([]);
        expect(places.length).toBeGreaterThan(300);
      } finally {
        image.close();
      }
    });
  });
});
