// `npm run bench [PART…]`: ratios side by side, alternating, medians and quartiles of several runs (ELF2DMP_BENCH_RUNS,
// 9). Writes benchmarks/results.md and results.json; parts that were not run keep their figures. Figures of other
// machines and file systems differ: measure again. Parts: copying, sharing, memory, searching, locating, translating,
// starting, small, smaller, pipe, streams, kdump, batch, large, packed, growth, batch-growth, c-tool. For c-tool,
// ELF2DMP_QEMU_ELF2DMP names what scripts/build-c-elf2dmp.sh built; for batch, ELF2DMP_BENCH_BEFORE names a built copy
// of an earlier version, such as `git worktree add DIR 9ff1ca4`; for small, ELF2DMP_BENCH_EXECUTABLE an executable of
// `npm run package`.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { pa } from '../src/core/units.ts';
import { everyPage, searchMemory } from '../src/locate/memory-search.ts';
import { SkipSearch } from '../src/locate/skip-search.ts';
import { PAGING_4_LEVELS } from '../src/machines/x64/paging.ts';
import { AddressSpace } from '../src/memory/address-space.ts';
import { openImage } from '../src/readers/registry.ts';
import { writeElf } from '../test/guest/elf.ts';
import { buildGuest } from '../test/guest/guest.ts';
import { random } from '../test/guest/memory.ts';
import { addMemoryManager } from '../test/guest/memory-manager.ts';
import { canMount, type FileSystem, mountNew } from '../test/support/loop-mounts.ts';
import { batchGrowth, growth } from './growth.ts';
import { kdumpWays } from './kdump.ts';
import { large, packed } from './large.ts';
import {
  alternating,
  BIN,
  bigElf,
  elf2dmp,
  GIB,
  type Measured,
  MIB,
  median,
  type Row,
  run,
  runIn,
  spread,
  type Table,
  target,
} from './measure.ts';
import { locating, small } from './small.ts';
import { streams } from './streams.ts';
import { serveSymbols } from './symbol-server.ts';

const RUNS = Number(process.env['ELF2DMP_BENCH_RUNS'] ?? 9);
/** Sizes that are copied, from the smallest on; the last but one also on this disk and in memory. */
const COPY_MIB = (process.env['ELF2DMP_BENCH_COPY_MIB'] ?? '512,4096,16384').split(',').map(Number);

const PARTS: Record<string, (dir: string) => Promise<Row[] | Table>> = {
  copying,
  sharing,
  memory,
  searching,
  locating,
  translating,
  starting,
  small,
  smaller,
  pipe,
  kdump,
  streams,
  batch,
  large,
  packed,
  growth,
  'batch-growth': batchGrowth,
  'c-tool': cTool,
  dumps,
};

/** Copying on this disk, on file systems of its own, and in memory. */
async function copying(dir: string): Promise<Row[]> {
  const rows = await copyingIn(dir, '', [COPY_MIB.at(-2) ?? COPY_MIB[0]!]);
  for (const kind of ['ext4', 'xfs'] as const) {
    if (!canMount()) {
      rows.push([`converting on ${kind}`, 'not measured: mounting needs root and the mkfs programs']);
      continue;
    }
    // A fresh one is sparse: room for the largest input and its dump.
    const mount = mountNew(kind, dir, 2.5 * Math.max(...COPY_MIB) * MIB);
    try {
      // Else each byte is in the page cache twice.
      const [device = ''] = spawnSync('losetup', ['-j', join(dir, `${kind}.img`)], { encoding: 'utf8' }).stdout.split(
        ':',
      );
      spawnSync('losetup', ['--direct-io=on', device]);
      rows.push(...(await copyingIn(mount.path, ` on ${kind}`, COPY_MIB)));
    } finally {
      mount.unmount();
      rmSync(join(dir, `${kind}.img`));
      rmSync(mount.path, { recursive: true });
    }
  }
  const memory = mkdtempSync('/dev/shm/elf2dmp-bench-');
  try {
    rows.push(...(await copyingIn(memory, ' on tmpfs', [COPY_MIB.at(-2) ?? COPY_MIB[0]!])));
  } finally {
    rmSync(memory, { recursive: true });
  }
  return rows;
}

