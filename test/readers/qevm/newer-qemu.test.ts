import { existsSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openInput } from '../../../src/readers/input.ts';
import { buildGuest } from '../../guest/guest.ts';
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
