/**
 * gzip (RFC 1952). Node inflates; members are followed here, because its own gunzip drops sound contents when other bytes
 * follow their end.
 */
import * as zlib from 'node:zlib';
import { ChunkReader, ContainerDamage } from './chunks.ts';

/** ID1, ID2, and the only CM. */
export const GZIP_MAGIC = Buffer.from('1f8b08', 'hex');

/** FLG (RFC 1952 2.3.1). */
const FHCRC = 0x02;
const FEXTRA = 0x04;
const FNAME = 0x08;
const FCOMMENT = 0x10;

/** What zlib has made of a piece is lost when the piece turns out to be damaged. */
const PIECE = 4096;

/** Names and comments are short. */
const MAX_TEXT = 64 * 1024;

/** Yields what can be decompressed, then throws `ContainerDamage`. */
export async function* gunzip(compressed: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const input = new ChunkReader(compressed);
  for (let members = 0; ; members++) {
    const rest = members === 0 ? GZIP_MAGIC : await afterPadding(input);
    if (rest.length === 0) return;
    if (members > 0) input.unread(rest);
    const magic = await input.upTo(GZIP_MAGIC.length);
    if (!magic.equals(GZIP_MAGIC)) {
      throw new ContainerDamage('damaged', 'other bytes follow its end; what comes before them has the right checksum');
    }
    await skipHeader(input);
    yield* contentsOf(input);
  }
}

/** What follows zeros, which tapes leave; empty at the end of the file. */
async function afterPadding(input: ChunkReader): Promise<Buffer> {
  for (;;) {
    const piece = await input.some(PIECE);
    const at = piece.findIndex((byte) => byte !== 0);
    if (at >= 0) return piece.subarray(at);
    if (piece.length === 0) return piece;
  }
}

/** The header behind the magic. */
async function skipHeader(input: ChunkReader): Promise<void> {
  const flags = (await input.exactly(7)).readUInt8();
  if (flags & FEXTRA) await input.skip((await input.exactly(2)).readUInt16LE());
  for (const text of [FNAME, FCOMMENT]) {
    if (flags & text) await skipText(input);
  }
  if (flags & FHCRC) await input.skip(2);
}

async function skipText(input: ChunkReader): Promise<void> {
  for (let length = 0; length < MAX_TEXT; length++) {
    if ((await input.exactly(1)).readUInt8() === 0) return;
  }
  throw new ContainerDamage('damaged', 'a name in its header does not end');
}

/** One member's contents, with its checksum and size compared. */
async function* contentsOf(input: ChunkReader): AsyncGenerator<Buffer> {
  let checksum = 0;
  let size = 0;
  for await (const piece of inflate(input)) {
    checksum = zlib.crc32(piece, checksum);
    size += piece.length;
    yield piece;
  }
  const trailer = await input.exactly(8);
  if (trailer.readUInt32LE(0) !== checksum || trailer.readUInt32LE(4) !== size % 2 ** 32) {
    throw new ContainerDamage('damaged', 'its contents do not match its checksum');
  }
}

async function* inflate(input: ChunkReader): AsyncGenerator<Buffer> {
  const inflater = zlib.createInflateRaw({ chunkSize: 64 * 1024 });
  let output: Buffer[] = [];
  let ended = false;
  let failure: NodeJS.ErrnoException | undefined;
  let wake = () => {};
  inflater.on('data', (bytes: Buffer) => output.push(bytes));
  inflater.on('end', () => {
    ended = true;
    wake();
  });
  inflater.on('error', (error) => {
    failure = error;
    wake();
  });
  try {
    for (let fed = 0; !ended; ) {
      const piece = await input.some(PIECE);
      fed += piece.length;
      await new Promise<void>((resolve) => {
        wake = resolve;
        // A write is not answered where the contents end within it.
        if (piece.length === 0) inflater.end();
        else inflater.write(piece, () => resolve());
      });
      yield* output;
      output = [];
      if (failure) throw damage(failure);
      if (ended) input.unread(piece.subarray(piece.length - (fed - inflater.bytesWritten)));
    }
  } finally {
    inflater.destroy();
  }
}

function damage(error: NodeJS.ErrnoException): Error {
  if (error.code === 'Z_BUF_ERROR') return new ContainerDamage('truncated', 'it ends in the middle');
  return error.code?.startsWith('Z_') ? new ContainerDamage('damaged', error.message) : error;
}
