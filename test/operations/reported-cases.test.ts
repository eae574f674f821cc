// Cases that users reported, where their files are at hand: each does now what its report expected.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decompress } from 'fzstd';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { renderInfo } from '../../src/cli/text/render-info.ts';
import { convert } from '../../src/operations/convert.ts';
import { inspect } from '../../src/operations/inspect.ts';
import { verify } from '../../src/operations/verify.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { realCase } from '../support/real-data.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-cases-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const output = () => join(dir, 'out.dmp');

/** The file of a case, as it was before it was compressed. */
function unpacked(path: string): string {
  const plain = join(dir, 'case');
  writeFileSync(plain, decompress(readFileSync(path)));
  return plain;
}

/** Registers tests of a case for those of its files that are there. */
function withCase(name: string, files: readonly string[], test: (file: string, path: string) => void): void {
  const present = files.flatMap((file) => {
    const path = realCase(`${name}/${file}.zst`);
    return path === undefined ? [] : [{ file, path }];
  });
  if (present.length === 0) return;
  describe(`case ${name}`, () => {
    for (const { file, path } of present) test(file, path);
  });
}

const LACKS = '1 GiB of what Windows counts as RAM is not in the file: 0x100000000-0x140000000';
withCase('01-elf-lacks-ram-windows-lists', ['vm.elf'], (file, path) => {
  it(`${file} lacks RAM, and everything says so`, async () => {
    const report = await convert({ input: path, output: output(), force: true });
    expect(report.diagnostics).toMatchObject([{ severity: 'loss', code: 'ram-missing', message: LACKS }]);
    const strict = convert({ input: path, output: join(dir, 'strict.dmp'), strict: true });
    await expect(strict).rejects.toMatchObject({ code: 'strict-losses' });
    expect(await verify({ dump: output() })).toMatchObject({
      outcome: 'sound',
      findings: [{ severity: 'warning', message: LACKS }],
    });
    expect((await inspect({ input: path })).diagnostics.map((d) => d.message)).toEqual([LACKS]);
  });
});

withCase('14-raw-without-the-legacy-hole', ['mem.raw'], (file, path) => {
  it(`${file} has the ranges that Windows lists`, async () => {
    const { input, windows } = await inspect({ input: path });
    expect(input.runs).toEqual([
      { start: '0x1000', size: 0x9e000 },
      { start: '0x100000', size: 0x2700000 },
    ]);
    expect(windows?.modules.length).toBe(6);
  });
});

withCase('19-pc-ram-with-max-ram-below-4g', ['pc.ram'], (file, path) => {
  it(`${file} has the layout that its contents show`, async () => {
    const { input, windows } = await inspect({ input: path });
    expect(input.runs).toEqual([
      { start: '0x0', size: 2 ** 30 },
      { start: '0x100000000', size: 2 ** 30 },
    ]);
    expect(windows?.modules.length).toBe(6);
  }, 60_000);
});

withCase('08-core-of-the-qemu-process', ['core'], (file, path) => {
  it(`${file} is named`, async () => {
    const error = { kind: 'unsupported', code: 'process-core', message: expect.stringContaining('qemu-system-x86_64') };
    await expect(convert({ input: path, output: output(), force: true })).rejects.toMatchObject(error);
  });
});

// The others of that case are headers without pages, of kinds that are read by now: unsound is right.
// Those of ARM64 and x86 are read by now; the case's files of them have headers and no contents.
const KINDS = ['type7', 'user'].map((name) => `${name}.dmp`);
withCase('09-verify-of-kinds-it-does-not-read', [...KINDS, 'vm.elf'], (file, path) => {
  it(`${file} is not called unsound`, async () => {
    await expect(verify({ dump: unpacked(path) })).rejects.toMatchObject({ kind: 'unsupported' });
  });
});

withCase('10-windows-with-wsl2-called-linux', ['vm.elf'], (file, path) => {
  it(`${file} is not called Linux`, async () => {
    await expect(convert({ input: path, output: output(), force: true })).rejects.toMatchObject({
      code: 'windows-not-found',
      message: expect.stringMatching(/KPCR: 2, like a KDBG: 1; .*WSL2/),
    });
  });
});

withCase('12-proxmox-vma', ['vzdump-qemu-100.vma', 'VBox.sav', 'mem.E01', 'mem.avml', 'mem.hpak'], (file, path) => {
  it(`${file} is named`, async () => {
    const error = { kind: 'unsupported', code: expect.stringMatching(/^(proxmox|virtualbox|ewf|avml|hpak)/) };
    await expect(convert({ input: path, output: output(), force: true })).rejects.toMatchObject(error);
  });
});

withCase('13-aff4-hint-is-wrong', ['memory.aff4'], (file, path) => {
  it(`${file} is named`, async () => {
    await expect(convert({ input: path, output: output(), force: true })).rejects.toMatchObject({ code: 'aff4' });
  });
});

const CHECKS = ['12e', '1c8', '1cf', '20001', '5d', 'b8', 'ea', 'ed'].map((code) => `${code}.elf`);
withCase('17-bug-checks-without-a-name', CHECKS, (file, path) => {
  it(`${file} has the name of its bug check`, async () => {
    const { windows } = await inspect({ input: path });
    expect(windows?.bugCheck).toMatchObject({ code: `0x${file.slice(0, -4)}`, name: expect.stringMatching(/^[A-Z]/) });
  });
});

it('a bug check that is not in the list gets no name', async () => {
  const input = join(dir, 'vm.elf');
  const crash = { code: 0x77770001, parameters: [1n, 2n, 3n, 4n], processor: 0 } as const;
  writeFileSync(input, writeElf(buildGuest({ ramMiB: 8, crash })));
  const report = await inspect({ input });
  expect(report.windows?.bugCheck).toMatchObject({ code: '0x77770001', name: null });
  expect(renderInfo(report)).toMatch(/^Bug check: +0x77770001 \(not in elf2dmp's list\)$/m);
});
