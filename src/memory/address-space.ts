/** Virtual memory: one page walker for every machine and paging mode. */
import { isCanonical, pointerAt } from '../core/bits.ts';
import { hex, hex64, PAGE_SIZE, type PhysicalAddress, pa } from '../core/units.ts';
import { entryAt, type PageEntry, type PagingMode, rawEntryAt, type SoftwareEntry } from '../machines/paging-mode.ts';
import type { ReadVirtual } from '../machines/read-virtual.ts';
import type { MemoryImage } from './image.ts';
import { findSwizzledBit } from './swizzle.ts';

/** Why an address does not translate. */
export interface Fault {
  /** The last two are of triage dumps, which have blocks of virtual memory. */
  reason: 'not-canonical' | 'not-present' | 'table-missing' | 'page-missing' | 'no-page-tables' | 'no-block';
  virtual: bigint;
  /** Name of the entry where the walk ended: `PDE`. */
  level?: string;
  /** Physical address of that entry. */
  entryAddress?: number;
  entry?: bigint;
  /** The aligned block of this many bytes around `virtual` shares the fault: scans step over it. */
  region: number;
}

/** Where a virtual address leads. */
export interface Mapping {
  physical: PhysicalAddress;
  /** Size of the page that maps it. */
  pageSize: number;
}

/** A fault as a clause for people, with its addresses. */
export function describeFault(fault: Fault): string {
  const address = hex64(fault.virtual);
  switch (fault.reason) {
    case 'not-canonical':
      return `${address} is not a canonical address`;
    case 'not-present':
      return `${address} is not mapped: ${fault.level} at physical ${hex(fault.entryAddress!)} holds ${hex64(fault.entry!)}`;
    case 'table-missing':
      return `${address}: the page table with its ${fault.level}, physical ${hex(fault.entryAddress!)}, is not in the dump`;
    case 'page-missing':
      return `${address}: its page, physical ${hex(fault.entryAddress!)}, is not in the dump`;
    case 'no-page-tables':
      return `${address}: the dump has no page tables`;
    case 'no-block':
      return `${address} is in no block of the dump`;
  }
}

/** Translations kept; dropped all at once when full. */
const TLB_ENTRIES = 1 << 16;

/** In place of a physical address, which is never negative. */
const UNMAPPED = -1;

/** The virtual memory that one page-table root maps. */
export class AddressSpace {
  readonly image: MemoryImage;
  readonly root: PhysicalAddress;
  readonly mode: PagingMode;
  readonly #tlb = new Map<number, number>();
  #inPrototype = false;
  /** null: not looked for yet. */
  #swizzledBit: number | undefined | null = null;

  constructor(image: MemoryImage, root: PhysicalAddress, mode: PagingMode) {
    this.image = image;
    this.root = root;
    this.mode = mode;
  }

  /** Walks the page tables. The page that it leads to need not be in the image. */
  walk(virtual: bigint): Mapping | Fault {
    const { mode, image } = this;
    if (!isCanonical(virtual, mode.addressBits)) return { reason: 'not-canonical', virtual, region: PAGE_SIZE };
    const high = Number((virtual >> 32n) & 0xffff_ffffn);
    const low = Number(virtual & 0xffff_ffffn);
    // Bits 56..12 as a double, since a shift by more than 31 would wrap.
    const vpn = (high & 0x1ff_ffff) * 0x10_0000 + (low >>> 12);
    let table: number = this.root;
    for (let i = 0; i < mode.levels.length; i++) {
      const { name, shift, bits } = mode.levels[i]!;
      const index = Math.floor(vpn / 2 ** (shift - 12)) % 2 ** bits;
      const entryAddress = table + index * mode.entrySize;
      const at = entryAddress % PAGE_SIZE;
      const page = image.page(pa(entryAddress - at));
      const fault = { virtual, level: name, entryAddress, region: 2 ** shift };
      if (!page) return { reason: 'table-missing', ...fault };
      const entry = entryAt(mode, i, page, at);
      if (entry.kind === 'table') {
        table = entry.physical;
        continue;
      }
      const mapping = entry.kind === 'page' ? entry : this.#softPage(entry);
      if (!mapping) return { reason: 'not-present', ...fault, entry: rawEntryAt(mode, page, at) };
      const offset = (vpn % (mapping.size / PAGE_SIZE)) * PAGE_SIZE + (low & 0xfff);
      return { physical: pa(mapping.physical + offset), pageSize: mapping.size };
    }
    throw new Error(`paging mode ${mode.name} ends without a leaf level`);
  }

