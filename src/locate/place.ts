/** Where Windows is: a page-table root through which SharedUserData and a kernel are found. */
import { widened } from '../core/bits.ts';
import { Reason } from '../core/reason.ts';
import { bytes, hex, hex64, type PhysicalAddress, pa } from '../core/units.ts';
import type { RootClue } from '../machines/page-search.ts';
import { AddressSpace } from '../memory/address-space.ts';
import type { MemoryImage } from '../memory/image.ts';
import { Evidence } from '../windows/evidence.ts';
import type { KernelImage } from '../windows/kernel-image.ts';
import { readSharedUserData, readUnsetSharedUserData, type SharedData } from '../windows/shared-user-data.ts';
import { addressesFromCpus, addressesFromSearch } from './code-addresses.ts';
import { notFound } from './failures.ts';
import { findKdbg } from './kdbg.ts';
import { type CodeAddress, describeKernel, findKernel, KERNEL_STEP, kernelAt, kernelsAmongImages } from './kernel.ts';
import type { SearchResult } from './memory-search.ts';
import { recoverKernel } from './recover-kernel.ts';
import {
  dumpHeaderRoot,
  foundRoots,
  givenRoot,
  loadedRoots,
  ROOT_STEP,
  type RootCandidate,
  shadowedRoots,
} from './roots.ts';
import { addressesFromNote, notedRoots, type WindowsNote } from './windows-note.ts';

/** A root through which SharedUserData is found. */
interface Rooted {
  space: AddressSpace;
  shared: SharedData;
}

/** Windows' kernel and the address space that it was found in. */
export interface Place extends Rooted {
  kernel: KernelImage;
}

/**
 * Searches memory on, until a root is good enough or to the end, and gives all that was found so far. Costly, so
 * only when nothing else led anywhere.
 */
export type Search = (enough?: (clue: RootClue) => boolean) => Promise<SearchResult>;

/** What is known before the search for it, and how to search all memory. */
export interface PlaceQuestion {
  image: MemoryImage;
  /** The root that the caller names. */
  dtb?: number | undefined;
  /** The kernel's base that the caller names. */
  kernelBase?: bigint | undefined;
  note: WindowsNote | undefined;
  evidence: Evidence;
  search: Search;
}

/** Roots that lead to SharedUserData but to no kernel, looked at further: processes of one system share its kernel. */
const MAX_ROOTS = 8;

/** Systems in one memory: the running one, and what earlier boots left. */
const MAX_SYSTEMS = 8;

/** The place, by what the CPUs' registers say; where that fails, by a search of all memory. Throws `Elf2dmpError`. */
export const findPlace = (question: PlaceQuestion): Promise<Place> => new PlaceSearch(question).run();

/** Roots that do not lead to SharedUserData, or to one without a version, looked at if nothing else is left. */
const MAX_UNSET_ROOTS = 32;

/** Where a kernel may be in an address space. */
type Addresses = (space: AddressSpace) => Iterable<CodeAddress>;

class PlaceSearch {
  readonly #question: PlaceQuestion;
  /** Roots that lead to SharedUserData and, so far, to no kernel. */
  readonly #roots = new Map<string, Rooted>();
  /** Roots through which SharedUserData does not say which Windows it is. */
  readonly #unset = new Map<string, Rooted>();

  #searchedFor: SearchResult | undefined;

  constructor(question: PlaceQuestion) {
    this.#question = question;
  }

  async run(): Promise<Place> {
    const { image, dtb, kernelBase, note, evidence } = this.#question;
    const near = function* (space: AddressSpace) {
      yield* addressesFromCpus(space, evidence);
      yield* addressesFromNote(space, note);
    };
    const direct = this.#firstPlace(this.#rooted(this.#nearRoots()), near) ?? this.#early(near);
    if (direct) return direct;
    const found = dtb === undefined || kernelBase === undefined ? await this.#searched(near) : undefined;
    if (found) return found;
    const [first] = this.#roots.values();
    throw notFound(image, {
      root: first?.space.root,
      found: this.#searchedFor,
      given: { dtb, kernelBase },
      evidence,
    });
  }

