/** Which of several layouts of the same bytes is the machine's: the one that Windows' own list of its RAM fits. */

import { Elf2dmpError } from '../core/errors.ts';
import { Reason } from '../core/reason.ts';
import { bytes, hex } from '../core/units.ts';
import type { MemoryImage } from '../memory/image.ts';
import { intersect, sum } from '../memory/runs.ts';
import type { Attempt } from '../windows/evidence.ts';
import type { Windows } from '../windows/windows.ts';

const LAYOUT_STEP = 'memory layout';

type Locate = (image: MemoryImage) => Promise<Windows>;

/**
 * Locates Windows in each layout of one machine after the other. Throws the first layout's `Elf2dmpError` when
 * it is in none.
 *
 * @param locate as `locateWindows`, in one layout
 */
export async function locateInLayouts(image: MemoryImage, locate: Locate): Promise<Windows> {
  const images = [image, ...image.alternatives];
  let failure: unknown;
  for (const machine of new Set(images.map((i) => i.machine))) {
    const layouts = images.filter((i) => i.machine === machine);
    try {
      return await locateInMachine(layouts, locate);
    } catch (error) {
      if (!(error instanceof Elf2dmpError) || error.kind === 'aborted') throw error;
      failure ??= error;
    }
  }
  throw failure;
}

async function locateInMachine(layouts: readonly MemoryImage[], locate: Locate): Promise<Windows> {
  const [image] = layouts;
  // With one layout, nothing has to choose.
  if (image && layouts.length === 1) return locate(image);
  let best: { windows: Windows; misfit: number; attempt: Attempt } | undefined;
  let failure: unknown;
  const attempts: Attempt[] = [];
  const reject = (method: string, detail: string): Attempt => {
    const attempt = { step: LAYOUT_STEP, method, accepted: false, detail };
    attempts.push(attempt);
    return attempt;
  };
  for (const layout of layouts) {
    const method = layout.runs.map(({ start, size }) => `${hex(start)}+${hex(size)}`).join(', ');
    try {
      const windows = await locate(layout);
      const misfit = misfitOf(windows);
      if (misfit === undefined) {
        reject(method, "Windows' list of its RAM can't be read through it");
        continue;
      }
      const attempt = reject(method, `${bytes(misfit)} differ from what Windows counts as RAM`);
      if (best === undefined || misfit < best.misfit) best = { windows, misfit, attempt };
    } catch (error) {
      if (!(error instanceof Elf2dmpError) || error.kind === 'aborted') throw error;
      failure ??= error;
      reject(method, error.details.message);
    }
  }
  if (best) {
    best.attempt.accepted = true;
    return { ...best.windows, evidence: [...best.windows.evidence, ...attempts] };
  }
  if (failure !== undefined) throw failure;
  throw new Elf2dmpError({
    code: 'layout-unknown',
    kind: 'corrupt',
    message:
      "Windows was found, but its list of its RAM can't be read, and nothing else says where the hole below 4 GiB is",
    file: image?.file,
    attempts: attempts.map(({ method, detail }) => `${method}: ${detail}`),
    hint: 'give the layout: --runs 0+3G,4G for 3 GiB below the hole and the rest from 4 GiB on',
  });
}

/** Bytes that Windows counts as RAM and the layout lacks, counted double, and those that it has beyond. */
function misfitOf({ image, physicalMemory }: Windows): number | undefined {
  if (physicalMemory instanceof Reason) return undefined;
  const inside = sum(intersect(physicalMemory, image.runs));
  return 2 * (sum(physicalMemory) - inside) + image.size - inside;
}
