/** Virtual memory without page tables: the blocks that a triage dump holds. */
import { PAGE_SIZE, type PhysicalAddress } from '../core/units.ts';
import type { PagingMode } from '../machines/paging-mode.ts';
import { AddressSpace, type Fault, type Mapping } from './address-space.ts';
import type { MemoryImage } from './image.ts';
import type { TriageContents, VirtualRun } from './triage-contents.ts';

/** The memory of a triage dump. No address has a physical one. */
export class BlockSpace extends AddressSpace {
  readonly #contents: TriageContents;

  constructor(image: MemoryImage, contents: TriageContents, tables: { root: PhysicalAddress; mode: PagingMode }) {
    super(image, tables.root, tables.mode);
    this.#contents = contents;
  }

  override walk(virtual: bigint): Mapping | Fault {
    return { reason: 'no-page-tables', virtual, region: PAGE_SIZE };
  }

  override translate(): PhysicalAddress | undefined {
    return undefined;
  }

  override fault(virtual: bigint): Fault | undefined {
    return this.#at(virtual) ? undefined : { reason: 'no-block', virtual, region: 1 };
  }

  override read(virtual: bigint, length: number): Buffer | undefined {
    const buffer = Buffer.alloc(length);
    for (let done = 0; done < length; ) {
      const at = BigInt.asUintN(64, virtual + BigInt(done));
      const run = this.#at(at);
      if (!run) return undefined;
      const offset = Number(at - run.address);
      const count = Math.min(length - done, run.size - offset);
      this.#contents.read(run.fileOffset + offset, buffer.subarray(done, done + count));
      done += count;
    }
    return buffer;
  }

  override peek(virtual: bigint, length: number): Buffer | undefined {
    return this.read(virtual, length);
  }

  /** The run that holds an address. */
  #at(virtual: bigint): VirtualRun | undefined {
    const { runs } = this.#contents;
    let [low, high] = [0, runs.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (runs[middle]!.address <= virtual) low = middle + 1;
      else high = middle;
    }
    const run = runs[low - 1];
    return run && virtual < run.address + BigInt(run.size) ? run : undefined;
  }
}
