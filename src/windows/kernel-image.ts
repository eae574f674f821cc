import type { PdbIdentity } from '../symbols/identity.ts';
import type { PeImage } from './pe-image.ts';

/** The kernel as it lies in memory; name and PDB are undefined where their pages are missing. */
export interface KernelImage extends PeImage {
  exportName: string | undefined;
  pdb: PdbIdentity | undefined;
}
