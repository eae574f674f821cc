/**
 * Which layout of the same bytes is the machine's. Raw memory says nothing of it, Windows does: its list of its RAM
 * gives the layouts that fit the file's size, and what is reached through each (modules, processes, processors) tells
 * which of them is right. A size alone proves nothing: a copy that begins at 0 and ends early fits wrong layouts too.
 */

import { Elf2dmpError } from '../core/errors.ts';
import { Reason } from '../core/reason.ts';
import { bytes, GIB, hex, MIB, PAGE_SIZE, type PhysicalAddress, pa } from '../core/units.ts';
import type { Machine } from '../machines/machine.ts';
import type { MemoryImage } from '../memory/image.ts';
import { endOf, type FileRun, intersect, sum, without } from '../memory/runs.ts';
import type { Attempt } from '../windows/evidence.ts';
import type { RamRange } from '../windows/physical-memory.ts';
import { readProcesses } from '../windows/processes.ts';
import type { Windows } from '../windows/windows.ts';
import { leadsToWindows, loadedLeadsToWindows } from './place.ts';
import { shiftedRoots } from './shifted-roots.ts';

const LAYOUT_STEP = 'memory layout';

/** Where RAM that has no room below 4 GiB begins. */
const HIGH_MEMORY = 4 * GIB;

/** Roots with a shift that are looked at, and those that lead to SharedUserData and are looked at further. */
const MAX_SHIFTED_ROOTS = 4096;
const MAX_TRIES = 8;

/** What PCs have instead of RAM below 1 MiB, and where their RAM begins for Windows. */
const LEGACY_HOLE = { from: 0xa0000, to: MIB };
const LOW_STARTS = [PAGE_SIZE, 0];

/**
 * Finds Windows in one layout.
 *
 * @param searched the layout whose search of all bytes serves this one too: what a search finds is named by the
 * addresses that memory itself has for it
 */
type Locate = (layout: MemoryImage, searched: MemoryImage) => Promise<Windows>;

/** How Windows is found in layouts. */
export interface LayoutQuestion {
  locate: Locate;
  /** The machine whose Windows memory itself shows first; undefined where there are better witnesses. */
  machineInMemory?: (() => Promise<Machine | undefined>) | undefined;
}

/**
 * Locates Windows in each layout of one machine after the other. Throws the first layout's `Elf2dmpError` when
 * it is in none.
 */
export async function locateInLayouts(
  image: MemoryImage,
  { locate, machineInMemory }: LayoutQuestion,
): Promise<Windows> {
  const images = [image, ...image.alternatives];
  let failure: unknown;
  const machines = [...new Set(images.map((i) => i.machine))];
  // What a CPU has loaded decides, where it leads to Windows: nothing has to be searched for it then.
  const shown = machines.filter((machine) => images.some((i) => i.machine === machine && loadedLeadsToWindows(i)));
  const inMemory = machines.length > 1 && shown.length === 0 ? await machineInMemory?.() : undefined;
  const searches: LayoutSearch[] = [];
  let shifted: ReturnType<typeof shiftedRoots> | undefined;
  // All that can be arranged are readings of the same bytes in one run.
  const shiftedOnce = (first: MemoryImage) => {
    shifted ??= shiftedRoots(first);
    return shifted;
  };
  for (const machine of new Set([...shown, ...(inMemory ? [inMemory] : []), ...machines])) {
    const layouts = images.filter((i) => i.machine === machine);
    try {
      // With one layout, nothing has to choose.
      if (layouts.length === 1 && layouts[0] && !layouts[0].arrange) return await locate(layouts[0], layouts[0]);
      const search = new LayoutSearch(layouts, locate, shiftedOnce);
      const found = await search.find();
      if (found) return found;
      searches.push(search);
    } catch (error) {
      if (!(error instanceof Elf2dmpError) || error.kind === 'aborted') throw error;
      failure ??= error;
    }
  }
  // Costly, so not before every machine had its chance of a layout that is known.
  for (const search of searches) {
    try {
      return await search.run();
    } catch (error) {
      if (!(error instanceof Elf2dmpError) || error.kind === 'aborted') throw error;
      failure ??= error;
    }
  }
  throw failure;
}

/**
 * Finds Windows in a full crash dump whose list of runs may be wrong. Another one is believed if it is Windows' own, has
 * just the pages of the file, and leads to more of what Windows lists than the header's. Throws the `Elf2dmpError` of
 * the dump as it is where there is none.
 */
