/**
 * The changes of a conversion as a JSON file, with the bytes that were there: enough to undo them, and to verify the
 * dump against its input later without finding Windows again.
 */

import { readFileSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { toJson } from '../core/json.ts';
import { bytes, hex, hex64, MIB, PAGE_SIZE, PHYSICAL_ADDRESS_LIMIT, pa, va } from '../core/units.ts';
import type { Extent } from '../memory/runs.ts';
import { STANDARD_STREAM } from '../options/choices.ts';
import { type Patch, sha256 } from '../plan/patches.ts';
import { TOOL } from '../version.ts';
import { SCHEMA } from './schemas.ts';

/** 4096 processors change some 8 MiB, written as hex twice. */
const MAX_FILE = 64 * MIB;

export interface PatchFile {
  /** The dump's pages. */
  extents: readonly Extent[];
  patches: readonly Patch[];
}

/** A list of patches as a file. */
export function encodePatchFile({ extents, patches }: PatchFile, files: { input: string; output: string }): Buffer {
  const data = {
    schema: SCHEMA.patches,
    tool: TOOL,
    ...files,
    runs: extents.map(({ start, size }) => ({ start: hex(start), size })),
    patches: patches.map((p) => ({
      what: p.what,
      virtual: hex64(p.virtual),
      physical: hex(p.physical),
      length: p.bytes.length,
      original: p.original.toString('hex'),
      bytes: p.bytes.toString('hex'),
    })),
  };
  return Buffer.from(`${toJson(data, 2)}\n`);
}

/** Throws `Elf2dmpError` where the file can't be read or is not what `encodePatchFile` makes. */
export async function readPatchFile(path: string): Promise<PatchFile> {
  const fail = (message: string, field?: string) =>
    new Elf2dmpError({
      code: 'patch-file',
      kind: 'corrupt',
      message,
      file: path,
      structure: SCHEMA.patches,
      field,
      hint: 'name a file that a conversion with --patches wrote',
    });
  let text: string;
  try {
    const isStream = path === STANDARD_STREAM;
    const { size } = isStream ? { size: 0 } : await stat(path);
    if (size > MAX_FILE) throw fail(`a file of ${bytes(size)} is not a list of patches`);
    text = isStream ? readFileSync(0, 'utf8') : await readFile(path, 'utf8');
  } catch (error) {
    throw error instanceof Elf2dmpError ? error : ioError('read', path, error);
  }
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    throw fail('not JSON');
  }
  const record = (value: unknown, field: string): Record<string, unknown> => {
    if (typeof value !== 'object' || value === null) throw fail('not an object', field);
    return value as Record<string, unknown>;
  };
  const list = (value: unknown, field: string): unknown[] => {
    if (!Array.isArray(value)) throw fail('not a list', field);
    return value;
  };
  const number = (value: unknown, limit: bigint, field: string): bigint => {
    if (typeof value !== 'string' || !/^0x[0-9a-f]{1,16}$/.test(value) || BigInt(value) >= limit) {
      throw fail('not an address', field);
    }
    return BigInt(value);
  };
  const content = (value: unknown, length: unknown, field: string): Buffer => {
    if (typeof value !== 'string' || !/^([0-9a-f]{2})+$/.test(value) || value.length / 2 !== length) {
      throw fail('not as many bytes as its length says', field);
    }
    return Buffer.from(value, 'hex');
  };
  const limit = BigInt(PHYSICAL_ADDRESS_LIMIT);
  const file = record(data, 'file');
  if (file['schema'] !== SCHEMA.patches) throw fail('another kind of file', 'schema');
  let end = 0;
  const extents = list(file['runs'], 'runs').map((value, i): Extent => {
    const run = record(value, `runs[${i}]`);
    const start = Number(number(run['start'], limit, `runs[${i}].start`));
    const { size } = run;
    const whole = typeof size === 'number' && Number.isSafeInteger(size) && size > 0 && size % PAGE_SIZE === 0;
    if (!whole || start < end || start % PAGE_SIZE !== 0 || start + size > PHYSICAL_ADDRESS_LIMIT) {
      throw fail('not a sorted list of whole pages', `runs[${i}]`);
    }
    end = start + size;
    return { start: pa(start), size };
  });
  end = 0;
  const patches = list(file['patches'], 'patches').map((value, i): Patch => {
    const field = `patches[${i}]`;
    const patch = record(value, field);
    const physical = Number(number(patch['physical'], limit, `${field}.physical`));
    const changed = content(patch['bytes'], patch['length'], `${field}.bytes`);
    if (physical < end) throw fail('not sorted, or they overlap', field);
    end = physical + changed.length;
    return {
      what: typeof patch['what'] === 'string' ? patch['what'] : field,
      virtual: va(number(patch['virtual'], 2n ** 64n, `${field}.virtual`)),
      physical: pa(physical),
      bytes: changed,
      original: content(patch['original'], patch['length'], `${field}.original`),
    };
  });
  return { extents, patches };
}
export interface PatchReport {
  what: string;
  virtual: string;
  physical: string;
  length: number;
  originalSha256: string;
}
export function reportPatch(patch: Patch): PatchReport {
  return {
    what: patch.what,
    virtual: hex64(patch.virtual),
    physical: hex(patch.physical),
    length: patch.bytes.length,
    originalSha256: sha256(patch.original),
  };
}
