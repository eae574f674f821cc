import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  linkSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/commands/convert.ts';
import { convertInPlace, undoInPlace } from '../../src/commands/in-place.ts';
import { askDebugger, complaints, debuggerAvailable, modules, registers, stack } from '../debugger/debugger.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { pagesOf } from '../support/dumps.ts';
import { canMount, mountNew } from '../support/loop-mounts.ts';
import { dumpWithQemu, qemuAvailable } from '../support/qemu.ts';

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
        expect(seen.r0.rip).toBe(guest.cpus[guest.truth.processors[0]!.cpu!]!.regs.rip);
        expect(seen).toEqual(await askDebugger(copied, questions));
      }

      await expect(convertInPlace({ file })).rejects.toMatchObject({ code: 'in-place-done' });
      expect(await undoInPlace({ file })).toMatchObject({ path: file, patches: report.dump.patches.length });
      expect([metadata(file), sha256(file)]).toEqual([before, elf]);
      expect(readdirSync(fs.path).filter((name) => name !== 'lost+found')).toEqual(['vm.elf']);
      await expect(undoInPlace({ file })).rejects.toMatchObject({ code: 'journal-missing' });
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
