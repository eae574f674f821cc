/**
 * How processor time and memory grow with what a guest or a batch has more of: `npm run bench -- growth batch-growth`.
 * Guests are made in memory and written as sparse files. ELF2DMP_BENCH_GROWTH names the axes to measure, all without it;
 * ELF2DMP_BENCH_GROWTH_MAX leaves out sizes above it.
 */
import {
  closeSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  openSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { addModules, addProcesses, addThreads } from '../test/guest/crowd.ts';
import { writeElf } from '../test/guest/elf.ts';
import { buildGuest, type Guest } from '../test/guest/guest.ts';
import { PAGE } from '../test/guest/memory.ts';
import { addMemoryManager } from '../test/guest/memory-manager.ts';
import { elf2dmp, type Measured, MIB, median, type Table } from './measure.ts';

const ROUNDS = Number(process.env['ELF2DMP_BENCH_GROWTH_ROUNDS'] ?? 3);
const MAX = Number(process.env['ELF2DMP_BENCH_GROWTH_MAX'] ?? Number.POSITIVE_INFINITY);
const WANTED = process.env['ELF2DMP_BENCH_GROWTH']?.split(',');

/** Something that a guest has more or less of. */
interface Axis {
  name: string;
  sizes: readonly number[];
  make: (path: string, size: number) => void;
}

/** What is measured of each guest. */
interface Scene {
  input: string;
  dump: string;
  output: string;
}

const COMMANDS: Record<string, (scene: Scene) => Measured> = {
  convert: ({ input, dump }) => elf2dmp('-q', '-f', input, dump),
  info: ({ input }) => elf2dmp('info', '-q', input),
  verify: ({ input, dump }) => elf2dmp('verify', '-q', dump, '--against', input),
  stack: ({ input }) => elf2dmp('stack', '-q', input),
  report: ({ input, output }) => elf2dmp('info', '-q', '-f', input, '--report', output),
  kernel: ({ input, output }) => elf2dmp('-q', '-f', '--type', 'kernel', input, output),
  active: ({ input, output }) => elf2dmp('-q', '-f', '--type', 'active', input, output),
  triage: ({ input, output }) => elf2dmp('-q', '-f', '--type', 'triage', input, output),
  'in place': ({ input, output }) => {
    copyFileSync(input, output);
    return elf2dmp('-q', '--in-place', output);
  },
};

const writeGuest = (path: string, guest: Guest): void => writeFileSync(path, writeElf(guest));

/** Memory behind the guest's own that runs are cut from: one page of zeros for each of the most runs. */
const RUN_PAGES = 70_000;

/** A guest of 16 MiB, and `RUN_PAGES` pages in so many runs with holes between them. */
function writeRuns(path: string, size: number): void {
  const guest = buildGuest();
  const count = size - 2;
  const pagesOf = (i: number) => Math.floor((RUN_PAGES * (i + 1)) / count) - Math.floor((RUN_PAGES * i) / count);
  let at = 2 ** 32;
  const more = Array.from({ length: count }, (_, i) => {
    const from = at;
    at += (pagesOf(i) + 1) * PAGE;
    return [from, from + pagesOf(i) * PAGE] as const;
  });
  const runs = [[0, 0xa0000], [0x100000, guest.ramBytes], ...more] as const;
  const elf = writeElf(guest, { runs });
  // Zeros at the end become a hole.
  const fd = openSync(path, 'w');
  const first = elf.length - (RUN_PAGES * PAGE + 11);
  writeSync(fd, elf.subarray(0, first));
  writeSync(fd, elf.subarray(elf.length - 11), 0, 11, elf.length - 11);
  closeSync(fd);
}

const AXES: readonly Axis[] = [
  { name: 'runs', sizes: [42, 700, 7000, 70_000], make: writeRuns },
  {
    name: 'CPUs',
    sizes: [1, 64, 512, 2048, 4096],
    make: (path, size) => {
      const processors = Math.min(size, 2048);
      // 100 KiB for each processor, which the guest has to have room for.
      const ramMiB = 16 + Math.ceil(0.125 * processors);
      writeGuest(path, buildGuest({ processors, ramMiB, neverStarted: size - processors }));
    },
  },
  {
    name: 'modules',
    sizes: [10, 100, 1000, 4000],
    make: (path, size) => {
      const guest = buildGuest({ ramMiB: 64 });
      addModules(guest, size);
      writeGuest(path, guest);
    },
  },
  {
    name: 'processes',
    sizes: [10, 200, 2000, 20_000],
    make: (path, size) => {
      const guest = buildGuest({ ramMiB: 32 + Math.ceil(size / 36) });
      addProcesses(guest, size);
      addMemoryManager(guest);
      writeGuest(path, guest);
    },
  },
  {
    name: 'threads',
    sizes: [10, 100, 1000, 4000],
    make: (path, size) => {
      const guest = buildGuest({ ramMiB: 64, doing: { 0: 'driver' } });
      addThreads(guest, size);
      writeGuest(path, guest);
    },
  },
];

const seconds = (value: number): string => value.toFixed(value < 10 ? 2 : 1);

/** "×10: time ×3.1, memory ×1.2": from the last size but one to the last, without what the smallest takes. */
function lastStep(sizes: readonly number[], results: readonly Measured[]): string {
  const [first, before, last] = [results[0], results.at(-2), results.at(-1)];
  const [size0, size1, size2] = [sizes[0]!, sizes.at(-2)!, sizes.at(-1)!];
  if (!first || !before || !last || sizes.length < 3) return '';
  const grown = (of: (m: Measured) => number) => {
    const [a, b] = [of(before) - of(first), of(last) - of(first)];
    return b <= 0.1 * of(first) ? 'flat' : `×${(b / Math.max(a, 0.01 * of(first))).toFixed(1)}`;
  };
  const times = ((size2 - size0) / (size1 - size0)).toFixed(1);
  return `size ×${times}: time ${grown(({ cpu }) => cpu)}, memory ${grown(({ peakMib }) => peakMib)}`;
}

/** Medians of processor time and peak memory. */
function medianOf(rounds: readonly Measured[]): Measured {
  const of = (pick: (m: Measured) => number) => median(rounds.map(pick));
  return { seconds: of((m) => m.seconds), cpu: of((m) => m.cpu), peakMib: of((m) => m.peakMib) };
}

const HEAD = ['axis', 'command', 'processor time and peak memory by size', 'growth in the last step'];

const cells = (sizes: readonly number[], results: readonly Measured[]): string =>
  results
    .map(({ cpu, peakMib }, i) => `${sizes[i]!.toLocaleString('en')}: ${seconds(cpu)} s, ${peakMib.toFixed(0)} MiB`)
    .join('; ');

/** The table of what one input has more of. */
export async function growth(dir: string): Promise<Table> {
  const rows: string[][] = [];
  for (const axis of AXES.filter(({ name }) => WANTED?.includes(name) ?? true)) {
    const sizes = axis.sizes.filter((size) => size <= MAX);
    const results = new Map<string, Measured[]>();
    for (const size of sizes) {
      const scene = { input: join(dir, 'vm.elf'), dump: join(dir, 'vm.dmp'), output: join(dir, 'out') };
      axis.make(scene.input, size);
      for (const [name, command] of Object.entries(COMMANDS)) {
        const rounds = Array.from({ length: ROUNDS }, () => {
          for (const path of [scene.output, `${scene.output}.elf2dmp-undo`]) rmSync(path, { force: true });
          return command(scene);
        });
        const measured = medianOf(rounds);
        console.log(`${axis.name} ${size} ${name}: ${seconds(measured.cpu)} s, ${measured.peakMib.toFixed(0)} MiB`);
        results.set(name, [...(results.get(name) ?? []), measured]);
      }
      for (const path of [...Object.values(scene), `${scene.output}.elf2dmp-undo`]) rmSync(path, { force: true });
    }
    for (const [name, measured] of results)
      rows.push([axis.name, name, cells(sizes, measured), lastStep(sizes, measured)]);
  }
  return { head: HEAD, rows };
}

const BATCH_SIZES = [10, 100, 1000, 5000, 20_000];

/** Batches of small dumps: seven guests, each under many names, to triage dumps, so that they fit on the disk. */
export async function batchGrowth(dir: string): Promise<Table> {
  const sizes = BATCH_SIZES.filter((size) => size <= MAX);
  const [inputs, out] = [join(dir, 'inputs'), join(dir, 'out')];
  const guests = Array.from({ length: 7 }, (_, seed) => {
    const path = join(dir, `guest${seed}.elf`);
    const crash = { code: 0xd1, parameters: [BigInt(seed), 2n, 3n, 4n], processor: 0 } as const;
    writeFileSync(path, writeElf(buildGuest({ seed, ramMiB: 8, processors: 1, decoys: false, crash })));
    return path;
  });
  const ways: Record<string, (place: string) => Measured> = {
    'batch --html --junit --jsonl': (place) =>
      elf2dmp(
        ...['batch', inputs, '--out', place, '--jobs', '2', '-q', '--type', 'triage', '--html', '--jsonl'],
        ...[join(dir, 'lines.jsonl'), '--junit', join(dir, 'junit.xml')],
      ),
    'the same again: all done': (place) =>
      elf2dmp(
        ...['batch', inputs, '--out', place, '--jobs', '2', '-q', '--type', 'triage', '--html', '--jsonl'],
        ...[join(dir, 'lines.jsonl'), '--junit', join(dir, 'junit.xml')],
      ),
    '--dry-run': (place) => elf2dmp('batch', inputs, '--out', place, '-q', '--type', 'triage', '--html', '--dry-run'),
  };
  const results = new Map<string, Measured[]>();
  for (const size of sizes) {
    for (let i = 0; i < size; i++) {
      const folder = join(inputs, `${Math.floor(i / 500)}`);
      mkdirSync(folder, { recursive: true });
      linkSync(guests[i % 7]!, join(folder, `${i}.elf`));
    }
    for (const [name, way] of Object.entries(ways)) {
      const measured = way(out);
      console.log(`batch ${size} ${name}: ${seconds(measured.cpu)} s, ${measured.peakMib.toFixed(0)} MiB`);
      results.set(name, [...(results.get(name) ?? []), measured]);
    }
    console.log(`index page: ${(statSync(join(out, 'elf2dmp-index.html')).size / MIB).toFixed(1)} MiB`);
    for (const path of [inputs, out, join(dir, 'lines.jsonl'), join(dir, 'junit.xml')])
      rmSync(path, { recursive: true, force: true });
  }
  for (const path of guests) rmSync(path);
  const rows = [...results].map(([name, measured]) => [
    'dumps',
    name,
    cells(sizes, measured),
    lastStep(sizes, measured),
  ]);
  return { head: HEAD, rows };
}
