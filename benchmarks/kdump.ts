/** Reading and converting kdump-zlib files against inflating their pages and nothing else, in as many threads. */
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildGuest } from '../test/guest/guest.ts';
import { flatten, guestNotes, kdumpFile } from '../test/guest/kdump.ts';
import { random } from '../test/guest/memory.ts';

const BIN = fileURLToPath(new URL('../bin/elf2dmp.js', import.meta.url));

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

/** Loaded before anything else: hides libdeflate from the command. */
const WITHOUT_LIBDEFLATE = `
  import koffi from ${JSON.stringify(import.meta.resolve('koffi'))};
  const { load } = koffi;
  koffi.load = (name, ...more) => {
    if (/deflate/.test(name ?? '')) throw new Error('hidden');
    return load(name, ...more);
  };
`;

/** One way of going through the file, in a process of its own. */
export type Way = () => { seconds: number; peakMib: number };

/** Writes the files of a guest of `mib` MiB to `dir`: what is measured, by name, and the dump that converting makes. */
export function kdumpWays(dir: string, mib: number): { ways: Record<string, Way>; output: string; done: () => void } {
  const at = (name: string) => join(dir, name);
  const guest = buildGuest({});
  const pages = new Map<number, Buffer>();
  const low = guest.memory.flat(0, guest.ramBytes);
  for (let from = 0; from < guest.ramBytes; from += 4096) {
    if (from < 0xa0000 || from >= 0x100000) pages.set(from / 4096, low.subarray(from, from + 4096));
  }
  fill(pages, (mib * 256) | 0);
  const made = kdumpFile({ pages, notes: guestNotes(guest) });
  const count = pages.size;
  writeFileSync(at('raw'), made.file);
  writeFileSync(at('flattened'), flatten(made));
  writeFileSync(at('without.mjs'), WITHOUT_LIBDEFLATE);
  // VmHWM, since the kernel's maxrss begins with that of the process that forked.
  writeFileSync(
    at('peak.cjs'),
    `process.on('exit', () => require('node:fs').writeFileSync(${JSON.stringify(at('usage'))}, /VmHWM:\\s+(\\d+)/.exec(require('node:fs').readFileSync('/proc/self/status', 'utf8'))[1]));`,
  );
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
  const node = (args: string[], more: Record<string, string> = {}) => {
    const started = performance.now();
    const { status, stderr } = spawnSync(process.execPath, ['--require', at('peak.cjs'), ...args], {
      encoding: 'utf8',
      env: { ...env, ...more },
    });
    if (status !== 0) throw new Error(stderr);
    const seconds = (performance.now() - started) / 1000;
    return { seconds, peakMib: Number(readFileSync(at('usage'), 'utf8')) / 1024 };
  };
  const without = ['--import', at('without.mjs')];
  const output = at('out.dmp');
  const convert = (...args: string[]) => {
    rmSync(output, { force: true });
    return node([...args, output]);
  };
  return {
    ways: {
      inflating: () => node(['-e', INFLATE, at('raw'), `${made.places.descriptors}`, `${count}`], { SOURCE: INFLATE }),
      reading: () => node(['-e', READ, REGISTRY, at('raw')]),
      readingByZlib: () => node([...without, '-e', READ, REGISTRY, at('raw')]),
      readingFlattened: () => node(['-e', READ, REGISTRY, at('flattened')]),
      convertingByZlib: () => convert(...without, BIN, '--quiet', at('raw')),
      converting: () => convert(BIN, '--quiet', at('raw')),
    },
    output,
    done: () => {
      for (const name of ['raw', 'flattened', 'without.mjs', 'peak.cjs', 'usage', 'out.dmp']) rmSync(at(name));
    },
  };
}
