import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { MemoryImage } from '../../src/memory/image.ts';
import { openImage } from '../../src/readers/registry.ts';
import { buildGuest } from '../guest/guest.ts';
import { dumpWithQemu, qemuAvailable } from '../support/qemu.ts';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-kdump-qemu-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** All memory of an image, by both ways of reading. */
async function contents(image: MemoryImage): Promise<{ start: number; bytes: Buffer }[]> {
  const result = [];
  for (const { start, size } of image.runs) {
    const [bytes, again] = [Buffer.alloc(size, 0xee), Buffer.alloc(size, 0xdd)];
    expect(image.readSync(start, bytes)).toBe(true);
    await image.read(start, again);
    expect(again.equals(bytes)).toBe(true);
    result.push({ start, bytes });
  }
  return result;
}

/** Buffers of many MiB: vitest's own comparison takes minutes. */
function expectEqualContents(a: Awaited<ReturnType<typeof contents>>, b: typeof a): void {
  expect(a.map((r) => [r.start, r.bytes.length])).toEqual(b.map((r) => [r.start, r.bytes.length]));
  a.forEach((run, i) => {
    expect(run.bytes.equals(b[i]!.bytes)).toBe(true);
  });
}

describe.skipIf(!qemuAvailable())('kdump-compressed dumps of a real QEMU', () => {
  it('gives the same memory and CPU states as its ELF', async () => {
    const [zlib, elf] = [join(dir, 'q.kdump'), join(dir, 'q.elf')];
    await dumpWithQemu(buildGuest({ processors: 3 }), zlib, { format: 'kdump-zlib' });
    await dumpWithQemu(buildGuest({ processors: 3 }), elf);
    const [a, b] = [openImage(zlib), openImage(elf)];
    expect([a.format, a.diagnostics.list]).toEqual(['kdump-flattened', []]);
    expect(a.cpus.map((c) => c.registers)).toEqual(b.cpus.map((c) => c.registers));
    expectEqualContents(await contents(a), await contents(b));
    a.close();
    b.close();
  });
});
