/** gzip files whose members say how long they are: any of them can be unpacked by itself. */
import * as zlib from 'node:zlib';
import { Pulse } from '../core/pulse.ts';
import { BGZF_MAGIC, BGZF_MAX, BGZF_SLEN, BGZF_SUBFIELD, BGZF_XLEN, BgzfHeader, GzipTrailer } from './bgzf-layout.ts';
import type { FrameIndex, StoredFrame } from './framed.ts';
import type { ByteSource } from './source.ts';

const { magic, XLEN, SI, SLEN, BSIZE } = BgzfHeader.fields;
const { CRC32, ISIZE } = GzipTrailer.fields;

/** Bytes of a member without deflated contents. */
const FRAMING = BgzfHeader.size + GzipTrailer.size;

/** Members between two whose place is kept. */
const STRIDE = 64;

/** Members with damaged sizes that are looked into. */
const MAX_DOUBTS = 64;

/** Members that are passed without a look at the clock. */
const BEAT = 1024;

/** Bytes of a member; undefined where none begins. */
function memberSize(bytes: Buffer): number | undefined {
  if (bytes.length < BgzfHeader.size || magic.read(bytes, 0) !== BGZF_MAGIC) return undefined;
  const isBgzf =
    XLEN.read(bytes, XLEN.offset) === BGZF_XLEN &&
    SI.read(bytes, SI.offset) === BGZF_SUBFIELD &&
    SLEN.read(bytes, SLEN.offset) === BGZF_SLEN;
  const size = BSIZE.read(bytes, BSIZE.offset) + 1;
  return isBgzf && size > FRAMING ? size : undefined;
}

/** Small reads of a file in ascending order, some of them with one request. */
class Window {
  readonly #file: ByteSource;
  readonly #room = Buffer.allocUnsafe(2048);
  #from = 0;
  #length = 0;

  constructor(file: ByteSource) {
    this.#file = file;
  }

  /** Fewer at the file's end; valid up to the next call. */
  at(offset: number, length: number): Buffer {
    if (offset < this.#from || offset + length > this.#from + this.#length) {
      this.#from = offset;
      this.#length = Math.min(this.#room.length, this.#file.size - offset);
      this.#file.readSync(offset, this.#room.subarray(0, this.#length));
    }
    return this.#room.subarray(offset - this.#from, Math.min(this.#length, offset - this.#from + length));
  }
}

/** Sizes of members, in the order of the file. */
class Members {
  #sizes = new Uint16Array(1024);
  readonly #places: number[] = [];
  count = 0;
  /** Where the last one ends. */
  end = 0;

