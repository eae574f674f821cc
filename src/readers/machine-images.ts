/** Images of an input that names a machine which need not be the guest's. */
import type { Machine } from '../machines/machine.ts';
import { MemoryImage, type MemoryImageSpec } from '../memory/image.ts';
import type { InputDiagnostics } from '../memory/input-diagnostics.ts';

/**
 * The image as one of the first machine's, with those of the others as its alternatives: the locator finds out which
 * is right.
 *
 * @param machines at least one
 * @param diagnostics what is to be said of the input, whichever it is of
 */
export function imageOf(
  machines: readonly Machine[],
  diagnostics: InputDiagnostics,
  specOf: (machine: Machine, diagnostics: InputDiagnostics, alternatives: readonly MemoryImage[]) => MemoryImageSpec,
): MemoryImage {
  const [named, ...others] = machines;
  const alternatives = others.map((machine) => {
    const own = diagnostics.copy();
    own.add(
      'note',
      'machine-doubtful',
      `the input says ${named!.title}, which QEMU also writes for a ${machine.title} guest whose CPU 0 is in reset or SMM: its contents decided`,
    );
    return new MemoryImage(specOf(machine, own, []));
  });
  return new MemoryImage(specOf(named!, diagnostics, alternatives));
}
