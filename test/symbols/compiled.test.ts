// Names, lines and inlined calls of a real compiler's code, against llvm-symbolizer and the engine of the debugger.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FileSource } from '../../src/source/file.ts';
import { PdbFile } from '../../src/symbols/pdb.ts';
import { type CodeSymbol, Symbolizer } from '../../src/symbols/symbolizer.ts';
import { debuggerAvailable, openInDebugger } from '../debugger/debugger.ts';
import {
  BASE,
  type CompiledDriver,
  type CompileOptions,
  compileDriver,
  compilerAvailable,
  STACK_POINTER,
  strippedPdb,
  symbolizerAvailable,
  writeDump,
} from './compile.ts';

/** Addresses of each driver, spread over its code. */
const COUNT = 1000;
const DRIVERS: readonly CompileOptions[] = [
  { optimize: '-O1', pageSize: 4096 },
  { optimize: '-O1', pageSize: 4096, icf: true },
  { optimize: '-O2', pageSize: 8192 },
  { optimize: '-O0', pageSize: 32768, icf: true },
];
const titleOf = ({ optimize, pageSize, icf }: CompileOptions) =>
  `${optimize}, pages of ${pageSize}${icf ? ', equal functions folded' : ''}`;

describe.skipIf(!compilerAvailable())('symbols of compiled code', () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'elf2dmp-symbols-'));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  describe.each(DRIVERS.map((options) => [titleOf(options), options] as const))('%s', (_, options) => {
    let driver: CompiledDriver;
    let rvas: number[];
    let ours: (CodeSymbol | undefined)[];
    beforeAll(() => {
      driver = compileDriver(dir, options);
      const { rva, size } = driver.text;
      rvas = Array.from({ length: COUNT }, (_, i) => rva + Math.floor((i * size) / COUNT));
      const pdb = PdbFile.open(FileSource.open(driver.pdb));
      const symbolizer = new Symbolizer(pdb);
      ours = rvas.map((each) => symbolizer.lookUp(each));
      pdb.close();
    });

    it('has addresses of all kinds', () => {
      expect(new Set(rvas).size).toBe(COUNT);
      expect(ours.every((s) => s !== undefined)).toBe(true);
      expect(ours.filter((s) => s!.inlined.length > 1).length).toBeGreaterThan(50);
      expect(ours.filter((s) => !s!.certain).length).toBeGreaterThan(0);
      expect(ours.some((s) => s!.aliases.length > 0)).toBe(options.icf === true);
    });

    it.skipIf(!symbolizerAvailable())('is what llvm-symbolizer says', () => {
      const theirs = askSymbolizer(driver, rvas);
      const different = rvas.flatMap((rva, i) => {
        const us = ours[i]!;
        const frames = theirs[i]!;
        const them = frames.at(-1)!;
        // Between functions it takes the public symbols alone; the debugger's rule is ours.
        if (!us.certain) return [];
        // LLVM 14 gives inlined code the line of the row after it: the debugger checks those lines.
        const names = frames.slice(0, -1).map((f) => `${f.FunctionName} ${f.FileName}`);
        const same =
          names.join() === us.inlined.map((f) => `${f.name} ${f.file}`).join() &&
          [us.name, ...us.aliases].some((name) => plain(name) === plain(them.FunctionName)) &&
          (us.file === undefined || them.FileName === us.file) &&
          // Folded code may have the lines of any. For code before the function's first line it takes that one: the
          // debugger, and we, take none.
          (them.Line === (us.line ?? 0) || us.aliases.length > 0 || (us.line === undefined && us.inlined.length > 0));
        return same ? [] : `${rva.toString(16)}: ${JSON.stringify(us)}, not ${JSON.stringify(frames)}`;
      });
      expect(different).toEqual([]);
    });

    it.skipIf(!debuggerAvailable())(
      'is what the debugger says',
      async () => {
        const dump = join(dirname(driver.image), 'tiny.dmp');
        writeDump(dump, driver);
        const session = await openInDebugger(
          dump,
          [
            `.sympath Z:${dirname(driver.pdb).replaceAll('/', '\\')}`,
            '.reload /f tiny.sys',
            '.lines -e',
            ...rvas.flatMap((rva) => {
              const address = (BASE + BigInt(rva)).toString(16);
              return [`ln 0x${address}`, `k = ${STACK_POINTER.toString(16)} ${address} 10`];
            }),
          ],
          { timeoutSeconds: 240 },
        );
        const different = rvas.flatMap((rva, i) => {
          const [ln, k] = [session.results[3 + 2 * i]!.output, session.results[4 + 2 * i]!.output];
          const us = ours[i]!;
          const inlined = us.inlined.map((f) => frame({ ...f, name: f.name ?? '?' }));
          const expected = [us.name, ...us.aliases].map((name) => frame({ ...us, name }));
          const frames = framesOf(k);
          const same =
            frames.slice(0, -1).join() === inlined.join() &&
            expected.includes(frames.at(-1)!) &&
            expected.includes(nearestOf(ln)!);
          return same ? [] : `${rva.toString(16)}: ${inlined} ${expected}, not ${frames} and ${nearestOf(ln)}`;
        });
        expect(different).toEqual([]);
      },
      300_000,
    );
  });

  it.skipIf(!debuggerAvailable())(
    'are those of the debugger in a stripped PDB too',
    async () => {
      const home = join(dir, 'stripped');
      mkdirSync(home);
      const driver = compileDriver(home, { optimize: '-O1' });
      writeFileSync(driver.pdb, strippedPdb(readFileSync(driver.pdb)));
      const dump = join(home, 'tiny.dmp');
      writeDump(dump, driver);
      const { rva, size } = driver.text;
      const rvas = Array.from({ length: COUNT }, (_, i) => rva + Math.floor((i * size) / COUNT));
      const symbols = `.sympath Z:${dirname(driver.pdb).replaceAll('/', '\\')}`;
      const session = await openInDebugger(
        dump,
        [symbols, '.reload /f tiny.sys', ...rvas.map((each) => `ln 0x${(BASE + BigInt(each)).toString(16)}`)],
        { timeoutSeconds: 240 },
      );
      const pdb = PdbFile.open(FileSource.open(driver.pdb));
      const symbolizer = new Symbolizer(pdb);
      const different = rvas.flatMap((each, i) => {
        const us = symbolizer.lookUp(each)!;
        const them = nearestOf(session.results[2 + i]!.output)!;
        // Templates stay decorated.
        const same = us.name.startsWith('??$') ? them.includes('largest<') : frame(us) === them;
        return same && !us.certain && us.inlined.length === 0 ? [] : `${each.toString(16)}: ${frame(us)}, not ${them}`;
      });
      pdb.close();
      expect(different).toEqual([]);
    },
    300_000,
  );
});

