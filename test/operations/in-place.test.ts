import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  closeSync,
  copyFileSync,
  linkSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Elf2dmpError } from '../../src/core/errors.ts';
import { FILE_CALLS } from '../../src/files/file-calls.ts';
import { convert, convertAndDescribe } from '../../src/operations/convert.ts';
import { convertInPlace, convertInPlaceAndDescribe, undoInPlace } from '../../src/operations/in-place.ts';
import { InPlaceFile } from '../../src/write/in-place.ts';
import { askDebugger, complaints, debuggerAvailable, modules, registers, stack } from '../debugger/debugger.ts';
import { buildArm64Guest } from '../guest/arm64.ts';
import { writeArm64Elf } from '../guest/arm64-elf.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { buildGuest32 } from '../guest/x86/guest.ts';
import { pagesOf } from '../support/dumps.ts';
import { faultyCalls } from '../support/faults.ts';
import { canMount, type FileSystem, mountNew } from '../support/loop-mounts.ts';
import { dumpWithQemu, qemuAvailable } from '../support/qemu.ts';
import { held } from '../support/schemas.ts';

let dir: string;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-in-place-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const sha256 = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex');
/** What undoing has to bring back, besides the bytes. */
const metadata = (file: string) => {
  const { mode, mtimeNs, ino } = statSync(file, { bigint: true });
  return { mode, mtimeNs, ino };
};

describe.skipIf(!canMount() || !qemuAvailable())('a dump that QEMU wrote', () => {
  it.each(['ext4', 'xfs'] as const)('becomes, on %s, what a copied one is, and the ELF file again', async (kind) => {
    const guest = buildGuest({ processors: 2, ramMiB: 32, seed: 51 });
    const fs = mountNew(kind, dir, 512 << 20);
    try {
      const file = await dumpWithQemu(guest, join(fs.path, 'vm.elf'));
      chmodSync(file, 0o400);
      const [before, elf] = [metadata(file), sha256(file)];
      const copied = join(dir, 'copied.dmp');
      await convert({ input: file, output: copied, force: true });

      const report = await convertInPlace({ file });
      expect(report).toMatchObject({ outcome: 'good', dump: { path: file, type: 'bitmap', sharesInput: false } });
      expect(report.dump.undoJournal).toBe(`${file}.elf2dmp-undo`);
      expect(metadata(file)).toMatchObject({ mode: before.mode, ino: before.ino });
      const outside = join(dir, 'in-place.dmp');
      copyFileSync(file, outside);
      chmodSync(outside, 0o600);
      const [a, b] = [pagesOf(readFileSync(outside).subarray(0, report.dump.bytes)), pagesOf(readFileSync(copied))];
      expect([...a.keys()]).toEqual([...b.keys()]);
      for (const [address, page] of a) if (!page.equals(b.get(address)!)) throw new Error(`page ${address} differs`);

      if (debuggerAvailable()) {
        const questions = {
          complaints: complaints(),
          r0: registers(0),
          r1: registers(1),
          k1: stack(1),
          modules: modules(),
        };
        const seen = await askDebugger(outside, questions);
        expect(seen.complaints).toEqual([]);
        expect(seen.r0['rip']).toBe(guest.cpus[guest.truth.processors[0]!.cpu!]!.regs.rip);
        expect(seen).toEqual(await askDebugger(copied, questions));
      }

      await expect(convertInPlace({ file })).rejects.toMatchObject({ code: 'in-place-done' });
      expect(held('undo', await undoInPlace({ file }))).toMatchObject({
        path: file,
        patchesUndone: report.dump.patches.length,
      });
      expect([metadata(file), sha256(file)]).toEqual([before, elf]);
      expect(readdirSync(fs.path).filter((name) => name !== 'lost+found')).toEqual(['vm.elf']);
      await expect(undoInPlace({ file })).rejects.toMatchObject({ code: 'journal-missing' });
    } finally {
      fs.unmount();
    }
  });
});