async function copyingIn(dir: string, where: string, sizes: readonly number[]): Promise<Row[]> {
  const [input, output] = [join(dir, 'vm.elf'), join(dir, 'out.dmp')];
  const fresh = (way: () => Measured) => () => {
    rmSync(output, { force: true });
    spawnSync('sync', ['-f', dir]);
    return way();
  };
  const c = process.env['ELF2DMP_QEMU_ELF2DMP'];
  const rows: Row[] = [];
  for (const mib of sizes) {
    bigElf(input, mib * MIB, true);
    const times = await alternating(RUNS, {
      cp: fresh(() => run('sh', '-c', `cp --reflink=never --sparse=never "${input}" "${output}" && sync "${output}"`)),
      elf2dmp: fresh(() => elf2dmp('-q', input, output)),
      node: () => run(process.execPath, '-e', '0'),
      ...(c ? { c: fresh(() => run('sh', '-c', `"${c}" "${input}" "${output}" && sync "${output}"`)) } : {}),
    });
    rmSync(output);
    rmSync(input);
    const ratio = (of: string, to: string, what: 'seconds' | 'cpu') =>
      spread(times[of]!.map((each, i) => each[what] / times[to]![i]![what]));
    rows.push(
      [`converting ${mib} MiB${where} ÷ cp and fsync of the same`, ratio('elf2dmp', 'cp', 'seconds')],
      ['… processor time ÷ that of cp and fsync', ratio('elf2dmp', 'cp', 'cpu')],
      ['… seconds; of cp and fsync', `${spreadOf(times['elf2dmp']!, 'seconds')}; ${spreadOf(times['cp']!, 'seconds')}`],
      [
        '… peak memory over that of node, MiB',
        spread(
          times['elf2dmp']!.map(({ peakMib }, i) => peakMib - times['node']![i]!.peakMib),
          0,
        ),
      ],
    );
    if (c) rows.push([`… ÷ QEMU's C elf2dmp and fsync`, ratio('elf2dmp', 'c', 'seconds')]);
  }
  return rows;
}

const spreadOf = (all: readonly Measured[], what: keyof Measured) => spread(all.map((each) => each[what]));

/** Without copying: what it costs does not grow with the guest. */
async function sharing(dir: string): Promise<Row[]> {
  if (!canMount()) return [['without copying', 'not measured: mounting needs root and the mkfs programs']];
  const rows: Row[] = [];
  const ways: [FileSystem, string][] = [
    ['xfs', '--reflink=always'],
    ['btrfs', '--reflink=always'],
    ['ext4', '--in-place'],
    ['xfs', '--in-place'],
  ];
  for (const [kind, option] of ways) {
    const mount = mountNew(kind, dir, 4096 * GIB);
    try {
      const sizes = [1, 8, 64, 1024];
      const written: Record<string, number> = {};
      const input = (gib: number) => join(mount.path, `${gib}.elf`);
      for (const gib of sizes) bigElf(input(gib), gib * GIB, false);
      const once = (gib: number) => () => {
        spawnSync('sync');
        const before = statfsSync(mount.path).bfree;
        const output = join(mount.path, 'out.dmp');
        const { seconds } =
          option === '--in-place' ? elf2dmp('-q', option, input(gib)) : elf2dmp('-q', option, input(gib), output);
        spawnSync('sync');
        written[gib] = ((before - statfsSync(mount.path).bfree) * statfsSync(mount.path).bsize) / MIB;
        if (option === '--in-place') elf2dmp('-q', '--undo', input(gib));
        else rmSync(output);
        return seconds;
      };
      const times = await alternating(RUNS, Object.fromEntries(sizes.map((gib) => [gib, once(gib)])));
      for (const gib of sizes) {
        const ratios = times[gib]!.map((s, i) => s / times[1]![i]!);
        rows.push([
          `${option} on ${kind}, ${gib} GiB ÷ 1 GiB`,
          `${spread(ratios)}; ${spread(times[gib]!)} s; ${written[gib]!.toFixed(1)} MiB taken`,
        ]);
      }
    } finally {
      mount.unmount();
      rmSync(join(dir, `${kind}.img`));
      rmSync(mount.path, { recursive: true });
    }
  }
  return rows;
}

