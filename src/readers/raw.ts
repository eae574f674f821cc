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
    const [first, ...others] = machines.flatMap((machine) =>
      (ranges ? [placed(source, ranges)] : layouts(source.size, machine)).map((runs) => ({
        machine,
        runs,
        arranged: ranges !== undefined,
      })),
    );
    return makeImage(
      source,
      first!,
      others.map((choice) => makeImage(source, choice)),
    );
  });
}

/** Contiguous, as `pmemsave` writes it, and with each hole that fits. */
function layouts(size: number, { ram: { starts, lowEnds } }: Machine): FileRun[][] {
  const splits = lowEnds
    .filter((end) => size > end)
    .map((end) => [
      { start: pa(0), size: end, fileOffset: 0 },
      { start: pa(HIGH_MEMORY), size: size - end, fileOffset: end },
    ]);
  return [...starts.map((start) => [{ start: pa(start), size, fileOffset: 0 }]), ...splits];
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