describe.skipIf(!canMount())('a dump of another machine', () => {
  it.each(['ext4', 'xfs'] as const)('becomes, on %s, what a copied one is, and the ELF file again', async (kind) => {
    const fs = mountNew(kind, mkdtempSync(join(dir, 'machines-')), 512 << 20);
    try {
      for (const [name, bytes] of [
        ['x86', writeElf(buildGuest32({ processors: 3, user: [1] }))],
        ['arm64', writeArm64Elf(buildArm64Guest({ processors: 2, user: [1] }))],
      ] as const) {
        const [file, copied] = [join(fs.path, `${name}.elf`), join(dir, `${name}.dmp`)];
        writeFileSync(file, bytes);
        await convert({ input: file, output: copied, force: true });
        const report = await convertInPlace({ file });
        expect([name, report.outcome]).toEqual([name, 'good']);
        const [a, b] = [pagesOf(readFileSync(file).subarray(0, report.dump.bytes)), pagesOf(readFileSync(copied))];
        expect([...a.keys()]).toEqual([...b.keys()]);
        for (const [address, page] of a)
          if (!page.equals(b.get(address)!)) throw new Error(`${name}: page ${address} differs`);
        await undoInPlace({ file });
        expect([name, readFileSync(file).equals(bytes)]).toEqual([name, true]);
      }
    } finally {
      fs.unmount();
    }
  });
});

describe('--in-place', () => {
  const elf = writeElf(buildGuest());
  let file: string;
  const fresh = (bytes = elf) => {
    file = join(dir, 'vm.elf');
    rmSync(file, { force: true });
    writeFileSync(file, bytes, { mode: 0o400 });
    return file;
  };
  const expectUntouched = (bytes = elf) => {
    expect(readFileSync(file).equals(bytes)).toBe(true);
    expect(readdirSync(dir).filter((name) => name.includes('elf2dmp-undo'))).toEqual([]);
  };

  it.each([
    ['an incomplete file', () => truncateSync(file, elf.length - 0x5000), {}, 'in-place-impossible', 'not complete'],
    [
      'pages out of order',
      () =>
        fresh(
          writeElf(buildGuest(), {
            runs: [
              [0x100000, 0x1000000],
              [0, 0xa0000],
            ],
          }),
        ),
      {},
      'in-place-impossible',
      'does not follow',
    ],
    [
      'losses with --strict',
      () => fresh(writeElf(buildGuest(), { withoutNote: [0] })),
      { strict: true },
      'strict-losses',
      '',
    ],
    ['another name of the file', () => linkSync(file, join(dir, 'other.elf')), {}, 'in-place-hard-links', '2 names'],
    ['a crash dump', () => fresh(Buffer.from('PAGEDU64'.padEnd(0x2000, 'PAGE'))), {}, 'already-dmp', ''],
    ['a file that is no dump', () => fresh(Buffer.alloc(0x2000, 'x')), {}, 'input-unknown', ''],
  ])('refuses %s', async (_, change, options, code, message) => {
    fresh();
    change();
    const bytes = readFileSync(file);
    const error = await convertInPlace({ file, ...options }).catch((e) => e);
    expect(error).toMatchObject({ code });
    expect(error.message).toContain(message);
    expectUntouched(bytes);
    rmSync(join(dir, 'other.elf'), { force: true });
  });

  it('refuses a file that is open for writing, and says where', async () => {
    chmodSync(fresh(), 0o600);
    const writer = openSync(file, 'r+');
    try {
      const error = await convertInPlace({ file }).catch((e) => e);
      expect(error).toMatchObject({ code: 'in-place-open-elsewhere' });
      expect(error.message).toContain(`(${process.pid})`);
    } finally {
      closeSync(writer);
    }
    expectUntouched();
  });
});

