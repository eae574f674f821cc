/** Where Windows maps its own page tables. */
import { isKernelAddress } from '../core/bits.ts';
import { pa } from '../core/units.ts';
import { entryAt } from '../machines/paging-mode.ts';
import type { AddressSpace } from '../memory/address-space.ts';

/** An entry of the root, and whether it leads back to the root. */
export interface SelfMapEntry {
  index: number;
  leadsBack: boolean;
}

/**
 * The entry of the root that PteBase names.
 *
 * @param pteBase from the KDBG
 * @returns undefined where no such address can be one
 */
export function selfMapAt({ image, root, mode }: AddressSpace, pteBase: bigint | undefined): SelfMapEntry | undefined {
  const level = mode.levels[mode.selfMapLevel];
  if (!pteBase || !isKernelAddress(pteBase) || mode.selfMapLevel !== 0 || !level) return undefined;
  if (pteBase % 2n ** BigInt(level.shift) !== 0n) return undefined;
  const index = Number((pteBase >> BigInt(level.shift)) % 2n ** BigInt(level.bits));
  const page = image.page(pa(root));
  const entry = page && entryAt(mode, 0, page, index * mode.entrySize);
  return { index, leadsBack: entry?.kind === 'table' && entry.physical === root };
}
