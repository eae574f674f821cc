/** bzip2, by its public description (J. Tsai, "BZIP2: Format Specification", 2016). Nothing is believed. */
import { ChunkReader, ContainerDamage } from './chunks.ts';

export const BZIP2_MAGIC = Buffer.from('BZh', 'latin1');

const BLOCK_MARK = 0x314159265359;
const END_MARK = 0x177245385090;
/** Compressed bytes of a block, at most: 900,000 symbols of 20 bits, and its tables. */
const MAX_BLOCK = 2_400_000;
const MAX_CODE_LENGTH = 20;
/** Symbols that a Huffman table is used for before the next selector counts. */
const GROUP = 50;
const RUN_A = 0;
const RUN_B = 1;

/** Yields what can be decompressed, then throws `ContainerDamage`. */
export async function* bunzip2(compressed: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const input = new ChunkReader(compressed);
  for (let streams = 0; ; streams++) {
    const head = await input.upTo(4);
    if (streams > 0 && head.length === 0) return;
    const level = (head[3] ?? 0) - 0x30;
    if (!head.subarray(0, 3).equals(BZIP2_MAGIC) || level < 1 || level > 9) {
      throw new ContainerDamage('damaged', 'other bytes follow its end; what comes before them has the right checksum');
    }
    yield* blocksOf(input, level * 100_000);
  }
}

async function* blocksOf(input: ChunkReader, blockSize: number): AsyncGenerator<Buffer> {
  const transform = new Uint32Array(blockSize);
  let combined = 0;
  let skipped = 0;
  for (;;) {
    const bits = new Bits(await input.upTo(MAX_BLOCK), skipped);
    const mark = bits.take(24) * 2 ** 24 + bits.take(24);
    const checksum = bits.take(16) * 2 ** 16 + bits.take(16);
    if (mark !== END_MARK) {
      if (mark !== BLOCK_MARK) throw damaged('a block does not begin where it should');
      const contents = contentsOf(readBlock(bits, transform), transform);
      if (crc32(contents) !== checksum) throw damaged('its contents do not match its checksum');
      combined = (((combined << 1) | (combined >>> 31)) ^ checksum) >>> 0;
      yield contents;
    }
    const { rest, offset } = bits.end();
    // Streams begin at whole bytes.
    input.unread(mark === END_MARK && offset > 0 ? rest.subarray(1) : rest);
    skipped = offset;
    if (mark !== END_MARK) continue;
    if (combined !== checksum) throw damaged('its contents do not match its checksum');
    return;
  }
}

const damaged = (why: string) => new ContainerDamage('damaged', why);

class Bits {
  readonly #bytes: Buffer;
  #at: number;
  #held = 0;
  #count = 0;

  /** @param skipped bits of the first byte that were taken before */
  constructor(bytes: Buffer, skipped: number) {
    this.#bytes = bytes;
    this.#at = 0;
    if (skipped > 0) this.take(skipped);
  }

