/** Ranges of virtual memory that a triage dump takes along, each byte once, up to a limit. */
import { isKernelAddress } from '../core/bits.ts';
import { RangesFound } from '../core/ranges-found.ts';
import { PAGE_SIZE } from '../core/units.ts';
import { TriageDataBlock } from '../formats/triage.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { Patch } from './patches.ts';

/** Memory is taken in units of this: few blocks begin elsewhere. */
const GRANULE = 8;
const GRANULES = PAGE_SIZE / GRANULE;

/** Memory at an address. */
export interface VirtualBlock {
  address: bigint;
  bytes: Buffer;
}

interface Page {
  bytes: Buffer;
  taken: Uint8Array;
}

/** Which addresses are taken. */
export interface BlockLimits {
  /** Bytes for all blocks with their table. */
  room: number;
  /** Also addresses of user mode. */
  user: boolean;
}

export class VirtualBlocks {
  readonly #memory: PatchedMemory;
  readonly #limits: BlockLimits;
  readonly #pages = new Map<bigint, Page>();
  #used = 0;
  #refused = 0;
  /** User addresses mean one process's memory: that of the first space. */
  #userRoot: number | undefined;

  constructor(memory: PatchedMemory, limits: BlockLimits) {
    this.#memory = memory;
    this.#limits = limits;
  }

  /** Bytes that were left out because there was no room. */
  get refused(): number {
    return this.#refused;
  }

  /** Takes what is present of a range, whole or, where there is no room for all of it, not at all. */
  add(space: AddressSpace, from: bigint, length: number): void {
    const parts = [...this.#parts(space, from, length)];
    const cost = parts.reduce((total, { page, first, last }) => total + newBytes(page, first, last), 0);
    if (cost === 0) return;
    const table = parts.length * TriageDataBlock.size;
    if (this.#used + cost + table > this.#limits.room) {
      this.#refused += cost;
      return;
    }
    this.#used += cost + table;
    for (const { page, first, last } of parts) page.taken.fill(1, first, last);
  }

  *#parts(space: AddressSpace, from: bigint, length: number) {
    const end = from + BigInt(length);
    const granule = BigInt(GRANULE);
    for (let at = from - (from % granule); at < end; ) {
      const start = at - (at % BigInt(PAGE_SIZE));
      const stop = end < start + BigInt(PAGE_SIZE) ? end : start + BigInt(PAGE_SIZE);
      const page = this.#page(space, start);
      if (page) {
        const first = Number(at - start) / GRANULE;
        yield { page, first, last: Math.ceil(Number(stop - start) / GRANULE) };
      }
      at = start + BigInt(PAGE_SIZE);
    }
  }

  #page(space: AddressSpace, address: bigint): Page | undefined {
    if (!isKernelAddress(address) && !this.#takesUser(space)) return undefined;
    const known = this.#pages.get(address);
    if (known) return known;
    const bytes = this.#memory.read(space, address, PAGE_SIZE);
    if (!bytes) return undefined;
    const page = { bytes, taken: new Uint8Array(GRANULES) };
    this.#pages.set(address, page);
    return page;
  }

  #takesUser({ root }: AddressSpace): boolean {
    if (!this.#limits.user) return false;
    this.#userRoot ??= root;
    return this.#userRoot === root;
  }

  /** The blocks, by address; what touches is one block. */
  list(): VirtualBlock[] {
    const blocks: { address: bigint; parts: Buffer[]; end: bigint }[] = [];
    const pages = [...this.#pages].sort(([a], [b]) => (a < b ? -1 : 1));
    for (const [start, page] of pages) {
      for (let i = 0; i < GRANULES; i++) {
        if (page.taken[i] === 0) continue;
        let last = i;
        while (last < GRANULES && page.taken[last] === 1) last++;
        const address = start + BigInt(i * GRANULE);
        const bytes = page.bytes.subarray(i * GRANULE, last * GRANULE);
        const before = blocks.at(-1);
        if (before?.end === address) {
          before.parts.push(bytes);
          before.end += BigInt(bytes.length);
        } else blocks.push({ address, parts: [bytes], end: address + BigInt(bytes.length) });
        i = last;
      }
    }
    return blocks.map(({ address, parts }) => ({ address, bytes: Buffer.concat(parts) }));
  }
}

function newBytes({ taken }: Page, first: number, last: number): number {
  let count = 0;
  for (let i = first; i < last; i++) if (taken[i] === 0) count++;
  return count * GRANULE;
}

/** Memory as the dump shows it: with the plan's changes. */
export class PatchedMemory {
  readonly #patches: RangesFound<{ from: bigint; size: number; bytes: Buffer }>;

  constructor(patches: readonly Patch[]) {
    this.#patches = new RangesFound(
      patches.map(({ virtual, bytes }) => ({ from: virtual, size: bytes.length, bytes })),
    );
  }

  /** undefined unless all of a range is present. */
  read(space: AddressSpace, address: bigint, length: number): Buffer | undefined {
    const bytes = space.read(address, length);
    if (!bytes || !isKernelAddress(address)) return bytes;
    const end = address + BigInt(length);
    for (const { from: virtual, bytes: changed } of this.#patches.all(address, length)) {
      const from = virtual > address ? virtual : address;
      const changedEnd = virtual + BigInt(changed.length);
      const to = changedEnd < end ? changedEnd : end;
      changed.copy(bytes, Number(from - address), Number(from - virtual), Number(to - virtual));
    }
    return bytes;
  }
}
