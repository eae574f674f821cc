/** The file that a flattened file (makedumpfile -F; what QEMU writes by default) stands for, without writing it out. */

import { Elf2dmpError } from '../../core/errors.ts';
import { firstIndex } from '../../core/sorted.ts';
import { hex } from '../../core/units.ts';
import { FLATTENED_HEADER_SIZE, FLATTENED_SIGNATURE, FlattenedHeader, FlattenedRecord } from '../../formats/kdump.ts';
import { type ByteSource, readUpTo } from '../../source/source.ts';

/**
 * Records that follow each other in both files are one strand: QEMU's come in about one per 170
 * (page data) and one per descriptor chunk. A strand costs 52 bytes and each of its records 4, so that a
 * guest of 512 GiB takes about 40 MB where its pages compress well, and 160 MB at the worst.
 */
const MAX_STRAND = 256;

/** 218 MB; 8 TiB of guest memory have about 6.3 million. */
const MAX_STRANDS = 1 << 22;

/** 512 MB of record sizes. */
const MAX_RECORDS = 1 << 27;

/** A typed array that grows. */
class Growing<A extends Float64Array | Uint32Array> {
  array: A;
  length = 0;
  readonly #create: (length: number) => A;

  constructor(create: (length: number) => A) {
    this.#create = create;
    this.array = create(1024);
  }

  push(value: number): void {
    if (this.length === this.array.length) {
      const larger = this.#create(this.length * 2);
      larger.set(this.array);
      this.array = larger;
    }
    this.array[this.length++] = value;
  }
}

const f64 = () => new Growing((n) => new Float64Array(n));
const u32 = () => new Growing((n) => new Uint32Array(n));

/** Where the strand's bytes belong, where they lie, and its part of `#sizes`. */
interface Strands {
  start: Float64Array;
  end: Float64Array;
  file: Float64Array;
  first: Uint32Array;
}

/** The bytes of the unflattened file; those that no record has read as zeros. */
export class FlattenedSource implements ByteSource {
  readonly name: string;
  readonly fd = undefined;
  readonly size: number;
  /** Whether the file has its end mark; without, it was cut off. */
  readonly complete: boolean;
  /** Records that wrote over what an earlier one had written. */
  readonly overlaps: number;
  readonly #inner: ByteSource;
  readonly #strands: Strands;
  readonly #sizes: Uint32Array;
  /** Disjoint pieces in order, where strands overlap; else each strand is one. */
  readonly #pieceStart: Float64Array;
  readonly #pieceEnd: Float64Array;
  readonly #pieceStrand: Uint32Array;
  /** [from, to) that no record covers, up to `MAX_HOLES`. */
  readonly #holes: { from: number; to: number }[] = [];

  static probe(head: Buffer): boolean {
    return head.subarray(0, FLATTENED_SIGNATURE.length).equals(FLATTENED_SIGNATURE);
  }

  /** Reads all record headers. Takes the source over once it succeeds. */
  static open(inner: ByteSource): FlattenedSource {
    return new FlattenedSource(inner);
  }

