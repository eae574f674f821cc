// Stacks named by PDBs: of code from a real compiler that ran in a real QEMU, against what the debugger shows with the
// same PDBs.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { stacks } from '../../src/operations/stacks.ts';
import type { FrameReport } from '../../src/report/stack-frames.ts';
import type { ProcessorStackReport } from '../../src/report/stacks.ts';
import { askDebugger, attempt, debuggerAvailable, text } from '../debugger/debugger.ts';
import { compileImages, compilerAvailable } from '../guest/compiled.ts';
import { buildGuest, type Guest } from '../guest/guest.ts';
import { dumpWithQemu, qemuAvailable } from '../support/qemu.ts';

const PROCESSORS = [0, 1, 2, 3];

describe.skipIf(!compilerAvailable() || !qemuAvailable())('stacks with symbols', () => {
  let dir: string;
  let input: string;
  let symbols: string;
  let guest: Guest;
  let named: ProcessorStackReport[];
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-compiled-symbols-'));
    input = join(dir, 'vm.elf');
    symbols = join(dir, 'symbols');
    mkdirSync(symbols);
    guest = buildGuest({ compiled: compileImages(symbols), processors: 4, order: [0, 1, 2, 3], user: [2, 3] });
    await dumpWithQemu(guest, input);
    named = (await stacks({ input, symbols })).stacks;
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  const driverFrame = (all: ProcessorStackReport[]) =>
    all[0]!.frames.find((f) => f.at?.nearestExport?.name === 'DemoTransfer')!;

  it('have functions, lines and inlined calls', () => {
    const { at } = driverFrame(named);
    expect(at?.symbol).toMatchObject({
      name: 'DemoTransfer',
      certain: true,
      file: expect.stringMatching(/driver\.c$/),
      inlined: [{ name: 'DemoBlend', file: expect.stringMatching(/driver\.c$/) }],
    });
    // The line of the call, not of what follows it.
    const source = readFileSync(new URL('../guest/compiled/driver.c', import.meta.url), 'utf8').split('\n');
    expect(source[at!.symbol!.line! - 1]).toMatch(/sum \+= DemoBlend/);
    expect(source[at!.symbol!.inlined[0]!.line! - 1]).toMatch(/DemoWork\(/);
  });

  it('are the same stacks as without', async () => {
    const plain = (await stacks({ input })).stacks;
    const without = (all: ProcessorStackReport[]) =>
      all.map((s) => ({ ...s, frames: s.frames.map((f) => ({ ...f, at: f.at && { ...f.at, symbol: null } })) }));
    expect(plain).toEqual(without(named));
    expect(named.flatMap((s) => s.frames).every((f) => f.at?.symbol)).toBe(true);
  });

  it('name nothing by PDBs of another build, and say so', async () => {
    const other = join(dir, 'other');
    mkdirSync(other);
    const bytes = readFileSync(join(symbols, 'demo.pdb'));
    // The age in the DBI stream is 1, behind its signature and version.
    const dbi = bytes.indexOf(Buffer.from('ffffffff770931010100000000', 'hex').subarray(0, 12));
    expect(dbi).toBeGreaterThan(0);
    bytes.writeUInt32LE(2, dbi + 8);
    writeFileSync(join(other, 'demo.pdb'), bytes);
    const report = await stacks({ input, symbols: `${other};srv*https://example.com/symbols` });
    expect(driverFrame(report.stacks).at?.symbol).toBe(null);
    const found = report.diagnostics.filter((d) => d.code === 'symbols-mismatched');
    expect(found.map((d) => d.message)).toEqual([
      expect.stringMatching(
        /other\/demo\.pdb: its GUID and age are [0-9A-F]{32}2, the image's [0-9A-F]{32}1 \(wanted: demo\.pdb\/[0-9A-F]{32}1\/demo\.pdb\)$/,
      ),
    ]);
    expect(report.outcome).toBe('good');
  });

  it('say which PDBs are there', async () => {
    const { windows } = await inspect({ input, symbols: join(symbols, 'demo.pdb') });
    expect(windows?.modules.map((m) => [m.name, m.pdb?.found])).toEqual([
      ['ntoskrnl.exe', false],
      ['demo.sys', true],
    ]);
    const plain = await inspect({ input });
    expect(plain.windows?.modules.map((m) => m.pdb?.found)).toEqual([null, null]);
  });

  it.skipIf(!debuggerAvailable())("are the debugger's, but for the line of a caller", async () => {
    const dump = join(dir, 'out.dmp');
    await convert({ input, output: dump });
    const { kernel, drivers, program } = guest.options.compiled!;
    const load = ({ name, base, bytes }: (typeof program)[number]) =>
      attempt(`.reload /f ${name}=0x${base.toString(16)},0x${bytes.length.toString(16)}`, 2);
    const seen = (await askDebugger(dump, {
      path: text(`.sympath Z:${symbols.replaceAll('/', '\\')}`),
      ...Object.fromEntries(
        [kernel, ...drivers].map(({ name }) => [name, attempt(`.reload /f ${name === 'ntoskrnl.exe' ? 'nt' : name}`)]),
      ),
      ...Object.fromEntries(program.map((image) => [image.name, load(image)])),
      lines: text('.lines -e'),
      ...Object.fromEntries(PROCESSORS.map((number) => [`k${number}`, text('k', number)])),
    })) as unknown as Record<string, string>;
    for (const number of PROCESSORS) {
      const theirs = seen[`k${number}`]!.split('\n')
        .slice(1)
        .filter((line) => line !== '');
      const ours = named[number]!.frames.flatMap(printed);
      expect(ours.map(({ symbol }) => symbol)).toEqual(theirs.map((line) => /([^ ]+!.*?)(?: \[|$)/.exec(line)![1]));
      // It takes the line of the return address, at times that of the next statement.
      const lines = theirs.map((line) => Number(/ @ (\d+)\]$/.exec(line)?.[1] ?? 0));
      ours.forEach(({ line, caller }, i) => {
        if (caller) expect(Math.abs(line - lines[i]!)).toBeLessThanOrEqual(4);
        else expect(line).toBe(lines[i]);
      });
    }
  });
});

/** A frame as `k` has it: inlined calls, innermost first, then the function. */
function printed({ at, how }: FrameReport): { symbol: string; line: number; caller: boolean }[] {
  const { module, symbol } = at!;
  const name = module!
    .toLowerCase()
    .replace('ntoskrnl.exe', 'nt')
    .replace(/\.\w+$/, '');
  const caller = how !== 'registers' && how !== 'trap';
  return [...symbol!.inlined, symbol!].map((each) => ({
    symbol: `${name}!${each.name}${each.offset === '0x0' ? '' : `+${each.offset}`}`,
    line: each.line ?? 0,
    caller,
  }));
}