  /** By a search. Its first root that verifies ends it; everything is searched only if that leads to no kernel. */
  async #searched(near: Addresses): Promise<Place | undefined> {
    const { image, dtb, kernelBase, search, evidence } = this.#question;
    const far = (result: SearchResult): Addresses =>
      function* (space) {
        yield* addressesFromSearch(space, result, evidence);
        yield* kernelsAmongImages(space);
      };
    const both = (result: SearchResult): Addresses =>
      function* (space) {
        yield* near(space);
        yield* far(result)(space);
      };
    let part = { bytes: 0, roots: 0 };
    if (dtb === undefined && this.#roots.size === 0) {
      const result = await search(({ root }) => leadsToWindows(image, root));
      this.#tell(result);
      const found = this.#firstKernel(this.#newestFirst(this.#rooted(foundRoots(image, result.roots))), both(result));
      if (found) return found;
      part = { bytes: result.bytes, roots: result.roots.length };
    }
    const known = kernelBase === undefined ? [...this.#newestFirst(this.#roots.values())] : [];
    const result = await search();
    if (result.bytes > part.bytes) this.#tell(result);
    const rest = this.#newestFirst(
      this.#rooted(dtb === undefined ? foundRoots(image, result.roots.slice(part.roots)) : []),
    );
    if (part.bytes === 0)
      return this.#firstPlace(known, far(result)) ?? this.#firstPlace(rest, both(result)) ?? this.#early(both(result));
    return (
      this.#firstKernel(result.bytes > part.bytes ? known : [], far(result)) ??
      this.#firstKernel(rest, both(result)) ??
      this.#recovered(this.#roots.values(), both(result)) ??
      this.#early(both(result))
    );
  }

  #tell(result: SearchResult): void {
    this.#searchedFor = result;
    const { bytes: searched, roots, kpcrs } = result;
    this.#question.evidence.reject(
      ROOT_STEP,
      'search of memory',
      `${bytes(searched)} searched; candidates: ${roots.length} for a root, ${kpcrs.length} for a KPCR`,
    );
  }

  /** Root candidates without a search, the one that the caller names before all. */
  *#nearRoots(): Generator<RootCandidate> {
    const { image, dtb, note, evidence } = this.#question;
    if (dtb !== undefined) yield* givenRoot(image, dtb);
    else if (image.dumpHeader) yield* dumpHeaderRoot(image);
    else {
      yield* loadedRoots(image, evidence);
      yield* shadowedRoots(image, evidence);
      yield* notedRoots(image, note);
    }
  }

  /** The candidates through which SharedUserData is found, until there are enough that lead no further. */
  *#rooted(candidates: Iterable<RootCandidate>): Generator<Rooted> {
    const { image, evidence } = this.#question;
    const systems = new Map<number | undefined, number>();
    for (const { tables, method } of candidates) {
      const key = `${tables.root} ${tables.mode.name}`;
      if (this.#roots.has(key)) continue;
      const space = new AddressSpace(image, pa(tables.root), tables.mode);
      if ((systems.get(space.translate(image.machine.sharedUserData)) ?? 0) >= MAX_ROOTS) continue;
      const label = `${method}, ${hex(tables.root)}`;
      const shared = readSharedUserData(space);
      if (shared instanceof Reason) {
        evidence.reject(ROOT_STEP, label, shared.text);
        if (this.#unset.size < MAX_UNSET_ROOTS) {
          this.#unset.set(key, { space, shared: readUnsetSharedUserData(space, shared) });
        }
        continue;
      }
      evidence.accept(
        ROOT_STEP,
        label,
        `SharedUserData is there through ${tables.mode.name} tables: NT ${shared.ntMajorVersion}.${shared.ntMinorVersion}, ${JSON.stringify(shared.systemRoot)}`,
      );
      this.#roots.set(key, { space, shared });
      yield { space, shared };
      const page = space.translate(image.machine.sharedUserData);
      systems.set(page, (systems.get(page) ?? 0) + 1);
      if (systems.size > MAX_SYSTEMS) return;
    }
  }

  /**
   * The roots, those of the system with the newest time first: beside the running Windows, memory may hold what an
   * earlier boot left. Systems are told apart by their SharedUserData page.
   */
  *#newestFirst(roots: Iterable<Rooted>): Generator<Rooted> {
    const { image } = this.#question;
    const systems = new Map<number | undefined, Rooted[]>();
    for (const root of roots) {
      const page = root.space.translate(image.machine.sharedUserData);
      systems.set(page, [...(systems.get(page) ?? []), root]);
    }
    const time = ([root]: Rooted[]) => root!.shared.systemTime ?? 0n;
    const [newest, ...others] = [...systems.values()].sort((a, b) => Number(time(b) - time(a)));
    if (newest && others.length > 0) {
      const pages = others.map(([root]) => hex(root!.space.translate(image.machine.sharedUserData) ?? 0));
      image.diagnostics.add(
        'warning',
        'rival-windows',
        `memory holds more than one Windows: that with the newest time is tried first, others have their SharedUserData at physical ${pages.join(', ')}: an earlier boot's`,
      );
    }
    for (const system of [newest ?? [], ...others]) yield* system;
  }

  /** The first root that leads to a kernel, with its header or, where none has one, without. */
  #firstPlace(roots: Iterable<Rooted>, addresses: Addresses): Place | undefined {
    const seen: Rooted[] = [];
    const noting = function* () {
      for (const root of roots) {
        seen.push(root);
        yield root;
      }
    };
    return this.#firstKernel(noting(), addresses) ?? this.#recovered(seen, addresses);
  }

  /**
   * Windows that was stopped early in boot, whose SharedUserData has no version yet: a kernel whose KDBG names its
   * base, or one where the caller says that it is, is enough.
   */
  #early(addresses: Addresses): Place | undefined {
    const { image, dtb, kernelBase, evidence } = this.#question;
    for (const root of this.#unset.values()) {
      const place = this.#firstKernel([root], addresses);
      if (!place) continue;
      const isGiven = dtb !== undefined && kernelBase !== undefined;
      if (!isGiven && !findKdbg(place.space, place.kernel, new Evidence())) continue;
      const why = place.shared.unset ?? '';
      const detail = isGiven ? 'root and kernel are given' : `the kernel at ${hex64(place.kernel.base)} has its KDBG`;
      evidence.accept(ROOT_STEP, hex(place.space.root), `${detail}; ${why}`);
      image.diagnostics.add(
        'loss',
        'shared-data-unset',
        `${why}: the guest was stopped early in boot, or the page is damaged; what only it says is unknown`,
      );
      return place;
    }
    return undefined;
  }

  /** The first root that leads to a kernel whose header is there. */
  #firstKernel(roots: Iterable<Rooted>, addresses: Addresses): Place | undefined {
    const { kernelBase, evidence } = this.#question;
    for (const root of roots) {
      const kernel =
        kernelBase === undefined
          ? findKernel(root.space, addresses(root.space), evidence)
          : givenKernel(root.space, kernelBase, evidence);
      if (kernel) return { ...root, kernel };
    }
    return undefined;
  }

  /** A kernel whose header is missing. Costly, so not before every root had its chance of one whose header is there. */
  #recovered(roots: Iterable<Rooted>, addresses: Addresses): Place | undefined {
    const { kernelBase, evidence } = this.#question;
    if (kernelBase !== undefined) return undefined;
    for (const root of roots) {
      const kernel = recoverKernel(root.space, addresses(root.space), evidence);
      if (kernel) return { ...root, kernel };
    }
    return undefined;
  }
}