  private constructor(inner: ByteSource) {
    this.#inner = inner;
    this.name = inner.name;
    checkHeader(inner);
    const [start, end, file, first, sizes] = [f64(), f64(), f64(), u32(), u32()];
    let inStrand = 0;
    this.complete = eachRecord(inner, (to, size, from) => {
      const last = start.length - 1;
      if (
        inStrand > 0 &&
        inStrand < MAX_STRAND &&
        size <= 0xffffffff &&
        end.array[last] === to &&
        file.array[last]! + (end.array[last]! - start.array[last]!) + inStrand * FlattenedRecord.size === from
      ) {
        end.array[last] = to + size;
        inStrand++;
      } else {
        if (start.length === MAX_STRANDS) throw tooMany(inner, 'strands of records', MAX_STRANDS);
        start.push(to);
        end.push(to + size);
        file.push(from);
        first.push(sizes.length);
        // A record of 4 GiB or more is a strand of its own, which needs no size.
        inStrand = size <= 0xffffffff ? 1 : 0;
      }
      if (sizes.length === MAX_RECORDS) throw tooMany(inner, 'records', MAX_RECORDS);
      sizes.push(Math.min(size, 0xffffffff));
    });
    const count = start.length;
    if (count === 0) {
      throw new Elf2dmpError({
        code: 'kdump-flattened-empty',
        kind: 'corrupt',
        message: 'a flattened file without any record',
        file: inner.name,
        structure: FlattenedRecord.name,
        offset: FLATTENED_HEADER_SIZE,
        expected: 'a record',
        actual: this.complete ? 'the end mark' : `a file of ${hex(inner.size)}`,
        hint: 'the dump was cut off at once: make a new one',
      });
    }
    this.#strands = { start: start.array, end: end.array, file: file.array, first: first.array };
    this.#sizes = sizes.array;

    const order = new Uint32Array(count);
    for (let i = 0; i < count; i++) order[i] = i;
    order.sort((a, b) => this.#strands.start[a]! - this.#strands.start[b]! || a - b);
    const pieces = disjoint(this.#strands, order);
    this.overlaps = pieces.overlaps;
    this.#pieceStart = pieces.start;
    this.#pieceEnd = pieces.end;
    this.#pieceStrand = pieces.strand;
    this.size = this.#pieceEnd.at(-1)!;
    let next = 0;
    for (let i = 0; i < this.#pieceStart.length; i++) {
      if (this.#pieceStart[i]! > next) this.#holes.push({ from: next, to: this.#pieceStart[i]! });
      next = this.#pieceEnd[i]!;
    }
  }

  /** Whether records hold every byte of the range, or it is empty. What none holds reads as zeros. */
  covers(offset: number, length: number): boolean {
    if (length === 0) return true;
    if (offset < 0 || offset + length > this.size) return false;
    const hole = this.#holes[firstIndex(this.#holes.length, (i) => this.#holes[i]!.to > offset)];
    return (hole?.from ?? Number.POSITIVE_INFINITY) >= offset + length;
  }

  /** Whether any byte from `offset` on is held by no record. */
  hasHolesFrom(offset: number): boolean {
    return (this.#holes.at(-1)?.to ?? 0) > offset;
  }

  readSync(offset: number, target: Uint8Array): void {
    this.#check(offset, target.length);
    for (const { at, to, file } of this.#parts(offset, target.length)) {
      if (file === undefined) target.fill(0, at, to);
      else this.#inner.readSync(file, target.subarray(at, to));
    }
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.#check(offset, target.length);
    const parts = [...this.#parts(offset, target.length)];
    // Parts with only record headers between them are read with one request.
    const first = parts.findIndex((p) => p.file !== undefined);
    const from = parts[first]?.file ?? 0;
    let next = from;
    const close = parts.every(({ at, to, file }) => {
      if (file === undefined || file < next || file - next > FlattenedRecord.size) return false;
      next = file + to - at;
      return true;
    });
    if (close && parts.length > 1) {
      const bytes = Buffer.allocUnsafe(next - from);
      await this.#inner.read(from, bytes);
      for (const { at, to, file } of parts) target.set(bytes.subarray(file! - from, file! - from + to - at), at);
      return;
    }
    for (const { at, to, file } of parts) {
      if (file === undefined) target.fill(0, at, to);
      else await this.#inner.read(file, target.subarray(at, to));
    }
  }

  close(): void {
    this.#inner.close();
  }

  #check(offset: number, length: number): void {
    if (offset < 0 || offset + length > this.size) {
      throw new RangeError(`${this.name}: read of ${length} bytes at ${offset}, beyond the size ${this.size}`);
    }
  }

  /** The range in parts: target[at, to) lies in the flattened file at `file`, or nowhere. */
  *#parts(offset: number, length: number): Generator<{ at: number; to: number; file: number | undefined }> {
    const end = offset + length;
    let next = offset;
    const first = firstIndex(this.#pieceEnd.length, (i) => this.#pieceEnd[i]! > offset);
    for (let piece = first; next < end; piece++) {
      const from = Math.min(end, this.#pieceStart[piece] ?? end);
      if (from > next) {
        yield { at: next - offset, to: from - offset, file: undefined };
        next = from;
      }
      const stop = Math.min(end, this.#pieceEnd[piece] ?? end);
      if (next >= stop) continue;
      const strand = this.#pieceStrand[piece]!;
      let record = this.#strands.first[strand]!;
      let start = this.#strands.start[strand]!;
      let file = this.#strands.file[strand]!;
      while (next < stop) {
        const size = this.#sizes[record]!;
        // A size that does not fit stands for a strand of one record.
        const recordEnd = size === 0xffffffff ? this.#strands.end[strand]! : start + size;
        if (recordEnd > next) {
          const to = Math.min(stop, recordEnd);
          yield { at: next - offset, to: to - offset, file: file + next - start };
          next = to;
        }
        file += recordEnd - start + FlattenedRecord.size;
        start = recordEnd;
        record++;
      }
    }
  }
}

function checkHeader(inner: ByteSource): void {
  const head = readUpTo(inner, 0, FlattenedHeader.size);
  if (head.length < FlattenedHeader.size || inner.size < FLATTENED_HEADER_SIZE) {
    throw new Elf2dmpError({
      code: 'kdump-flattened-truncated-header',
      kind: 'corrupt',
      message: 'the file ends within the header of its flattened form',
      file: inner.name,
      structure: FlattenedHeader.name,
      offset: inner.size,
      expected: `${FLATTENED_HEADER_SIZE} bytes`,
      actual: `${inner.size}`,
      hint: 'the dump was cut off at once: make a new one',
    });
  }
  const { type, version } = FlattenedHeader.read(head);
  if (type !== 1n || version !== 1n) {
    throw new Elf2dmpError({
      code: 'kdump-flattened-version',
      kind: 'unsupported',
      message: 'a flattened file of a type or version that elf2dmp does not know',
      file: inner.name,
      structure: FlattenedHeader.name,
      field: 'type',
      offset: FlattenedHeader.offsetOf('type'),
      expected: 'type 1, version 1',
      actual: `type ${type}, version ${version}`,
    });
  }
}

/** Calls `take` for each record that has bytes. Returns whether the end mark was seen. */
function eachRecord(inner: ByteSource, take: (to: number, size: number, from: number) => void): boolean {
  // Page data comes in chunks of 16 KiB: reading only the headers beats reading everything. Headers of
  // small records, as of hostile files, come several with one read.
  const window = Buffer.alloc(512);
  let windowAt = 0;
  let windowEnd = 0;
  for (let at = FLATTENED_HEADER_SIZE; ; ) {
    if (at + FlattenedRecord.size > windowEnd) {
      windowAt = at;
      windowEnd = Math.min(inner.size, at + window.length);
      if (at + FlattenedRecord.size > windowEnd) return false;
      inner.readSync(at, window.subarray(0, windowEnd - windowAt));
    }
    const p = at - windowAt;
    // As two halves: this runs some million times.
    const [offsetHigh, offsetLow] = [window.readInt32BE(p), window.readUInt32BE(p + 4)];
    const [sizeHigh, sizeLow] = [window.readInt32BE(p + 8), window.readUInt32BE(p + 12)];
    if (offsetHigh === -1 && offsetLow === 0xffffffff && sizeHigh === -1 && sizeLow === 0xffffffff) return true;
    if (offsetHigh < 0 || sizeHigh < 0 || offsetHigh >= 0x100000 || sizeHigh >= 0x100000) {
      const { offset, size } = FlattenedRecord.read(window, p);
      throw new Elf2dmpError({
        code: 'kdump-flattened-record',
        kind: 'corrupt',
        message: 'a record of the flattened file has an impossible offset or size, and all later ones are lost with it',
        file: inner.name,
        structure: FlattenedRecord.name,
        offset: at,
        expected: '0 to 2^52, or the end mark (-1, -1)',
        actual: `offset ${hex(offset)}, size ${hex(size)}`,
        hint: 'the file was damaged after it was made: copy it again, or make a new dump',
      });
    }
    const size = sizeHigh * 2 ** 32 + sizeLow;
    const from = at + FlattenedRecord.size;
    const available = Math.min(size, inner.size - from);
    if (available > 0) take(offsetHigh * 2 ** 32 + offsetLow, available, from);
    if (available < size) return false;
    at = from + size;
  }
}

function tooMany(inner: ByteSource, what: string, limit: number): Elf2dmpError {
  return new Elf2dmpError({
    code: 'kdump-flattened-records',
    kind: 'unsupported',
    message: `a flattened file in more pieces than elf2dmp keeps in memory`,
    file: inner.name,
    structure: FlattenedRecord.name,
    expected: `at most ${limit} ${what}`,
    actual: 'more',
    hint: 'reassemble it first: `makedumpfile -R OUT < FILE`',
  });
}

/**
 * Disjoint pieces in order; where strands overlap, the one that comes later in the file wins.
 *
 * @param order the strands' numbers, by start
 */
function disjoint(strands: Strands, order: Uint32Array) {
  let overlaps = 0;
  for (let i = 1, end = strands.end[order[0]!]!; i < order.length; i++) {
    if (strands.start[order[i]!]! < end) overlaps++;
    end = Math.max(end, strands.end[order[i]!]!);
  }
  if (overlaps === 0) {
    const by = (array: Float64Array) => Float64Array.from(order, (s) => array[s]!);
    return { start: by(strands.start), end: by(strands.end), strand: order, overlaps };
  }
  const [start, end, strand] = [f64(), f64(), u32()];
  const open = new LatestFirst();
  let i = 0;
  let at = 0;
  for (;;) {
    // Strands that have ended can't win any more.
    while (open.size > 0 && strands.end[open.top()]! <= at) open.pop();
    if (open.size === 0) {
      if (i === order.length) break;
      at = strands.start[order[i]!]!;
    }
    while (i < order.length && strands.start[order[i]!]! <= at) open.push(order[i++]!);
    const winner = open.top();
    const next = i < order.length ? strands.start[order[i]!]! : Number.POSITIVE_INFINITY;
    const to = Math.min(strands.end[winner]!, next);
    const last = start.length - 1;
    if (last >= 0 && strand.array[last] === winner && end.array[last] === at) end.array[last] = to;
    else {
      start.push(at);
      end.push(to);
      strand.push(winner);
    }
    at = to;
  }
  return {
    start: start.array.slice(0, start.length),
    end: end.array.slice(0, end.length),
    strand: strand.array.slice(0, strand.length),
    overlaps,
  };
}

/** A heap of strand numbers with the highest, which is the latest in the file, on top. */
class LatestFirst {
  readonly #heap: number[] = [];

  get size(): number {
    return this.#heap.length;
  }

  top(): number {
    return this.#heap[0]!;
  }

  push(value: number): void {
    const heap = this.#heap;
    let i = heap.length;
    heap.push(value);
    while (i > 0) {
      const parent = (i - 1) >>> 1;
      if (heap[parent]! >= value) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = value;
  }

  pop(): void {
    const heap = this.#heap;
    const value = heap.pop()!;
    const count = heap.length;
    if (count === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= count) break;
      if (child + 1 < count && heap[child + 1]! > heap[child]!) child++;
      if (heap[child]! <= value) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = value;
  }
}
