/** Runs whose bytes lie in the input as they are. */
import type { PhysicalRun, RunReader } from '../memory/image.ts';
import type { ByteSource } from '../source/source.ts';

/** Each run has a `fileOffset`. */
export function runReader(source: ByteSource): RunReader {
  const at = (run: PhysicalRun, offset: number) => run.fileOffset! + offset;
  return {
    readSync: (run, offset, target) => {
      source.readSync(at(run, offset), target);
      return true;
    },
    read: (run, offset, target) => source.read(at(run, offset), target),
  };
}
