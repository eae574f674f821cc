import type { PdbIdentity, PeImage } from './pe-image.ts';

export interface KernelImage extends PeImage {
  exportName: string | undefined;
  pdb: PdbIdentity | undefined;
}
