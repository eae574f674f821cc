/** Estimates whether a batch's dumps fit on the disk. */
import { constants } from 'node:fs';
import { open, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Elf2dmpError } from '../core/errors.ts';
import { bytes } from '../core/units.ts';
import { ESTIMATE_SIZE } from '../readers/reader.ts';
import { estimate } from '../readers/registry.ts';
import { identifyContainer } from '../source/containers.ts';
import type { Standing } from './run.ts';

/** The need on one file system, in bytes. */
export interface SpaceNeed {
  /** A directory on it. */
  directory: string;
  free: number;
  /** The dumps' sizes as far as the inputs' headers give them; dumps that share blocks count as 0. */
  needed: number;
  /** Jobs with compressed inputs, whose dumps' sizes are unknown. */
  unknown: number;
}

/** The needs of all jobs to do, one for each file system. */
export async function spaceNeeds(standings: readonly Standing[]): Promise<SpaceNeed[]> {
  const needs = new Map<number, SpaceNeed>();
  for (const { job, state, inputBytes } of standings) {
    if (state !== 'to do') continue;
    const directory = await existing(dirname(job.output));
    const device = (await stat(directory)).dev;
    let need = needs.get(device);
    if (!need) {
      const { bavail, bsize } = await statfs(directory);
      need = { directory, free: bavail * bsize, needed: 0, unknown: 0 };
      needs.set(device, need);
    }
    const { reflink = 'never' } = job.options;
    if (reflink !== 'never' && (await stat(job.input)).dev === device) continue;
    const size = await dumpSize(job.input, inputBytes);
    if (size === undefined) need.unknown++;
    // An old dump stays until the new one is complete: its space counts as used.
    else need.needed += size;
  }
  return [...needs.values()];
}

/** An upper bound; undefined for a compressed input. */
async function dumpSize(input: string, inputBytes: number): Promise<number | undefined> {
  const head = await readHead(input).catch(() => Buffer.alloc(0));
  if (identifyContainer(head)) return undefined;
  const estimated = estimate(head);
  if (!estimated) return inputBytes;
  // kdump files are compressed too, and their header's size of the guest is not checked yet.
  return estimated.file === undefined ? undefined : Math.min(estimated.memory, inputBytes);
}

async function readHead(input: string): Promise<Buffer> {
  // Not blocking: a pipe may have no writer.
  const file = await open(input, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    if (!(await file.stat()).isFile()) return Buffer.alloc(0);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(ESTIMATE_SIZE), 0, ESTIMATE_SIZE, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** The nearest existing directory above. */
async function existing(directory: string): Promise<string> {
  for (let at = directory; ; at = dirname(at)) {
    if (await stat(at).catch(() => undefined)) return at;
  }
}

/** The error for dumps that do not fit. */
export function noSpace(need: SpaceNeed): Elf2dmpError {
  return new Elf2dmpError({
    code: 'no-space',
    kind: 'io-transient',
    message: renderNeed(need),
    hint: 'free some space, write elsewhere (--out), or start anyway with --no-space-check; nothing was written',
  });
}

/** What is needed on a file system, and what is free, in a line. */
export function renderNeed({ directory, free, needed, unknown }: SpaceNeed): string {
  const compressed = `${unknown} compressed ${unknown === 1 ? 'input' : 'inputs'}`;
  const parts = [
    needed > 0 || unknown === 0 ? bytes(needed) : undefined,
    unknown > 0 ? `an unknown amount for ${compressed}` : undefined,
  ];
  return `${directory}: the dumps need ${parts.filter(Boolean).join(' and ')}; ${bytes(free)} are free`;
}
