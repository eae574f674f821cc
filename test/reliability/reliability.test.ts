import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert, locate } from '../../src/index.ts';
import { openImage } from '../../src/readers/registry.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { flatten, kdumpOf } from '../guest/kdump.ts';
import { pagesOf } from '../support/dumps.ts';
import { canMount, mountNew } from '../support/loop-mounts.ts';
import { BIN, killedAfter, sha256, withFailingRead } from './faults.ts';

let dir: string;
const at = (...names: string[]) => join(dir, ...names);
const run = (...args: string[]) => spawnSync(process.execPath, [BIN, ...args], { encoding: 'utf8' });

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-reliability-'));
  mkdirSync(at('out'));
  writeFileSync(at('vm.elf'), writeElf(buildGuest({ seed: 95 })));
  await convert({ input: at('vm.elf'), output: at('whole.dmp') });
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** 32 MiB without a page of zeros. */
function fullGuest(): Buffer {
  const guest = buildGuest({ seed: 99, ramMiB: 32 });
  for (let page = 0x100000; page < guest.ramBytes; page += 0x1000) {
    if (!guest.memory.pages.has(page)) guest.memory.page(page).fill(0x77);
  }
  return writeElf(guest);
}

describe('reads that fail', () => {
  it.each([
    ['ELF', () => writeElf(buildGuest({ seed: 96 }))],
    ['flattened kdump', () => flatten(kdumpOf(buildGuest({ seed: 96 })))],
  ])('%s: whichever it is, the error says so and nothing is left', async (_, make) => {
    const file = make();
    const { reads } = await withFailingRead(file, at('out'), Number.POSITIVE_INFINITY);
    expect(reads).toBeGreaterThan(100);
    const step = Math.ceil(reads / 60);
    for (let failAt = 1; failAt <= reads; failAt += step) {
      expect(await withFailingRead(file, at('out'), failAt)).not.toHaveProperty('problem');
    }
  });

  it('because the input became shorter: it says that it changed', async () => {
    copyFileSync(at('vm.elf'), at('shrinking.elf'));
    const image = openImage(at('shrinking.elf'));
    truncateSync(at('shrinking.elf'), 0x10000);
    await expect(locate(image)).rejects.toMatchObject({ code: 'input-changed', kind: 'io-transient' });
    image.close();
  });
});

describe('writes that fail', () => {
  it('for a limit of the file size: nothing is left', () => {
    const { status, stderr } = spawnSync(
      'sh',
      ['-c', `ulimit -f 5000; exec "${process.execPath}" "${BIN}" "${at('vm.elf')}" "${at('out', 'big.dmp')}"`],
      {
        encoding: 'utf8',
      },
    );
    expect(status).toBe(6);
    expect(stderr).toContain('ulimit');
    expect(readdirSync(at('out'))).toEqual([]);
  });

  it.skipIf(!canMount())(
    'for a full disk, or one that can not be written to: nothing is left, and the next run succeeds',
    () => {
      const { path, unmount } = mountNew('ext4', dir, 24 * 2 ** 20);
      try {
        // Seen beforehand, where the size is known; and in the middle, where it is not.
        const full = fullGuest();
        writeFileSync(at('full.elf'), full);
        expect(run(at('full.elf'), join(path, 'a.dmp')).stderr).toContain('the dump needs');
        expect(run('--sparse', 'always', at('full.elf'), join(path, 'a.dmp'))).toMatchObject({ status: 7 });
        const piped = spawnSync(process.execPath, [BIN, '-', join(path, 'a.dmp')], {
          input: full,
          encoding: 'utf8',
        });
        expect(piped.status).toBe(7);
        expect(readdirSync(path)).toEqual(['lost+found']);
        execFileSync('mount', ['-o', 'remount,ro', path]);
        expect(run(at('vm.elf'), join(path, 'a.dmp'))).toMatchObject({ status: 6 });
        execFileSync('mount', ['-o', 'remount,rw', path]);
        expect(run('--quiet', at('vm.elf'), join(path, 'a.dmp'))).toMatchObject({ status: 0, stderr: '' });
        expect(sha256(join(path, 'a.dmp'))).toBe(sha256(at('whole.dmp')));
      } finally {
        unmount();
      }
    },
  );
});

describe('SIGKILL', () => {
  it('at any moment leaves the input, and nothing partial under the name of the output', async () => {
    const expected = sha256(at('whole.dmp'));
    writeFileSync(at('vm.elf.gz'), gzipSync(readFileSync(at('vm.elf'))));
    for (const input of ['vm.elf', 'vm.elf.gz']) {
      for (const after of [60, 110, 160, 220]) {
        const how = await killedAfter(after, at(input), at('out', 'killed.dmp'), expected);
        expect(how).not.toHaveProperty('problem');
      }
    }
    for (const name of readdirSync(at('out'))) {
      // What README says of SIGKILL.
      expect(name).toMatch(/^killed\.dmp\.[0-9a-f]{12}\.part$/);
      rmSync(at('out', name));
    }
  });
});

describe('limits', () => {
  it('5,000 runs become a bitmap dump with every page', async () => {
    const guest = buildGuest({ seed: 97, ramMiB: 64 });
    const runs: [number, number][] = [
      [0, 0xa0000],
      [0x100000, 0xe00000],
    ];
    for (let page = 0xe01000; runs.length < 5000; page += 0x2000) runs.push([page, page + 0x1000]);
    writeFileSync(at('runs.elf'), writeElf(guest, { runs }));
    const report = await convert({ input: at('runs.elf'), output: at('runs.dmp') });
    expect([report.outcome, report.dump.type, report.dump.runCount]).toEqual(['losses', 'bitmap', 5000]);
    // Windows counts the pages between as RAM.
    expect(report.diagnostics.filter(({ severity }) => severity === 'loss').map(({ code }) => code)).toEqual([
      'ram-missing',
    ]);
    expect(pagesOf(readFileSync(at('runs.dmp'))).size).toBe(
      runs.reduce((sum, [from, to]) => sum + (to - from) / 0x1000, 0),
    );
  });

  it("4,096 CPUs' notes are read, and those that run nothing are told", async () => {
    const guest = buildGuest({ seed: 98 });
    const many = {
      ...guest,
      cpus: [
        ...guest.cpus,
        ...Array.from({ length: 4094 }, () => ({ ...guest.cpus[0]!, started: false, cr0: 0x10n, cr4: 0n })),
      ],
    };
    writeFileSync(at('cpus.elf'), writeElf(many));
    const report = await convert({ input: at('cpus.elf'), output: at('cpus.dmp') });
    expect([report.outcome, report.input.cpus.length, report.windows.processors.length]).toEqual(['good', 4096, 2]);
  });
});
