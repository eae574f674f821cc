/** Writes a plan in one go and with bounded memory: compressed, or to a stream. */
import { createHash } from 'node:crypto';
import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { writeAll, writeThenPublish } from '../files/publish.ts';
import { WriteBack } from '../files/write-back.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { Compression } from '../options/choices.ts';
import type { DumpContents } from '../plan/plan.ts';
import { BATCH_BYTES, batchesOf, readPieces } from './batches.ts';
import { frameFormat, inFrames } from './frames.ts';
import type { EmitOptions } from './options.ts';

/** Throws `Elf2dmpError` where this Node can't compress like that. */
export function checkCompression(compression: Compression): void {
  frameFormat(compression);
}

/**
 * As `emitCopy`, compressed.
 *
 * @returns bytes of the file
 */
export async function emitCompressed(
  plan: DumpContents,
  image: MemoryImage,
  output: string,
  options: EmitOptions & { compression: Compression },
): Promise<number> {
  let written = 0;
  await writeThenPublish(output, options, async (file, name) => {
    const writeBack = await WriteBack.of(file, name);
    for await (const bytes of compressed(plan, image, options)) {
      await writeAll(file, name, bytes, written);
      written += bytes.length;
      await writeBack.wrote(bytes.length);
    }
    await writeBack.end();
  });
  return written;
}

/** A dump that goes to a stream. */
export interface StreamTarget {
  stream: Writable;
  /** For messages. */
  name: string;
  /** End the stream after the dump. */
  end: boolean;
  compression?: Compression | undefined;
}

/**
 * Writes the dump to a stream. What was written stays written when it fails.
 *
 * @returns what went there
 */
export async function emitStream(
  plan: DumpContents,
  image: MemoryImage,
  { stream, name, end, compression }: StreamTarget,
  options: Pick<EmitOptions, 'signal' | 'onProgress'>,
): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash('sha256');
  let bytes = 0;
  const counted = async function* (chunks: AsyncIterable<Buffer>) {
    for await (const chunk of chunks) {
      hash.update(chunk);
      bytes += chunk.length;
      yield chunk;
    }
  };
  const dump =
    compression === undefined
      ? contents(plan, image, options)
      : copies(compressed(plan, image, { ...options, compression }));
  try {
    await pipeline(Readable.from(dump, { highWaterMark: 2 }), counted, stream, { end });
  } catch (cause) {
    options.signal?.throwIfAborted();
    const isCall = /^E[A-Z]+$/.test(String((cause as NodeJS.ErrnoException).code));
    throw isCall && !(cause instanceof Elf2dmpError) ? ioError('write', name, cause) : cause;
  }
  return { bytes, sha256: hash.digest('hex') };
}

/** As `contents`, in frames; each chunk is valid until the next one is asked for. */
const compressed = (
  plan: DumpContents,
  image: MemoryImage,
  { compression, ...options }: ContentsOptions & { compression: Compression },
): AsyncGenerator<Buffer> => inFrames(contents(plan, image, { ...options, reuse: true }), frameFormat(compression));

/** Chunks that may be kept. */
async function* copies(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) yield Buffer.from(chunk);
}

/** How `contents` are made. */
interface ContentsOptions extends Pick<EmitOptions, 'signal' | 'onProgress'> {
  /** Pages come in the same memory each time, for consumers that are done with a chunk when they ask for the next. */
  reuse?: boolean;
}

/** The dump's bytes in their order. */
async function* contents(plan: DumpContents, image: MemoryImage, options: ContentsOptions): AsyncGenerator<Buffer> {
  const from = { image, patches: plan.patches, scratch: Buffer.allocUnsafeSlow(BATCH_BYTES) };
  const shared = options.reuse ? Buffer.allocUnsafeSlow(BATCH_BYTES) : undefined;
  let done = 0;
  for (const segment of plan.segments) {
    if (segment.position > done) yield Buffer.alloc(segment.position - done);
    done = segment.position;
    if (segment.kind === 'bytes') {
      yield segment.bytes;
      done += segment.bytes.length;
      continue;
    }
    for (const { pieces, size } of batchesOf(segment)) {
      options.signal?.throwIfAborted();
      const piece = shared?.subarray(0, size) ?? Buffer.allocUnsafeSlow(size);
      await readPieces(from, pieces, piece);
      yield piece;
      done += size;
      options.onProgress?.(done, plan.size);
    }
  }
}
