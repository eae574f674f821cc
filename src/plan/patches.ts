/**
 * What a conversion changes in the guest's memory, as data: the KDBG decoded, and each processor's
 * registers where the debugger looks for them. The source is never written to.
 */
import { createHash } from 'node:crypto';
import type { Diagnostics } from '../core/errors.ts';
import { firstIndex } from '../core/sorted.ts';
import { hex64, PAGE_SIZE, type PhysicalAddress, type VirtualAddress, va } from '../core/units.ts';
import type { AddressSpace } from '../memory/address-space.ts';

export interface Patch {
  /** For people: `CONTEXT of processor 2`. */
  what: string;
  virtual: VirtualAddress;
  physical: PhysicalAddress;
  bytes: Buffer;
  original: Buffer;
}

/** Bytes to put at a virtual address. */
export interface Replacement {
  /** As `Patch.what`. */
  what: string;
  virtual: bigint;
  bytes: Buffer;
}

export class PatchSet {
  readonly #space: AddressSpace;
  /** Where what cannot be patched is reported. */
  readonly diagnostics: Diagnostics;
  readonly #patches: Patch[] = [];
  /** Those that have bytes in a page, by its number. */
  readonly #inPage = new Map<number, Patch[]>();

  constructor(space: AddressSpace, diagnostics: Diagnostics) {
    this.#space = space;
    this.diagnostics = diagnostics;
  }

  /**
   * Replaces bytes at a virtual address; one patch for each physically contiguous piece. All or
   * nothing: where a byte is not in the image, or another patch holds it, it becomes a loss.
   */
  add(what: string, virtual: bigint, bytes: Buffer): boolean {
    return this.addTogether([{ what, virtual, bytes }]);
  }

  /** As `add`, of several: where one can't be replaced, none is. */
  addTogether(replacements: readonly Replacement[]): boolean {
    const added: Patch[] = [];
    for (const { what, virtual, bytes } of replacements) {
      for (const piece of this.#space.pieces(virtual, bytes.length)) {
        const address = va(virtual + BigInt(piece.offset));
        const original = Buffer.alloc(piece.length);
        if (piece.physical === undefined || !this.#space.image.readSync(piece.physical, original)) {
          return this.#refuse(what, address, `its memory at ${hex64(address)} is not in the dump`);
        }
        const { physical } = piece;
        const overlaps = (p: Patch) => physical < p.physical + p.bytes.length && p.physical < physical + piece.length;
        const other = this.#near(physical, piece.length).find(overlaps) ?? added.find(overlaps);
        if (other) return this.#refuse(what, address, `its memory at ${hex64(address)} is also that of ${other.what}`);
        added.push({
          what,
          virtual: address,
          physical,
          bytes: bytes.subarray(piece.offset, piece.offset + piece.length),
          original,
        });
      }
    }
    for (const patch of added) {
      this.#patches.push(patch);
      for (const page of pagesOf(patch.physical, patch.bytes.length)) {
        const here = this.#inPage.get(page);
        if (here) here.push(patch);
        else this.#inPage.set(page, [patch]);
      }
    }
    return true;
  }

  /** The patches in the pages of a range. */
  #near(physical: number, length: number): Patch[] {
    return pagesOf(physical, length).flatMap((page) => this.#inPage.get(page) ?? []);
  }

  #refuse(what: string, address: VirtualAddress, reason: string): false {
    this.diagnostics.add('loss', 'patch-impossible', `${what} could not be set: ${reason}`, {
      virtual: hex64(address),
    });
    return false;
  }

  /** In ascending physical order, and only those that change something. */
  get list(): Patch[] {
    return this.#patches.filter((p) => !p.bytes.equals(p.original)).sort((a, b) => a.physical - b.physical);
  }
}

/** Numbers of the pages that a range has bytes in. */
function pagesOf(physical: number, length: number): number[] {
  const first = Math.floor(physical / PAGE_SIZE);
  return Array.from({ length: Math.ceil((physical + length) / PAGE_SIZE) - first }, (_, i) => first + i);
}

/** Index of the first patch that ends after an address. Patches are sorted and disjoint. */
const firstAfter = (patches: readonly Patch[], physical: number): number =>
  firstIndex(patches.length, (i) => patches[i]!.physical + patches[i]!.bytes.length > physical);

/** The patch that an address lies in. Patches are sorted and disjoint. */
export function patchAt(patches: readonly Patch[], physical: number): Patch | undefined {
  const patch = patches[firstAfter(patches, physical)];
  return patch && patch.physical <= physical ? patch : undefined;
}

/** Overwrites the patched bytes in a buffer that holds memory from `physical` on. Patches are sorted and disjoint. */
export function applyPatches(patches: readonly Patch[], physical: number, buffer: Buffer): void {
  const end = physical + buffer.length;
  for (let i = firstAfter(patches, physical); i < patches.length; i++) {
    const patch = patches[i]!;
    if (patch.physical >= end) return;
    const from = Math.max(physical, patch.physical);
    const to = Math.min(end, patch.physical + patch.bytes.length);
    if (from < to) patch.bytes.copy(buffer, from - physical, from - patch.physical, to - patch.physical);
  }
}

export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