export async function locateInDump(image: MemoryImage, locate: Locate): Promise<Windows> {
  const { arrange, unlisted } = image;
  if (!arrange) return locate(image, image);
  let found: Windows | undefined;
  let failure: unknown = unlisted;
  try {
    if (!unlisted) found = await locate(image, image);
  } catch (error) {
    if (!(error instanceof Elf2dmpError) || error.kind === 'aborted') throw error;
    failure = error;
  }
  const other = found ? otherRuns(found) : [{ start: pa(0), size: image.size, fileOffset: 0 }];
  if (!other) return found!;
  try {
    const layout = arranged(image, other);
    const windows = found ? await locate(layout, layout) : await new LayoutSearch([layout], locate, shiftedRoots).run();
    if (isWindowsOwn(windows) && (!found || contentsOf(windows) > contentsOf(found))) return windows;
  } catch (error) {
    if (!(error instanceof Elf2dmpError) || error.kind === 'aborted') throw error;
  }
  if (found) return found;
  throw failure;
}

/** Windows' own runs, where they have as many pages as the file and are others than its. */
function otherRuns({ image, physicalMemory: ram }: Windows): FileRun[] | undefined {
  if (ram instanceof Reason || sum(ram) !== image.size) return undefined;
  return without(ram, image.runs).length === 0 ? undefined : oneAfterAnother(ram);
}

/** The image has just what Windows counts as RAM. */
const isWindowsOwn = ({ image, physicalMemory: ram }: Windows): boolean =>
  !(ram instanceof Reason) && sum(ram) === image.size && without(ram, image.runs).length === 0;

/** A layout in which Windows and its list of its RAM were found. */
interface Found {
  windows: Windows;
  ram: readonly RamRange[];
  searched: MemoryImage;
  contents: number;
  misfit: number;
  attempt: Attempt;
}

class LayoutSearch {
  readonly #layouts: readonly MemoryImage[];
  readonly #locate: Locate;
  readonly #tried = new Set<string>();
  readonly #attempts: Attempt[] = [];
  readonly #found: Found[] = [];
  readonly #shiftedRoots: typeof shiftedRoots;
  #failure: unknown;

  constructor(layouts: readonly MemoryImage[], locate: Locate, shifted: typeof shiftedRoots) {
    this.#layouts = layouts;
    this.#locate = locate;
    this.#shiftedRoots = shifted;
  }

  /** In the usual layouts and in those that they lead to; undefined where it is in none. */
  async find(): Promise<Windows | undefined> {
    await this.#tryKnown();
    return this.#found.length > 0 ? this.#best() : undefined;
  }

