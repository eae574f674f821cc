/** Loaded modules from PsLoadedModuleList. */
import { isKernelAddress } from '../core/bits.ts';
import { type FoundRange, RangesFound } from '../core/ranges-found.ts';
import { Reason } from '../core/reason.ts';
import { hex, hex64, type VirtualAddress, va } from '../core/units.ts';
import { kernelStructures } from '../formats/win-kernel.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import { exportName, type PeImage, readPeImage } from './pe-image.ts';

/** A module on a loader list. */
export interface Module {
  /** As the guest has it: may hold any character. */
  name: string;
  path: string;
  base: VirtualAddress;
  /** Bytes. */
  size: number;
  /** As the loader noted it, from the image's header. */
  checkSum: number;
  /** Likewise; of older builds what else is at its place in the entry: compare with an image that is present. */
  timeDateStamp: number;
  /** Where its LDR_DATA_TABLE_ENTRY is. */
  entry: VirtualAddress;
}

/** Windows loads a few hundred. */
const MAX_MODULES = 4096;
const MAX_NAME_BYTES = 1024;

/** The modules that can be reached. */
export interface ModuleList {
  modules: Module[];
  /** Where the walk ended early and why; undefined when it came back to the head. */
  broken: string | undefined;
}

/** The links of a list entry, in pointers: which is followed, and which other one has to lead back. */
const DIRECTIONS = {
  forward: { next: 0, back: 1 },
  backward: { next: 1, back: 0 },
} as const;

/**
 * Follows the list from its head, forward until it comes back or breaks, then backward for the entries after the break.
 * Each entry has to link back to the one before, the head too: else some were cut out.
 *
 * @param inRange whether an address can be that of an entry or a module; a process's list lies in user memory
 */
export function readModules(space: AddressSpace, head: bigint, inRange = isKernelAddress): ModuleList {
  const seen = new Set<bigint>([head]);
  const { pointerSize } = space.image.machine;
  const walk = (direction: keyof typeof DIRECTIONS): ModuleList => {
    const [next, back] = [DIRECTIONS[direction].next, DIRECTIONS[direction].back].map((i) =>
      BigInt(i * pointerSize),
    ) as [bigint, bigint];
    const modules: Module[] = [];
    let previous = head;
    for (;;) {
      const link = space.readPointer(previous + next);
      const broken = linkDoubt(space, link, { head, previous, back, seen });
      if (broken !== undefined || link === undefined) return { modules, broken };
      if (link === head) return { modules, broken: undefined };
      seen.add(link);
      const module = readModule(space, va(link), inRange);
      if (typeof module === 'string') return { modules, broken: module };
      modules.push(module);
      previous = link;
    }
  };
  const forward = walk('forward');
  if (forward.broken === undefined) return forward;
  const backward = walk('backward');
  return { modules: [...forward.modules, ...backward.modules.reverse()], broken: forward.broken };
}

/** Why a list can't be followed along `link`; undefined where it can, or has come back to its head. */
function linkDoubt(
  space: AddressSpace,
  link: bigint | undefined,
  { head, previous, back, seen }: { head: bigint; previous: bigint; back: bigint; seen: ReadonlySet<bigint> },
): string | undefined {
  if (link === undefined) return `the list's head at ${hex64(head)} is not present`;
  if (link !== head && seen.has(link)) return `the list turns back to ${hex64(link)} without coming to its head`;
  if (link !== head && seen.size > MAX_MODULES) return `the list has more than ${MAX_MODULES} entries`;
  const before = space.readPointer(link + back);
  if (before === undefined) return `the entry at ${hex64(link)} is not present`;
  if (before === previous) return undefined;
  return `${link === head ? 'the head' : 'the entry'} at ${hex64(link)} does not link back to ${hex64(previous)}`;
}

