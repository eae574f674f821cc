import type { PublishOptions } from '../files/publish.ts';
import type { SparseChoice } from '../options/choices.ts';

/** How a dump is written. */
export interface EmitOptions extends PublishOptions {
  /** Holes in a copied dump. Default `auto`: those of the input. */
  sparse?: SparseChoice | undefined;
  /** The dump is read again at once: it is to be in the page cache. */
  isReadNext?: boolean | undefined;
  /** Called with bytes written so far and in all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}
