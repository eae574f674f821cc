/** x64 page tables (Intel SDM volume 3, 4.5): 4 levels, or 5 with CR4.LA57. */
import type { PagingMode } from '../paging-mode.ts';

const level = (shift: number, largePages = false) => ({ shift, bits: 9, largePages });
const FOUR = [level(39), level(30, true), level(21, true), level(12)];

export const PAGING_4_LEVELS: PagingMode = {
  name: '4-level',
  addressBits: 48,
  levels: FOUR,
  levelNames: ['PML4E', 'PDPTE', 'PDE', 'PTE'],
};

export const PAGING_5_LEVELS: PagingMode = {
  name: '5-level',
  addressBits: 57,
  levels: [level(48), ...FOUR],
  levelNames: ['PML5E', 'PML4E', 'PDPTE', 'PDE', 'PTE'],
};