/** The module of an entry, or why it is none. */
function readModule(
  space: AddressSpace,
  entry: VirtualAddress,
  inRange: (address: bigint) => boolean,
): Module | string {
  const { loaderEntry } = kernelStructures(space.image.machine);
  const bytes = inRange(entry) ? space.read(entry, loaderEntry.size) : undefined;
  if (!bytes) return `the entry at ${hex64(entry)} is not present`;
  const { DllBase, SizeOfImage, BaseDllName, FullDllName, CheckSum, TimeDateStamp } = loaderEntry.read(bytes);
  if (!inRange(DllBase) || DllBase % 0x1000n !== 0n) {
    return `the entry at ${hex64(entry)} names ${hex64(DllBase)} as a module's base`;
  }
  return {
    name: readString(space, BaseDllName, inRange) ?? '',
    path: readString(space, FullDllName, inRange) ?? '',
    base: va(DllBase),
    size: SizeOfImage,
    checkSum: CheckSum,
    timeDateStamp: TimeDateStamp,
    entry,
  };
}

/**
 * What entries of the kernel's list say other than the images where they say that those are. A module whose header is
 * not in memory says nothing.
 */
export function moduleDoubts(space: AddressSpace, kernel: PeImage, modules: readonly Module[]): string[] {
  const doubts: string[] = [];
  const [first] = modules;
  if (first && first.base !== kernel.base) {
    doubts.push(`the first is ${first.name} at ${hex64(first.base)}, not the kernel at ${hex64(kernel.base)}`);
  }
  if (modules.length === 1) doubts.push('it has one entry: every Windows has drivers');
  const exportNames = new Map<string, string>();
  for (const { name, base, size } of modules) {
    const image = base === kernel.base ? kernel : readPeImage(space, base, space.image.machine.imageFileMachine);
    if (!(image instanceof Reason) && image.size !== size) {
      doubts.push(`${name} has ${hex(size)} bytes there, ${hex(image.size)} by its header`);
    }
    const own = image instanceof Reason ? undefined : exportName(space, image)?.toLowerCase();
    // Copies of drivers for crash dumps have other names than their originals, but then those have them too.
    if (own !== undefined && own !== name.toLowerCase()) {
      if (exportNames.get(own) === name.toLowerCase()) doubts.push(`${own} and ${name} are where the other is`);
      exportNames.set(name.toLowerCase(), own);
    }
  }
  const byBase = [...modules].sort((a, b) => Number(a.base - b.base));
  byBase.forEach((module, i) => {
    const next = byBase[i + 1];
    if (next && module.base + BigInt(module.size) > next.base) doubts.push(`${module.name} reaches into ${next.name}`);
  });
  return doubts;
}

/** Base and size of the first entry of a module list, without following the list. */
export function firstModule(space: AddressSpace, head: bigint): { base: bigint; size: number } | undefined {
  const { loaderEntry } = kernelStructures(space.image.machine);
  const entry = space.readPointer(head);
  const bytes = entry !== undefined && isKernelAddress(entry) ? space.read(entry, loaderEntry.size) : undefined;
  if (!bytes) return undefined;
  const { DllBase: base, SizeOfImage: size } = loaderEntry.read(bytes);
  return { base, size };
}

/** A UNICODE_STRING's text; undefined where it is not present or impossible. */
export function readString(
  space: AddressSpace,
  s: { Length: number; Buffer: bigint },
  inRange: (address: bigint) => boolean = isKernelAddress,
): string | undefined {
  if (s.Length > MAX_NAME_BYTES || s.Length % 2 !== 0 || !inRange(s.Buffer)) return undefined;
  return space.read(s.Buffer, s.Length)?.toString('utf16le');
}

/** By list, with its length then: lists only get longer. */
const FOUND_IN = new WeakMap<readonly ModuleRange[], { length: number; index: RangesFound<ModuleFound> }>();

/** Where a module is. */
type ModuleRange = Pick<Module, 'base' | 'size'>;
type ModuleFound = FoundRange & { module: ModuleRange };

/** The module that an address lies in: stacks ask of each of their words. */
export function moduleOf<M extends ModuleRange>(modules: readonly M[], address: bigint): M | undefined {
  let known = FOUND_IN.get(modules);
  if (known?.length !== modules.length) {
    const index = new RangesFound(modules.map((module) => ({ from: module.base, size: module.size, module })));
    known = { length: modules.length, index };
    FOUND_IN.set(modules, known);
  }
  return known.index.first(address)?.module as M | undefined;
}
