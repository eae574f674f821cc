/**
 * zstd (RFC 8878), decompressed by the reference implementation as WebAssembly (zstddec), which compares checksums, but
 * does not say what is wrong with a file: frames are followed and bounded here.
 */
import { Readable } from 'node:stream';
import * as zlib from 'node:zlib';
import { ZSTDDecoder } from 'zstddec/stream';
import { Elf2dmpError } from '../core/errors.ts';
import { bytes, GIB, MIB } from '../core/units.ts';
import { ChunkReader, ContainerDamage } from './chunks.ts';
import { type ByteSource, readUpTo } from './source.ts';

const FRAME_MAGIC = 0xfd2fb528;

/** Bytes of magic and descriptor, and of the longest header (RFC 8878 3.1.1.1). */
const HEADER_START = 5;
const MAX_HEADER = 18;

/** Magic of a skippable frame, whose low four bits are free. */
const SKIPPABLE_MAGIC = 0x184d2a50;

const BLOCK_HEADER = 3;
const CHECKSUM = 4;

/** A block's bytes in the file (RFC 8878 3.1.1.2.4). */
const MAX_BLOCK = 128 * 1024;

/** Bytes of Frame_Content_Size and Dictionary_ID, by their flags in the descriptor. */
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;
const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const;
const RLE_BLOCK = 1;
const RESERVED_BLOCK = 3;

/** The window that `zstd -d` allows by default too, and the largest that the streaming decoder takes. */
export const DEFAULT_WINDOW = 128 * MIB;

/** The largest window that zstd itself makes (`--long=31`), and that Node's takes. */
const MAX_WINDOW = 2 * GIB;

/** Contents that the decoder's 32-bit memory has room for, together with the compressed frame. */
const MAX_WHOLE = GIB;

/** Node has zstd from 22.15 on. */
const { createZstdDecompress, zstdDecompress, constants } = zlib as unknown as {
  zstdDecompress?: (
    frame: Buffer,
    options: { chunkSize: number; maxOutputLength: number },
    done: (error: Error | null, contents: Buffer) => void,
  ) => void;
  createZstdDecompress?: (options: { params: Record<number, number> }) => NodeJS.ReadWriteStream;
  constants: { ZSTD_d_windowLogMax: number };
};

/**
 * Yields what can be decompressed, then throws `ContainerDamage`; or `Elf2dmpError` for more memory than allowed.
 *
 * @param windowLimit bytes of memory that a frame may ask for
 */
export async function* unzstd(
  compressed: AsyncIterable<Buffer>,
  windowLimit: number = DEFAULT_WINDOW,
): AsyncGenerator<Buffer> {
  const input = new ChunkReader(compressed);
  for (let frames = 0; ; frames++) {
    const start = await input.upTo(4);
    if (start.length === 0 && frames > 0) return;
    if (start.length < 4) throw new ContainerDamage('truncated', 'it ends within the start of a frame');
    const magic = start.readUInt32LE();
    if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE_MAGIC) {
      await input.skip((await input.exactly(4)).readUInt32LE());
    } else if (magic === FRAME_MAGIC) {
      const header = await readHeader(input, start);
      yield* contentsOf(header, input, windowLimit);
    } else {
      throw new ContainerDamage('damaged', `0x${magic.toString(16)} where a frame should begin`);
    }
  }
}

/** What a frame says of itself. */
export interface FrameHeader {
  bytes: Buffer;
  /** Bytes of contents that later ones may refer to. */
  window: number;
  /** undefined where the frame does not say. */
  contentSize: number | undefined;
  hasChecksum: boolean;
}

async function readHeader(input: ChunkReader, magic: Buffer): Promise<FrameHeader> {
  const start = Buffer.concat([magic, await input.exactly(1)]);
  return parseHeader(Buffer.concat([start, await input.exactly(headerSize(start) - HEADER_START)]));
}

interface DescriptorFields {
  singleSegment: boolean;
  sizeBytes: number;
  idBytes: number;
  hasChecksum: boolean;
}