  #softPage(entry: PageEntry): { physical: number; size: number } | undefined {
    const physical = this.softwarePage(entry);
    return physical === undefined ? undefined : { physical, size: PAGE_SIZE };
  }

  /** The page of a last-level entry that is not present in the hardware's sense, but still in memory. */
  softwarePage(entry: PageEntry): number | undefined {
    if (entry.kind !== 'transition' && entry.kind !== 'prototype') return undefined;
    const plain = this.#unswizzled(entry);
    if (plain.kind === 'transition') return plain.physical;
    // A prototype entry can itself be behind another, which real systems never do: one level only.
    if (this.#inPrototype) return undefined;
    const { mode } = this;
    this.#inPrototype = true;
    try {
      const bytes = this.read(plain.entry, mode.entrySize);
      const behind = bytes && entryAt(mode, mode.levels.length - 1, bytes, 0);
      return behind?.kind === 'page' ? behind.physical : behind && this.softwarePage(behind);
    } finally {
      this.#inPrototype = false;
    }
  }

  #unswizzled(entry: SoftwareEntry): SoftwareEntry {
    const { unswizzle } = this.mode;
    if (!unswizzle || !entry.swizzled) return entry;
    // Costly, and most address spaces are asked for nothing that is not present.
    if (this.#swizzledBit === null) this.#swizzledBit = findSwizzledBit(this.image, this.root, this.mode);
    return unswizzle(entry, this.#swizzledBit);
  }

  /** The physical address, or undefined where the address is not mapped. Both answers are cached by page. */
  translate(virtual: bigint): PhysicalAddress | undefined {
    const page = Number((virtual >> 12n) & 0x1f_ffff_ffff_ffffn);
    const offset = Number(virtual & 0xfffn);
    const known = this.#tlb.get(page);
    if (known !== undefined) return known === UNMAPPED ? undefined : pa(known + offset);
    const mapping = this.walk(virtual);
    const isMapped = !('reason' in mapping);
    // Behind a prototype entry another is not followed, so the answer holds only there.
    if (!isMapped && this.#inPrototype) return undefined;
    if (this.#tlb.size >= TLB_ENTRIES) this.#tlb.clear();
    this.#tlb.set(page, isMapped ? mapping.physical - offset : UNMAPPED);
    return isMapped ? mapping.physical : undefined;
  }

  /** Why `read` of this address gives nothing; undefined when its page is mapped and present. */
  fault(virtual: bigint): Fault | undefined {
    const mapping = this.walk(virtual);
    if ('reason' in mapping) return mapping;
    if (this.image.has(mapping.physical)) return undefined;
    return { reason: 'page-missing', virtual, entryAddress: mapping.physical, region: PAGE_SIZE };
  }

  /** The bytes at a virtual address; undefined unless all are mapped and present. `length` must be bounded by the caller. */
  read(virtual: bigint, length: number): Buffer | undefined {
    const buffer = Buffer.allocUnsafe(length);
    for (const piece of this.pieces(virtual, length)) {
      if (piece.physical === undefined) return undefined;
      if (piece.length <= PAGE_SIZE) {
        const pageAddress = pa(piece.physical - (piece.physical % PAGE_SIZE));
        const page = this.image.page(pageAddress);
        const offset = piece.physical - pageAddress;
        if (page && offset + piece.length <= PAGE_SIZE) {
          page.copy(buffer, piece.offset, offset, offset + piece.length);
          continue;
        }
      }
      if (!this.image.readSync(piece.physical, buffer.subarray(piece.offset, piece.offset + piece.length)))
        return undefined;
    }
    return buffer;
  }

  /** As `read`, for a few bytes that are looked at once, such as where an image could begin. */
  peek(virtual: bigint, length: number): Buffer | undefined {
    if (Number(virtual & 0xfffn) + length > PAGE_SIZE) return this.read(virtual, length);
    const buffer = Buffer.allocUnsafe(length);
    const physical = this.translate(virtual);
    return physical !== undefined && this.image.peek(physical, buffer) ? buffer : undefined;
  }

  /** `read` as a function of its own. */
  readonly reader: ReadVirtual = (virtual, length) => this.read(virtual, length);

  /** A pointer as wide as the machine's; 32-bit ones are sign-extended. */
  readPointer(virtual: bigint): bigint | undefined {
    const { pointerSize } = this.image.machine;
    const bytes = this.read(virtual, pointerSize);
    return bytes && pointerAt(bytes, 0, pointerSize);
  }

  readU64(virtual: bigint): bigint | undefined {
    return this.read(virtual, 8)?.readBigUInt64LE();
  }

  /** A range as physically contiguous pieces, in order; `physical` is undefined where it is not mapped. */
  pieces(virtual: bigint, length: number): { offset: number; length: number; physical: PhysicalAddress | undefined }[] {
    const pieces: { offset: number; length: number; physical: PhysicalAddress | undefined }[] = [];
    for (let offset = 0; offset < length; ) {
      const address = BigInt.asUintN(64, virtual + BigInt(offset));
      const count = Math.min(length - offset, PAGE_SIZE - Number(address & 0xfffn));
      const physical = this.translate(address);
      const last = pieces.at(-1);
      if (
        last &&
        (physical === undefined
          ? last.physical === undefined
          : last.physical !== undefined && last.physical + last.length === physical)
      ) {
        last.length += count;
      } else {
        pieces.push({ offset, length: count, physical });
      }
      offset += count;
    }
    return pieces;
  }
}

/** An address space that says what is read from it. */
export class WatchedSpace extends AddressSpace {
  /** Called with each range whose bytes were returned. */
  readonly onRead: (space: AddressSpace, virtual: bigint, length: number) => void;
  readonly #watched: AddressSpace;

  constructor(watched: AddressSpace, onRead: WatchedSpace['onRead']) {
    super(watched.image, watched.root, watched.mode);
    this.#watched = watched;
    this.onRead = onRead;
  }

  override read(virtual: bigint, length: number): Buffer | undefined {
    const bytes = this.#watched.read(virtual, length);
    if (bytes) this.onRead(this.#watched, virtual, length);
    return bytes;
  }

  override peek(virtual: bigint, length: number): Buffer | undefined {
    return this.read(virtual, length);
  }
}