/** Without parameters, which llvm-symbolizer has from the decorated names. */
const plain = (name: string) =>
  name.replace(/\([^()]*\)( const)?$/, '').replaceAll('unsigned long long', 'unsigned __int64');

interface SymbolizerFrame {
  FunctionName: string;
  FileName: string;
  Line: number;
}

/** Innermost first, for each RVA. */
function askSymbolizer({ image, pdb }: CompiledDriver, rvas: readonly number[]): SymbolizerFrame[][] {
  const input = rvas.map((rva) => `0x${rva.toString(16)}\n`).join('');
  const args = [`--obj=${image}`, '--relative-address', '--output-style=JSON'];
  // It finds the PDB by the name that the image has, from here.
  const output = execFileSync('llvm-symbolizer', args, { input, cwd: dirname(pdb), maxBuffer: 1 << 28 }).toString();
  return output
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { Symbol: SymbolizerFrame[] }).Symbol);
}

interface Shown {
  name: string;
  offset: number | string;
  file?: string | undefined;
  line?: number | string | undefined;
}
const frame = ({ name, offset, file, line }: Shown) => `${name}+${offset.toString(16)} [${file ?? ''} @ ${line ?? ''}]`;

/** What `k` shows of the first function: inlined calls, then the function itself. */
function framesOf(output: string): string[] {
  const frames: string[] = [];
  for (const line of output.split('\n').slice(1)) {
    const match = /^(\(Inline Function\)|[0-9a-f`]+) +\S+ +tiny!(.*?)(?:\+0x([0-9a-f]+))?(?: \[(.*) @ (\d+)\])?$/.exec(
      line,
    );
    if (!match) break;
    const [, how, name, offset = '0', file, number] = match;
    frames.push(frame({ name: name!, offset, file, line: number }));
    if (how !== '(Inline Function)') break;
  }
  return frames;
}

/** What `ln` shows as the nearest symbol below, with its line. */
function nearestOf(output: string): string | undefined {
  const [, file, line] = /^(.*)\((\d+)\)(?:\+0x[0-9a-f]+)?$/m.exec(output) ?? [];
  const symbol = /^\([0-9a-f`]+\) +tiny!(.*?)(?:\+0x([0-9a-f]+))? +\|/m.exec(output);
  return symbol ? frame({ name: symbol[1]!, offset: symbol[2] ?? '0', file, line }) : undefined;
}