/** Frame_Header_Descriptor (RFC 8878 3.1.1.1.1). */
function descriptorOf(header: Buffer): DescriptorFields {
  const flags = header.readUInt8(4);
  const singleSegment = (flags & 0x20) !== 0;
  return {
    singleSegment,
    // A single segment has no window descriptor, and a content size of at least one byte.
    sizeBytes: CONTENT_SIZE_BYTES[(flags >> 6) as 0 | 1 | 2 | 3] || (singleSegment ? 1 : 0),
    idBytes: DICTIONARY_ID_BYTES[(flags & 3) as 0 | 1 | 2 | 3],
    hasChecksum: (flags & 0x04) !== 0,
  };
}

/** Bytes of a header, by its first `HEADER_START`. */
function headerSize(start: Buffer): number {
  const { singleSegment, sizeBytes, idBytes } = descriptorOf(start);
  return HEADER_START + (singleSegment ? 0 : 1) + idBytes + sizeBytes;
}

/** A whole header, and nothing else. */
function parseHeader(header: Buffer): FrameHeader {
  const { singleSegment, sizeBytes, hasChecksum } = descriptorOf(header);
  const contentSize = sizeBytes === 0 ? undefined : contentSizeOf(header.subarray(header.length - sizeBytes));
  return {
    bytes: header,
    window: singleSegment ? contentSize! : windowOf(header.readUInt8(HEADER_START)),
    contentSize,
    hasChecksum,
  };
}

/** What the frame's header at a place of a file says; undefined where none begins. Throws `Elf2dmpError` on I/O errors. */
export function frameHeaderAt(file: ByteSource, offset: number): FrameHeader | undefined {
  const head = readUpTo(file, offset, MAX_HEADER);
  if (head.length < HEADER_START || head.readUInt32LE() !== FRAME_MAGIC) return undefined;
  const size = headerSize(head);
  return size > head.length ? undefined : parseHeader(head.subarray(0, size));
}

/** Where the frame ends whose header is at a place of a file, by its blocks' sizes; undefined if they make no sense. */
export function frameEnd(file: ByteSource, offset: number): number | undefined {
  const header = frameHeaderAt(file, offset);
  if (!header) return undefined;
  for (let at = offset + header.bytes.length; ; ) {
    const start = readUpTo(file, at, BLOCK_HEADER);
    if (start.length < BLOCK_HEADER) return undefined;
    const { last, size, isSound } = blockOf(start);
    if (!isSound) return undefined;
    at += BLOCK_HEADER + size;
    if (last) return header.hasChecksum ? at + CHECKSUM : at;
  }
}

/** Unpacks whole frames, and compares their checksums. */
export interface FrameDecoder {
  /** undefined if the frame is damaged, or has not `size` bytes of contents. */
  unpackSync(frame: Buffer, size: number): Buffer | undefined;
  /** As `unpackSync`, in another thread where Node has zstd. */
  unpack(frame: Buffer, size: number): Promise<Buffer | undefined>;
}

/** For frames that say how long their contents are, and that fit memory many times. */
export async function frameDecoder(): Promise<FrameDecoder> {
  const decoder = await loadDecoder();
  const unpackSync: FrameDecoder['unpackSync'] = (frame, size) => {
    const contents = asBuffer(decoder.decode(frame, size));
    // An error comes as no contents.
    return contents.length === size ? contents : undefined;
  };
  if (!zstdDecompress) return { unpackSync, unpack: async (frame, size) => unpackSync(frame, size) };
  const byThread = zstdDecompress;
  return {
    unpackSync,
    unpack: (frame, size) =>
      new Promise((resolve) => {
        // One that is no longer than it may be leaves room at the end of its only piece.
        byThread(frame, { chunkSize: size + 64, maxOutputLength: size }, (error, contents) =>
          resolve(!error && contents.length === size ? contents : undefined),
        );
      }),
  };
}

/** Window_Descriptor: exponent and mantissa (RFC 8878 3.1.1.1.2). */
function windowOf(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3));
  return base + (base / 8) * (descriptor & 7);
}