  add(size: number): void {
    if (this.count % STRIDE === 0) this.#places.push(this.end);
    if (this.count === this.#sizes.length) {
      const more = new Uint16Array(2 * this.count);
      more.set(this.#sizes);
      this.#sizes = more;
    }
    this.#sizes[this.count++] = size - 1;
    this.end += size;
  }

  stored(member: number): StoredFrame {
    const first = member - (member % STRIDE);
    let offset = this.#places[first / STRIDE]!;
    for (let i = first; i < member; i++) offset += this.#sizes[i]! + 1;
    return { offset, size: this.#sizes[member]! + 1 };
  }
}

/**
 * The members of a BGZF file; undefined for other gzip files, and for those that are cut off, have members of different
 * sizes, or a damaged header: these are read as streams. Throws `Elf2dmpError` where the file can't be read.
 */
export async function indexBgzf(file: ByteSource, signal?: AbortSignal): Promise<FrameIndex | undefined> {
  const window = new Window(file);
  const pulse = new Pulse(signal);
  const members = new Members();
  const contents = new ContentSizes(file);
  while (members.end < file.size) {
    const size = memberSize(window.at(members.end, BgzfHeader.size));
    if (size === undefined || members.end + size > file.size) return undefined;
    const trailer = window.at(members.end + size - GzipTrailer.size, GzipTrailer.size + BgzfHeader.size);
    if (!contents.add({ offset: members.end, size }, ISIZE.read(trailer, ISIZE.offset))) return undefined;
    members.add(size);
    if (members.count % BEAT === 0) await pulse.beat();
  }
  const size = contents.total();
  return size === undefined ? undefined : new BgzfIndex(members, contents.each, size);
}

/**
 * What members hold by their trailers: all the same, but for the last one, which empty ones may follow. What is
 * otherwise is unpacked: else a damaged trailer would move all that follows.
 */
class ContentSizes {
  /** Bytes of the first, and of all but the last. */
  each = 0;
  readonly #file: ByteSource;
  #full = 0;
  /** More than one trailer says so, or the first one is right. */
  #isCertain = false;
  /** Those since the last full one: the end, or damaged. */
  #odd: StoredFrame[] = [];
  #oddCount = 0;
  /** What the first of them says. */
  #oddSize = 0;

  constructor(file: ByteSource) {
    this.#file = file;
  }

  /** False where it does not fit the others. */
  add(member: StoredFrame, size: number): boolean {
    if (this.each === 0) {
      this.each = size;
      this.#full = 1;
      this.#isCertain = this.#unpacked(member) === size;
      return size > 0 && size <= BGZF_MAX;
    }
    if (this.#oddCount > 0 && size !== 0) {
      const wereFull = this.#oddCount <= MAX_DOUBTS && this.#odd.every((odd) => this.#unpacked(odd) === this.each);
      if (!wereFull) return false;
      this.#full += this.#oddCount;
      this.#isCertain = true;
      this.#oddCount = 0;
      this.#odd = [];
    }
    if (size === this.each) {
      this.#full++;
      this.#isCertain = true;
      return true;
    }
    if (this.#oddCount++ === 0) this.#oddSize = size;
    if (this.#odd.length < MAX_DOUBTS) this.#odd.push(member);
    return true;
  }

  /** Bytes of all; undefined where the last one is not as it says. */
  total(): number | undefined {
    if (!this.#isCertain) return undefined;
    const [last] = this.#odd;
    if (!last) return this.#full * this.each;
    if (this.#oddSize > this.each || this.#unpacked(last) !== this.#oddSize) return undefined;
    return this.#full * this.each + this.#oddSize;
  }

  /** Bytes that come out of a member, whatever its trailer says; undefined if it is damaged. */
  #unpacked({ offset, size }: StoredFrame): number | undefined {
    const bytes = Buffer.allocUnsafe(size);
    this.#file.readSync(offset, bytes);
    try {
      return zlib.inflateRawSync(deflated(bytes), { maxOutputLength: BGZF_MAX }).length;
    } catch (error) {
      return damagedOr(error);
    }
  }
}

const deflated = (member: Buffer): Buffer => member.subarray(BgzfHeader.size, -GzipTrailer.size);

/** undefined for damage; throws other errors. */
function damagedOr(error: unknown): undefined {
  const { code = '' } = error as NodeJS.ErrnoException;
  if (!code.startsWith('Z_') && code !== 'ERR_BUFFER_TOO_LARGE') throw error;
  return undefined;
}

class BgzfIndex implements FrameIndex {
  readonly container = 'gzip';
  readonly size: number;
  readonly count: number;
  readonly #members: Members;
  readonly #each: number;

  constructor(members: Members, each: number, size: number) {
    this.#members = members;
    this.#each = each;
    this.size = size;
    this.count = Math.ceil(size / each);
  }

  frameAt(offset: number): number {
    return Math.floor(offset / this.#each);
  }

  contentsAt(frame: number): number {
    return Math.min(this.size, frame * this.#each);
  }

  stored(frame: number): StoredFrame {
    return this.#members.stored(frame);
  }

  unpackSync(frame: Buffer, size: number): Buffer | undefined {
    try {
      return checked(frame, zlib.inflateRawSync(deflated(frame), limits(size)));
    } catch (error) {
      return damagedOr(error);
    }
  }

  unpack(frame: Buffer, size: number): Promise<Buffer | undefined> {
    return new Promise((resolve, reject) => {
      zlib.inflateRaw(deflated(frame), limits(size), (error, contents) => {
        if (!error) return resolve(checked(frame, contents));
        try {
          resolve(damagedOr(error));
        } catch (other) {
          reject(other);
        }
      });
    });
  }
}

/** All of it in one piece. */
const limits = (size: number) => ({ chunkSize: size + 64, maxOutputLength: size });

function checked(member: Buffer, contents: Buffer): Buffer | undefined {
  const at = member.length - GzipTrailer.size;
  const isSound =
    CRC32.read(member, at + CRC32.offset) === zlib.crc32(contents) &&
    ISIZE.read(member, at + ISIZE.offset) === contents.length;
  return isSound ? contents : undefined;
}
