/** Writes a plan in one go and with bounded memory: compressed, or to a stream. */
import { createHash } from 'node:crypto';
import { PassThrough, Readable, type Transform, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as zlib from 'node:zlib';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { KIB } from '../core/units.ts';
import { writeAll, writeThenPublish } from '../files/publish.ts';
import { WriteBack } from '../files/write-back.ts';
import type { MemoryImage } from '../memory/image.ts';
import type { Compression } from '../options/choices.ts';
import type { DumpContents } from '../plan/plan.ts';
import { BATCH_BYTES, batchesOf, readPieces } from './batches.ts';
import type { EmitOptions } from './options.ts';

const OUTPUT_CHUNK = 256 * KIB;

/** Node has zstd from 22.15 on. */
const { createZstdCompress } = zlib as { createZstdCompress?: (options: { chunkSize: number }) => Transform };

function compressor(compression: Compression): Transform {
  // The fast level: a dump is large, and a second pass with more effort is always possible.
  if (compression === 'gzip') return zlib.createGzip({ level: 1, chunkSize: OUTPUT_CHUNK });
  if (createZstdCompress) return createZstdCompress({ chunkSize: OUTPUT_CHUNK });
  throw new Elf2dmpError({
    code: 'zstd-unavailable',
    kind: 'usage',
    message: `this Node.js (${process.version}) cannot compress with zstd`,
    hint: 'use --compress=gzip, or Node.js 22.15 or later',
  });
}

/** Throws `Elf2dmpError` where this Node can't compress like that. */
export function checkCompression(compression: Compression): void {
  compressor(compression).destroy();
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
    await pipeline(
      Readable.from(contents(plan, image, options), { highWaterMark: 2 }),
      compressor(options.compression),
      async (compressed: AsyncIterable<Buffer>) => {
        for await (const bytes of compressed) {
          await writeAll(file, name, bytes, written);
          written += bytes.length;
          await writeBack.wrote(bytes.length);
        }
      },
    );
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
  try {
    await pipeline(
      Readable.from(contents(plan, image, options), { highWaterMark: 2 }),
      compression === undefined ? new PassThrough({ objectMode: true, highWaterMark: 2 }) : compressor(compression),
      counted,
      stream,
      { end },
    );
  } catch (cause) {
    options.signal?.throwIfAborted();
    const isCall = /^E[A-Z]+$/.test(String((cause as NodeJS.ErrnoException).code));
    throw isCall && !(cause instanceof Elf2dmpError) ? ioError('write', name, cause) : cause;
  }
  return { bytes, sha256: hash.digest('hex') };
}

/** The dump's bytes in their order. */
async function* contents(
  plan: DumpContents,
  image: MemoryImage,
  options: Pick<EmitOptions, 'signal' | 'onProgress'>,
): AsyncGenerator<Buffer> {
  const from = { image, patches: plan.patches, scratch: Buffer.allocUnsafeSlow(BATCH_BYTES) };
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
      const piece = Buffer.allocUnsafeSlow(size);
      await readPieces(from, pieces, piece);
      yield piece;
      done += size;
      options.onProgress?.(done, plan.size);
    }
  }
}
