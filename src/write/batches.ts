/** Groups pages into I/O-sized batches: a dump of selected pages can have hundreds of thousands of runs. */
import { MIB } from '../core/units.ts';
import type { MemoryImage } from '../memory/image.ts';
import { applyPatches, type Patch } from '../plan/patches.ts';
import type { PagesSegment } from '../plan/plan.ts';
import { MIN_HOLE } from './sparse.ts';

export const BATCH_BYTES = MIB;

/** Memory between two pieces that is read along rather than making a request of its own. */
const MAX_GAP = 32 * 1024;

export interface Piece {
  physical: number;
  size: number;
}

/** Pieces that follow each other in the dump. More than one only where each is too short to have holes. */
export interface Batch {
  /** File offset. */
  position: number;
  size: number;
  pieces: Piece[];
}

/** A segment's pages in the order of the file, in batches of at most `BATCH_BYTES`. */
export function* batchesOf(segment: PagesSegment): Generator<Batch> {
  let batch: Batch = { position: segment.position, size: 0, pieces: [] };
  for (const piece of piecesOf(segment)) {
    const joins =
      piece.size <= MIN_HOLE && (batch.pieces[0]?.size ?? 0) <= MIN_HOLE && batch.size + piece.size <= BATCH_BYTES;
    if (!joins && batch.size > 0) {
      yield batch;
      batch = { position: batch.position + batch.size, size: 0, pieces: [] };
    }
    batch.pieces.push(piece);
    batch.size += piece.size;
  }
  if (batch.size > 0) yield batch;
}

function* piecesOf({ extents }: PagesSegment): Generator<Piece> {
  for (const { start, size } of extents) {
    for (let at = 0; at < size; at += BATCH_BYTES)
      yield { physical: start + at, size: Math.min(BATCH_BYTES, size - at) };
  }
}

/** What pieces are read from. */
export interface PieceSource {
  image: MemoryImage;
  patches: readonly Patch[];
  /** At least `BATCH_BYTES` for this reader alone. */
  scratch: Buffer;
}

/** Reads pieces in ascending order, with their patches, one after the other into `target`. */
export async function readPieces(
  { image, patches, scratch }: PieceSource,
  pieces: readonly Piece[],
  target: Buffer,
): Promise<void> {
  let at = 0;
  for (let first = 0; first < pieces.length; ) {
    const from = pieces[first]!.physical;
    let next = first + 1;
    let end = from + pieces[first]!.size;
    for (; next < pieces.length; next++) {
      const { physical, size } = pieces[next]!;
      const gap = physical - end;
      if (gap > MAX_GAP || physical + size - from > BATCH_BYTES || (gap > 0 && !image.has(end, gap))) break;
      end = physical + size;
    }
    const alone = next - first === 1;
    const read = alone ? target.subarray(at, at + end - from) : scratch.subarray(0, end - from);
    await image.read(from, read);
    applyPatches(patches, from, read);
    for (; first < next; first++) {
      const { physical, size } = pieces[first]!;
      if (!alone) read.copy(target, at, physical - from, physical - from + size);
      at += size;
    }
  }
}
