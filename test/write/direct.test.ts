import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import koffi from 'koffi';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DirectFile } from '../../src/files/direct.ts';
import { convert } from '../../src/operations/convert.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { writeStream } from '../guest/qevm.ts';
import { canMount, mountNew } from '../support/loop-mounts.ts';

const MIB = 2 ** 20;
let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-direct-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** The share of a file that is in the page cache: mmap(2), mincore(2). */
function cachedShare(path: string): number {
  const libc = koffi.load(null);
  const { size } = statSync(path);
  const fd = openSync(path, 'r');
  const memory = libc.func('uintptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)')(0, size, 1, 1, fd, 0);
  closeSync(fd);
  const pages = Buffer.alloc(Math.ceil(size / 4096));
  const failed = libc.func('int mincore(uintptr_t, size_t, void *)')(memory, size, pages);
  libc.func('int munmap(uintptr_t, size_t)')(memory, size);
  if (failed !== 0) throw new Error('mincore failed');
  return pages.filter((page) => (page & 1) === 1).length / pages.length;
}

describe.skipIf(!canMount())('writing past the page cache', () => {
  for (const kind of ['ext4', 'xfs'] as const) {
    it(`gives the same dump on ${kind}, and leaves none of it in the cache`, async () => {
      const fs = mountNew(kind, dir, 1024 * MIB);
      try {
        const guest = buildGuest({ ramMiB: 96, seed: 3 });
        for (let at = 32 * MIB; at < 96 * MIB; at += 4096) guest.memory.page(at).writeUInt32LE(at, 4092);
        const [input, past, through] = ['vm.elf', 'past.dmp', 'through.dmp'].map((name) => join(fs.path, name)) as [
          string,
          string,
          string,
        ];
        writeFileSync(input, writeElf(guest));
        await convert({ input, output: past });
        expect(cachedShare(past)).toBeLessThan(0.1);
        // A dump that is to be hashed is read again.
        const { sha256 } = await convert({ input, output: through, hash: true });
        expect(sha256?.dump).toMatch(/^[0-9a-f]{64}$/);
        expect(readFileSync(past).equals(readFileSync(through))).toBe(true);
      } finally {
        fs.unmount();
      }
    });

    it(`gives the same dump of a migration stream on ${kind}, with its holes, also where pages come again`, async () => {
      const fs = mountNew(kind, mkdtempSync(join(dir, 'streams-')), 1024 * MIB);
      try {
        const guest = buildGuest({ ramMiB: 128, seed: 3 });
        // The rest of its memory is zeros.
        for (let at = 32 * MIB; at < 96 * MIB; at += 4096) guest.memory.page(at).writeUInt32LE(at, 4092);
        const [input, past, through] = ['vm.save', 'past.dmp', 'through.dmp'].map((name) => join(fs.path, name)) as [
          string,
          string,
          string,
        ];
        for (const options of [{}, { rounds: 2 }] as const) {
          writeFileSync(input, writeStream(guest, options));
          await convert({ input, output: past, force: true });
          // Pages that come again are changed in the cache.
          if (!('rounds' in options)) {
            expect(cachedShare(past)).toBeLessThan(0.1);
            expect(statSync(past).blocks * 512).toBeLessThan(80 * MIB);
          }
          await convert({ input, output: through, hash: true, force: true });
          expect(readFileSync(past).equals(readFileSync(through)), JSON.stringify(options)).toBe(true);
        }
      } finally {
        fs.unmount();
      }
    });
  }

  it('goes through it where place, size or memory do not fit the disk, and says that there is no space', async () => {
    const place = mkdtempSync(join(dir, 'small-'));
    const fs = mountNew('ext4', place, 32 * MIB);
    try {
      const name = join(fs.path, 'file');
      const handle = await open(name, 'wx+');
      const direct = (await DirectFile.of(handle, name, 12 * MIB))!;
      const memory = direct.memory(4 * MIB);
      for (let i = 0; i < memory.length; i++) memory[i] = (i * i) % 251;
      const expected = Buffer.alloc(12 * MIB);
      const write = async (from: number, to: number, position: number) => {
        memory.copy(expected, position, from, to);
        await direct.write(memory.subarray(from, to), position);
      };
      await write(0, MIB, 4096);
      await write(0, 5000, 2 * MIB);
      await write(0, 4096, 3 * MIB + 7);
      // Memory that the disk can't be written from: from here on all goes the usual way.
      await write(1, MIB + 1, 4 * MIB);
      await write(MIB, 2 * MIB, 6 * MIB);
      await direct.close();
      await handle.close();
      expect(readFileSync(name).equals(expected)).toBe(true);

      const other = await open(join(fs.path, 'other'), 'wx+');
      const tooLarge = (await DirectFile.of(other, 'other', 64 * MIB))!;
      const piece = tooLarge.memory(4 * MIB);
      const fill = async () => {
        for (let at = 0; at < 64 * MIB; at += piece.length) await tooLarge.write(piece, at);
        await other.sync();
      };
      const filled = await fill().catch((error: unknown) => error);
      await tooLarge.close();
      await other.close();
      expect(filled).toMatchObject({ code: 'io-enospc' });
    } finally {
      fs.unmount();
    }
  });

  it('is not tried on file systems where it was not measured', async () => {
    const memory = mkdtempSync('/dev/shm/elf2dmp-direct-');
    try {
      const handle = await open(join(memory, 'file'), 'wx+');
      expect(await DirectFile.of(handle, 'file', MIB)).toBeUndefined();
      await handle.close();
    } finally {
      rmSync(memory, { recursive: true });
    }
  });
});
