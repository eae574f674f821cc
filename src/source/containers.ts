/** Compressed files around a dump: what they are, and their contents as a stream. */
import { Readable } from 'node:stream';
import { BZIP2_MAGIC, bunzip2 } from './bzip2.ts';
import { ContainerDamage } from './chunks.ts';
import type { FrameIndex } from './framed.ts';
import { GZIP_MAGIC, gunzip } from './gzip.ts';
import { LZOP_MAGIC, unlzop } from './lzop.ts';
import type { ByteSource } from './source.ts';

/** A file that holds another: a compression or an archive. */
export interface Container {
  /** `gzip`, for messages and reports. */
  readonly name: string;
  readonly magic: Buffer;
  /**
   * Throws `ContainerDamage` where the rest cannot be decompressed, and `Elf2dmpError` where that takes too much memory.
   *
   * @param windowLimit for zstd: bytes of memory that it may take
   */
  unpack(compressed: AsyncIterable<Buffer>, windowLimit?: number): AsyncIterable<Buffer>;
  /**
   * Finds the parts of a file that can be unpacked by themselves; undefined where it is to be read as a stream. Throws
   * `Elf2dmpError` where the file can't be read.
   */
  index?(file: ByteSource, options: IndexOptions): Promise<FrameIndex | undefined>;
}

/** How an index is made. */
export interface IndexOptions {
  /** As for `unpack`. */
  windowLimit?: number | undefined;
  signal?: AbortSignal | undefined;
}

const CONTAINERS: readonly Container[] = [
  {
    name: 'gzip',
    magic: GZIP_MAGIC,
    unpack: (compressed) => gunzip(compressed),
    index: async (file, { signal }) => (await import('./bgzf.ts')).indexBgzf(file, signal),
  },
  {
    name: 'zstd',
    magic: Buffer.from('28b52ffd', 'hex'),
    // Loaded only when needed, as the others.
    unpack: async function* (compressed, windowLimit) {
      yield* (await import('./zstd.ts')).unzstd(compressed, windowLimit);
    },
    index: async (file, { windowLimit, signal }) =>
      (await import('./seek-table.ts')).indexSeekTable(file, windowLimit, signal),
  },
  { name: 'xz', magic: Buffer.from('fd377a585a00', 'hex'), unpack: unxz },
  { name: 'bzip2', magic: BZIP2_MAGIC, unpack: (compressed) => bunzip2(compressed) },
  { name: 'lzop', magic: LZOP_MAGIC, unpack: (compressed) => unlzop(compressed) },
];

/** The container that a file's first bytes show. */
export const identifyContainer = (head: Buffer): Container | undefined =>
  CONTAINERS.find(({ magic }) => head.subarray(0, magic.length).equals(magic));

/** What xz-embedded, which xz-decompress is made of, says (enum xz_ret). */
const XZ_ERRORS: Record<string, string> = {
  '3': 'it needs too much memory',
  '4': 'it needs too much memory',
  '6': 'it uses a filter or a checksum that elf2dmp cannot decode; `xz -dc FILE | elf2dmp - OUTPUT` can',
  '7': 'its contents do not match its checksums',
  '8': 'it ends in the middle',
};

async function* unxz(compressed: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const { XzReadableStream } = (await import('xz-decompress')).default;
  const source = Readable.from(compressed, { objectMode: false });
  const reader = new XzReadableStream(Readable.toWeb(source) as unknown as ReadableStream<Uint8Array>).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      // A copy: the stream may use its buffer again.
      yield Buffer.from(value);
    }
  } catch (error) {
    const number = /error code (\d+)/.exec((error as Error).message)?.[1];
    if (number === undefined) throw error;
    throw new ContainerDamage(number === '8' ? 'truncated' : 'damaged', XZ_ERRORS[number] ?? (error as Error).message);
  } finally {
    source.destroy();
  }
}
