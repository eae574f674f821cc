/**
 * What a conversion changes in the guest's memory, as data: the KDBG decoded, and each processor's
 * registers where the debugger looks for them. The source is never written to.
 */
import { createHash } from 'node:crypto';
import type { Diagnostics } from '../core/errors.ts';
import { hex64, type PhysicalAddress, type VirtualAddress, va } from '../core/units.ts';
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
        const other = [...this.#patches, ...added].find(
          (p) => physical < p.physical + p.bytes.length && p.physical < physical + piece.length,
        );
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
    this.#patches.push(...added);
    return true;
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

/** Overwrites the patched bytes in a buffer that holds memory from `physical` on. Patches are sorted. */
export function applyPatches(patches: readonly Patch[], physical: number, buffer: Buffer): void {
  const end = physical + buffer.length;
  for (const patch of patches) {
    if (patch.physical >= end) return;
    const from = Math.max(physical, patch.physical);
    const to = Math.min(end, patch.physical + patch.bytes.length);
    if (from < to) patch.bytes.copy(buffer, from - physical, from - patch.physical, to - patch.physical);
  }
}

export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