/** A dump of a stream against the stream in a file: both are on disk at the end. */
async function pipe(dir: string): Promise<Row[]> {
  const [input, output] = [join(dir, 'vm.elf'), join(dir, 'out')];
  const size = Number(process.env['ELF2DMP_BENCH_PIPE_MIB'] ?? 1024) * MIB;
  bigElf(input, size, true);
  run('zstd', '-q', '-1', '--rm', input, '-o', `${input}.zst`);
  const fresh = (way: () => Measured) => () => {
    rmSync(output, { force: true });
    spawnSync('sync');
    return way();
  };
  const times = await alternating(RUNS, {
    file: fresh(() => run('sh', '-c', `zstdcat "${input}.zst" > "${output}" && sync "${output}"`)),
    cat: fresh(() => run('sh', '-c', `zstdcat "${input}.zst" | cat > "${output}" && sync "${output}"`)),
    dump: fresh(() => run('sh', '-c', `zstdcat "${input}.zst" | "${process.execPath}" "${BIN}" -q - "${output}"`)),
  });
  rmSync(output);
  rmSync(`${input}.zst`);
  const ratio = (of: string, to: string, what: 'seconds' | 'cpu') =>
    spread(times[of]!.map((each, i) => each[what] / times[to]![i]![what]));
  const mib = size / MIB;
  return [
    [`zstdcat into elf2dmp - OUT, ${mib} MiB ÷ zstdcat > FILE and fsync`, ratio('dump', 'file', 'seconds')],
    ['… ÷ zstdcat into cat > FILE and fsync', ratio('dump', 'cat', 'seconds')],
    ['… processor time ÷ that of zstdcat > FILE and fsync', ratio('dump', 'file', 'cpu')],
    ['… ÷ that of zstdcat into cat > FILE and fsync', ratio('dump', 'cat', 'cpu')],
    ['zstdcat > FILE and fsync, seconds', spread(times['file']!.map(({ seconds }) => seconds))],
  ];
}

/** Compressed pages: what reading and converting cost over inflating them, by all cores, and writing the dump. */
async function kdump(dir: string): Promise<Row[]> {
  const mib = Number(process.env['ELF2DMP_BENCH_KDUMP_MIB'] ?? 512);
  const { ways, output, done } = kdumpWays(dir, mib);
  const copied = join(dir, 'copied.dmp');
  const times = await alternating(RUNS, {
    ...ways,
    writing: () => {
      rmSync(copied, { force: true });
      return run('sh', '-c', `cp --reflink=never --sparse=never "${output}" "${copied}" && sync "${copied}"`);
    },
  });
  rmSync(copied);
  done();
  const ratio = (of: string, to: readonly string[]) =>
    spread(times[of]!.map(({ seconds }, i) => seconds / to.reduce((sum, name) => sum + times[name]![i]!.seconds, 0)));
  const alone = ['inflating'];
  const peaks = (name: string) =>
    spread(
      times[name]!.map(({ peakMib }) => peakMib),
      0,
    );
  return [
    [`reading a kdump of ${mib} MiB, with libdeflate ÷ inflateSync of its pages`, ratio('reading', alone)],
    ['… without libdeflate', ratio('readingByZlib', alone)],
    ['… flattened, with libdeflate', ratio('readingFlattened', alone)],
    [
      'converting it, with libdeflate ÷ inflateSync, and cp and fsync of the dump',
      ratio('converting', [...alone, 'writing']),
    ],
    ['… without libdeflate', ratio('convertingByZlib', [...alone, 'writing'])],
    ['inflateSync of its pages, seconds', spread(times['inflating']!.map(({ seconds }) => seconds))],
    [
      'peak memory: inflateSync; reading; converting, MiB',
      `${peaks('inflating')}; ${peaks('reading')}; ${peaks('converting')}`,
    ],
  ];
}

