/** Compressed files around a dump: what they are, and their contents as a stream. */
import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { ContainerDamage } from './chunks.ts';

/** A file that holds another: a compression or an archive. */
export interface Container {
  /** `gzip`, for messages and reports. */
  readonly name: string;
  readonly magic: Buffer;
  /** Throws `ContainerDamage` where the rest cannot be decompressed. */
  unpack(compressed: AsyncIterable<Buffer>): AsyncIterable<Buffer>;
}

const CONTAINERS: readonly Container[] = [
  { name: 'gzip', magic: Buffer.from('1f8b08', 'hex'), unpack: gunzip },
  {
    name: 'zstd',
    magic: Buffer.from('28b52ffd', 'hex'),
    // Loaded only when needed, as the others.
    unpack: async function* (compressed) {
      yield* (await import('./zstd.ts')).unzstd(compressed);
    },
  },
  { name: 'xz', magic: Buffer.from('fd377a585a00', 'hex'), unpack: unxz },
];

/** The container that a file's first bytes show. */
export const identifyContainer = (head: Buffer): Container | undefined =>
  CONTAINERS.find(({ magic }) => head.subarray(0, magic.length).equals(magic));

async function* gunzip(compressed: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  // In small steps: what zlib has made of a piece is lost when the piece turns out to be damaged.
  const source = Readable.from(inPieces(compressed, 4096), { objectMode: false });
  const stream = source.pipe(createGunzip({ chunkSize: 64 * 1024 }));
  source.on('error', (error) => stream.destroy(error));
  try {
    for await (const chunk of stream) yield chunk as Buffer;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'Z_BUF_ERROR') throw new ContainerDamage('truncated', 'it ends in the middle');
    if (code?.startsWith('Z_')) throw new ContainerDamage('damaged', (error as Error).message);
    throw error;
  } finally {
    stream.destroy();
    source.destroy();
  }
}

async function* inPieces(chunks: AsyncIterable<Buffer>, size: number): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; at += size) yield chunk.subarray(at, at + size);
  }
}

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
