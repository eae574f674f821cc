/** Streams of an MSF 7.0 file, read page by page: nothing of it is kept but its directory. */
import type { Fields, Struct, Values } from '../core/struct.ts';
import { MIB } from '../core/units.ts';
import {
  CABINET_MAGIC,
  COMPRESS_MAGIC,
  MSF_MAGIC,
  MSF_MAGIC_2,
  MSF_PAGE_SIZES,
  MsfHeader,
  NO_STREAM,
  NO_STREAM_SIZE,
  PORTABLE_PDB_MAGIC,
} from '../formats/msf.ts';
import { type ByteSource, readUpTo } from '../source/source.ts';
import { damagedPdb, unsupportedPdb } from './damage.ts';

/** The streams' numbers have 16 bits. */
const MAX_STREAMS = 0xffff;
/** Enough for a PDB of 32 GiB; the directories of real ones take some 100 KiB. */
const MAX_DIRECTORY = 64 * MIB;

/** An MSF file: header and directory. */
export class MsfFile {
  readonly source: ByteSource;
  readonly pageSize: number;
  readonly pageCount: number;
  readonly #directory: Buffer;
  /** Where each stream's page numbers begin in the directory. */
  readonly #pagesAt: Float64Array;

  private constructor(source: ByteSource, header: { pageSize: number; pageCount: number }, directory: Buffer) {
    this.source = source;
    this.pageSize = header.pageSize;
    this.pageCount = header.pageCount;
    this.#directory = directory;
    const count = directory.readUInt32LE();
    if (count > MAX_STREAMS || 4 + 4 * count > directory.length) {
      throw this.damaged('stream count', `at most ${Math.floor(directory.length / 4) - 1}`, `${count}`);
    }
    this.#pagesAt = new Float64Array(count);
    let at = 4 + 4 * count;
    for (let i = 0; i < count; i++) {
      this.#pagesAt[i] = at;
      const size = this.#sizeOf(i);
      if (size > source.size) {
        throw this.damaged(`size of stream ${i}`, `at most the file's ${source.size} bytes`, `${size}`);
      }
      at += 4 * Math.ceil(size / this.pageSize);
    }
    if (at > directory.length) {
      throw this.damaged('stream sizes', `page numbers in ${directory.length} bytes`, `${at} bytes of them`);
    }
  }

  /** Reads header and directory. Throws `Elf2dmpError`: not a PDB, one of another format, damaged. */
  static open(source: ByteSource): MsfFile {
    const file = source.name;
    const start = readUpTo(source, 0, MsfHeader.size);
    refuseOtherFormats(file, start);
    const header = MsfHeader.read(start);
    const { PageSize: pageSize, PageCount: pageCount, DirectorySize: size } = header;
    const damaged = (field: string, expected: string, actual: number) =>
      damagedPdb({ file, structure: `MSF_HDR.${field}`, expected, actual: `${actual}` });
    if (!MSF_PAGE_SIZES.includes(pageSize)) throw damaged('PageSize', 'a power of two, 512 to 32768', pageSize);
    if (pageCount * pageSize > source.size) {
      throw damaged('PageCount', `at most ${Math.floor(source.size / pageSize)}: the file is cut off`, pageCount);
    }
    if (size < 4 || size > MAX_DIRECTORY || size > 4 * (1 + MAX_STREAMS + pageCount)) {
      throw damaged('DirectorySize', `4 bytes to those of ${pageCount} page numbers`, size);
    }
    const pages = Math.ceil(size / pageSize);
    const mapPages = Math.ceil((4 * pages) / pageSize);
    if (MsfHeader.size + 4 * mapPages > pageSize) throw damaged('DirectorySize', 'a page map on one page', size);
    const readPages = (numbers: Buffer, bytes: number, what: string): Buffer => {
      const result = Buffer.alloc(bytes);
      for (let i = 0; i * pageSize < bytes; i++) {
        const page = numbers.readUInt32LE(4 * i);
        if (page === 0 || page >= pageCount) throw damaged(what, `a page below ${pageCount}`, page);
        source.readSync(page * pageSize, result.subarray(i * pageSize, (i + 1) * pageSize));
      }
      return result;
    };
    const mapOfMap = readUpTo(source, MsfHeader.size, 4 * mapPages);
    if (mapOfMap.length < 4 * mapPages) throw damaged('DirectorySize', 'a page map within the file', size);
    const map = readPages(mapOfMap, 4 * pages, 'DirectoryMap');
    return new MsfFile(source, { pageSize, pageCount }, readPages(map, size, 'Directory'));
  }

