/** Loaded modules from PsLoadedModuleList. */
import { isKernelAddress } from '../core/bits.ts';
import { hex64, type VirtualAddress, va } from '../core/units.ts';
import { LoaderEntry64 } from '../formats/win-kernel.ts';
import type { AddressSpace } from '../memory/address-space.ts';

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

/**
 * Follows the list from its head, forward until it comes back or breaks, then backward for the entries after the break.
 *
 * @param inRange whether an address can be that of an entry or a module; a process's list lies in user memory
 */
export function readModules(space: AddressSpace, head: bigint, inRange = isKernelAddress): ModuleList {
  const seen = new Set<bigint>([head]);
  const walk = (linkOffset: bigint): { modules: Module[]; broken: string | undefined } => {
    const modules: Module[] = [];
    let link = space.readU64(head + linkOffset);
    while (link !== undefined && link !== head && !seen.has(link) && seen.size <= MAX_MODULES) {
      seen.add(link);
      const bytes = inRange(link) ? space.read(link, LoaderEntry64.size) : undefined;
      if (!bytes) return { modules, broken: `the entry at ${hex64(link)} is not present` };
      const entry = LoaderEntry64.read(bytes);
      if (!inRange(entry.DllBase) || entry.DllBase % 0x1000n !== 0n) {
        return { modules, broken: `the entry at ${hex64(link)} names ${hex64(entry.DllBase)} as a module's base` };
      }
      modules.push({
        name: readString(space, entry.BaseDllName, inRange) ?? '',
        path: readString(space, entry.FullDllName, inRange) ?? '',
        base: va(entry.DllBase),
        size: entry.SizeOfImage,
        checkSum: entry.CheckSum,
        timeDateStamp: entry.TimeDateStamp,
        entry: va(link),
      });
      link = linkOffset === 0n ? entry.Flink : entry.Blink;
    }
    if (link === head) return { modules, broken: undefined };
    if (link === undefined) return { modules, broken: `the list's head at ${hex64(head)} is not present` };
    return { modules, broken: `the list turns back to ${hex64(link)} without coming to its head` };
  };
  const forward = walk(0n);
  if (forward.broken === undefined) return forward;
  const backward = walk(8n);
  return { modules: [...forward.modules, ...backward.modules.reverse()], broken: forward.broken };
}

/** Base and size of the first entry of a module list, without following the list. */
export function firstModule(space: AddressSpace, head: bigint): { base: bigint; size: number } | undefined {
  const entry = space.readU64(head);
  const bytes = entry !== undefined && isKernelAddress(entry) ? space.read(entry, LoaderEntry64.size) : undefined;
  if (!bytes) return undefined;
  const { DllBase: base, SizeOfImage: size } = LoaderEntry64.read(bytes);
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

/** The module that an address lies in. */
export const moduleOf = <M extends Pick<Module, 'base' | 'size'>>(
  modules: readonly M[],
  address: bigint,
): M | undefined => modules.find((m) => address >= m.base && address < m.base + BigInt(m.size));