  /** At most 24 bits. */
  take(count: number): number {
    while (this.#count < count) this.#fill();
    this.#count -= count;
    return this.#bits(count);
  }

  /** The next `MAX_CODE_LENGTH` bits, which stay; zeros behind the end. */
  peek(): number {
    while (this.#count < MAX_CODE_LENGTH) this.#fill();
    return (this.#held >>> (this.#count - MAX_CODE_LENGTH)) & ((1 << MAX_CODE_LENGTH) - 1);
  }

  drop(count: number): void {
    this.#count -= count;
    if (this.#at - Math.ceil(this.#count / 8) > this.#bytes.length) throw this.#cut();
  }

  #bits(count: number): number {
    if (this.#at - Math.ceil(this.#count / 8) > this.#bytes.length) throw this.#cut();
    return (this.#held >>> this.#count) & ((1 << count) - 1);
  }

  #fill(): void {
    this.#held = ((this.#held << 8) | (this.#bytes[this.#at++] ?? 0)) & 0x7fff_ffff;
    this.#count += 8;
  }

  #cut(): ContainerDamage {
    return new ContainerDamage('truncated', 'it ends in the middle');
  }

  /** What was not taken: from the byte on whose first `offset` bits were. */
  end(): { rest: Buffer; offset: number } {
    const partial = this.#count % 8;
    const at = this.#at - Math.ceil(this.#count / 8);
    return { rest: this.#bytes.subarray(at), offset: partial === 0 ? 0 : 8 - partial };
  }
}

/** A canonical Huffman code. */
interface Code {
  /** For each length: one more than its largest code, or 0. */
  limits: Int32Array;
  /** For each length: what makes an index in `symbols` of a code. */
  bases: Int32Array;
  symbols: Uint16Array;
}

interface Block {
  length: number;
  /** Where the contents begin in the sorted rotations. */
  origin: number;
  counts: Int32Array;
}

/** Puts the block's last column into the lower bytes of `transform`. */
function readBlock(bits: Bits, transform: Uint32Array): Block {
  if (bits.take(1) === 1) throw damaged('it is of a bzip2 older than 0.9.5');
  const origin = bits.take(24);
  const order = readAlphabet(bits);
  const tables = bits.take(3);
  const selectors = readSelectors(bits, tables);
  if (order.length === 0 || tables < 2 || tables > 6 || selectors.length === 0)
    throw damaged('a table is not as it can be');
  const alphabet = order.length + 2;
  const codes = Array.from({ length: tables }, () => readCode(bits, alphabet));
  const counts = new Int32Array(256);
  let length = 0;
  const put = (byte: number, times: number) => {
    if (length + times > transform.length) throw damaged('a block is larger than it says');
    transform.fill(byte, length, length + times);
    counts[byte]! += times;
    length += times;
  };
  let run = 0;
  let weight = 1;
  for (let taken = 0; ; taken++) {
    const code = codes[selectors[Math.floor(taken / GROUP)] ?? -1];
    if (!code) throw damaged('a block does not end');
    const symbol = readSymbol(bits, code);
    if (symbol === RUN_A || symbol === RUN_B) {
      run += weight << symbol;
      weight *= 2;
      if (run > transform.length) throw damaged('a block is larger than it says');
      continue;
    }
    if (run > 0) {
      put(order[0]!, run);
      run = 0;
      weight = 1;
    }
    if (symbol === alphabet - 1) break;
    const byte = order[symbol - 1]!;
    order.copyWithin(1, 0, symbol - 1);
    order[0] = byte;
    put(byte, 1);
  }
  if (origin >= length) throw damaged('a block begins behind its end');
  return { length, origin, counts };
}

/** The bytes that the block has, in order. */
function readAlphabet(bits: Bits): Uint8Array {
  const rows = bits.take(16);
  const present: number[] = [];
  for (let high = 0; high < 16; high++) {
    if (((rows >>> (15 - high)) & 1) === 0) continue;
    const row = bits.take(16);
    for (let low = 0; low < 16; low++) if ((row >>> (15 - low)) & 1) present.push(16 * high + low);
  }
  return Uint8Array.from(present);
}

function readSelectors(bits: Bits, tables: number): Uint8Array {
  const selectors = new Uint8Array(bits.take(15));
  const order = Array.from({ length: tables }, (_, i) => i);
  for (let i = 0; i < selectors.length; i++) {
    let index = 0;
    while (bits.take(1) === 1) if (++index >= tables) throw damaged('a selector is not as it can be');
    const [table] = order.splice(index, 1);
    order.unshift(table!);
    selectors[i] = table!;
  }
  return selectors;
}

function readCode(bits: Bits, alphabet: number): Code {
  const lengths = new Uint8Array(alphabet);
  let length = bits.take(5);
  for (let symbol = 0; symbol < alphabet; symbol++) {
    for (;;) {
      if (length < 1 || length > MAX_CODE_LENGTH) throw damaged('a code has a length that it can not have');
      if (bits.take(1) === 0) break;
      length += bits.take(1) === 0 ? 1 : -1;
    }
    lengths[symbol] = length;
  }
  const limits = new Int32Array(MAX_CODE_LENGTH + 1);
  const bases = new Int32Array(MAX_CODE_LENGTH + 1);
  const symbols = new Uint16Array(alphabet);
  let next = 0;
  let code = 0;
  for (let size = 1; size <= MAX_CODE_LENGTH; size++) {
    bases[size] = next - code;
    for (let symbol = 0; symbol < alphabet; symbol++) {
      if (lengths[symbol] !== size) continue;
      symbols[next++] = symbol;
      code++;
    }
    limits[size] = code;
    code *= 2;
  }
  return { limits, bases, symbols };
}

function readSymbol(bits: Bits, { limits, bases, symbols }: Code): number {
  const ahead = bits.peek();
  for (let length = 1; length <= MAX_CODE_LENGTH; length++) {
    const code = ahead >>> (MAX_CODE_LENGTH - length);
    if (code >= limits[length]!) continue;
    bits.drop(length);
    return symbols[code + bases[length]!] ?? 0;
  }
  throw damaged('a code that no symbol has');
}

/** Undoes the sorting, then the runs of four and more. */
function contentsOf({ length, origin, counts }: Block, transform: Uint32Array): Buffer {
  const starts = new Int32Array(256);
  for (let byte = 1; byte < 256; byte++) starts[byte] = starts[byte - 1]! + counts[byte - 1]!;
  for (let i = 0; i < length; i++) {
    const byte = transform[i]! & 0xff;
    transform[starts[byte]!++]! |= i << 8;
  }
  let output = Buffer.allocUnsafe(2 * length + 256);
  let size = 0;
  let repeated = 0;
  let previous = -1;
  let at = transform[origin]! >>> 8;
  for (let i = 0; i < length; i++) {
    const entry = transform[at]!;
    const byte = entry & 0xff;
    at = entry >>> 8;
    if (size + 256 > output.length) output = Buffer.concat([output, Buffer.allocUnsafe(output.length)]);
    if (repeated === 4) {
      output.fill(previous, size, size + byte);
      size += byte;
      repeated = 0;
      previous = -1;
      continue;
    }
    repeated = byte === previous ? repeated + 1 : 1;
    previous = byte;
    output[size++] = byte;
  }
  return output.subarray(0, size);
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 24;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000_0000 ? (crc << 1) ^ 0x04c1_1db7 : crc << 1;
  return crc >>> 0;
});

/** Unlike zlib's, from the highest bit on. */
function crc32(bytes: Buffer): number {
  let crc = 0xffff_ffff;
  for (let i = 0; i < bytes.length; i++) crc = (crc << 8) ^ CRC_TABLE[((crc >>> 24) ^ bytes[i]!) & 0xff]!;
  return ~crc >>> 0;
}