  /** As `find`, and then in layouts whose page tables would point to themselves. */
  async run(): Promise<Windows> {
    await this.#tryKnown();
    const [first] = this.#layouts;
    if (this.#found.length === 0 && first?.arrange) await this.#tryShifted(first);
    return this.#best();
  }

  async #tryKnown(): Promise<void> {
    const [first, ...others] = this.#layouts;
    await this.#try(first!, first!);
    // Where the list says which layouts fit, the usual ones are no more than guesses.
    if (!(await this.#tryDerived())) {
      for (const layout of others) await this.#try(layout, first!);
      await this.#tryDerived();
    }
  }

  /** Tries the layouts that the lists found so far lead to; false where there are none. */
  async #tryDerived(): Promise<boolean> {
    const derived = this.#found.flatMap(({ windows, ram, searched }) => {
      const { image } = windows;
      if (!image.arrange) return [];
      return layoutsFor(ram, image.size).map((runs) => ({ layout: arranged(image, runs), searched }));
    });
    for (const { layout, searched } of derived) await this.#try(layout, searched);
    return derived.length > 0;
  }

  /** Tries the layouts whose page tables would point to themselves. */
  async #tryShifted(first: MemoryImage): Promise<void> {
    // Roots of other machines have another form.
    if (first.machine.pointerSize !== 8) return;
    let tries = 0;
    for (const { shift, root } of (await this.#shiftedRoots(first)).slice(0, MAX_SHIFTED_ROOTS)) {
      const runs = shiftedLayouts(shift, first.size).find((r) => leadsToWindows(arranged(first, r), root));
      if (!runs) continue;
      if (++tries > MAX_TRIES) return;
      const layout = arranged(first, runs);
      await this.#try(layout, layout);
      await this.#tryDerived();
      if (this.#found.length > 0) return;
    }
  }

  async #try(layout: MemoryImage, searched: MemoryImage): Promise<void> {
    const method = describeLayout(layout);
    if (this.#tried.has(method)) return;
    this.#tried.add(method);
    const attempt: Attempt = { step: LAYOUT_STEP, method, accepted: false, detail: '' };
    this.#attempts.push(attempt);
    try {
      const windows = await this.#locate(layout, searched);
      const { physicalMemory: ram } = windows;
      if (ram instanceof Reason) {
        attempt.detail = "Windows' list of its RAM can't be read through it";
        return;
      }
      const [contents, misfit] = [contentsOf(windows), misfitOf(windows.image, ram)];
      attempt.detail = `${contents} modules, processes and processors are reached; ${bytes(misfit)} differ from what Windows counts as RAM`;
      this.#found.push({ windows, ram, searched, contents, misfit, attempt });
    } catch (error) {
      if (!(error instanceof Elf2dmpError) || error.kind === 'aborted') throw error;
      this.#failure ??= error;
      attempt.detail = error.details.message;
    }
  }

  #best(): Windows {
    const [best, second] = [...this.#found].sort((a, b) => b.contents - a.contents || a.misfit - b.misfit);
    if (best) {
      best.attempt.accepted = true;
      const { windows } = best;
      if (second && second.contents === best.contents) {
        windows.diagnostics.add(
          'warning',
          'layout-doubtful',
          `the layout of the memory can't be told for certain: ${best.attempt.method} was taken, ${second.attempt.method} fits as well${windows.image.arrange ? '; if you know it, give it with --runs' : ''}`,
        );
      }
      return { ...windows, evidence: [...windows.evidence, ...this.#attempts] };
    }
    if (this.#failure !== undefined) throw this.#failure;
    throw new Elf2dmpError({
      code: 'layout-unknown',
      kind: 'corrupt',
      message:
        "Windows was found, but its list of its RAM can't be read, and nothing else says where the hole below 4 GiB is",
      file: this.#layouts[0]!.file,
      attempts: this.#attempts.map(({ method, detail }) => `${method}: ${detail}`),
      hint: 'give the layout: --runs 0+3G,4G for 3 GiB below the hole and the rest from 4 GiB on',
    });
  }
}

/** The image of another layout of the same bytes, which are watched for changes as before. */
function arranged(image: MemoryImage, runs: readonly FileRun[]): MemoryImage {
  const other = image.arrange!(runs);
  other.checkUnchanged = image.checkUnchanged;
  return other;
}

function describeLayout({ runs, arrangement }: MemoryImage): string {
  const text = runs.map(({ start, size }) => `${hex(start)}+${hex(size)}`).join(', ');
  return arrangement === undefined ? text : `${text} (${arrangement})`;
}

/**
 * The layouts of a file of `size` bytes that a list of RAM suggests: RAM without the hole below 4 GiB, as a memory
 * backend has it, and the ranges one after another, as tools write that skip what is not RAM.
 */
export function layoutsFor(ram: readonly RamRange[], size: number): FileRun[][] {
  const layouts: FileRun[][] = [];
  const low = ram.filter(({ start }) => start < HIGH_MEMORY);
  const top = endOf(ram.at(-1)!);
  const lowEnd = size - (top - HIGH_MEMORY);
  if (top > HIGH_MEMORY && low.every((range) => endOf(range) <= lowEnd) && lowEnd > 0 && lowEnd <= HIGH_MEMORY) {
    layouts.push(
      oneAfterAnother([
        { start: pa(0), size: lowEnd },
        { start: pa(HIGH_MEMORY), size: size - lowEnd },
      ]),
    );
  }
  if (sum(ram) === size && ram.length > 1) layouts.push(oneAfterAnother(ram));
  return layouts;
}

/**
 * The layouts of a file of `size` bytes in which a root's address is `shift` higher than in the file: all bytes are, or
 * those behind the legacy hole, or those before it, which then ends anywhere in the 320 KiB below the hole.
 */
function shiftedLayouts(shift: number, size: number): FileRun[][] {
  const skipped = Math.max(0, -shift);
  if (skipped >= size) return [];
  const layouts: FileRun[][] = [[{ start: pa(Math.max(0, shift)), size: size - skipped, fileOffset: skipped }]];
  const split = (lowStart: number, low: number) => {
    if (low <= 0 || low >= size || lowStart + low > LEGACY_HOLE.from) return;
    layouts.push(
      oneAfterAnother([
        { start: pa(lowStart), size: low },
        { start: pa(LEGACY_HOLE.to), size: size - low },
      ]),
    );
  };
  for (const lowStart of LOW_STARTS) {
    split(lowStart, LEGACY_HOLE.to - shift);
    if (shift !== lowStart) continue;
    for (let end = LEGACY_HOLE.from; end >= LEGACY_HOLE.from / 2; end -= PAGE_SIZE) split(lowStart, end - lowStart);
  }
  return layouts;
}

function oneAfterAnother(ranges: readonly { start: PhysicalAddress; size: number }[]): FileRun[] {
  let fileOffset = 0;
  return ranges.map(({ start, size }) => {
    const run = { start, size, fileOffset };
    fileOffset += size;
    return run;
  });
}

const MZ = 0x5a4d;

/** How much of what Windows lists is where a layout says: modules whose header is there, processes, processors. */
function contentsOf({ space, kdbg, modules, processors }: Windows): number {
  const images = modules.filter(({ base }) => space.read(base, 2)?.readUInt16LE() === MZ).length;
  const processes = readProcesses(space, kdbg.fields, processors);
  return images + processors.length + (processes instanceof Reason ? 0 : processes.processes.length);
}

/** Bytes that Windows counts as RAM and the layout lacks, counted double, and those that it has beyond. */
function misfitOf(image: MemoryImage, ram: readonly RamRange[]): number {
  const inside = sum(intersect(ram, image.runs));
  return 2 * (sum(ram) - inside) + image.size - inside;
}
