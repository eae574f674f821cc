/** Small memory images for unit tests: physical address → bytes, without any file format. */
import { Diagnostics } from '../../src/core/errors.ts';
import { pa } from '../../src/core/units.ts';
import { X64 } from '../../src/machines/x64/index.ts';
import { MemoryImage, type MemoryImageSpec } from '../../src/memory/image.ts';

/** @param more what else the image has */
export function imageOf(
  pieces: readonly { start: number; bytes: Buffer }[],
  more: Partial<MemoryImageSpec> = {},
): MemoryImage {
  const sorted = [...pieces].sort((a, b) => a.start - b.start);
  const bytesAt = new Map(sorted.map((p) => [p.start, p.bytes]));
  const readSync = (run: { start: number }, offset: number, target: Buffer) => {
    bytesAt.get(run.start)!.copy(target, 0, offset, offset + target.length);
    return true;
  };
  return new MemoryImage({
    file: 'test',
    format: 'test',
    machine: X64,
    cpus: [],
    notes: [],
    diagnostics: new Diagnostics(),
    contents: {
      kind: 'decoded',
      runs: sorted.map((p) => ({ start: pa(p.start), size: p.bytes.length })),
      reader: { readSync, read: async (run, offset, target) => void readSync(run, offset, target) },
      close: () => undefined,
    },
    ...more,
  });
}
