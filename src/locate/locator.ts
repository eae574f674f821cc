/** Finds Windows in a memory image: page-table root, kernel, KDBG, processors, version, bug check. */

import { Elf2dmpError } from '../core/errors.ts';
import { because, Reason } from '../core/reason.ts';
import { bytes, hex, hex64, pa } from '../core/units.ts';
import type { Machine } from '../machines/machine.ts';
import { AddressSpace } from '../memory/address-space.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { CallOptions } from '../options/values.ts';
import { dropDoubtfulFrames } from '../windows/context-frames.ts';
import { findCrash } from '../windows/crash.ts';
import { Evidence } from '../windows/evidence.ts';
import type { Kdbg } from '../windows/kdbg.ts';
import type { KernelImage } from '../windows/kernel-image.ts';
import { readModules } from '../windows/modules.ts';
import { type RamRange, readPhysicalMemoryBlock } from '../windows/physical-memory.ts';
import { findProcessors, matchProcessors, readDumpedCpus, reportProcessors } from '../windows/processors.ts';
import { readSharedUserData, type SharedData } from '../windows/shared-user-data.ts';
import { findVersion } from '../windows/version.ts';
import type { Windows } from '../windows/windows.ts';
import { addressesFromCpus, addressesFromSearch } from './code-addresses.ts';
import { checkKdbg, findKdbg, KDBG_STEP } from './kdbg.ts';
import { type CodeAddress, describeKernel, findKernel, KERNEL_STEP, kernelAt } from './kernel.ts';
import { locateInLayouts } from './layouts.ts';
import { type SearchResult, searchMemory } from './memory-search.ts';
import { recogniseOtherSystem } from './other-systems.ts';
import { recoverKernel } from './recover-kernel.ts';
import {
  dumpHeaderRoot,
  foundRoots,
  givenRoot,
  headerRoot,
  loadedRoots,
  ROOT_STEP,
  type RootCandidate,
  shadowedRoots,
} from './roots.ts';
import {
  addressesFromNote,
  compareNote,
  NOTE_STEP,
  notedKdbg,
  notedRam,
  notedRoots,
  readWindowsNote,
  type WindowsNote,
} from './windows-note.ts';

export interface LocateOptions extends CallOptions<'locate'> {
  /** Ends a search of memory early. */
  signal?: AbortSignal | undefined;
  /** Called during a search of all memory with bytes searched so far and in all. */
  onSearch?: ((done: number, total: number) => void) | undefined;
}

/** Roots that lead to SharedUserData but to no kernel, looked at further: processes of one system share its kernel. */
const MAX_ROOTS = 8;

/**
 * Throws `Elf2dmpError` (kind `unsupported` or `corrupt`) with every attempt listed when Windows is not
 * found. Where the image has alternatives, the result's `image` is the one that is right.
 */
export async function locateWindows(image: MemoryImage, options: LocateOptions = {}): Promise<Windows> {
  if (image.alternatives.length === 0) return locateIn(image, options);
  // The bytes are the same in each: one search per machine does. Tables that point to themselves are found up to the hole.
  const searched = new Map<Machine, Promise<SearchResult>>();
  return locateInLayouts(image, (layout) =>
    locateIn(layout, options, () => {
      const search = searched.get(layout.machine) ?? searchMemory(layout, options);
      searched.set(layout.machine, search);
      return search;
    }),
  );
}

async function locateIn(
  image: MemoryImage,
  options: LocateOptions,
  search: () => Promise<SearchResult> = () => searchMemory(image, options),
): Promise<Windows> {
  const evidence = new Evidence();
  const { diagnostics } = image;
  const note = readWindowsNote(image, evidence);
  const { space, shared, kernel } = await findRootAndKernel(image, options, note, search, evidence);
  const kdbg = findKdbg(space, kernel, evidence) ?? kdbgOfNote(space, kernel, note, evidence);
  if (!kdbg) {
    throw failure(image, evidence, KDBG_STEP, {
      code: 'kdbg-not-found',
      message: `the kernel is at ${hex64(kernel.base)}, but its debugger data block (KDBG) was not found`,
    });
  }
  const { processors, bad } = findProcessors(space, kdbg.fields);
  const strayCpus = matchProcessors(processors, image.cpus, space, kdbg.fields);
  if (image.dumpHeader) readDumpedCpus(space, processors);
  const cpuCount = image.dumpHeader ? processors.filter((p) => p.cpu).length : image.cpus.length;
  reportProcessors(image.machine, processors, bad, strayCpus, cpuCount, kdbg, evidence, diagnostics);
  const version = findVersion(space, kernel, kdbg, processors, shared, evidence, diagnostics);
  if (!version) {
    throw failure(image, evidence, 'Windows version', {
      code: 'version-not-found',
      message: 'the kernel was found, but nothing tells its build',
    });
  }
  const modules =
    kdbg.fields.PsLoadedModuleList === undefined ? undefined : readModules(space, kdbg.fields.PsLoadedModuleList);
  if (modules?.broken) {
    diagnostics.add(
      'loss',
      'modules-broken',
      `the list of loaded modules is broken: ${modules.broken}; ${modules.modules.length} modules can be reached`,
    );
  }
  const loaded = modules?.modules ?? [];
  dropDoubtfulFrames(space, kdbg, processors, loaded);
  const windows = {
    image,
    space,
    root: space.root,
    headerRoot: headerRoot(space, diagnostics),
    kernel,
    kdbg,
    version,
    shared,
    crash: findCrash({ space, kernel, kdbg, modules: loaded, processors }, evidence),
    processors,
    strayCpus,
    modules: loaded,
    physicalMemory: findPhysicalMemory(space, kdbg, note, evidence),
    diagnostics,
  };
  if (note) compareNote(note, windows, evidence);
  return { ...windows, evidence: evidence.attempts };
}