/** Many small dumps by this version and by an earlier one. */
async function batch(dir: string): Promise<Row[]> {
  const before = process.env['ELF2DMP_BENCH_BEFORE'];
  if (before === undefined) return [['a batch ÷ an earlier version', 'not measured: name it in ELF2DMP_BENCH_BEFORE']];
  const count = Number(process.env['ELF2DMP_BENCH_BATCH'] ?? 60);
  const [inputs, out] = [join(dir, 'inputs'), join(dir, 'out')];
  mkdirSync(inputs);
  for (let i = 0; i < count; i++) {
    const guest = buildGuest({ seed: i % 7, ramMiB: 8, processors: 1, decoys: false });
    writeFileSync(join(inputs, `${i}.elf`), writeElf(guest));
  }
  const way = (bin: string) => () => {
    rmSync(out, { recursive: true, force: true });
    return run(process.execPath, bin, 'batch', inputs, '--out', out, '--jobs', '2', '-q');
  };
  const times = await alternating(RUNS, { before: way(join(before, 'bin', 'elf2dmp.js')), now: way(BIN) });
  rmSync(out, { recursive: true });
  rmSync(inputs, { recursive: true });
  const ratio = (what: 'seconds' | 'cpu') =>
    spread(times['before']!.map((each, i) => each[what] / times['now']![i]![what]));
  const rate = (name: string) =>
    spread(
      times[name]!.map(({ seconds }) => count / seconds),
      1,
    );
  return [
    [`${count} dumps of 8 MiB, 2 jobs: dumps a second ÷ those of 0.2.0`, ratio('seconds')],
    ['… dumps a second now; by 0.2.0', `${rate('now')}; ${rate('before')}`],
    ['… processor time of 0.2.0 ÷ now', ratio('cpu')],
  ];
}

/** Against QEMU's own tool, which copies: without copying the guest's size does not count. */
async function cTool(dir: string): Promise<Row[]> {
  const c = process.env['ELF2DMP_QEMU_ELF2DMP'];
  if (c === undefined) return [["QEMU's elf2dmp ÷ ours", 'not measured: name it in ELF2DMP_QEMU_ELF2DMP']];
  if (!canMount()) return [["QEMU's elf2dmp ÷ ours", 'not measured: mounting needs root and the mkfs programs']];
  const symbols = await serveSymbols(dir);
  const rows: Row[] = [];
  try {
    for (const [kind, option] of [
      ['xfs', '--reflink=always'],
      ['btrfs', '--reflink=always'],
      ['ext4', '--in-place'],
    ] as const) {
      const mount = mountNew(kind, dir, 64 * GIB);
      try {
        const gib = Number(process.env['ELF2DMP_BENCH_C_GIB'] ?? 8);
        const [input, output] = [join(mount.path, 'vm.elf'), join(mount.path, 'out.dmp')];
        bigElf(input, gib * GIB, false, symbols.guest);
        const fresh = (way: () => Measured) => () => {
          rmSync(output, { force: true });
          spawnSync('sync');
          const measured = way();
          if (option === '--in-place' && !existsSync(output)) elf2dmp('-q', '--undo', input);
          return measured;
        };
        const times = await alternating(RUNS, {
          c: fresh(() => runIn(dir, c, input, output)),
          ours: fresh(() => elf2dmp('-q', option, input, ...(option === '--in-place' ? [] : [output]))),
        });
        const ratio = (what: 'seconds' | 'cpu') =>
          spread(
            times['c']!.map((each, i) => each[what] / times['ours']![i]![what]),
            1,
          );
        rows.push([
          `QEMU's elf2dmp ÷ ${option} on ${kind}, ${gib} GiB, sparse`,
          `${ratio('seconds')}; ${spread(times['c']!.map(({ seconds }) => seconds))} s and ${spread(times['ours']!.map(({ seconds }) => seconds))} s; processor time ${ratio('cpu')}`,
        ]);
      } finally {
        mount.unmount();
        rmSync(join(dir, `${kind}.img`));
        rmSync(mount.path, { recursive: true });
      }
    }
  } finally {
    symbols.end();
  }
  return rows;
}