  get streamCount(): number {
    return this.#pagesAt.length;
  }

  /** undefined: there is none of that number. */
  stream(number: number): MsfStream | undefined {
    if (number === NO_STREAM || number >= this.streamCount) return undefined;
    if (this.#directory.readUInt32LE(4 + 4 * number) === NO_STREAM_SIZE) return undefined;
    return new MsfStream(this, number, this.#sizeOf(number));
  }

  /** File offset of a stream's page. Throws `Elf2dmpError` if there is no such page in the file. */
  pageOffset(stream: number, index: number): number {
    const page = this.#directory.readUInt32LE(this.#pagesAt[stream]! + 4 * index);
    // The first page is the header's.
    if (page === 0 || page >= this.pageCount) {
      throw this.damaged(`page ${index} of stream ${stream}`, `a page below ${this.pageCount}`, `${page}`);
    }
    return page * this.pageSize;
  }

  damaged(structure: string, expected: string, actual: string): Error {
    return damagedPdb({ file: this.source.name, structure: `MSF directory, ${structure}`, expected, actual });
  }

  #sizeOf(number: number): number {
    const size = this.#directory.readUInt32LE(4 + 4 * number);
    return size === NO_STREAM_SIZE ? 0 : size;
  }
}

function refuseOtherFormats(file: string, start: Buffer): void {
  const begins = (magic: Buffer) => start.subarray(0, magic.length).equals(magic);
  if (start.length === MsfHeader.size && begins(MSF_MAGIC)) return;
  if (begins(PORTABLE_PDB_MAGIC)) {
    throw unsupportedPdb(file, {
      code: 'pdb-portable',
      message: 'a portable PDB (BSJB): .NET code only',
      hint: 'name the PDB of a native image',
    });
  }
  if (begins(MSF_MAGIC_2)) {
    throw unsupportedPdb(file, {
      code: 'pdb-msf-2',
      message: 'a PDB of Visual C++ 6 or older (MSF 2.0), which no 64-bit image has',
      hint: 'name the PDB of a 64-bit image',
    });
  }
  if (begins(CABINET_MAGIC) || begins(COMPRESS_MAGIC)) {
    throw unsupportedPdb(file, {
      code: 'pdb-compressed',
      message: 'a compressed PDB',
      hint: 'expand it: `cabextract FILE` on Linux, `expand FILE.pd_ FILE.pdb` on Windows',
    });
  }
  if (begins(MSF_MAGIC)) {
    throw damagedPdb({ file, structure: 'MSF_HDR', expected: `${MsfHeader.size} bytes`, actual: `${start.length}` });
  }
  throw unsupportedPdb(file, {
    code: 'pdb-unknown',
    message: 'not a PDB (no MSF 7.0 signature)',
    hint: 'name a PDB of the image',
  });
}

/** A stream of an MSF file. */
export class MsfStream {
  readonly file: MsfFile;
  readonly number: number;
  /** Bytes. */
  readonly size: number;

  constructor(file: MsfFile, number: number, size: number) {
    this.file = file;
    this.number = number;
    this.size = size;
  }

  /** Throws `Elf2dmpError` beyond the stream's end and where its pages are not in the file. */
  read(offset: number, length: number): Buffer {
    // Before anything is allocated for a length from the file.
    this.#check(offset, length);
    const result = Buffer.allocUnsafe(length);
    this.readInto(offset, result);
    return result;
  }

