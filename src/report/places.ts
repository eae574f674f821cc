/** Where an address lies: every report asks here. Only what is known is said. */
import { isCanonical } from '../core/bits.ts';
import { type FoundRange, RangesFound } from '../core/ranges-found.ts';
import { Reason } from '../core/reason.ts';
import { hex, hex64, PAGE_SIZE } from '../core/units.ts';
import type { Contexts } from '../plan/contexts.ts';
import { sectionAt } from '../windows/pe-image.ts';
import { poolAt } from '../windows/pool.ts';
import { currentThreadStack } from '../windows/thread-stack.ts';
import { readUnloadedModules } from '../windows/unloaded-modules.ts';
import type { Windows } from '../windows/windows.ts';
import { type CodePlace, codePlace, type Images } from './processors.ts';

/** Where an address lies, as far as that is known. */
export type AddressPlace =
  /** In a loaded module; `section` is null where the image's header is not present or lists none there. */
  | ({ in: 'module'; section: string | null } & CodePlace)
  /** In what a module had before it was unloaded. */
  | { in: 'unloaded-module'; module: string; offset: string }
  /** On the stack of the thread that a processor runs, or on another one that it uses, from its stack pointer's page on. */
  | { in: 'stack'; processor: number }
  /** In a processor's KPCR, whose PRCB is a part of it. */
  | { in: 'processor-region'; processor: number; offset: string }
  /**
   * In kernel pool, as far as memory proves it (docs/signatures.md). `block` is null for a large allocation; `pool` for a
   * free block, whose header does not say which pool it is of.
   */
  | { in: 'pool'; pool: 'paged' | 'nonpaged' | null; block: PoolBlockReport | null }
  /** In the first 64 KiB, which are never mapped: a null pointer with an offset. */
  | { in: 'null-page' }
  | { in: 'user' }
  /** Its upper bits are not copies of the highest that the page tables translate: no memory can be there. */
  | { in: 'non-canonical' };

/** A block of pool. */
export interface PoolBlockReport {
  /** Of its header, where the block begins. */
  address: string;
  /** Bytes, with the header. */
  size: number;
  /** Of the address, from where the block begins. */
  offset: string;
  /** Four characters; null where a free block has none that can be printed. */
  tag: string | null;
  free: boolean;
}

/** First address that user mode can have. */
const LOWEST_USER = 0x1_0000n;

type ProcessorRange = FoundRange & { processor: number };

/** What addresses belong to a processor by. */
interface ProcessorPlaces {
  /** KPCRs. */
  regions: RangesFound<ProcessorRange>;
  /** Of the threads that run. */
  stacks: RangesFound<ProcessorRange>;
  /** From the page of each stack pointer on. */
  shown: RangesFound<ProcessorRange & { stackPointer: bigint }>;
}

/** Names addresses of one guest. */
export class Places {
  readonly #windows: Windows;
  readonly #contexts: Contexts;
  readonly #images: Images;
  #unloaded: ReturnType<typeof readUnloadedModules> | undefined;
  #processors: ProcessorPlaces | undefined;

  constructor(windows: Windows, contexts: Contexts, images: Images) {
    this.#windows = windows;
    this.#contexts = contexts;
    this.#images = images;
  }

  /** null where nothing is known of it. */
  of(address: bigint): AddressPlace | null {
    if (address < LOWEST_USER) return { in: 'null-page' };
    const [root] = this.#windows.space.mode.levels;
    if (!isCanonical(address, root!.shift + root!.bits)) return { in: 'non-canonical' };
    if (address >> 63n === 0n) return { in: 'user' };
    return (
      this.#inModule(address) ??
      this.#inUnloaded(address) ??
      this.#atProcessor(address) ??
      this.#inPool(address) ??
      null
    );
  }

  #inModule(address: bigint): AddressPlace | undefined {
    const at = codePlace(this.#windows, address, this.#images);
    if (!at) return undefined;
    const loaded = this.#images.at(BigInt(at.base));
    const section = loaded && sectionAt(loaded.space, loaded.image, Number(address - loaded.image.base));
    return { in: 'module', section: section ?? null, ...at };
  }

  #inUnloaded(address: bigint): AddressPlace | undefined {
    this.#unloaded ??= readUnloadedModules(this.#windows.space, this.#windows.kdbg.fields);
    if (this.#unloaded instanceof Reason) return undefined;
    const module = this.#unloaded.find(({ from, to }) => address >= from && address < to);
    return module && { in: 'unloaded-module', module: module.name, offset: hex(address - module.from) };
  }

  #atProcessor(address: bigint): AddressPlace | undefined {
    this.#processors ??= this.#findProcessors();
    const { regions, stacks, shown } = this.#processors;
    const region = regions.first(address);
    if (region) return { in: 'processor-region', processor: region.processor, offset: hex(address - region.from) };
    const owner =
      stacks.first(address) ?? shown.all(address).find(({ stackPointer }) => this.#onStack(stackPointer, address));
    return owner && { in: 'stack', processor: owner.processor };
  }

  #inPool(address: bigint): AddressPlace | undefined {
    const found = poolAt(this.#windows, address);
    if (!found) return undefined;
    const { kind, block } = found;
    const pool = kind ?? null;
    if (!block) return { in: 'pool', pool, block: null };
    const { address: from, size, tag = null, isFree: free } = block;
    return { in: 'pool', pool, block: { address: hex64(from), size, offset: hex(address - from), tag, free } };
  }

  #findProcessors(): ProcessorPlaces {
    const { image, space, kdbg, processors } = this.#windows;
    const { machine } = image;
    const regions = processors.map(({ number: processor, kpcr, prcb }) => {
      const end = prcb + BigInt(kdbg.fields.SizePrcb ?? 0);
      return { from: kpcr as bigint, size: Number(end - kpcr), processor };
    });
    const stacks = processors.flatMap(({ number: processor, prcb }) => {
      const bounds = currentThreadStack(space, kdbg.fields, prcb);
      return bounds ? [{ from: bounds.limit, size: Number(bounds.base - bounds.limit), processor }] : [];
    });
    const shown = this.#contexts.shown.flatMap(({ source, frame, processor: { number: processor } }) => {
      if (source === 'unknown') return [];
      const { stackPointer } = machine.viewContext(frame);
      const from = stackPointer - (stackPointer % BigInt(PAGE_SIZE));
      return [{ from, size: machine.kernelStackSize, processor, stackPointer }];
    });
    return { regions: new RangesFound(regions), stacks: new RangesFound(stacks), shown: new RangesFound(shown) };
  }

  /** Whether all pages from the stack pointer's up to the address are present: a guard page ends a stack. */
  #onStack(stackPointer: bigint, address: bigint): boolean {
    const from = stackPointer - (stackPointer % BigInt(PAGE_SIZE));
    if (address < from || address >= from + BigInt(this.#windows.image.machine.kernelStackSize)) return false;
    for (let page = from; page <= address; page += BigInt(PAGE_SIZE)) {
      if (this.#windows.space.translate(page) === undefined) return false;
    }
    return true;
  }
}