async function memory(dir: string): Promise<Row[]> {
  const [input, output] = [join(dir, 'vm.elf'), join(dir, 'out.dmp')];
  const rows: Row[] = [];
  for (const gib of [1, 64]) {
    bigElf(input, gib * GIB, false);
    const peaks = await alternating(3, {
      copy: () => {
        rmSync(output, { force: true });
        return elf2dmp('-q', input, output).peakMib;
      },
    });
    rows.push([`peak memory, a sparse guest of ${gib} GiB, MiB`, spread(peaks['copy']!, 0)]);
  }
  bigElf(input, GIB, true);
  const peaks = await alternating(3, {
    copy: () => {
      rmSync(output, { force: true });
      return elf2dmp('-q', input, output).peakMib;
    },
    node: () => run(process.execPath, '-e', '0').peakMib,
  });
  rmSync(output);
  rmSync(input);
  return [
    ...rows,
    ['peak memory, a guest of 1 GiB without holes, MiB', spread(peaks['copy']!, 0)],
    ['peak memory of node alone, MiB', spread(peaks['node']!, 0)],
  ];
}

/** Two GiB in the page cache; reading alone is 1. */
async function searching(dir: string): Promise<Row[]> {
  const path = join(dir, 'vm.elf');
  const size = 2 * GIB;
  bigElf(path, size, true, {}, true);
  const tag = Buffer.from('KDBG');
  const eachBlock = (look: (block: Buffer) => void) => () => {
    const image = openImage(path);
    const block = Buffer.allocUnsafeSlow(MIB);
    const started = performance.now();
    for (const { start, size: bytes } of image.pageExtents().extents) {
      for (let at = 0; at < bytes; at += MIB) {
        const part = block.subarray(0, Math.min(MIB, bytes - at));
        image.readSync(start + at, part);
        look(part);
      }
    }
    image.close();
    return (performance.now() - started) / 1000;
  };
  const search = (scan?: ReturnType<typeof everyPage>) => async () => {
    const image = openImage(path);
    const started = performance.now();
    await searchMemory(image, { scan });
    image.close();
    return (performance.now() - started) / 1000;
  };
  const skip = new SkipSearch(tag);
  const times = await alternating(RUNS, {
    'reading only': eachBlock(() => undefined),
    'the search: WebAssembly SIMD, reading ahead': search(),
    'the same by looking at every page in JavaScript': search(everyPage()),
    'one pattern of 4 bytes: Boyer-Moore-Horspool': eachBlock((block) => void [...skip.all(block)]),
    'one pattern of 4 bytes: Buffer.indexOf': eachBlock((block) => {
      for (let at = block.indexOf(tag); at >= 0; at = block.indexOf(tag, at + 1));
    }),
  });
  rmSync(path);
  return Object.entries(times).map(([name, seconds]) => [
    `searching 2 GiB: ${name} ÷ reading`,
    `${spread(seconds.map((s, i) => s / times['reading only']![i]!))}; ${spread(
      seconds.map((s) => size / MIB / s),
      0,
    )} MiB/s`,
  ]);
}

