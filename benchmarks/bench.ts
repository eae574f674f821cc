// `npm run bench`: ratios side by side, alternating, medians and ranges of several runs; writes benchmarks/results.md
// and results.json. Figures of other machines and file systems differ: measure again.
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeElf } from '../test/guest/elf.ts';
import { buildGuest, type GuestOptions } from '../test/guest/guest.ts';

const BIN = fileURLToPath(new URL('../bin/elf2dmp.js', import.meta.url));
const MIB = 1 << 20;
const RUNS = 5;
/** Bigger by the command line: `npm run bench -- 4096`. */
const COPY_MIB = Number(process.argv[2] ?? 1024);

/** A guest's ELF file with `bytes` of further memory at 4 GiB: sparse, or filled with bytes that do not compress. */
function bigElf(path: string, bytes: number, filled: boolean, guest: GuestOptions = {}, withoutNotes = false): void {
  const elf = writeElf(buildGuest(guest), {
    withoutNotes,
    runs: [
      [0, 0xa0000],
      [0x100000, 0x1000000],
      [0x1_0000_0000, 0x1_0000_1000],
    ],
  });
  const last = 0xc0 + 56 * 3;
  elf.writeBigUInt64LE(BigInt(bytes), last + 0x20);
  elf.writeBigUInt64LE(BigInt(bytes), last + 0x28);
  const start = Number(elf.readBigUInt64LE(last + 8));
  const fd = openSync(path, 'w');
  writeSync(fd, elf.subarray(0, start));
  if (filled) {
    const block = Buffer.alloc(MIB);
    for (let i = 0; i < MIB; i += 4) block.writeUInt32LE(Math.imul(i, 2654435761) >>> 0, i);
    for (let at = 0; at < bytes; at += MIB) {
      block.writeUInt32LE(at / MIB, 0);
      writeSync(fd, block);
    }
  }
  fsyncSync(fd);
  closeSync(fd);
  truncateSync(path, start + bytes);
}

interface Measured {
  seconds: number;
  peakMib: number;
}

function run(command: string, args: string[]): Measured {
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
  // GNU time would tell as much, but need not be there: the shell waits, and Linux keeps the children's peak.
  const script =
    'import resource,subprocess,sys,time\nt=time.time()\nr=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL).returncode\nprint(time.time()-t,resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss/1024,r)';
  const { stdout, stderr } = spawnSync('python3', ['-c', script, command, ...args], { encoding: 'utf8', env });
  const [seconds, peakMib, code] = stdout.trim().split(' ').map(Number);
  if (code !== 0 && code !== 3) throw new Error(`${command} ${args.join(' ')}: exit ${code}\n${stderr}`);
  return { seconds: seconds!, peakMib: peakMib! };
}

const median = (values: number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
const spread = (values: number[], digits = 2): string =>
  `${median(values).toFixed(digits)} (${Math.min(...values).toFixed(digits)} to ${Math.max(...values).toFixed(digits)})`;

function main(): void {
  const dir = mkdtempSync(join(process.env.ELF2DMP_BENCH_DIR ?? tmpdir(), 'elf2dmp-bench-'));
  const rows: [what: string, figure: string][] = [];
  const results: Record<string, unknown> = {};
  const add = (what: string, figure: string, data: unknown) => {
    rows.push([what, figure]);
    results[what] = data;
    console.log(`${what}: ${figure}`);
  };
  const [input, output] = [join(dir, 'vm.elf'), join(dir, 'out.dmp')];
  try {
    bigElf(input, COPY_MIB * MIB, true);
    const [ours, cp]: [number[], number[]] = [[], []];
    for (let i = 0; i < RUNS; i++) {
      rmSync(output, { force: true });
      cp.push(run('sh', ['-c', `cp "${input}" "${output}" && sync "${output}"`]).seconds);
      rmSync(output, { force: true });
      ours.push(run(process.execPath, [BIN, '-q', input, output]).seconds);
    }
    rmSync(output, { force: true });
    const ratios = ours.map((s, i) => s / cp[i]!);
    add(`converting ${COPY_MIB} MiB ÷ cp and fsync of the same`, spread(ratios), { ours, cp, ratios });

    for (const mib of [64, 4096]) {
      bigElf(input, mib * MIB, false);
      const peaks = Array.from({ length: 3 }, () => {
        rmSync(output, { force: true });
        return run(process.execPath, [BIN, '-q', input, output]).peakMib;
      });
      rmSync(output, { force: true });
      add(`peak memory with a guest of ${mib} MiB, MiB`, spread(peaks, 0), peaks);
    }
    add('peak memory of node alone, MiB', spread([run(process.execPath, ['-e', '0']).peakMib], 0), null);

    bigElf(input, 1024 * MIB, false, {}, true);
    const rates = Array.from({ length: 3 }, () => {
      rmSync(output, { force: true });
      const { stdout } = spawnSync(process.execPath, [BIN, '--json', input, output], {
        encoding: 'utf8',
        maxBuffer: 1 << 26,
      });
      const report = JSON.parse(stdout);
      return report.input.memoryBytes / MIB / (report.effort.locateMilliseconds / 1000);
    });
    add('searching all memory (no CPU states, sparse file in the page cache), MiB/s', spread(rates, 0), rates);

    const starts: [number[], number[]] = [[], []];
    for (let i = 0; i < 2 * RUNS; i++) {
      starts[0].push(run(process.execPath, ['-e', '0']).seconds);
      starts[1].push(run(process.execPath, [BIN, '--version']).seconds);
    }
    add('elf2dmp --version ÷ node -e 0', spread(starts[1].map((s, i) => s / starts[0][i]!)), starts);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  const machine = `Node ${process.versions.node}, Linux ${release()}, ${cpus().length} × ${cpus()[0]?.model ?? 'CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB`;
  const table = [
    '| what | median (range) |',
    '| --- | --- |',
    ...rows.map(([what, figure]) => `| ${what} | ${figure} |`),
  ];
  const target = (name: string) => fileURLToPath(new URL(name, import.meta.url));
  writeFileSync(target('results.md'), `# Measurements\n\nBy \`npm run bench\` on ${machine}.\n\n${table.join('\n')}\n`);
  writeFileSync(
    target('results.json'),
    `${JSON.stringify({ machine, version: JSON.parse(readFileSync(target('../package.json'), 'utf8')).version, results }, null, 2)}\n`,
  );
}

main();
