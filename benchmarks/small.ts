// What short runs cost, and how much is read to locate Windows.
import { closeSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { locateWindows } from '../src/locate/locator.ts';
import { openSource } from '../src/readers/registry.ts';
import { BufferSource } from '../src/source/buffer.ts';
import { writeElf } from '../test/guest/elf.ts';
import { buildGuest } from '../test/guest/guest.ts';
import { buildTrueGuest } from '../test/guest/true-guest.ts';
import { alternating, elf2dmp, type Measured, MIB, median, type Row, run, spread, target } from './measure.ts';

/** At least so many rounds: what is measured are some 100 ms. */
const ROUNDS = 21;

/** Processor time of short runs, over that of node alone, in ms: the samples as `npm run demo` unpacks them. */
export async function small(dir: string): Promise<Row[]> {
  const output = join(dir, 'out.dmp');
  const samples = readdirSync(target('../samples')).filter((name) => name.endsWith('.elf.gz'));
  for (const name of samples) {
    writeFileSync(join(dir, name.slice(0, -3)), gunzipSync(readFileSync(target(`../samples/${name}`))));
  }
  const converted = samples.map((name) => name.slice(0, -3));
  const live = join(dir, converted.find((name) => name.startsWith('live'))!);
  const executable = process.env['ELF2DMP_BENCH_EXECUTABLE'];
  const fresh = (way: () => Measured) => () => {
    rmSync(output, { force: true });
    return way();
  };
  const ways: Record<string, () => Measured> = {
    'node -e 0': () => run(process.execPath, '-e', '0'),
    '--version': () => elf2dmp('--version'),
    '--help': () => elf2dmp('--help'),
    info: () => elf2dmp('info', live),
    ...Object.fromEntries(converted.map((name) => [name, fresh(() => elf2dmp(join(dir, name), output))])),
    ...(executable === undefined
      ? {}
      : {
          'the executable in one file, --version': () => run(executable, '--version'),
          'the executable in one file, a conversion': fresh(() => run(executable, live, output)),
        }),
  };
  const times = await alternating(ROUNDS, ways);
  rmSync(output);
  for (const name of converted) rmSync(join(dir, name));
  const node = times['node -e 0']!;
  const over = (name: string) =>
    spread(
      times[name]!.map(({ cpu }, i) => 1000 * (cpu - node[i]!.cpu)),
      0,
    );
  const wall = (name: string) => (1000 * median(times[name]!.map(({ seconds }) => seconds))).toFixed(0);
  const nodeCpu = spread(
    node.map(({ cpu }) => 1000 * cpu),
    0,
  );
  return [
    ['processor time of node -e 0, ms', nodeCpu],
    ...Object.keys(ways)
      .slice(1)
      .map(
        (name): Row => [`${name}: processor time over node -e 0, ms`, `${over(name)}; ${wall(name)} ms of wall time`],
      ),
  ];
}

/** How much is read until Windows is found, and a raw file whose layout has to be found out. */
export async function locating(dir: string): Promise<Row[]> {
  const path = join(dir, 'vm.bin');
  const rows: Row[] = [];
  const read = async (what: string, file: Buffer) => {
    const { image } = await locateWindows(openSource(new BufferSource(file, what)));
    rows.push([`bytes read to locate Windows in ${what}, KiB`, (image.bytesRead / 1024).toFixed(0)]);
  };
  await read('a guest of 16 MiB', writeElf(buildGuest({ ramMiB: 16 })));
  await read('a guest of true size', writeElf(buildTrueGuest({})));

  const guest = buildGuest({ ramMiB: 16 });
  const fd = openSync(path, 'w');
  writeSync(fd, guest.memory.read(0, 16 * MIB));
  const block = Buffer.alloc(MIB);
  for (let i = 0; i < MIB; i += 4) block.writeUInt32LE(Math.imul(i, 2654435761) >>> 0, i);
  for (let at = 16; at < 5 * 1024; at++) {
    block.writeUInt32LE(at, 0);
    writeSync(fd, block);
  }
  closeSync(fd);
  const info = (...args: string[]) => elf2dmp('info', '-q', '--format', 'raw', ...args, path).seconds;
  const times = await alternating(5, {
    reading: () => run('sh', '-c', `cat "${path}" > /dev/null`).seconds,
    all: () => info(),
    one: () => info('--runs', '0+3G,4G'),
  });
  rmSync(path);
  const ratio = (of: string, to: string) => spread(times[of]!.map((s, i) => s / times[to]![i]!));
  return [
    ...rows,
    ['info of a raw file of 5 GiB, all layouts ÷ with --runs', ratio('all', 'one')],
    ['… all layouts ÷ cat of the file', ratio('all', 'reading')],
    [
      '… in seconds: all layouts; --runs; cat',
      ['all', 'one', 'reading'].map((name) => spread(times[name]!)).join('; '),
    ],
  ];
}
