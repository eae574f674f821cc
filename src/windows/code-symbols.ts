/** Symbols of code in images that lie in memory. */
import type { AddressSpace } from '../memory/address-space.ts';
import type { CodeSymbol } from '../symbols/symbolizer.ts';
import type { Symbols } from '../symbols/symbols.ts';
import { functionEntry, type PeImage, pdbIdentity } from './pe-image.ts';

/**
 * What the PDB of an image says of an address in it; undefined without one.
 *
 * @param how.returnAddress the address is one that a call returns to: what the call belongs to counts
 */
export function symbolAt(
  symbols: Symbols,
  { space, image }: { space: AddressSpace; image: PeImage },
  address: bigint,
  how: { returnAddress: boolean } = { returnAddress: false },
): CodeSymbol | undefined {
  const pdb = pdbIdentity(space, image);
  if (!pdb || !symbols.has(pdb)) return undefined;
  const rva = Number(address - image.base);
  const entry = functionEntry(space, image, how.returnAddress ? rva - 1 : rva);
  const functionBegin = entry && entry !== 'missing' ? entry.begin : undefined;
  return symbols.lookUp(pdb, rva, { ...how, functionBegin });
}
