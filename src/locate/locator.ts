/** Finds Windows in a memory image: page-table root, kernel, KDBG, processors, version, bug check. */

import { isKernelAddress } from '../core/bits.ts';
import { because, Reason } from '../core/reason.ts';
import { hex, hex64, va } from '../core/units.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { CallOptions } from '../options/values.ts';
import { dropDoubtfulFrames } from '../windows/context-frames.ts';
import { matchProcessors } from '../windows/cpu-matching.ts';
import { findCrash } from '../windows/crash.ts';
import { Evidence } from '../windows/evidence.ts';
import { heedHost } from '../windows/host-witness.ts';
import type { Kdbg } from '../windows/kdbg.ts';
import { sizeDoubt, withoutDamagedFields } from '../windows/kdbg-fields.ts';
import type { KernelImage } from '../windows/kernel-image.ts';
import { moduleDoubts, readModules } from '../windows/modules.ts';
import { missingRam, type RamRange, readPhysicalMemoryBlock } from '../windows/physical-memory.ts';
import { processorLosses, traceProcessors } from '../windows/processor-facts.ts';
import { findAllProcessors, readDumpedCpus } from '../windows/processors.ts';
import { selfMapAt } from '../windows/self-map.ts';
import { unlistedImages } from '../windows/unlisted-images.ts';
import { findVersion } from '../windows/version.ts';
import type { Windows } from '../windows/windows.ts';
import { failure, withoutKdbg } from './failures.ts';
import { checkKdbg, findKdbg } from './kdbg.ts';
import { locateInDump, locateInLayouts } from './layouts.ts';
import { MemorySearch } from './memory-search.ts';
import { findPlace, type Search } from './place.ts';
import { ReadingSearches } from './reading-searches.ts';
import { headerRoot, ROOT_STEP, rootForHeader, seenByCpus } from './roots.ts';
import { locateInTriage } from './triage.ts';
import {
  compareNote,
  NOTE_STEP,
  notedKdbg,
  notedRam,
  plainBlockAt,
  readWindowsNote,
  type WindowsNote,
} from './windows-note.ts';

/** What the caller knows, and how it follows a long search. */
export interface LocateOptions extends CallOptions<'locate'> {
  /** Ends a search of memory early. */
  signal?: AbortSignal | undefined;
  /** Called during a search of all memory with bytes searched so far and in all. */
  onSearch?: ((done: number, total: number) => void) | undefined;
}

/**
 * Throws `Elf2dmpError` (kind `unsupported` or `corrupt`) with every attempt listed when Windows is not
 * found. Where the image has alternatives, the result's `image` is the one that is right.
 */
export async function locateWindows(image: MemoryImage, options: LocateOptions = {}): Promise<Windows> {
  if (image.triage && image.dumpHeader) return locateInTriage(image, image.triage, image.dumpHeader);
  if (image.dumpHeader) return locateInDump(image, (layout) => locateIn(layout, options));
  if (image.alternatives.length === 0 && !image.arrange) return locateIn(image, options);
  const searches = new ReadingSearches([image, ...image.alternatives], options);
  return locateInLayouts(image, {
    locate: (layout, searched) => locateIn(layout, options, searches.of(searched)),
    // A search has nothing to say where registers or a note may, or the caller does.
    machineInMemory:
      options.dtb === undefined && image.cpus.length === 0 && image.notes.length === 0
        ? () => searches.firstMachine()
        : undefined,
  });
}

/** The first few. */
const listed = (texts: readonly string[]): string =>
  `${texts.slice(0, 5).join('; ')}${texts.length > 5 ? `; and ${texts.length - 5} more` : ''}`;

/** A search of one image's memory, begun when it is first needed. */
function searchOf(image: MemoryImage, options: LocateOptions): Search {
  let search: MemorySearch | undefined;
  return (enough) => {
    search ??= new MemorySearch([image], options);
    return search.run(enough);
  };
}

