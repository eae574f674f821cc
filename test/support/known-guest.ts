import { pa, va } from '../../src/core/units.ts';
import { DebuggerData } from '../../src/formats/win-kernel.ts';
import { PAGING_4_LEVELS } from '../../src/machines/x64/paging.ts';
import { AddressSpace } from '../../src/memory/address-space.ts';
import { openSource } from '../../src/readers/registry.ts';
import { BufferSource } from '../../src/source/buffer.ts';
import type { Kdbg } from '../../src/windows/kdbg.ts';
import type { KernelImage } from '../../src/windows/kernel-image.ts';
import { exportName, type PeImage, pdbIdentity, readPeImage } from '../../src/windows/pe-image.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, type Guest, type GuestOptions } from '../guest/guest.ts';

/** A guest in memory, found by what its builder knows: nothing of `src/locate` is needed to look at it. */
export function knownGuest(options: GuestOptions = {}, change: (guest: Guest) => void = () => undefined) {
  const guest = buildGuest(options);
  change(guest);
  const image = openSource(new BufferSource(writeElf(guest), 'guest.elf'));
  const { truth } = guest;
  const space = new AddressSpace(image, pa(truth.root), PAGING_4_LEVELS);
  const block = truth.kdbgBlock;
  const fields = DebuggerData.readPartial(block, block.length);
  const kdbg: Kdbg = { address: va(truth.kdbg), size: block.length, encoded: truth.kdbgEncoded, block, fields };
  const pe = readPeImage(space, truth.kernelBase, 0x8664) as PeImage;
  const kernel: KernelImage = { ...pe, exportName: exportName(space, pe), pdb: pdbIdentity(space, pe) };
  return { guest, truth, image, space, fields, kdbg, kernel };
}
