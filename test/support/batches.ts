/** Archives of small dumps for batches, and batches that are killed. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import type { JobRecord, Sidecar } from '../../src/batch/sidecar.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { flatten, kdumpOf } from '../guest/kdump.ts';

export const BIN = fileURLToPath(new URL('../../bin/elf2dmp.js', import.meta.url));

/** What each kind of input has to come to. */
export interface Kind {
  name: string;
  /** `left out`: in a directory that was named, it is no dump. */
  outcome: 'good' | 'losses' | 'failed' | 'left out';
  exitCode: number;
  contents: Buffer;
}

/** Sound inputs of all kinds, and inputs broken in different ways. */
export function kinds(): { sound: Kind[]; broken: Kind[] } {
  const guest = buildGuest({ processors: 1, ramMiB: 8, decoys: false });
  const elf = writeElf(guest);
  const kdump = kdumpOf(guest);
  const good = (name: string, contents: Buffer): Kind => ({ name, outcome: 'good', exitCode: 0, contents });
  const failed = (name: string, exitCode: number, contents: Buffer): Kind => ({
    name,
    outcome: 'failed',
    exitCode,
    contents,
  });
  const crashed = buildGuest({
    processors: 1,
    decoys: false,
    crash: { code: 0xd1, parameters: [1n, 2n, 3n, 4n], processor: 0 },
  });
  return {
    sound: [
      good('live.elf', elf),
      good('crashed.elf', writeElf(crashed)),
      good('packed.elf.gz', gzipSync(elf, { level: 1 })),
      good('pages.kdump', kdump.file),
      good('flat.kdump', flatten(kdump)),
    ],
    broken: [
      { name: 'lossy.elf', outcome: 'losses', exitCode: 3, contents: writeElf(guest, { withoutNote: [0] }) },
      failed('empty.elf', 5, Buffer.alloc(0)),
      failed('cut-headers.elf', 5, elf.subarray(0, 300)),
      { name: 'text.elf', outcome: 'left out', exitCode: 0, contents: Buffer.from('no dump\n') },
      failed('zeros.elf', 4, Buffer.concat([elf.subarray(0, 0x1000), Buffer.alloc(elf.length - 0x1000)])),
      failed('cut.elf.gz', 5, gzipSync(elf, { level: 1 }).subarray(0, 20)),
    ],
  };
}

/** `count` inputs below `dir`, one in `every` broken. @returns the kind of each by its name */
export function makeArchive(dir: string, count: number, every = 10): Map<string, Kind> {
  const { sound, broken } = kinds();
  const made = new Map<string, Kind>();
  for (let i = 0; i < count; i++) {
    const kind =
      i % every === every - 1
        ? broken[Math.floor(i / every) % broken.length]!
        : sound[(i - Math.floor(i / every)) % sound.length]!;
    const name = `host${i % 7}/${String(i).padStart(3, '0')}-${kind.name}`;
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), kind.contents);
    made.set(name, kind);
  }
  return made;
}

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Runs `elf2dmp batch`; `disturb` gets its process. */
export function runBatchCommand(
  args: readonly string[],
  disturb: (pid: number, ended: AbortSignal) => void = () => undefined,
  env: NodeJS.ProcessEnv = {},
): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [BIN, 'batch', ...args], { env: { ...process.env, ...env } });
    const ended = new AbortController();
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
    child.on('close', (code, signal) => {
      ended.abort();
      resolve({ code, signal, stdout, stderr });
    });
    disturb(child.pid!, ended.signal);
  });
}

/** SIGKILL after so many milliseconds, to the batch alone or to its jobs too. */
export const killAfter = (milliseconds: number, jobsToo: boolean) => (pid: number, ended: AbortSignal) => {
  const timer = setTimeout(() => {
    const jobs = jobsToo ? childrenOf(pid) : [];
    for (const each of [pid, ...jobs]) {
      try {
        process.kill(each, 'SIGKILL');
      } catch {
        // It had ended.
      }
    }
  }, milliseconds);
  ended.addEventListener('abort', () => clearTimeout(timer));
};

function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

/** All lines of a report, which have to be whole. */
export const linesOf = (report: string): JobRecord[] => {
  const text = readFileSync(report, 'utf8');
  if (!text.endsWith('\n')) throw new Error(`${report} ends in the middle of a line`);
  return text
    .slice(0, -1)
    .split('\n')
    .map((line) => JSON.parse(line) as JobRecord);
};

/** What is the same in every run of a batch: files with their hashes, sidecars and lines without times. */
export function endState(out: string, report: string): { files: unknown[]; lines: unknown[] } {
  const names = readdirSync(out, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(out.length + 1))
    .sort();
  const timeless = (record: JobRecord | null) =>
    record && { ...record, id: '', seconds: 0, finished: '', output: record.output.slice(out.length) };
  const files = names.map((name) => {
    const contents = readFileSync(join(out, name));
    if (!name.endsWith('.json')) return [name, createHash('sha256').update(contents).digest('hex')];
    const sidecar = JSON.parse(contents.toString('utf8')) as Sidecar;
    return [name, { ...sidecar, outputMtime: '', record: timeless(sidecar.record) }];
  });
  const lines = linesOf(report)
    .map(timeless)
    .sort((a, b) => (a!.output < b!.output ? -1 : 1));
  return { files, lines };
}
