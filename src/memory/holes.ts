/** Which of an image's memory lies in holes of its file: it is zeros, and need not be read. */
import type { Hole, HoleMap } from '../files/holes.ts';
import type { MemoryImage } from './image.ts';

/** Parts of a range of physical addresses whose bytes are in holes of the input's file, in order. */
export function* holesIn(image: MemoryImage, holes: HoleMap, physical: number, size: number): Generator<Hole> {
  for (const { from, to, fileOffset } of image.filePieces(physical, size)) {
    for (const hole of holes.within(fileOffset, fileOffset + to - from)) {
      yield { from: from + hole.from - fileOffset, to: from + hole.to - fileOffset };
    }
  }
}

/** Whether all of a range lies in holes. */
export function isHole(image: MemoryImage, holes: HoleMap, physical: number, size: number): boolean {
  let next = physical;
  for (const { from, to } of holesIn(image, holes, physical, size)) {
    if (from !== next) return false;
    next = to;
  }
  return next === physical + size;
}
