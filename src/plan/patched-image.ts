/** Memory as it is once a plan's patches are in it. */
import type { Diagnostics } from '../core/errors.ts';
import { MemoryImage } from '../memory/image.ts';
import type { PhysicalRun } from '../memory/runs.ts';
import { applyPatches, type Patch } from './patches.ts';

/** What of an image is taken, and changed. */
export interface PatchedParts {
  /** Sorted. */
  patches: readonly Patch[];
  /** Sorted, and present in the image. Default: all of it. */
  runs?: readonly PhysicalRun[];
  /** What can't be read has been reported by the image itself. */
  diagnostics: Diagnostics;
}

/** Reads through to `image`, which has to stay open. */
export function patchedImage(
  image: MemoryImage,
  { patches, runs = image.runs, diagnostics }: PatchedParts,
): MemoryImage {
  const patch = ({ start }: PhysicalRun, offset: number, target: Buffer) =>
    applyPatches(patches, start + offset, target);
  const { file, format, machine, cpus, notes, missing, dumpHeader } = image;
  return new MemoryImage({
    ...{ file, format, machine, cpus, notes, missing, dumpHeader, diagnostics },
    contents: {
      kind: 'decoded',
      runs,
      reader: {
        readSync: (run, offset, target) => {
          const sound = image.readSync(run.start + offset, target);
          if (sound) patch(run, offset, target);
          return sound;
        },
        read: async (run, offset, target) => {
          await image.read(run.start + offset, target);
          patch(run, offset, target);
        },
      },
      close: () => undefined,
    },
  });
}