  /** Fills `target`. Throws as `read` does. */
  readInto(offset: number, target: Buffer): void {
    const { length } = target;
    this.#check(offset, length);
    const { pageSize, source } = this.file;
    for (let done = 0; done < length; ) {
      let index = Math.floor((offset + done) / pageSize);
      const inPage = (offset + done) % pageSize;
      const from = this.file.pageOffset(this.number, index) + inPage;
      let count = Math.min(pageSize - inPage, length - done);
      // Pages that follow one another in the file are read at once.
      while (done + count < length) {
        if (this.file.pageOffset(this.number, ++index) !== from + count) break;
        count += Math.min(pageSize, length - done - count);
      }
      source.readSync(from, target.subarray(done, done + count));
      done += count;
    }
  }

  #check(offset: number, length: number): void {
    if (offset + length <= this.size) return;
    throw this.damaged(offset, `${length} bytes`, `${Math.max(0, this.size - offset)} up to the end`);
  }

  damaged(offset: number, expected: string, actual: string): Error {
    return damagedPdb({ file: this.file.source.name, structure: `stream ${this.number}`, offset, expected, actual });
  }
}

/** Bytes that a window reads at first, for those who want a record, and at most, for those who want all. */
const WINDOW_START = 0x1000;
const WINDOW_LIMIT = 0x1_0000;

/** A stretch of a stream, read front to back with little memory: the bytes near the last ones asked for. */
export class StreamWindow {
  readonly stream: MsfStream;
  /** Offset in the stream at which the stretch ends. */
  readonly end: number;
  #buffer: Buffer = Buffer.alloc(0);
  #store: Buffer = Buffer.alloc(0);
  #readAhead = WINDOW_START;
  #start = 0;

  constructor(stream: MsfStream, end: number) {
    this.stream = stream;
    this.end = end;
    if (end > stream.size) throw stream.damaged(0, `${end} bytes`, `${stream.size}`);
  }

  u16(offset: number): number {
    const index = this.#load(offset, 2);
    return this.#buffer.readUInt16LE(index);
  }

  u32(offset: number): number {
    const index = this.#load(offset, 4);
    return this.#buffer.readUInt32LE(index);
  }

  read<F extends Fields>(layout: Struct<F>, offset: number): Values<F> {
    const index = this.#load(offset, layout.size);
    return layout.read(this.#buffer, index);
  }

  /** Valid until the next call of any of these. */
  bytes(offset: number, length: number): Buffer {
    const index = this.#load(offset, length);
    return this.#buffer.subarray(index, index + length);
  }

  /** A zero-terminated name that ends before `end`; without its zero there, up to it. */
  text(offset: number, end: number): string {
    const most = Math.max(0, Math.min(end, this.end) - offset);
    // Most names are short.
    for (const length of [Math.min(most, 0x100), most]) {
      const bytes = this.bytes(offset, length);
      const zero = bytes.indexOf(0);
      if (zero >= 0) return bytes.toString('utf8', 0, zero);
      if (length === most) return bytes.toString('utf8');
    }
    return '';
  }

  /** Makes `length` bytes from `offset` available: their index in the buffer. Throws `Elf2dmpError` beyond the end. */
  #load(offset: number, length: number): number {
    const index = offset - this.#start;
    if (index >= 0 && index + length <= this.#buffer.length) return index;
    if (offset + length > this.end) {
      throw this.stream.damaged(offset, `${length} bytes`, `${Math.max(0, this.end - offset)} up to the end`);
    }
    const wanted = Math.min(this.end - offset, Math.max(length, this.#readAhead));
    this.#readAhead = Math.min(2 * this.#readAhead, WINDOW_LIMIT);
    if (this.#store.length < wanted) this.#store = Buffer.allocUnsafe(wanted);
    // Empty in case reading fails.
    this.#buffer = this.#store.subarray(0, 0);
    this.stream.readInto(offset, this.#store.subarray(0, wanted));
    this.#buffer = this.#store.subarray(0, wanted);
    this.#start = offset;
    return 0;
  }
}
