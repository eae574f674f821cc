import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildGuest } from '../guest/guest.ts';
import { flatten, kdumpOf } from '../guest/kdump.ts';
import { random } from '../guest/memory.ts';
import { BIN } from '../support/batches.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-kdump-cli-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Loaded before the command: libraries of that name are not there. */
const hiding = (name: string) => `
  import koffi from ${JSON.stringify(import.meta.resolve('koffi'))};
  const { load } = koffi;
  koffi.load = (library, ...more) => {
    if (String(library).includes('${name}')) throw new Error('hidden by the test');
    return load(library, ...more);
  };
`;

describe('a kdump with damaged pages', () => {
  it('becomes the same dump, with the same losses, with libdeflate and without', () => {
    const guest = buildGuest({ ramMiB: 48 });
    // Above 16 MiB no Windows is.
    const [first, end] = [0x1000, guest.ramBytes / 4096];
    const next = random(3);
    for (let page = first; page < end; page++) {
      const bytes = guest.memory.page(page * 4096);
      for (let i = 0; i < 4096; i += 4) bytes.writeUInt32LE(Math.floor(next() * 2 ** 12), i);
    }
    const made = kdumpOf(guest);
    // One byte in every 97th page, in turn at its start, its middle and its end.
    for (let page = first, n = 0; page < end; page += 97, n++) {
      const descriptor = made.places.descriptors + 24 * (page - 0x60);
      const [at, size] = [Number(made.file.readBigUInt64LE(descriptor)), made.file.readUInt32LE(descriptor + 8)];
      made.file[at + Math.floor(((size - 1) * (n % 3)) / 2)]! ^= 0x55;
    }
    writeFileSync(join(dir, 'vm.kdump'), flatten(made));
    writeFileSync(join(dir, 'hide.mjs'), hiding('deflate'));
    const convert = (output: string, ...options: string[]) => {
      const args = [...options, BIN, '--json', 'vm.kdump', output];
      const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: dir, encoding: 'utf8' });
      expect(status, stderr).toBe(3);
      return { losses: JSON.parse(stdout).diagnostics, bytes: readFileSync(join(dir, output)) };
    };
    const [given, hidden] = [convert('given.dmp'), convert('hidden.dmp', '--import', join(dir, 'hide.mjs'))];
    expect(given.bytes.equals(hidden.bytes)).toBe(true);
    expect(given.losses.length).toBeGreaterThan(10);
    // Threads finish in any order: another ten may be named, and all the others are one.
    const counted = (losses: { code: string }[]) => losses.map(({ code }) => code).sort();
    expect(counted(given.losses)).toEqual(counted(hidden.losses));
  });
});