function kdbgOfNote(
  space: AddressSpace,
  kernel: KernelImage,
  note: WindowsNote | undefined,
  evidence: Evidence,
): Kdbg | undefined {
  if (!note) return undefined;
  const kdbg = notedKdbg(space, note);
  return checkKdbg(space, kernel, kdbg, `the copy that the ${NOTE_STEP} names`, evidence);
}

function findPhysicalMemory(
  space: AddressSpace,
  kdbg: Kdbg,
  note: WindowsNote | undefined,
  evidence: Evidence,
): readonly RamRange[] | Reason {
  const block = readPhysicalMemoryBlock(space, kdbg.fields.MmPhysicalMemoryBlock);
  if (!(block instanceof Reason) || !note) return block;
  const noted = notedRam(note);
  evidence.reject('physical memory', 'MmPhysicalMemoryBlock', block.text);
  if (noted instanceof Reason) return because(`${block}; ${NOTE_STEP}: ${noted}`);
  evidence.accept('physical memory', NOTE_STEP, `${noted.length} runs`);
  return noted;
}

interface Place {
  space: AddressSpace;
  shared: SharedData;
  kernel: KernelImage;
}

/** Root and kernel as the CPUs tell them; only where that fails, as a search of all memory does. */
async function findRootAndKernel(
  image: MemoryImage,
  options: LocateOptions,
  note: WindowsNote | undefined,
  search: () => Promise<SearchResult>,
  evidence: Evidence,
): Promise<Place> {
  const roots = new Map<string, { space: AddressSpace; shared: SharedData }>();
  const near = function* (space: AddressSpace) {
    yield* addressesFromCpus(space, evidence);
    yield* addressesFromNote(space, note);
  };
  const direct = tryRoots(image, nearRoots(image, options, note, evidence), near, options, roots, evidence);
  if (direct) return direct;
  if (options.dtb === undefined || options.kernelBase === undefined) {
    const result = await search();
    evidence.reject(
      ROOT_STEP,
      'search of memory',
      `${bytes(result.bytes)} searched: ${result.roots.length} tables could be a root, ${result.kpcrs.length} pages a KPCR`,
    );
    const far = (space: AddressSpace) => addressesFromSearch(space, result, evidence);
    for (const { space, shared } of roots.values()) {
      const kernel = options.kernelBase === undefined ? locateKernel(space, () => far(space), evidence) : undefined;
      if (kernel) return { space, shared, kernel };
    }
    const candidates = options.dtb === undefined ? foundRoots(image, result.roots) : [];
    const both = function* (space: AddressSpace) {
      yield* near(space);
      yield* far(space);
    };
    const found = tryRoots(image, candidates, both, options, roots, evidence);
    if (found) return found;
  }
  throw notFound(image, roots, evidence);
}

function nearRoots(
  image: MemoryImage,
  options: LocateOptions,
  note: WindowsNote | undefined,
  evidence: Evidence,
): Iterable<RootCandidate> {
  if (options.dtb !== undefined) return givenRoot(image, options.dtb);
  if (image.dumpHeader) return dumpHeaderRoot(image);
  return (function* () {
    yield* loadedRoots(image, evidence);
    yield* shadowedRoots(image, evidence);
    yield* notedRoots(image, note);
  })();
}

