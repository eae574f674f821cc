/** What Windows itself counts as RAM: MmPhysicalMemoryBlock. */

import { isKernelAddress } from '../core/bits.ts';
import { because, type Reason } from '../core/reason.ts';
import { bytes, hex, hex64, PAGE_SIZE, PHYSICAL_ADDRESS_LIMIT, type PhysicalAddress, pa } from '../core/units.ts';
import { DumpType, holdsAllMemory } from '../formats/win-dump.ts';
import { kernelStructures } from '../formats/win-kernel.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { MemoryImage } from '../memory/image.ts';
import { endOf, intersect, sum, without } from '../memory/runs.ts';

/** Firmware maps have some dozens of ranges. */
const MAX_RUNS = 4096;

/** Memory that Windows uses as RAM. */
export interface RamRange {
  start: PhysicalAddress;
  /** Bytes, whole pages. */
  size: number;
}

/**
 * The ranges, sorted and disjoint, or the reason why they can't be had.
 *
 * @param variable address of the kernel's variable, as the KDBG has it
 */
export function readPhysicalMemoryBlock(space: AddressSpace, variable: bigint | undefined): RamRange[] | Reason {
  if (variable === undefined || !isKernelAddress(variable)) return because('the KDBG names no MmPhysicalMemoryBlock');
  const address = space.readPointer(variable);
  if (address === undefined || !isKernelAddress(address)) {
    return because(
      `MmPhysicalMemoryBlock at ${hex64(variable)} holds ${address === undefined ? 'nothing that is present' : hex64(address)}`,
    );
  }
  const { physicalMemoryDescriptor: descriptor, physicalMemoryRun: run } = kernelStructures(space.image.machine);
  const head = space.read(address, descriptor.size);
  if (!head) return because(`the descriptor at ${hex64(address)} is not present`);
  const { NumberOfRuns: count, NumberOfPages: total } = descriptor.read(head);
  if (count === 0 || count > MAX_RUNS) return because(`the descriptor at ${hex64(address)} claims ${count} runs`);
  const table = space.read(address + BigInt(descriptor.size), count * run.size);
  if (!table) return because(`the ${count} runs after ${hex64(address)} are not all present`);
  const runs = Array.from({ length: count }, (_, i) => {
    const { BasePage, PageCount } = run.read(table, i * run.size);
    return { basePage: BasePage, pageCount: PageCount };
  });
  return ramRanges(runs, total, `the descriptor at ${hex64(address)}`);
}

/** A run of pages, as a structure of Windows' lists it. */
export interface PageRun {
  basePage: bigint;
  pageCount: bigint;
}

/**
 * Runs as ranges, or the reason why they can't be Windows' RAM.
 *
 * @param total pages that they have to have
 * @param owner for the reason
 */
export function ramRanges(runs: readonly PageRun[], total: bigint, owner: string): RamRange[] | Reason {
  const ranges: RamRange[] = [];
  let pages = 0n;
  let end = 0n;
  for (const [i, { basePage, pageCount }] of runs.entries()) {
    if (basePage < end || pageCount === 0n || basePage + pageCount > BigInt(PHYSICAL_ADDRESS_LIMIT / PAGE_SIZE)) {
      return because(`run ${i} of ${owner} is impossible (page ${hex(basePage)}, ${hex(pageCount)} pages)`);
    }
    end = basePage + pageCount;
    pages += pageCount;
    ranges.push({ start: pa(Number(basePage) * PAGE_SIZE), size: Number(pageCount) * PAGE_SIZE });
  }
  if (pages !== total) return because(`the runs of ${owner} have ${pages} pages, not the ${total} that it claims`);
  return ranges;
}

/** Ranges that a message lists one by one. */
const LISTED = 4;

/**
 * What Windows counts as RAM and the input lacks, as a clause for people; undefined where nothing is missing, or where
 * the input leaves pages out by design. A bitmap dump may lack pages of zeros by design, but not a whole run.
 */
export function missingRam(image: MemoryImage, ram: readonly RamRange[]): string | undefined {
  const { dumpHeader, runs } = image;
  if (dumpHeader && !holdsAllMemory(dumpHeader)) return undefined;
  const sparse = dumpHeader && dumpHeader.DumpType !== DumpType.full;
  const missing = without(sparse ? ram.filter((run) => intersect([run], runs).length === 0) : ram, runs);
  if (missing.length === 0) return undefined;
  const ranges = missing.slice(0, LISTED).map((range) => `${hex(range.start)}-${hex(endOf(range))}`);
  const more = missing.length > LISTED ? ` and ${missing.length - LISTED} more` : '';
  return `${bytes(sum(missing))} of what Windows counts as RAM is not in the file: ${ranges.join(', ')}${more}`;
}