async function translating(dir: string): Promise<Row[]> {
  const path = join(dir, 'vm.elf');
  const guest = buildGuest({ ramMiB: 24, processors: 16 });
  writeFileSync(path, writeElf(guest));
  const image = openImage(path);
  const next = random(1);
  const addresses = Array.from(
    { length: 100_000 },
    () => guest.truth.kernelBase + BigInt(Math.floor(next() * guest.truth.kernelSize)),
  );
  const rates = await alternating(RUNS, {
    walks: () => {
      const space = new AddressSpace(image, pa(guest.truth.root), PAGING_4_LEVELS);
      const started = performance.now();
      for (const address of addresses) space.translate(address);
      return ((performance.now() - started) * 1e6) / addresses.length;
    },
  });
  image.close();
  rmSync(path);
  return [['one translation of a kernel address, ns', spread(rates['walks']!, 0)]];
}

async function starting(dir: string): Promise<Row[]> {
  const [input, output] = [join(dir, 'vm.elf'), join(dir, 'out.dmp')];
  writeFileSync(input, writeElf(buildGuest()));
  const effort: { locate: number; all: number }[] = [];
  const times = await alternating(3 * RUNS, {
    node: () => run(process.execPath, '-e', '0').seconds,
    version: () => elf2dmp('--version').seconds,
    sample: () => {
      rmSync(output, { force: true });
      return elf2dmp(input, output).seconds;
    },
    effort: () => {
      rmSync(output, { force: true });
      const { stdout } = spawnSync(process.execPath, [BIN, '--json', input, output], { encoding: 'utf8' });
      const report = JSON.parse(stdout);
      effort.push({ locate: report.effort.locateMilliseconds, all: 1000 * report.seconds });
      return 0;
    },
  });
  const ms = (seconds: number) => `${(1000 * seconds).toFixed(0)} ms`;
  const [node, version, sample] = [times['node']!, times['version']!, times['sample']!].map(median) as [
    number,
    number,
    number,
  ];
  return [
    ['elf2dmp --version ÷ node -e 0', spread(times['version']!.map((s, i) => s / times['node']![i]!))],
    ['converting a guest of 16 MiB ÷ node -e 0', spread(times['sample']!.map((s, i) => s / times['node']![i]!))],
    ['… of that: node itself', ms(node)],
    ['… loading the command and parsing its arguments', ms(version - node)],
    ['… locating Windows', `${median(effort.map((e) => e.locate)).toFixed(0)} ms`],
    ['… opening, planning, writing, fsync', `${median(effort.map((e) => e.all - e.locate)).toFixed(0)} ms`],
    ['… in all', ms(sample)],
  ];
}

/** A made-up guest of which little is in use: what matters are the ways, not how small the dumps get. */
async function smaller(dir: string): Promise<Row[]> {
  const [input, output] = [join(dir, 'vm.elf'), join(dir, 'out.dmp')];
  const guest = buildGuest({ ramMiB: 256 });
  addMemoryManager(guest);
  writeFileSync(input, writeElf(guest));
  const ways: Record<string, string[]> = {
    full: ['--type', 'full', '--sparse', 'never'],
    active: ['--type', 'active'],
    kernel: ['--type', 'kernel'],
    'full, --compress=gzip': ['--type', 'full', '--compress=gzip'],
    'bitmap, --drop-zero-pages': ['--type', 'bitmap', '--drop-zero-pages'],
  };
  const sizes: Record<string, number> = {};
  const times = await alternating(
    RUNS,
    Object.fromEntries(
      Object.entries(ways).map(([name, args]) => [
        name,
        () => {
          rmSync(output, { force: true });
          const { seconds } = elf2dmp('-q', ...args, input, output);
          sizes[name] = statSync(output).size / MIB;
          return seconds;
        },
      ]),
    ),
  );
  rmSync(output);
  rmSync(input);
  return Object.keys(ways).map((name) => [
    `a guest of 256 MiB: ${name}`,
    `${sizes[name]!.toFixed(1)} MiB in ${spread(times[name]!)} s; ÷ full ${spread(times[name]!.map((s, i) => s / times['full']![i]!))}`,
  ]);
}

