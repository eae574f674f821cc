/**
 * Compresses in independent frames, several at once, so that any page can be read without unpacking what comes before
 * it: gzip as BGZF, zstd in its Seekable Format. Their own programs read both as they read any file.
 */
import { availableParallelism } from 'node:os';
import type { Transform } from 'node:stream';
import * as zlib from 'node:zlib';
import { Elf2dmpError } from '../core/errors.ts';
import { KIB, MIB, PAGE_SIZE } from '../core/units.ts';
import type { Compression } from '../options/choices.ts';
import {
  BGZF_END,
  BGZF_MAGIC,
  BGZF_SLEN,
  BGZF_SUBFIELD,
  BGZF_UNKNOWN_OS,
  BGZF_XLEN,
  BgzfHeader,
  GzipTrailer,
} from '../source/bgzf-layout.ts';
import {
  SEEK_TABLE_SKIPPABLE,
  SEEKABLE_MAGIC,
  SeekTableEntry,
  SeekTableFooter,
  SeekTableHead,
} from '../source/seek-table-layout.ts';

/** How a dump is cut and compressed. */
export interface FrameFormat {
  /** Bytes of contents in each frame but the last. */
  contents: number;
  /** Frames that are compressed at once. */
  atOnce: number;
  /** To be closed. */
  encoder(): FrameEncoder;
  /** What follows the last frame. */
  end(frames: FrameSizes): Buffer;
}

/** Makes one frame after the other, in Node's thread pool. */
interface FrameEncoder {
  /**
   * @param contents not to be changed until it is done
   * @returns the frame's parts, valid until the next call
   */
  compress(contents: Buffer): Promise<readonly Buffer[]>;
  close(): void;
}

/** Frames come in pieces of at least so many bytes. */
const OUTPUT_PIECE = 256 * KIB;

/** Whole pages, of which none lies in two members; and whatever deflate makes of them, a member has room for it. */
const BGZF_CONTENTS = 15 * PAGE_SIZE;

/** Larger frames compress hardly better, and a page takes longer to read. */
const ZSTD_CONTENTS = MIB;

/** Both need a little more where they can't compress: a frame comes in one piece. */
const roomFor = (contents: number): number => contents + (contents >> 7) + KIB;

/** Node's pool has four threads. */
const THREADS = Math.min(4, Math.max(2, availableParallelism()));

/** Node has zstd from 22.15 on. */
const { createZstdCompress, constants } = zlib as unknown as {
  createZstdCompress?: (options: { chunkSize: number; flush: number; params: Record<number, number> }) => Transform;
  constants: typeof zlib.constants & { ZSTD_e_end: number; ZSTD_c_checksumFlag: number };
};

/** Throws `Elf2dmpError` where this Node can't compress like that. */
export function frameFormat(compression: Compression): FrameFormat {
  if (compression === 'gzip') {
    // Members are so small that a thread should find the next one waiting.
    return { contents: BGZF_CONTENTS, atOnce: 2 * THREADS, encoder: () => new BgzfEncoder(), end: () => BGZF_END };
  }
  if (!createZstdCompress) {
    throw new Elf2dmpError({
      code: 'zstd-unavailable',
      kind: 'usage',
      message: `this Node.js (${process.version}) cannot compress with zstd`,
      hint: 'use --compress=gzip, or Node.js 22.15 or later',
    });
  }
  const create = createZstdCompress;
  const encoder = () => {
    // Each write is a frame, whose header says how long its contents are.
    const params = { [constants.ZSTD_c_checksumFlag]: 1 };
    return new StreamEncoder(create({ chunkSize: roomFor(ZSTD_CONTENTS), flush: constants.ZSTD_e_end, params }));
  };
  return { contents: ZSTD_CONTENTS, atOnce: THREADS, encoder, end: seekTable };
}

/** Uses one of zlib's streams of which each write gives a whole frame. */
class StreamEncoder implements FrameEncoder {
  readonly #stream: Transform;
  #output: Buffer[] = [];
  #fail: (error: Error) => void = () => undefined;

