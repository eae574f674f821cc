/** Where modules' images can be read: session space is mapped by the processes of a session only. */
import { Reason } from '../core/reason.ts';
import { pa } from '../core/units.ts';
import { AddressSpace } from '../memory/address-space.ts';
import { type PeImage, readPeImage } from './pe-image.ts';
import { findProcessRoots } from './process-roots.ts';
import type { Windows } from './windows.ts';

/** An image, and an address space that maps it. */
export interface LoadedImage {
  space: AddressSpace;
  image: PeImage;
}

/** Finds images in the kernel's address space, else in a process's. */
export class ImageSpaces {
  readonly #windows: Windows;
  /** Of processes, made when the first image is not the kernel's; the one that had an image last comes first. */
  #others: AddressSpace[] | undefined;

  constructor(windows: Windows) {
    this.#windows = windows;
  }

  /** undefined where no image's header is present at `base`. */
  find(base: bigint): LoadedImage | undefined {
    const { space } = this.#windows;
    const own = imageIn(space, base);
    // Mapped for all, so that no process has another page there.
    if (own || space.image.triage || space.translate(base) !== undefined) return own;
    const others = this.#processSpaces();
    for (const [at, other] of others.entries()) {
      const found = imageIn(other, base);
      if (!found) continue;
      others.unshift(...others.splice(at, 1));
      return found;
    }
    return undefined;
  }

  #processSpaces(): AddressSpace[] {
    const { space, image } = this.#windows;
    this.#others ??= findProcessRoots(this.#windows)
      .roots.filter((root) => root !== space.root)
      .map((root) => new AddressSpace(image, pa(root), space.mode));
    return this.#others;
  }
}

function imageIn(space: AddressSpace, base: bigint): LoadedImage | undefined {
  const image = readPeImage(space, base, space.image.machine.imageFileMachine);
  return image instanceof Reason ? undefined : { space, image };
}
