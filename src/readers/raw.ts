/**
 * Raw physical memory: QEMU's `pmemsave`, a memory-backend file, a hypervisor's flat memory file. It has
 * no header and no CPU states, and nothing in it says where the hole below 4 GiB is.
 */
import { Elf2dmpError } from '../core/errors.ts';
import { bytes, GIB, hex, PAGE_SIZE, pa } from '../core/units.ts';
import { MACHINES } from '../machines/index.ts';
import type { Machine } from '../machines/machine.ts';
import { MemoryImage } from '../memory/image.ts';
import { InputDiagnostics } from '../memory/input-diagnostics.ts';
import { type FileRun, firstOverlap } from '../memory/runs.ts';
import type { RawRange } from '../options/values.ts';
import type { ByteSource } from '../source/source.ts';
import { closing } from './reader.ts';

/**
 * Where machines end their low memory when there is more: the rest is put at 4 GiB. QEMU's pc (3 GiB,
 * and 3.5 where max-ram-below-4g says so) and q35 (2 GiB; 2.75 with up to that much), as
 * hw/i386/pc_piix.c and pc_q35.c have it; other hypervisors use 3 to 3.75 GiB.
 */
const LOW_MEMORY_ENDS = [0xc000_0000, 0x8000_0000, 0xb000_0000, 0xe000_0000, 0xf000_0000] as const;
const HIGH_MEMORY = 4 * GIB;

/** Smaller files cannot be a machine's memory. */
export const MIN_RAW_SIZE = 1024 * 1024;

/**
 * Nothing says of which machine it is either: the image has an alternative for each machine and each layout
 * that fits, and the locator finds out which is right.
 *
 * @param ranges the layout, if the caller knows it
 * @param machines in the order in which they are tried
 */
export function openRaw(
  source: ByteSource,
  ranges?: readonly RawRange[],
  machines: readonly Machine[] = MACHINES,
): MemoryImage {
  return closing(source, () => {
    const known = ranges ? [placed(source, ranges)] : layouts(source.size);
    const [first, ...others] = machines.flatMap((machine) =>
      known.map((runs) => ({ machine, runs, arranged: ranges !== undefined })),
    );
    return makeImage(
      source,
      first!,
      others.map((choice) => makeImage(source, choice)),
    );
  });
}

/** Contiguous, as `pmemsave 0 SIZE` writes it, and with each hole that fits. */
function layouts(size: number): FileRun[][] {
  const splits = LOW_MEMORY_ENDS.filter((end) => size > end).map((end) => [
    { start: pa(0), size: end, fileOffset: 0 },
    { start: pa(HIGH_MEMORY), size: size - end, fileOffset: end },
  ]);
  return [[{ start: pa(0), size, fileOffset: 0 }], ...splits];
}

function placed(source: ByteSource, ranges: readonly RawRange[]): FileRun[] {
  const runs: FileRun[] = [];
  let fileOffset = 0;
  for (const { start, size = source.size - fileOffset } of ranges) {
    if (size <= 0 || fileOffset + size > source.size) {
      throw runsError(source, `${hex(fileOffset + size)} bytes for the ranges up to ${hex(start)}`);
    }
    runs.push({ start: pa(start), size, fileOffset });
    fileOffset += size;
  }
  if (fileOffset < source.size) throw runsError(source, `ranges of ${hex(fileOffset)} bytes`);
  runs.sort((a, b) => a.start - b.start);
  const overlap = firstOverlap(runs);
  if (overlap) throw runsError(source, `two ranges that hold ${hex(overlap.range.start)}`);
  return runs;
}

const runsError = (source: ByteSource, actual: string) =>
  new Elf2dmpError({
    code: 'raw-runs',
    kind: 'usage',
    message: 'the ranges of --runs do not fit the file',
    file: source.name,
    expected: `disjoint ranges of ${hex(source.size)} bytes together (${bytes(source.size)})`,
    actual,
  });

function makeImage(
  source: ByteSource,
  { machine, runs, arranged }: { machine: Machine; runs: readonly FileRun[]; arranged: boolean },
  alternatives: MemoryImage[] = [],
): MemoryImage {
  const diagnostics = new InputDiagnostics();
  if (source.size % PAGE_SIZE !== 0) {
    // Not cut off for certain: nothing says how long it should be, or that it is memory at all.
    diagnostics.add(
      'warning',
      'raw-odd-size',
      `raw memory of ${hex(source.size)} bytes, which is not a whole number of pages: it is cut off, or it is not raw memory`,
    );
  }
  return new MemoryImage({
    file: source.name,
    format: 'raw',
    machine,
    contents: { kind: 'stored', runs, source },
    cpus: [],
    notes: [],
    diagnostics,
    missing: diagnostics.missing,
    alternatives,
    arrange: arranged ? undefined : (other) => makeImage(source, { machine, runs: other, arranged: false }),
  });
}
