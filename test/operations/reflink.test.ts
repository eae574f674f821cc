import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/operations/convert.ts';
import { verify } from '../../src/operations/verify.ts';
import { askDebugger, complaints, debuggerAvailable, modules, registers, stack } from '../debugger/debugger.ts';
import { buildArm64Guest } from '../guest/arm64.ts';
import { writeArm64Elf } from '../guest/arm64-elf.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { writeStream } from '../guest/qevm.ts';
import { buildGuest32 } from '../guest/x86/guest.ts';
import { pagesOf } from '../support/dumps.ts';
import { canMount, mountNew } from '../support/loop-mounts.ts';

const guest = buildGuest({ processors: 2, ramMiB: 64, seed: 50 });
const elf = writeElf(guest);
const OTHER_MACHINES = [
  ['x86', writeElf(buildGuest32({ processors: 3, user: [1] }))],
  ['x86 without PAE', writeElf(buildGuest32({ pae: false }))],
  ['arm64', writeArm64Elf(buildArm64Guest({ processors: 2, user: [1] }))],
] as const;
let dir: string;

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-reflink-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe.skipIf(!canMount())('--reflink', () => {
  for (const kind of ['xfs', 'btrfs'] as const) {
    it(`shares the input's blocks on ${kind}, and shows the same in the debugger`, async () => {
      const fs = mountNew(kind, dir, 512 << 20);
      try {
        const [input, output] = [join(fs.path, 'vm.elf'), join(fs.path, 'shared.dmp')];
        writeFileSync(input, elf, { flush: true });
        const used = () => {
          const { blocks, bfree, bsize } = statfsSync(fs.path);
          return (blocks - bfree) * bsize;
        };
        const before = used();
        const report = await convert({ input, output, reflink: 'always' });
        expect(report.dump).toMatchObject({ type: 'bitmap', sharesInput: true });
        // 64 MiB of pages; new blocks only for the header, the map and what is patched.
        expect(used() - before).toBeLessThan(8 << 20);
        expect(readFileSync(input).equals(elf)).toBe(true);

        const copied = join(dir, 'copied.dmp');
        await convert({ input, output: copied, force: true });
        const [a, b] = [pagesOf(readFileSync(output)), pagesOf(readFileSync(copied))];
        expect([...a.keys()]).toEqual([...b.keys()]);
        for (const [address, page] of a) if (!page.equals(b.get(address)!)) throw new Error(`page ${address} differs`);
        expect(statfsSync(fs.path).bsize % 4096).toBe(0);
        if (!debuggerAvailable()) return;
        const questions = {
          complaints: complaints(),
          r0: registers(0),
          r1: registers(1),
          k1: stack(1),
          modules: modules(),
        };
        const outside = join(dir, 'shared.dmp');
        copyFileSync(output, outside);
        expect(await askDebugger(outside, questions)).toEqual(await askDebugger(copied, questions));
      } finally {
        fs.unmount();
      }
    });
  }

  for (const kind of ['xfs', 'btrfs'] as const) {
    it(`shares the pages of mapped-ram on ${kind}, but for stale ones`, async () => {
      const fs = mountNew(kind, mkdtempSync(join(dir, 'mapped-')), 512 << 20);
      try {
        const at = (name: string) => join(fs.path, name);
        const used = () => {
          const { blocks, bfree, bsize } = statfsSync(fs.path);
          return (blocks - bfree) * bsize;
        };
        // A save by libvirt in its sparse form.
        const front = Buffer.alloc(0x1000);
        front.write('LibvirtQemudSave', 'latin1');
        front.writeUInt32LE(2, 16);
        front.writeUInt32LE(front.length - 92, 20);
        front.writeUInt32LE(6, 28);
        for (const options of [{}, { front }]) {
          const stream = writeStream(guest, { mappedRam: true, ...options });
          writeFileSync(at('vm.stream'), stream, { flush: true });
          const before = used();
          const report = await convert({ input: at('vm.stream'), output: at('shared.dmp'), reflink: 'always' });
          expect(report.outcome).toBe('good');
          expect(report.dump).toMatchObject({ type: 'bitmap', sharesInput: true });
          expect(used() - before).toBeLessThan(8 << 20);
          const copied = join(dir, 'mapped.dmp');
          await convert({ input: at('vm.stream'), output: copied, type: 'bitmap', force: true });
          expect(readFileSync(at('shared.dmp')).equals(readFileSync(copied))).toBe(true);
          expect(readFileSync(at('vm.stream')).equals(stream)).toBe(true);
          rmSync(at('shared.dmp'));
        }
        // Plain streams have something between their pages.
        writeFileSync(at('plain.stream'), writeStream(guest));
        await expect(
          convert({ input: at('plain.stream'), output: at('plain.dmp'), reflink: 'always' }),
        ).rejects.toMatchObject({ code: 'reflink-impossible' });
      } finally {
        fs.unmount();
      }
    });
  }

  for (const kind of ['xfs', 'btrfs'] as const) {
    it(`shares the blocks of crash dumps on ${kind}, and makes aligned ones of unaligned ones`, async () => {
      const fs = mountNew(kind, mkdtempSync(join(dir, 'dumps-')), 1 << 30);
      try {
        const at = (name: string) => join(fs.path, name);
        writeFileSync(at('vm.elf'), elf, { flush: true });
        await convert({ input: at('vm.elf'), output: at('unaligned.dmp'), reflink: 'always' });
        for (const type of ['full', 'bitmap', 'kernel'] as const) {
          await convert({ input: at('vm.elf'), output: at(`${type}.dmp`), type });
        }
        const firstPage = (name: string) => Number(readFileSync(at(name)).readBigUInt64LE(0x2020));
        const used = () => {
          const { blocks, bfree, bsize } = statfsSync(fs.path);
          return (blocks - bfree) * bsize;
        };
        expect(firstPage('unaligned.dmp') % 0x1000).not.toBe(0);

        for (const [from, type] of [
          ['full', 'bitmap'],
          ['bitmap', 'bitmap'],
          ['unaligned', 'bitmap'],
          ['kernel', 'kernel'],
        ] as const) {
          const before = used();
          const input = at(`${from}.dmp`);
          const { dump, diagnostics, verification } = await convert({
            input,
            output: at('shared.dmp'),
            reflink: 'always',
            force: true,
            verify: true,
          });
          expect([dump.type, dump.sharesInput, verification?.outcome]).toEqual([type, true, 'sound']);
          // Header and map; the small kernel dump counts for little.
          expect(used() - before).toBeLessThan(8 << 20);
          const codes = diagnostics.map((d) => d.code);
          if (from === 'unaligned') expect(codes).toContain('unaligned-pages');
          else expect([codes, firstPage('shared.dmp') % 0x1000]).toEqual([[], 0]);
          expect(await verify({ dump: at('shared.dmp'), against: input })).toMatchObject({ outcome: 'sound' });
          const [a, b] = [pagesOf(readFileSync(at('shared.dmp'))), pagesOf(readFileSync(input))];
          expect([...a.keys()]).toEqual([...b.keys()]);
          for (const [address, page] of a)
            if (!page.equals(b.get(address)!)) throw new Error(`page ${address} differs`);
          rmSync(at('shared.dmp'));
        }

        for (const type of ['full', 'bitmap'] as const) {
          const { diagnostics } = await convert({
            input: at('unaligned.dmp'),
            output: at('aligned.dmp'),
            type,
            force: true,
          });
          expect(diagnostics).toEqual([]);
          expect(readFileSync(at('aligned.dmp')).equals(readFileSync(at(`${type}.dmp`)))).toBe(true);
        }
      } finally {
        fs.unmount();
      }
    });
  }

  for (const kind of ['xfs', 'btrfs'] as const) {
    it(`shares the blocks of guests of other machines on ${kind}`, async () => {
      const fs = mountNew(kind, mkdtempSync(join(dir, 'machines-')), 512 << 20);
      try {
        for (const [name, bytes] of OTHER_MACHINES) {
          const [input, output] = [join(fs.path, `${name}.elf`), join(fs.path, `${name}.dmp`)];
          writeFileSync(input, bytes, { flush: true });
          const report = await convert({ input, output, reflink: 'always', verify: true });
          expect([name, report.dump.sharesInput, report.verification?.findings]).toEqual([name, true, []]);
          const copied = join(fs.path, `${name}.copied.dmp`);
          await convert({ input, output: copied });
          const [a, b] = [pagesOf(readFileSync(output)), pagesOf(readFileSync(copied))];
          expect([...a.keys()]).toEqual([...b.keys()]);
          for (const [address, page] of a)
            if (!page.equals(b.get(address)!)) throw new Error(`${name}: page ${address} differs`);
        }
      } finally {
        fs.unmount();
      }
    });
  }

  it('fails with the reason where it can not be, or copies and says why', async () => {
    const fs = mountNew('ext4', dir, 128 << 20);
    try {
      const [input, output] = [join(fs.path, 'vm.elf'), join(fs.path, 'out.dmp')];
      const small = writeElf(buildGuest());
      writeFileSync(input, small);
      await expect(convert({ input, output, reflink: 'always' })).rejects.toMatchObject({ code: 'reflink-impossible' });
      expect(readdirSync(fs.path).sort()).toEqual(['lost+found', 'vm.elf']);
      const report = await convert({ input, output, reflink: 'auto' });
      expect(report.dump).toMatchObject({ type: 'full', sharesInput: false });
      expect(report.diagnostics.map((d) => d.code)).toContain('copied');
    } finally {
      fs.unmount();
    }
  });
});

describe('--reflink without a file system that shares', () => {
  it.each([
    [
      'pages out of order',
      {
        reversed: false,
        runs: [
          [0x100000, 0x1000000],
          [0, 0xa0000],
        ] as const,
      },
      {},
      'does not follow',
    ],
    [
      'a partial page',
      {
        runs: [
          [0, 0xa0000],
          [0x100000, 0x1000000 - 0x800],
        ] as const,
      },
      {},
      'whole pages',
    ],
    ['--type full', {}, { type: 'full' as const }, '--type full'],
    ['--ram windows', {}, { ram: 'windows' as const }, '--ram windows'],
  ])('refuses %s', async (_, elfOptions, options, reason) => {
    const input = join(dir, 'odd.elf');
    writeFileSync(input, writeElf(buildGuest(), elfOptions));
    await expect(convert({ input, output: join(dir, 'odd.dmp'), reflink: 'always', ...options })).rejects.toThrow(
      reason,
    );
    expect(readdirSync(dir)).not.toContain('odd.dmp');
  });
});