/** Whether a root leads to SharedUserData in any of the machine's paging modes. */
export const leadsToWindows = (image: MemoryImage, root: PhysicalAddress): boolean =>
  image.machine.pagingModes.some(
    (mode) => !(readSharedUserData(new AddressSpace(image, root, mode)) instanceof Reason),
  );

/** Whether the tables that a CPU has loaded lead to SharedUserData. */
export const loadedLeadsToWindows = (image: MemoryImage): boolean =>
  image.cpus.some(({ registers }) => {
    const tables = registers && image.machine.pageTables(registers);
    return tables && !(readSharedUserData(new AddressSpace(image, pa(tables.root), tables.mode)) instanceof Reason);
  });

function givenKernel(space: AddressSpace, given: bigint, evidence: Evidence): KernelImage | undefined {
  // Debuggers show a 32-bit guest's addresses in 32 bits.
  const base = given >> 32n === 0n ? widened(given, space.image.machine.pointerSize) : given;
  const kernel = kernelAt(space, base);
  const method = `the base given, ${hex64(base)}`;
  if (kernel instanceof Reason) {
    evidence.reject(KERNEL_STEP, method, kernel.text);
    return undefined;
  }
  evidence.accept(KERNEL_STEP, method, describeKernel(kernel));
  return kernel;
}