  constructor(stream: Transform) {
    this.#stream = stream;
    stream.on('data', (bytes: Buffer) => this.#output.push(bytes));
    stream.on('error', (error) => this.#fail(error));
  }

  compress(contents: Buffer): Promise<readonly Buffer[]> {
    this.#output = [];
    // What it gave before was used: Node's streams put more behind it, or into new memory, which is collected late.
    Reflect.set(this.#stream, '_outOffset', 0);
    return new Promise((resolve, reject) => {
      this.#fail = reject;
      this.#stream.write(contents, (error) => (error ? reject(error) : resolve(this.#output)));
    });
  }

  close(): void {
    this.#stream.destroy();
  }
}

class BgzfEncoder implements FrameEncoder {
  // The fast level: a dump is large, and a second pass with more effort is always possible.
  readonly #deflate = zlib.createDeflateRaw({ level: 1, chunkSize: roomFor(BGZF_CONTENTS), flush: constants.Z_FINISH });
  readonly #encoder = new StreamEncoder(this.#deflate);
  readonly #header = Buffer.alloc(BgzfHeader.size);
  readonly #trailer = Buffer.alloc(GzipTrailer.size);

  constructor() {
    BgzfHeader.write(this.#header, 0, {
      magic: BGZF_MAGIC,
      MTIME: 0,
      XFL_OS: BGZF_UNKNOWN_OS,
      XLEN: BGZF_XLEN,
      SI: BGZF_SUBFIELD,
      SLEN: BGZF_SLEN,
    });
  }

  async compress(contents: Buffer): Promise<readonly Buffer[]> {
    this.#deflate.reset();
    const deflated = await this.#encoder.compress(contents);
    const BSIZE = BgzfHeader.size + sizeOf(deflated) + GzipTrailer.size - 1;
    BgzfHeader.write(this.#header, 0, { BSIZE });
    GzipTrailer.write(this.#trailer, 0, { CRC32: zlib.crc32(contents), ISIZE: contents.length });
    return [this.#header, ...deflated, this.#trailer];
  }

  close(): void {
    this.#encoder.close();
  }
}

const sizeOf = (parts: readonly Buffer[]): number => parts.reduce((size, { length }) => size + length, 0);

/** The sizes of frames that were written, as the seek table has them. */
class FrameSizes {
  #entries = Buffer.alloc(1024 * SeekTableEntry.size);
  count = 0;

  add(compressed: number, contents: number): void {
    const at = this.count++ * SeekTableEntry.size;
    if (at === this.#entries.length) this.#entries = Buffer.concat([this.#entries, Buffer.alloc(at)]);
    SeekTableEntry.write(this.#entries, at, { Compressed_Size: compressed, Decompressed_Size: contents });
  }

  get entries(): Buffer {
    return this.#entries.subarray(0, this.count * SeekTableEntry.size);
  }
}

function seekTable({ entries, count }: FrameSizes): Buffer {
  const head = Buffer.alloc(SeekTableHead.size);
  SeekTableHead.write(head, 0, {
    Skippable_Magic_Number: SEEK_TABLE_SKIPPABLE,
    Frame_Size: entries.length + SeekTableFooter.size,
  });
  const footer = Buffer.alloc(SeekTableFooter.size);
  // Every frame has a checksum of its own.
  SeekTableFooter.write(footer, 0, {
    Number_Of_Frames: count,
    Seek_Table_Descriptor: 0,
    Seekable_Magic_Number: SEEKABLE_MAGIC,
  });
  return Buffer.concat([head, entries, footer]);
}

/** Encoders that take turns, each with its frame's contents. */
interface Lane {
  encoder: FrameEncoder;
  contents: Buffer;
}

/**
 * A stream as frames of `format`, in pieces for writing, each valid until the next one is asked for.
 *
 * @param stream its chunks are copied: it may use their memory again
 */
export async function* inFrames(stream: AsyncIterable<Buffer>, format: FrameFormat): AsyncGenerator<Buffer> {
  const lanes: Lane[] = Array.from({ length: format.atOnce }, () => ({
    encoder: format.encoder(),
    contents: Buffer.allocUnsafeSlow(format.contents),
  }));
  const output = new FrameOutput(OUTPUT_PIECE + roomFor(format.contents));
  let next = 0;
  let filled = 0;
  const start = () => {
    const { encoder, contents } = lanes[next]!;
    output.expect(encoder.compress(contents.subarray(0, filled)), filled);
    next = (next + 1) % lanes.length;
    filled = 0;
  };
  try {
    for await (const bytes of stream) {
      for (let at = 0; at < bytes.length; ) {
        // The lane whose turn it is has the oldest frame.
        if (filled === 0 && output.running === lanes.length) {
          await output.finishOne();
          if (output.size >= OUTPUT_PIECE) yield output.take();
        }
        const count = bytes.copy(lanes[next]!.contents, filled, at);
        at += count;
        filled += count;
        if (filled === format.contents) start();
      }
    }
    if (filled > 0) start();
    while (output.running > 0) {
      await output.finishOne();
      yield output.take();
    }
    yield format.end(output.frames);
  } finally {
    for (const { encoder } of lanes) encoder.close();
  }
}

/** Frames in their order, and those that are not done yet. */
class FrameOutput {
  readonly frames = new FrameSizes();
  size = 0;
  readonly #room: Buffer;
  readonly #running: { contents: number; frame: Promise<readonly Buffer[]> }[] = [];

  constructor(room: number) {
    this.#room = Buffer.allocUnsafeSlow(room);
  }

  get running(): number {
    return this.#running.length;
  }

  expect(frame: Promise<readonly Buffer[]>, contents: number): void {
    // Its failure is seen where it is awaited, if at all.
    frame.catch(() => undefined);
    this.#running.push({ contents, frame });
  }

  /** Waits for the oldest one. There has to be room for it. */
  async finishOne(): Promise<void> {
    const { contents, frame } = this.#running.shift()!;
    const parts = await frame;
    this.frames.add(sizeOf(parts), contents);
    for (const part of parts) {
      part.copy(this.#room, this.size);
      this.size += part.length;
    }
  }

  /** Makes room. */
  take(): Buffer {
    const taken = this.#room.subarray(0, this.size);
    this.size = 0;
    return taken;
  }
}