async function locateIn(
  image: MemoryImage,
  options: LocateOptions,
  search: Search = searchOf(image, options),
): Promise<Windows> {
  const evidence = new Evidence();
  const { diagnostics } = image;
  const note = readWindowsNote(image, evidence);
  const { dtb, kernelBase } = options;
  const { space: found, shared, kernel } = await findPlace({ image, dtb, kernelBase, note, evidence, search });
  const block =
    findKdbg(found, kernel, evidence) ??
    kdbgOfNote(found, kernel, note, evidence) ??
    kdbgOfHeader(found, kernel, evidence);
  if (!block) throw withoutKdbg(image, { shared, kernel, evidence });
  const { kdbg, losses } = withoutDamagedFields(found, kernel, block);
  diagnostics.addAll(losses);
  const { processors, bad: damagedProcessors } = findAllProcessors(found, kdbg.fields);
  const strayCpus = matchProcessors(processors, image.cpus, found, kdbg.fields);
  if (image.dumpHeader) readDumpedCpus(found, processors);
  const space = seenByCpus(found, processors);
  traceSelfMap(space, kdbg, evidence);
  const traced = { image, kdbg, shared, processors, damagedProcessors, strayCpus };
  traceProcessors(traced, evidence);
  for (const { severity, code, message, where } of processorLosses(traced))
    diagnostics.add(severity, code, message, where);
  const version = findVersion({ space, kernel, kdbg, processors, shared }, evidence);
  if (!version) {
    throw failure(image, evidence, 'Windows version', {
      code: 'version-not-found',
      message: 'the kernel was found, but its build number was not',
    });
  }
  const oddSize = sizeDoubt(kdbg, version.build);
  if (oddSize !== undefined) {
    diagnostics.add(
      'warning',
      'kdbg-size-doubtful',
      `Size in the KDBG at ${hex64(kdbg.address)} is ${hex(kdbg.size)}, but ${oddSize}: fields may be missing, or not be its own`,
    );
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
  const doubts = [
    ...moduleDoubts(space, kernel, loaded),
    ...(modules?.broken === undefined
      ? unlistedImages({ space, kernel, processors, modules: loaded, head: kdbg.fields.PsLoadedModuleList })
      : []),
  ];
  if (doubts.length > 0) {
    diagnostics.add(
      'warning',
      'modules-doubtful',
      `the list of loaded modules and the images in memory disagree: ${listed(doubts)}`,
    );
  }
  dropDoubtfulFrames({ space, kdbg, processors, modules: loaded });
  const crash = findCrash({ space, kernel, kdbg, modules: loaded, processors }, evidence);
  if (image.host) {
    heedHost(image.host, { bugCheck: crash?.bugCheck, build: version.build }, { diagnostics, evidence });
  }
  const physicalMemory = findPhysicalMemory({ space, shared, kernel, kdbg, processors }, note, evidence);
  const missing = physicalMemory instanceof Reason ? undefined : missingRam(image, physicalMemory);
  if (missing !== undefined) diagnostics.add('loss', 'ram-missing', missing);
  const windows = {
    image,
    space,
    root: space.root,
    headerRoot: headerRoot(rootForHeader({ space, kernel, kdbg, processors }, crash), diagnostics),
    kernel,
    kdbg,
    version,
    shared,
    crash,
    processors,
    damagedProcessors,
    strayCpus,
    modules: loaded,
    physicalMemory,
    diagnostics,
  };
  if (note) compareNote(note, windows, evidence);
  return { ...windows, evidence: evidence.attempts };
}

/** Evidence for the root, or against it, by what the KDBG says of the page tables. */
function traceSelfMap(space: AddressSpace, { fields }: Kdbg, evidence: Evidence): void {
  const entry = selfMapAt(space, fields.PteBase);
  if (!entry) return;
  const method = `PteBase in the KDBG, ${hex64(fields.PteBase ?? 0n)}`;
  const where = `entry ${entry.index} of the root at ${hex(space.root)}`;
  if (entry.leadsBack) evidence.accept(ROOT_STEP, method, `${where} leads back to it: the self-map`);
  else evidence.reject(ROOT_STEP, method, `${where} does not lead back to it`);
}

function kdbgOfNote(
  space: AddressSpace,
  kernel: KernelImage,
  note: WindowsNote | undefined,
  evidence: Evidence,
): Kdbg | undefined {
  if (!note) return undefined;
  const found = notedKdbg(space, note);
  const kdbg = checkKdbg(space, kernel, { kdbg: found, method: `the copy that the ${NOTE_STEP} names` }, evidence);
  if (kdbg) {
    space.image.diagnostics.add(
      'warning',
      'kdbg-copy-used',
      `the kernel's own KDBG was not found: the dump uses the copy at ${hex64(kdbg.address)}, which the ${NOTE_STEP} names`,
      { virtual: hex64(kdbg.address) },
    );
  }
  return kdbg;
}

/** The block that a crash dump's header names, which need not be in the kernel's image. */
function kdbgOfHeader(space: AddressSpace, kernel: KernelImage, evidence: Evidence): Kdbg | undefined {
  const address = space.image.dumpHeader?.KdDebuggerDataBlock;
  if (address === undefined || !isKernelAddress(address)) return undefined;
  const question = { kdbg: plainBlockAt(space, va(address)), method: "the block that the dump's header names" };
  return checkKdbg(space, kernel, question, evidence);
}

function findPhysicalMemory(
  { space, shared, kernel, kdbg, processors }: Pick<Windows, 'space' | 'shared' | 'kernel' | 'kdbg' | 'processors'>,
  note: WindowsNote | undefined,
  evidence: Evidence,
): readonly RamRange[] | Reason {
  const block = readPhysicalMemoryBlock(space, kdbg.fields.MmPhysicalMemoryBlock);
  if (!(block instanceof Reason) || !note) return block;
  const pages = [space.image.machine.sharedUserData, kernel.base, kdbg.address, ...processors.map(({ prcb }) => prcb)];
  const used = [space.root, ...pages.flatMap((address) => space.translate(address) ?? [])];
  const noted = notedRam(note, { form: space.image.machine.dumpHeader, used, total: shared.physicalPages });
  evidence.reject('physical memory', 'MmPhysicalMemoryBlock', block.text);
  if (noted instanceof Reason) return because(`${block}; ${NOTE_STEP}: ${noted}`);
  evidence.accept('physical memory', NOTE_STEP, `${noted.length} runs`);
  return noted;
}