describe.skipIf(!canMount())('in place, on file systems of all kinds', () => {
  const elf = writeElf(buildGuest());
  const JOURNAL = '.elf2dmp-undo';
  const within = async (kind: FileSystem, bytes: number, work: (file: string, path: string) => Promise<void>) => {
    const place = mkdtempSync(join(dir, 'fs-'));
    const fs = mountNew(kind, place, bytes);
    try {
      const file = join(fs.path, 'vm.elf');
      writeFileSync(file, elf, { mode: 0o400, flush: true });
      await work(file, fs.path);
    } finally {
      fs.unmount();
      rmSync(place, { recursive: true, force: true });
    }
  };
  const expectUntouched = (file: string) => {
    expect(readFileSync(file).equals(elf)).toBe(true);
    expect(readdirSync(join(file, '..')).filter((name) => name.includes(JOURNAL))).toEqual([]);
  };

  it('reports the memory as it was before it moved in the file', () =>
    within('ext4', 256 << 20, async (file) => {
      const { page: copied } = await convertAndDescribe(
        { input: file, output: `${file}.dmp`, type: 'bitmap' },
        { page: true },
      );
      const { page } = await convertInPlaceAndDescribe({ file }, { page: true });
      expect(page?.memory).toEqual(copied?.memory);
      expect(page?.stacks).toEqual(copied?.stacks);
      expect(page?.windows).toEqual(copied?.windows);
    }));

  it('refuses one that cannot open room in a file', () =>
    within('btrfs', 256 << 20, async (file) => {
      const { mtimeNs } = statSync(file, { bigint: true });
      await expect(convertInPlace({ file })).rejects.toMatchObject({ code: 'in-place-unsupported' });
      expectUntouched(file);
      expect(statSync(file, { bigint: true }).mtimeNs).toBe(mtimeNs);
    }));

  it.each([
    ['ext4', 40 << 20],
    ['xfs', 320 << 20],
  ] as const)('does all of it or nothing, however little room %s has', (kind, bytes) =>
    within(kind, bytes, async (file, path) => {
      const fill = join(path, 'fill');
      let filled = 0;
      for (let size = 64 << 20; size >= 4096; size /= 2) {
        while (spawnSync('fallocate', ['-o', `${filled}`, '-l', `${size}`, fill]).status === 0) filled += size;
      }
      const seen = new Set<string>();
      for (let free = 0; !seen.has('done') && free < 256; free += free < 16 ? 1 : 16) {
        truncateSync(fill, filled - free * 4096);
        const error = await convertInPlace({ file }).catch((e) => e);
        if (error instanceof Error) {
          expect(error).toMatchObject({ kind: 'io-transient', code: expect.stringMatching(/^(no-space|io-enospc)$/) });
          seen.add((error as Elf2dmpError).code);
        } else {
          seen.add('done');
          await undoInPlace({ file });
        }
        expectUntouched(file);
      }
      expect([...seen]).toContain('done');
      expect(seen.size).toBeGreaterThan(1);
    }),
  );

  it('is an option of the command, and another', () =>
    within('ext4', 128 << 20, async (file) => {
      const bin = fileURLToPath(new URL('../../bin/elf2dmp.js', import.meta.url));
      const run = (...args: string[]) => {
        const { status, stdout, stderr } = spawnSync(process.execPath, [bin, ...args], { encoding: 'utf8' });
        expect([args, status, stderr]).toEqual([
          args,
          0,
          // The pages stay where the ELF file has them.
          args[0] === '--in-place' ? expect.stringMatching(/^warning: the pages begin at 0x[0-9a-f]+, [^\n]+\n$/) : '',
        ]);
        return stdout;
      };
      expect(JSON.parse(run('--in-place', file, '--json', '--strict'))).toMatchObject({
        outcome: 'good',
        input: { path: file, format: 'elf-core' },
        dump: { path: file, type: 'bitmap', undoJournal: `${file}${JOURNAL}` },
      });
      expect(JSON.parse(run('--undo', file, '--json'))).toMatchObject({
        outcome: 'good',
        path: file,
        bytes: elf.length,
      });
      expectUntouched(file);
      expect(run('--in-place', file)).toMatch(/^Undo: +elf2dmp --undo .*vm\.elf \(restores the ELF file/m);
      expect(run('--undo', file)).toMatch(/^\/.*vm\.elf is the ELF file again \(15\.6 MiB, \d patches undone\)\n$/);
      expectUntouched(file);
    }));

  it('takes symbolic links for what they point to; immutable files, locks and foreign journals for what they are', () =>
    within('ext4', 128 << 20, async (file, path) => {
      const link = join(dir, 'link.elf');
      symlinkSync(file, link);
      const { dump } = await convertInPlace({ file: link });
      expect([dump.path, dump.undoJournal]).toEqual([link, `${file}${JOURNAL}`]);
      rmSync(link);

      // Renamed with its journal, it can be undone; without, or beside another's, it is left alone.
      const renamed = join(path, 'vm.dmp');
      renameSync(file, renamed);
      await expect(undoInPlace({ file: renamed })).rejects.toMatchObject({ code: 'journal-missing' });
      writeFileSync(file, elf, { mode: 0o400 });
      for (const run of [convertInPlace, undoInPlace]) {
        await expect(run({ file })).rejects.toMatchObject({ code: 'journal-of-another-file' });
      }
      expect(readFileSync(file).equals(elf)).toBe(true);
      renameSync(`${file}${JOURNAL}`, `${renamed}${JOURNAL}`);
      const journal = readFileSync(`${renamed}${JOURNAL}`);
      const wrong = Buffer.from(journal);
      wrong.write('x', journal.indexOf('"inserted":') + 11);
      writeFileSync(`${renamed}${JOURNAL}`, wrong);
      await expect(undoInPlace({ file: renamed })).rejects.toMatchObject({ code: 'journal-damaged' });
      writeFileSync(`${renamed}${JOURNAL}`, journal);
      chmodSync(`${renamed}${JOURNAL}`, 0o666);
      await expect(undoInPlace({ file: renamed })).rejects.toMatchObject({ code: 'journal-not-trusted' });
      chmodSync(`${renamed}${JOURNAL}`, 0o600);
      appendFileSync(renamed, 'x');
      await expect(undoInPlace({ file: renamed })).rejects.toMatchObject({ code: 'in-place-unknown-state' });
      truncateSync(renamed, statSync(renamed).size - 1);
      await undoInPlace({ file: renamed });
      rmSync(file);
      renameSync(renamed, file);
      expectUntouched(file);

      const immutable = (flag: string) => expect(spawnSync('chattr', [flag, file]).status).toBe(0);
      immutable('+i');
      await expect(convertInPlace({ file })).rejects.toMatchObject({ code: 'io-eperm', kind: 'io-permanent' });
      immutable('-i');
      expectUntouched(file);

      const other = await InPlaceFile.open(file);
      await expect(convertInPlace({ file })).rejects.toMatchObject({ code: 'in-place-busy' });
      await other.close();
      expectUntouched(file);

      // A run that died half-way is taken back by the next, which says so.
      const dead = faultyCalls(20, 'dies');
      await expect(convertInPlace({ file }, dead)).rejects.toThrow();
      await dead.bury();
      expect(dead.made).toContain('insertRange');
      const { diagnostics } = await convertInPlace({ file });
      expect(diagnostics.map((d) => d.code)).toEqual(['in-place-resumed', 'unaligned-pages']);
      await undoInPlace({ file });
      expectUntouched(file);

      // A signal that comes while the file is being changed.
      const abort = new AbortController();
      const insertRange = async (fd: number, length: number) => {
        await FILE_CALLS.insertRange(fd, length);
        abort.abort(new Error('ended'));
      };
      await expect(convertInPlace({ file, signal: abort.signal }, { ...FILE_CALLS, insertRange })).rejects.toThrow(
        'ended',
      );
      expectUntouched(file);
    }));
});