function contentSizeOf(field: Buffer): number {
  if (field.length === 8) return Number(field.readBigUInt64LE());
  // Two bytes count from 256.
  return field.readUIntLE(0, field.length) + (field.length === 2 ? 256 : 0);
}

const refuse = (message: string, hint: string) =>
  new Elf2dmpError({ code: 'zstd-window', kind: 'unsupported', message, hint });

/** Refuses a frame before its memory is taken. */
function checkMemory(needed: number, limit: number): void {
  if (needed <= limit) return;
  throw refuse(
    `decompressing this zstd file takes ${bytes(needed)} of memory (zstd --long), and ${bytes(limit)} are allowed`,
    `give --zstd-window ${Math.ceil(needed / MIB)} if there is that much memory`,
  );
}

const notByThisNode = (window: number) =>
  refuse(
    `this Node.js (${process.version}) cannot decompress more than ${bytes(MAX_WHOLE)} with a window of ${bytes(window)} (zstd --long)`,
    'use Node.js 22.15 or later, or decompress the file first: `zstd -d --long=31 FILE`',
  );

/** A frame's contents. Throws `Elf2dmpError` where they take more memory than allowed, or than there can be. */
function contentsOf(header: FrameHeader, input: ChunkReader, limit: number): AsyncIterable<Buffer> {
  const { window, contentSize } = header;
  const parts = partsOf(header, input);
  if (window <= DEFAULT_WINDOW) {
    checkMemory(Math.min(window, contentSize ?? window), limit);
    return streamed(parts);
  }
  if (window > MAX_WINDOW) {
    throw refuse(
      `this zstd file asks for a window of ${bytes(window)}, and zstd itself makes at most ${bytes(MAX_WINDOW)}`,
      'is there another copy of it? this one may be damaged',
    );
  }
  if (createZstdDecompress) {
    checkMemory(Math.min(window, contentSize ?? window), limit);
    return byNode(parts);
  }
  if (contentSize === undefined) return wholeOfUnknownSize(parts, window, limit);
  if (contentSize > MAX_WHOLE) throw notByThisNode(window);
  checkMemory(contentSize, limit);
  return whole(parts, contentSize);
}

/** Block_Header (RFC 8878 3.1.1.2): bytes that follow it. */
function blockOf(header: Buffer): { last: boolean; type: number; size: number; isSound: boolean } {
  const word = header.readUIntLE(0, BLOCK_HEADER);
  const type = (word >> 1) & 3;
  const size = type === RLE_BLOCK ? 1 : word >> 3;
  return { last: (word & 1) !== 0, type, size, isSound: type !== RESERVED_BLOCK && size <= MAX_BLOCK };
}

/** A frame as it is: its header, then each block, the last one with the checksum. */
async function* partsOf(header: FrameHeader, input: ChunkReader): AsyncGenerator<Buffer> {
  yield header.bytes;
  for (let last = false; !last; ) {
    const start = await input.exactly(BLOCK_HEADER);
    const { last: isLast, type, size, isSound } = blockOf(start);
    last = isLast;
    if (!isSound) throw new ContainerDamage('damaged', `a block of type ${type} with ${size} bytes`);
    const block = await input.exactly(size);
    const checksum = last && header.hasChecksum ? await input.exactly(CHECKSUM) : undefined;
    yield Buffer.concat(checksum ? [start, block, checksum] : [start, block]);
  }
}

const loadDecoder = async (): Promise<ZSTDDecoder> => {
  const decoder = new ZSTDDecoder();
  await withoutFetch(() => decoder.init());
  return decoder;
};

/** The decoder would fetch itself from a data URL, for which Node starts an HTTP parser that takes memory of its own. */
function withoutFetch<T>(work: () => T): T {
  const { fetch } = globalThis;
  try {
    Reflect.set(globalThis, 'fetch', undefined);
    return work();
  } finally {
    Reflect.set(globalThis, 'fetch', fetch);
  }
}

const asBuffer = ({ buffer, byteOffset, length }: Uint8Array) => Buffer.from(buffer, byteOffset, length);

