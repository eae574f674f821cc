/** What the benchmarks share: guests, running commands, ratios in turn. */
import { spawnSync } from 'node:child_process';
import { closeSync, fsyncSync, openSync, truncateSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { writeElf } from '../test/guest/elf.ts';
import { buildGuest, type GuestOptions } from '../test/guest/guest.ts';

/** A file beside these. */
export const target = (name: string) => fileURLToPath(new URL(name, import.meta.url));
/** The command's script. */
export const BIN = target('../bin/elf2dmp.js');
export const MIB = 2 ** 20;
export const GIB = 2 ** 30;

/** A guest's ELF file with `bytes` of further memory at 4 GiB: sparse, or filled with bytes that do not compress. */
export function bigElf(
  path: string,
  bytes: number,
  filled: boolean,
  guest: GuestOptions = {},
  withoutNotes = false,
): void {
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

/** What a run took. */
export interface Measured {
  seconds: number;
  /** User and system time of all its processes, in seconds. */
  cpu: number;
  peakMib: number;
}

/** Runs a command in a directory; with redirections and pipes by `sh -c`. */
export function runIn(cwd: string | undefined, command: string, ...args: string[]): Measured {
  // Where set, it adds some 45 ms to every start of node.
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
  // GNU time would tell as much, but need not be there: the shell waits, and Linux keeps the children's peak.
  const script =
    'import resource,subprocess,sys,time\nt=time.time()\nr=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL).returncode\nu=resource.getrusage(resource.RUSAGE_CHILDREN)\nprint(time.time()-t,u.ru_utime+u.ru_stime,u.ru_maxrss/1024,r)';
  const { stdout, stderr } = spawnSync('python3', ['-c', script, command, ...args], { encoding: 'utf8', env, cwd });
  const [seconds, cpu, peakMib, code] = stdout.trim().split(' ').map(Number);
  if (code !== 0 && code !== 3) throw new Error(`${command} ${args.join(' ')}: exit ${code}\n${stderr}`);
  return { seconds: seconds!, cpu: cpu!, peakMib: peakMib! };
}

/** Runs a command. */
export const run = (command: string, ...args: string[]): Measured => runIn(undefined, command, ...args);

/** Runs this version's command. */
export const elf2dmp = (...args: string[]): Measured => run(process.execPath, BIN, ...args);

/** The middle one. */
export const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
/** Median and quartiles. */
export function spread(values: readonly number[], digits = 2): string {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!.toFixed(digits);
  return `${median(values).toFixed(digits)} (${at(0.25)} to ${at(0.75)})`;
}

/** Runs each in turn, `rounds` times; the results by name. */
export async function alternating<T>(
  rounds: number,
  ways: Record<string, () => T | Promise<T>>,
): Promise<Record<string, T[]>> {
  const results = Object.fromEntries(Object.keys(ways).map((name) => [name, [] as T[]]));
  for (let i = 0; i < rounds; i++) for (const [name, way] of Object.entries(ways)) results[name]!.push(await way());
  return results;
}

/** A line of a part's table. */
export type Row = [what: string, figure: string];

/** A table with columns of its own. */
export interface Table {
  head: readonly string[];
  rows: readonly (readonly string[])[];
}
