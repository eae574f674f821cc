import { expect, it } from 'vitest';
import { pa } from '../../src/core/units.ts';
import { HoleMap } from '../../src/files/holes.ts';
import { MACHINES } from '../../src/machines/index.ts';
import { holesIn, isHole } from '../../src/memory/holes.ts';
import { MemoryImage } from '../../src/memory/image.ts';
import { InputDiagnostics } from '../../src/memory/input-diagnostics.ts';
import { BufferSource } from '../../src/source/buffer.ts';

it('memory in holes of a file is known by physical address', () => {
  // Two runs, the second of which lies first in the file.
  const runs = [
    { start: pa(0x10000), size: 0x8000, fileOffset: 0x9000 },
    { start: pa(0x20000), size: 0x8000, fileOffset: 0x1000 },
  ];
  const source = Object.assign(new BufferSource(Buffer.alloc(0x20000)), { fd: 99 });
  const diagnostics = new InputDiagnostics();
  const image = new MemoryImage({
    ...{ file: 'x', format: 'raw', machine: MACHINES[0]!, cpus: [], notes: [], diagnostics },
    contents: { kind: 'stored', runs, source },
  });
  const holes = HoleMap.of(0x20000, [
    { from: 0x2000, to: 0x4000 },
    { from: 0x5000, to: 0xa000 },
  ]);
  expect([...holesIn(image, holes, 0x20000, 0x8000)]).toEqual([
    { from: 0x21000, to: 0x23000 },
    { from: 0x24000, to: 0x28000 },
  ]);
  const hole = (from: number, size: number) => isHole(image, holes, from, size);
  expect([hole(0x21000, 0x2000), hole(0x22000, 0x800), hole(0x24000, 0x4000), hole(0x10000, 0x1000)]).toEqual([
    true,
    true,
    true,
    true,
  ]);
  // Data before, after and between, and what is in no run.
  expect([hole(0x20000, 0x2000), hole(0x22000, 0x2000), hole(0x21000, 0x4000), hole(0x27000, 0x2000)]).toEqual([
    false,
    false,
    false,
    false,
  ]);
  expect(hole(0x30000, 0x1000)).toBe(false);
});
