import type { PdbIdentity } from '../symbols/identity.ts';
import type { PeImage } from './pe-image.ts';

export interface KernelImage extends PeImage {
  exportName: string | undefined;
  pdb: PdbIdentity | undefined;
}
