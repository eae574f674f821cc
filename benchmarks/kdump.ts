/**
 * Converting a kdump-zlib file against inflating the same pages and nothing else over the same cores. Run after
 * `npm run build`: `npx tsx benchmarks/kdump.ts [MiB] [rounds]`. Bar: 1.3.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildGuest } from '../test/guest/guest.ts';
import { flatten, guestNotes, kdumpFile } from '../test/guest/kdump.ts';
import { random } from '../test/guest/memory.ts';

const BIN = fileURLToPath(new URL('../bin/elf2dmp.js', import.meta.url));
const [mib = 512, rounds = 5] = process.argv.slice(2).map(Number);

/** What a thread does alone: inflates every page of its share. Reads the file in MiBs, as the conversion has to. */
const INFLATE = `
  const { Worker, isMainThread, workerData } = require('node:worker_threads');
  const { openSync, readSync } = require('node:fs');
  const { inflateSync } = require('node:zlib');
  const { availableParallelism } = require('node:os');
  const share = ({ path, descriptors, from, to }) => {
    const fd = openSync(path, 'r');
    const table = Buffer.alloc(24 * (to - from));
    readSync(fd, table, 0, table.length, descriptors + 24 * from);
    const span = Buffer.alloc(1 << 21);
    const out = Buffer.alloc(4096);
    let at = -1;
    let end = -1;
    for (let i = 0; i < table.length; i += 24) {
      const offset = Number(table.readBigUInt64LE(i));
      const size = table.readUInt32LE(i + 8);
      if (table.readUInt32LE(i + 12) !== 1) continue;
      if (offset < at || offset + size > end) {
        end = offset + readSync(fd, span, 0, 1 << 20, (at = offset));
      }
      inflateSync(span.subarray(offset - at, offset - at + size), { chunkSize: 4160, maxOutputLength: 4096 }).copy(out);
    }
  };
  if (!isMainThread) share(workerData);
  else {
    const [path, descriptors, count] = [process.argv[1], Number(process.argv[2]), Number(process.argv[3])];
    const cores = Math.min(8, availableParallelism());
    const part = (i) => ({ path, descriptors, from: Math.floor((count * i) / cores), to: Math.floor((count * (i + 1)) / cores) });
    for (let i = 1; i < cores; i++) new Worker(process.env.SOURCE, { eval: true, workerData: part(i) });
    share(part(0));
  }
`;

/** Memory as a desktop's is, very roughly: a third zeros, pages that halve and pages that shrink to a quarter. */
function fill(memory: Map<number, Buffer>, pages: number): void {
  const next = random(7);
  for (let n = 0; n < pages; n++) {
    const at = n + 0x1000;
    const page = Buffer.alloc(4096);
    const kind = n % 64 < 20 ? 0 : n % 3;
    if (kind > 0) {
      for (let i = 0; i < 4096; i += 8) {
        page.writeUInt32LE(Math.floor(next() * 2 ** (kind === 1 ? 24 : 12)), i);
        page.writeUInt32LE(kind === 1 ? n : i >> 6, i + 4);
      }
    }
    memory.set(at, page);
  }
}

/** The reader alone, as emit uses it: all memory, 1 MiB at a time, 4 at once, written nowhere. */
const READ = `
  import(process.argv[1]).then(async ({ openImage }) => {
    const image = openImage(process.argv[2]);
    const chunks = (function* () {
      for (const { start, size } of image.runs) {
        for (let at = 0; at < size; at += 1 << 20) yield [start + at, Math.min(1 << 20, size - at)];
      }
    })();
    const lane = async () => {
      const buffer = Buffer.from(new SharedArrayBuffer(1 << 20));
      for (const [at, size] of chunks) await image.read(at, buffer.subarray(0, size));
    };
    await Promise.all([lane(), lane(), lane(), lane()]);
    image.close();
  });
`;
const REGISTRY = new URL('../dist/readers/registry.js', import.meta.url).href;

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!;

const dir = mkdtempSync(join(process.env['BENCH_DIR'] ?? tmpdir(), 'elf2dmp-bench-'));
try {
  const guest = buildGuest({});
  const pages = new Map<number, Buffer>();
  const low = guest.memory.flat(0, guest.ramBytes);
  for (let at = 0; at < guest.ramBytes; at += 4096) {
    if (at < 0xa0000 || at >= 0x100000) pages.set(at / 4096, low.subarray(at, at + 4096));
  }
  fill(pages, (mib * 256) | 0);
  const made = kdumpFile({ pages, notes: guestNotes(guest) });
  const count = pages.size;
  const paths = { raw: join(dir, 'raw'), flattened: join(dir, 'flattened') };
  writeFileSync(paths.raw, made.file);
  writeFileSync(paths.flattened, flatten(made));
  pages.clear();

  const time = (args: string[], env: Record<string, string> = {}) => {
    const started = performance.now();
    const { status, stderr } = spawnSync(process.execPath, args, {
      encoding: 'utf8',
      env: { ...process.env, NODE_EXTRA_CA_CERTS: '', ...env },
    });
    if (status !== 0) throw new Error(stderr);
    const seconds = (performance.now() - started) / 1000;
    return { seconds, peak: readPeak() };
  };
  // VmHWM, since the kernel's maxrss begins with that of the process that forked.
  const peakHook = join(dir, 'peak.cjs');
  writeFileSync(
    peakHook,
    `process.on('exit', () => require('node:fs').writeFileSync(${JSON.stringify(join(dir, 'usage'))}, /VmHWM:\\s+(\\d+)/.exec(require('node:fs').readFileSync('/proc/self/status', 'utf8'))[1]));`,
  );
  const readPeak = () => Number(readFileSync(join(dir, 'usage'), 'utf8')) / 1024;
  const node = (...args: string[]) => ['--require', peakHook, ...args];
  const convert = (input: string) => {
    const output = join(dir, 'out.dmp');
    rmSync(output, { force: true });
    return time(node(BIN, '--quiet', input, output));
  };
  const jobs: Record<string, () => { seconds: number; peak: number }> = {
    'inflating alone': () =>
      time(node('-e', INFLATE, paths.raw, `${made.places.descriptors}`, `${count}`), { SOURCE: INFLATE }),
    'reading raw, no output': () => time(node('-e', READ, REGISTRY, paths.raw)),
    'reading flattened, no output': () => time(node('-e', READ, REGISTRY, paths.flattened)),
    'converting raw': () => convert(paths.raw),
    'converting flattened': () => convert(paths.flattened),
  };
  const seen = new Map(Object.keys(jobs).map((name) => [name, [] as { seconds: number; peak: number }[]]));
  for (let round = 0; round < rounds; round++)
    for (const [name, run] of Object.entries(jobs)) seen.get(name)!.push(run());
  const base = median(seen.get('inflating alone')!.map((s) => s.seconds));
  console.log(
    `${mib} MiB of guest memory, ${(statSync(paths.raw).size / 2 ** 20).toFixed(0)} MiB file, ${rounds} rounds, medians`,
  );
  console.log('| what | s | ratio | peak MiB |\n| --- | --- | --- | --- |');
  for (const [name, values] of seen) {
    const seconds = median(values.map((v) => v.seconds));
    console.log(
      `| ${name} | ${seconds.toFixed(2)} | ${(seconds / base).toFixed(2)} | ${median(values.map((v) => v.peak)).toFixed(0)} |`,
    );
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}
