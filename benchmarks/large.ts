/** Kernel dumps and dumps of active memory of large sparse guests, and compressed dumps: `npm run bench -- large packed`. */
import { closeSync, fsyncSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { writeLargeGuest } from '../test/guest/large-guest.ts';
import { alternating, bigElf, elf2dmp, GIB, type Measured, MIB, median, type Row, run, spread } from './measure.ts';

const RUNS = Number(process.env['ELF2DMP_BENCH_RUNS'] ?? 9);
const PAGES_OF_GIB = GIB / 4096;

/** A desktop of 16 GiB, and a server of 1 TiB that uses a tenth of it. */
const GUESTS = [
  { gib: 16, kernel: 0.075, user: 0.375, filled: true },
  { gib: 1024, kernel: 0.01, user: 0.1, filled: false },
];
const PROCESSES = 60;

const ratio = (of: readonly Measured[], to: readonly Measured[], what: 'seconds' | 'cpu'): string =>
  spread(of.map((each, i) => each[what] / to[i]![what]));

/** Against copying the dump that comes out, which writes the same bytes. */
export async function large(dir: string): Promise<Row[]> {
  const [input, output, copy] = [join(dir, 'vm.elf'), join(dir, 'out.dmp'), join(dir, 'copy.dmp')];
  const rows: Row[] = [];
  for (const { gib, kernel, user, filled } of GUESTS) {
    writeLargeGuest(input, {
      highBytes: gib * GIB,
      processes: PROCESSES,
      kernelPages: Math.floor(kernel * gib * PAGES_OF_GIB),
      pagesOfEach: Math.floor((user * gib * PAGES_OF_GIB) / PROCESSES),
      filled,
    });
    for (const type of ['kernel', 'active']) {
      elf2dmp('-q', '-f', '--type', type, input, output);
      const times = await alternating(gib > 100 ? 3 : RUNS, {
        dump: () => {
          rmSync(output);
          return elf2dmp('-q', '--type', type, input, output);
        },
        copy: () => {
          rmSync(copy, { force: true });
          return run('sh', '-c', `cp "${output}" "${copy}" && sync "${copy}"`);
        },
      });
      const [dump, cp] = [times['dump']!, times['copy']!];
      const over = dump.map((each, i) => each.seconds - 1.3 * cp[i]!.seconds);
      const size = statSync(output);
      const name = `--type ${type}, sparse guest of ${gib} GiB, ${(size.size / GIB).toFixed(1)} GiB kept (${((size.blocks * 512) / GIB).toFixed(1)} GiB without holes)`;
      rows.push([`${name}: seconds`, spread(dump.map(({ seconds }) => seconds))]);
      rows.push(['… processor time, seconds', spread(dump.map(({ cpu }) => cpu))]);
      rows.push(['… seconds over 1.3 × cp and fsync of the dump', spread(over)]);
      rows.push(['… peak memory, MiB', median(dump.map(({ peakMib }) => peakMib)).toFixed(0)]);
      for (const path of [output, copy]) rmSync(path);
    }
  }
  rmSync(input);
  return rows;
}

/** Fills the end of a guest's file with what memory is like: code and data of Node's executable, a quarter zeros. */
function fillWithCode(path: string, size: number): void {
  const code = readFileSync(process.execPath);
  const fd = openSync(path, 'r+');
  const end = statSync(path).size;
  for (let at = 0, next = 0; at < size; at += MIB) {
    const isZero = (at / MIB) % 4 === 3;
    if (!isZero && next + MIB > code.length) next = 0;
    const block = isZero ? Buffer.alloc(MIB) : code.subarray(next, next + MIB);
    if (!isZero) next += MIB;
    writeSync(fd, block, 0, MIB, end - size + at);
  }
  fsyncSync(fd);
  closeSync(fd);
}

/** Against programs that compress the finished dump with two threads. */
export async function packed(dir: string): Promise<Row[]> {
  const [input, plain, output] = [join(dir, 'vm.elf'), join(dir, 'vm.dmp'), join(dir, 'out')];
  const size = Number(process.env['ELF2DMP_BENCH_PACKED_MIB'] ?? 512) * MIB;
  bigElf(input, size, true);
  fillWithCode(input, size);
  elf2dmp('-q', input, plain);
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const rows: Row[] = [];
  for (const [kind, command] of [
    ['gzip', 'pigz -p2'],
    ['zstd', 'zstd -q -T2'],
  ] as const) {
    if (kind === 'zstd' && (major < 22 || (major === 22 && minor < 15))) {
      rows.push([`--compress=zstd ÷ ${command}`, 'not measured: needs Node.js 22.15']);
      continue;
    }
    const sizes: Record<string, number> = {};
    const fresh = (name: string, way: () => Measured) => () => {
      rmSync(output, { force: true });
      const measured = way();
      sizes[name] = statSync(output).size / MIB;
      return measured;
    };
    const times = await alternating(RUNS, {
      ours: fresh('ours', () => elf2dmp('-q', `--compress=${kind}`, input, output)),
      theirs: fresh('theirs', () => run('sh', '-c', `${command} -c "${plain}" > "${output}" && sync "${output}"`)),
    });
    const [ours, theirs] = [times['ours']!, times['theirs']!];
    rows.push([`${command} ÷ --compress=${kind}, ${size / MIB} MiB (speed)`, ratio(theirs, ours, 'seconds')]);
    rows.push([
      '… peak memory, MiB',
      spread(
        ours.map(({ peakMib }) => peakMib),
        0,
      ),
    ]);
    rows.push(['… processor time of theirs ÷ ours', ratio(theirs, ours, 'cpu')]);
    rows.push(['… MiB of theirs and ours', `${sizes['theirs']!.toFixed(0)}; ${sizes['ours']!.toFixed(0)}`]);
  }
  for (const path of [input, plain, output]) rmSync(path, { force: true });
  return rows;
}
