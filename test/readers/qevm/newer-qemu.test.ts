import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../../src/operations/convert.ts';
import { openInput } from '../../../src/readers/input.ts';
import { buildGuest } from '../../guest/guest.ts';
import { canMount, mountNew } from '../../support/loop-mounts.ts';
import { type Migration, migrateTo, qemuAvailable, qemuVersion, runInQemu } from '../../support/qemu.ts';
import { definite, samePages } from '../../support/same-memory.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-newer-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Where the stream begins with an offset: behind libvirt's header, as in its sparse saves. */
const OFFSET = 0x1000;

/** What QEMU 9 and 10 brought. `scripts/newer-qemu.sh` runs it where the machine's own QEMU is older. */
const FORMS: Record<string, Omit<Migration, 'to'> & { offset?: number }> = {
  'mapped-ram': { capabilities: ['mapped-ram'] },
  'mapped-ram by four threads': {
    capabilities: ['mapped-ram', 'multifd'],
    parameters: { 'multifd-channels': 4 },
  },
  'mapped-ram at an offset': { capabilities: ['mapped-ram'], offset: OFFSET },
  'mapped-ram of a running guest': { capabilities: ['mapped-ram'], live: true },
  'a plain stream': {},
  'a plain stream, zero pages by the older rules': { parameters: { 'zero-page-detection': 'legacy' } },
  'a plain stream with zero pages in full': { parameters: { 'zero-page-detection': 'none' } },
  'a running guest': { live: true },
  xbzrle: { capabilities: ['xbzrle'], live: true },
};

// Registered only where they can run: none is to be skipped.
if (qemuAvailable() && qemuVersion() >= 9) {
  describe.each(['pc', 'q35', 'pc-i440fx-7.2'])('QEMU 9 and newer, %s', (machineType) => {
    it('gives what its ELF gives', async () => {
      const guest = buildGuest({ processors: 2, seed: 91 });
      await runInQemu(guest, { machineType }, async ({ qemu }) => {
        const path = join(dir, 'guest.elf');
        await qemu.command('dump-guest-memory', { paging: false, protocol: `file:${path}` });
        const elf = await openInput(path);
        for (const [name, { offset, ...form }] of Object.entries(FORMS)) {
          const file = join(dir, name.replaceAll(/\W/g, '-'));
          if (offset) writeHeader(file, offset);
          await migrateTo(qemu, { to: { uri: offset ? `file:${file},offset=${offset}` : `file:${file}` }, ...form });
          const stream = await openInput(file);
          expect(samePages(stream, elf), name).toBeGreaterThan(3900);
          expect(
            stream.diagnostics.list.map(({ code }) => code),
            name,
          ).toEqual(['migration-run-state']);
          stream.cpus.forEach(({ registers }, i) => {
            expect(registers, name).toMatchObject(definite(elf.cpus[i]!.registers!));
          });
          expect(stream.cpus.length).toBe(2);
          stream.close();
          rmSync(file);
        }
        elf.close();
      });
    });
  });

  describe.skipIf(!canMount())('QEMU 9 and newer', () => {
    it.each(['xfs', 'btrfs'] as const)('share the pages of mapped-ram with the dump on %s', async (kind) => {
      const fs = mountNew(kind, mkdtempSync(join(dir, `${kind}-`)), 512 * 2 ** 20);
      try {
        const guest = buildGuest({ processors: 2, ramMiB: 64, seed: 92 });
        // Most of it is not zero: else there is nothing to share.
        for (let at = 16 * 2 ** 20; at < guest.ramBytes; at += 4096) guest.memory.page(at).writeUInt32LE(at, 8);
        const used = () => {
          const { blocks, bfree, bsize } = statfsSync(fs.path);
          return (blocks - bfree) * bsize;
        };
        const [input, shared, copied] = ['vm.stream', 'shared.dmp', 'copied.dmp'].map((name) =>
          join(fs.path, name),
        ) as [string, string, string];
        await runInQemu(guest, {}, async ({ qemu }) => {
          for (const [name, { offset, ...form }] of Object.entries(FORMS)) {
            if (!form.capabilities?.includes('mapped-ram')) continue;
            const file = join(dir, `${kind}.stream`);
            if (offset) writeHeader(file, offset);
            await migrateTo(qemu, { to: { uri: offset ? `file:${file},offset=${offset}` : `file:${file}` }, ...form });
            copyFileSync(file, input);
            rmSync(file);
            spawnSync('sync', ['-f', fs.path]);
            const before = used();
            const report = await convert({ input, output: shared, reflink: 'always', force: true });
            expect(report.dump, name).toMatchObject({ type: 'bitmap', sharesInput: true });
            expect(used() - before, name).toBeLessThan(8 * 2 ** 20);
            await convert({ input, output: copied, type: 'bitmap', force: true });
            expect(readFileSync(shared).equals(readFileSync(copied)), name).toBe(true);
            for (const path of [input, shared, copied]) rmSync(path);
            spawnSync('sync', ['-f', fs.path]);
          }
        });
      } finally {
        fs.unmount();
      }
    });
  });
} else {
  it('are tried by scripts/newer-qemu.sh where this QEMU is older', () => {
    expect(existsSync(new URL('../../../scripts/newer-qemu.sh', import.meta.url))).toBe(true);
  });
}

function writeHeader(path: string, offset: number): void {
  const header = Buffer.alloc(92);
  header.write('LibvirtQemudSave', 'latin1');
  header.writeUInt32LE(2, 16);
  header.writeUInt32LE(offset - header.length, 20);
  header.writeUInt32LE(6, 28);
  writeSync(openSync(path, 'w'), header);
}