/** The first candidate through which SharedUserData and a kernel are found. Adds those that lack only the kernel to `roots`. */
function tryRoots(
  image: MemoryImage,
  candidates: Iterable<RootCandidate>,
  addresses: (space: AddressSpace) => Iterable<CodeAddress>,
  options: LocateOptions,
  roots: Map<string, { space: AddressSpace; shared: SharedData }>,
  evidence: Evidence,
): Place | undefined {
  const lacking: Omit<Place, 'kernel'>[] = [];
  for (const { tables, method } of candidates) {
    const key = `${tables.root} ${tables.mode.name}`;
    if (roots.has(key)) continue;
    const space = new AddressSpace(image, pa(tables.root), tables.mode);
    const label = `${method}, ${hex(tables.root)}`;
    const shared = readSharedUserData(space);
    if (shared instanceof Reason) {
      evidence.reject(ROOT_STEP, label, shared.text);
      continue;
    }
    evidence.accept(
      ROOT_STEP,
      label,
      `SharedUserData is there through ${tables.mode.name} tables: NT ${shared.ntMajorVersion}.${shared.ntMinorVersion}, ${JSON.stringify(shared.systemRoot)}`,
    );
    const kernel =
      options.kernelBase === undefined
        ? findKernel(space, addresses(space), evidence)
        : givenKernel(space, options.kernelBase, evidence);
    if (kernel) return { space, shared, kernel };
    roots.set(key, { space, shared });
    lacking.push({ space, shared });
    if (roots.size >= MAX_ROOTS) break;
  }
  if (options.kernelBase !== undefined) return undefined;
  // Costly, so not before every root had its chance of a kernel whose header is there.
  for (const { space, shared } of lacking) {
    const kernel = recoverKernel(space, addresses(space), evidence, image.diagnostics);
    if (kernel) return { space, shared, kernel };
  }
  return undefined;
}

function notFound(
  image: MemoryImage,
  roots: ReadonlyMap<string, { space: AddressSpace }>,
  evidence: Evidence,
): Elf2dmpError {
  const [first] = roots.values();
  if (first) {
    return failure(image, evidence, KERNEL_STEP, {
      code: 'kernel-not-found',
      message: `Windows' page tables are at physical ${hex(first.space.root)}, but its kernel image was not found`,
    });
  }
  const other = recogniseOtherSystem(image);
  if (other) {
    return new Elf2dmpError({
      code: other.code,
      kind: 'unsupported',
      message: other.what,
      file: image.file,
      hint: other.hint,
      attempts: evidence.failures(ROOT_STEP),
    });
  }
  return failure(image, evidence, ROOT_STEP, {
    code: 'windows-not-found',
    message:
      image.format === 'raw'
        ? 'taken as raw memory (it has no header that elf2dmp knows), it shows no Windows: no page tables lead to SharedUserData'
        : 'no Windows was found in this dump: no page tables lead to SharedUserData',
  });
}

function locateKernel(
  space: AddressSpace,
  addresses: () => Iterable<CodeAddress>,
  evidence: Evidence,
): KernelImage | undefined {
  return (
    findKernel(space, addresses(), evidence) ?? recoverKernel(space, addresses(), evidence, space.image.diagnostics)
  );
}

function givenKernel(space: AddressSpace, base: bigint, evidence: Evidence): KernelImage | undefined {
  const kernel = kernelAt(space, base);
  const method = `the base given, ${hex64(base)}`;
  if (kernel instanceof Reason) {
    evidence.reject(KERNEL_STEP, method, kernel.text);
    return undefined;
  }
  evidence.accept(KERNEL_STEP, method, describeKernel(kernel));
  return kernel;
}

const HINTS: Record<string, string> = {
  [ROOT_STEP]:
    'is it a 64-bit Windows guest that had left its boot loader? if you know the page-table root, give --dtb',
  [KERNEL_STEP]: 'the memory may be damaged; if you know where the kernel is, give --kernel-base',
  [KDBG_STEP]:
    'without the KDBG no debugger finds processors and modules: the memory is damaged, or it is a kernel that elf2dmp does not know (please report it)',
};

function failure(
  image: MemoryImage,
  evidence: Evidence,
  step: string,
  details: { code: 'windows-not-found' | 'kernel-not-found' | 'kdbg-not-found' | 'version-not-found'; message: string },
): Elf2dmpError {
  const truncated = image.diagnostics.list.find((d) => d.code === 'input-truncated' || d.code === 'memory-absent');
  const context = {
    file: image.file,
    message: truncated ? `${details.message}; ${truncated.message}` : details.message,
    attempts: evidence.failures(step),
    hint: truncated ? 'make a new dump: what is left of this one does not hold the kernel' : HINTS[step],
  };
  const { code } = details;
  // A file that lacks memory may well be of Windows: that is damage, not another system.
  return code === 'windows-not-found' && !truncated
    ? new Elf2dmpError({ ...context, code, kind: 'unsupported' })
    : new Elf2dmpError({ ...context, code, kind: 'corrupt' });
}