/** Peak memory of every type made from every type, and how long a minidump of a large guest takes. */
async function dumps(dir: string): Promise<Row[]> {
  const at = (name: string) => join(dir, name);
  const rows: Row[] = [];
  bigElf(at('vm.elf'), 64 * GIB, false);
  const times = await alternating(5, {
    triage: () => elf2dmp('-q', '-f', '--type', 'triage', at('vm.elf'), at('mini.dmp')).seconds,
    info: () => elf2dmp('info', '-q', at('vm.elf')).seconds,
  });
  const more = times['triage']!.map((s, i) => s - times['info']![i]!);
  rows.push(['--type triage of a sparse guest of 64 GiB, seconds', spread(times['triage']!)]);
  rows.push(['… more than info, which locates and lists', spread(more)]);

  bigElf(at('vm.elf'), 512 * MIB, true);
  const types = ['full', 'bitmap', 'kernel', 'active', 'triage'];
  for (const type of types.slice(0, 4)) elf2dmp('-q', '-f', '--type', type, at('vm.elf'), at(`in-${type}.dmp`));
  for (const input of ['vm.elf', ...types.slice(0, 4).map((type) => `in-${type}.dmp`)]) {
    const isSmaller = /kernel|active/.test(input);
    const peaks = (isSmaller ? types.slice(1) : types).map((type) => {
      const { peakMib } = elf2dmp('-q', '-f', '--type', type, at(input), at('out.dmp'));
      return `${type} ${peakMib.toFixed(0)}`;
    });
    const name = input === 'vm.elf' ? 'an ELF file' : `a ${/in-(\w+)/.exec(input)?.[1]} dump`;
    rows.push([`peak memory from ${name} of a guest of 512 MiB, MiB`, peaks.join(', ')]);
  }
  return rows;
}

/** A part's figures, as they are kept. */
interface Kept extends Partial<Table> {
  machine: string;
  version: string;
  rows: Table['rows'];
}

function render(part: string, { machine, version, head, rows }: Kept): string {
  const columns = head ?? ['what', `median (${version === '0.1.0' ? 'range' : 'quartiles'})`];
  const lines = [columns, columns.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`);
  return `## ${part[0]!.toUpperCase()}${part.slice(1)}\n\n${machine}; elf2dmp ${version}.\n\n${lines.join('\n')}\n`;
}

async function main(): Promise<void> {
  const wanted = process.argv.slice(2);
  const unknown = wanted.find((part) => !(part in PARTS));
  if (unknown) throw new Error(`no part "${unknown}": ${Object.keys(PARTS).join(', ')}`);
  const { version } = JSON.parse(readFileSync(target('../package.json'), 'utf8'));
  // Such as what else the machine was doing.
  const note = process.env['ELF2DMP_BENCH_NOTE'];
  const machine = `Node ${process.versions.node}, Linux ${release()}, ${cpus().length} × ${cpus()[0]?.model ?? 'CPU'}, ${Math.round(totalmem() / GIB)} GiB${note === undefined ? '' : `; ${note}`}`;
  const kept: Record<string, Kept> = existsSync(target('results.json'))
    ? JSON.parse(readFileSync(target('results.json'), 'utf8')).parts
    : {};
  const dir = mkdtempSync(join(process.env['ELF2DMP_BENCH_DIR'] ?? tmpdir(), 'elf2dmp-bench-'));
  try {
    for (const part of wanted.length > 0 ? wanted : Object.keys(PARTS)) {
      const made = await PARTS[part]!(dir);
      const table = Array.isArray(made) ? { rows: made } : made;
      for (const [what, ...figures] of table.rows) console.log(`${what}: ${figures.join(' | ')}`);
      kept[part] = { machine, version, ...table };
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  writeFileSync(target('results.json'), `${JSON.stringify({ parts: kept }, null, 2)}\n`);
  const tables = Object.entries(kept).map(([part, of]) => render(part, of));
  writeFileSync(
    target('results.md'),
    `# Measurements\n\nBy \`npm run bench\`. Parts of version 0.1.0 have medians and ranges, later ones medians and quartiles.\n\n${tables.join('\n')}`,
  );
}

void main();