const unsound = () => new ContainerDamage('damaged', 'a block, or the checksum of its contents, is damaged');

/** Block by block, in little memory. */
async function* streamed(parts: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  const decoder = await loadDecoder();
  let next: Buffer | undefined;
  let asked = false;
  // The decoder takes one part when it is done with the one before.
  const source: Iterator<Uint8Array> = {
    next() {
      const value = next;
      next = undefined;
      asked = true;
      return value ? { done: false, value } : { done: true, value: undefined };
    },
  };
  const output = decoder.decodeStreaming({ [Symbol.iterator]: () => source });
  for (;;) {
    next ??= (await parts.next()).value ?? undefined;
    asked = false;
    let step: IteratorResult<Uint8Array>;
    try {
      step = output.next();
    } catch (error) {
      // Its only one: the frame goes on after its last block.
      if (error instanceof Error && error.message.startsWith('Incomplete')) throw unsound();
      throw error;
    }
    if (step.done) return;
    // On an error it neither goes on nor asks for more.
    if (step.value.length === 0 && !asked) throw unsound();
    if (step.value.length > 0) yield asBuffer(step.value);
  }
}

/** In one piece, for large windows: the contents are the window. */
async function* whole(parts: AsyncIterable<Buffer>, contentSize: number): AsyncGenerator<Buffer> {
  const collected: Buffer[] = [];
  for await (const part of parts) collected.push(part);
  const contents = await decodeWhole(collected, contentSize);
  if (contents.length !== contentSize) throw unsound();
  yield* piecesOf(contents);
}

/**
 * The same for a frame made from a stream, which does not say how long it is: no block holds more than `MAX_BLOCK`. More
 * memory than allowed is not taken to find out how much would be needed.
 */
async function* wholeOfUnknownSize(
  parts: AsyncIterable<Buffer>,
  window: number,
  limit: number,
): AsyncGenerator<Buffer> {
  const collected: Buffer[] = [];
  let most = -MAX_BLOCK;
  for await (const part of parts) {
    // The first part is the header.
    most += MAX_BLOCK;
    if (most > MAX_WHOLE) throw notByThisNode(window);
    if (most <= limit) collected.push(part);
    else collected.length = 0;
  }
  checkMemory(most, limit);
  const [, ...blocks] = collected;
  const isEmpty = blocks.every((block) => block.readUIntLE(0, 3) >> 3 === 0);
  const contents = await decodeWhole(collected, most);
  // An error comes as no contents.
  if (contents.length === 0 && !isEmpty) throw unsound();
  yield* piecesOf(contents);
}

/** Window_Descriptor of the default window: exponent 27 counts from 10, without mantissa. */
const DEFAULT_DESCRIPTOR = (27 - 10) << 3;

async function decodeWhole(parts: Buffer[], room: number): Promise<Buffer> {
  const frame = Buffer.concat(parts.splice(0));
  const hasDescriptor = (frame[4]! & 0x20) === 0;
  // The decoder refuses windows of 2 GiB, though in one piece it needs none.
  if (hasDescriptor) frame[5] = DEFAULT_DESCRIPTOR;
  return asBuffer((await loadDecoder()).decode(frame, room));
}

function* piecesOf(contents: Buffer): Generator<Buffer> {
  for (let at = 0; at < contents.length; at += MIB) yield contents.subarray(at, at + MIB);
}

/** With Node's own zstd, which takes any window. */
async function* byNode(parts: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  let failure: unknown;
  const source = Readable.from(
    (async function* () {
      try {
        yield* parts;
      } catch (error) {
        // What came before it is still decompressed.
        failure = error;
      }
    })(),
    { objectMode: false },
  );
  const stream = source.pipe(createZstdDecompress!({ params: { [constants.ZSTD_d_windowLogMax]: 31 } }));
  try {
    for await (const piece of stream) yield piece as Buffer;
  } catch (error) {
    if (failure !== undefined) throw failure;
    throw new ContainerDamage('damaged', error instanceof Error ? error.message : String(error));
  }
  if (failure !== undefined) throw failure;
}
