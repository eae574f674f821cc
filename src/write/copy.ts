/** Writes a plan by copying: to a temporary file beside the output, which gets its name when it is complete. */
import { fstatSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { ioError } from '../core/errors.ts';
import { MIB } from '../core/units.ts';
import { DirectFile } from '../files/direct.ts';
import { HoleMap } from '../files/holes.ts';
import { checkSpace, writeAll, writeThenPublish } from '../files/publish.ts';
import { WriteBack } from '../files/write-back.ts';
import { holesIn } from '../memory/holes.ts';
import type { MemoryImage } from '../memory/image.ts';
import { sum } from '../memory/runs.ts';
import type { SparseChoice } from '../options/choices.ts';
import type { BytesSegment, DumpContents, PagesSegment } from '../plan/plan.ts';
import { BATCH_BYTES, type Batch, batchesOf, readPieces } from './batches.ts';
import type { EmitOptions } from './options.ts';
import { withoutHoles, withoutZeros } from './sparse.ts';

/** Concurrent requests; more did not help on two cores (benchmarks/). */
const IN_FLIGHT = 4;

/** Smaller dumps are as soon on disk by way of the page cache, where their reader finds them. */
export const DIRECT_FROM = 64 * MIB;

/**
 * Writes the dump. Nothing appears under the output's name before it is complete and on disk; on any
 * failure the temporary file is removed and an existing output is as it was.
 *
 * @param output as `checkOutput` returned it
 */
export async function emitCopy(
  plan: DumpContents,
  image: MemoryImage,
  output: string,
  options: EmitOptions = {},
): Promise<void> {
  const needed = leavesOutZeros(image, options) ? undefined : spaceNeeded(plan, image, options.sparse);
  if (needed !== undefined) await checkSpace(output, needed);
  await writeThenPublish(output, options, (file, name) => copyAll(plan, image, { file, name }, options));
}

/** Whether runs of zeros become holes wherever they are: only writing shows how much the dump takes. */
const leavesOutZeros = ({ zerosAreCheap }: MemoryImage, { sparse = 'auto' }: EmitOptions): boolean =>
  sparse === 'always' || (sparse === 'auto' && zerosAreCheap);

/** Bytes on disk, at most. */
function spaceNeeded(plan: DumpContents, image: MemoryImage, sparse: SparseChoice = 'auto'): number {
  if (sparse === 'never' || !image.stored) return plan.size;
  return Math.min(plan.size, plan.size - pageBytes(plan) + fstatSync(image.stored.fd).blocks * 512);
}

const isBytes = (segment: DumpContents['segments'][number]): segment is BytesSegment => segment.kind === 'bytes';
const isPages = (segment: DumpContents['segments'][number]): segment is PagesSegment => segment.kind === 'pages';

const pageBytes = ({ segments }: DumpContents): number =>
  segments.filter(isPages).reduce((total, { extents }) => total + sum(extents), 0);

function* allBatches({ segments }: DumpContents): Generator<Batch> {
  for (const segment of segments.filter(isPages)) yield* batchesOf(segment);
}

async function copyAll(
  plan: DumpContents,
  image: MemoryImage,
  { file, name }: { file: FileHandle; name: string },
  options: EmitOptions,
): Promise<void> {
  const { signal, onProgress } = options;
  for (const { bytes, position } of plan.segments.filter(isBytes)) await writeAll(file, name, bytes, position);
  let done = plan.size - pageBytes(plan);
  const { sparse = 'auto' } = options;
  const holes = sparse === 'never' || !image.stored ? undefined : await HoleMap.open(image.stored.fd);
  const batches = allBatches(plan);
  const writeBack = await WriteBack.of(file, name);
  const dropsZeros = leavesOutZeros(image, options);
  const isForDirect = !holes && !dropsZeros && !options.isReadNext && plan.size >= DIRECT_FROM;
  const direct = isForDirect ? await DirectFile.of(file, name, plan.size) : undefined;
  const write = (bytes: Buffer, position: number): Promise<void> =>
    direct ? direct.write(bytes, position) : writeAll(file, name, bytes, position);
  const lane = async () => {
    // Shared: a reader's threads put decoded pages right into it.
    const buffer = direct?.memory(BATCH_BYTES) ?? Buffer.from(new SharedArrayBuffer(BATCH_BYTES));
    const source = { image, patches: plan.patches, scratch: Buffer.allocUnsafeSlow(BATCH_BYTES) };
    for (const { size, position, pieces } of batches) {
      signal?.throwIfAborted();
      const [{ physical } = { physical: 0 }] = pieces;
      // Pieces that share a batch are too short for holes.
      const parts =
        holes && pieces.length === 1
          ? withoutHoles(physical, physical + size, holesIn(image, holes, physical, size), plan.patches).map(
              (span) => ({
                start: position + span.from - physical,
                size: span.to - span.from,
                pieces: [{ physical: span.from, size: span.to - span.from }],
              }),
            )
          : [{ start: position, size, pieces }];
      for (const part of parts) {
        const piece = buffer.subarray(0, part.size);
        await readPieces(source, part.pieces, piece);
        if (dropsZeros) {
          for (const { at, bytes } of withoutZeros(piece, part.start))
            await writeAll(file, name, bytes, part.start + at);
        } else await write(piece, part.start);
      }
      done += size;
      onProgress?.(done, plan.size);
      await writeBack.wrote(size);
    }
  };
  // The lanes share one iterator; when one fails the others stop at their next chunk.
  const lanes = Array.from({ length: IN_FLIGHT }, () => lane());
  const results = await Promise.allSettled(lanes);
  await direct?.close();
  const failed = results.find((r): r is PromiseRejectedResult => r.status === 'rejected');
  if (failed) throw failed.reason;
  await writeBack.end();
  // The file may end with a hole.
  await file.truncate(plan.size).catch((cause) => {
    throw ioError('write', name, cause);
  });
}
