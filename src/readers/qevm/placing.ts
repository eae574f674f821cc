/**
 * Puts a stream's pages where a file has them while they come: what came last is there, and differences are applied
 * there. RAM blocks lie one behind the other in a space of their own, whose offsets an arrangement knows.
 */
import { inflateSync } from 'node:zlib';
import { KIB, MIB, PAGE_SIZE } from '../../core/units.ts';
import type { ArrangedFile, Arrangement } from '../../source/arranged.ts';
import { Busy } from './cursor.ts';
import { applyDelta, type PlacedPages, RAW_RECORD } from './ram.ts';

/** Bytes that are written together. */
const STAGE = MIB;
/** Zeros between pages are written with them if they are fewer: short holes cost more than they save. */
const MIN_HOLE = 64 * KIB;

/** Bytes from which on writing is left to another thread; smaller pieces are written sooner than that has begun. */
const MIN_PARALLEL = STAGE / 4;

/** Stages that can be being written while another one is filled: with two the disk always has something to do. */
const IN_FLIGHT = 2;

/** Pages that follow each other in the file, until they are written. */
interface Pages {
  bytes: Buffer;
  /** In the file. */
  position: number;
  length: number;
}

interface Writing {
  pages: Pages;
  done: Promise<void>;
}

/** Writes pages to the arrangement's file, those that follow each other together. */
class Stage {
  readonly #file: ArrangedFile;
  #pages: Pages;
  /** Zeros at the end of the stage, which need not be written. */
  #zeros = 0;
  /** Pages that are being written, which nobody changes: the oldest first. */
  readonly #writing: Writing[] = [];
  readonly #free: Buffer[];
  /** Where the furthest page ends. */
  end = 0;

  constructor(file: ArrangedFile) {
    this.#file = file;
    this.#pages = { bytes: file.memory(STAGE), position: 0, length: 0 };
    this.#free = Array.from({ length: IN_FLIGHT }, () => file.memory(STAGE));
  }

  /** Throws `Busy`, as all of them. */
  put(position: number, page: Buffer): void {
    this.#room(position, 1);
    page.copy(this.#pages.bytes, this.#took(position, 1));
  }

  /** As `put`, of pages in records. Returns how many it took, at least one. */
  putRun(position: number, records: Buffer, { from, count }: { from: number; count: number }): number {
    const pages = this.#room(position, count);
    const to = this.#took(position, pages);
    const { bytes } = this.#pages;
    for (let i = 0; i < pages; i++) {
      // Faster than `copy`, which looks at more.
      bytes.set(records.subarray(from + i * RAW_RECORD + 8, from + (i + 1) * RAW_RECORD), to + i * PAGE_SIZE);
    }
    return pages;
  }

  /** Pages of zeros, where the file has nothing yet. */
  skip(position: number, count: number): void {
    const isNext = this.#pages.length > 0 && position === this.#pages.position + this.#pages.length;
    // More of them are a hole.
    if (isNext && count * PAGE_SIZE < MIN_HOLE && this.#pages.length + count * PAGE_SIZE <= STAGE) {
      const from = this.#pages.length;
      this.#pages.length += count * PAGE_SIZE;
      this.#pages.bytes.fill(0, from, this.#pages.length);
      this.#zeros += count * PAGE_SIZE;
      if (this.#zeros >= MIN_HOLE) this.flush();
    }
    this.end = Math.max(this.end, position + count * PAGE_SIZE);
  }

  get(position: number, page: Buffer): void {
    const from = position - this.#pages.position;
    if (from >= 0 && from < this.#pages.length) this.#pages.bytes.copy(page, 0, from, from + PAGE_SIZE);
    else {
      this.#wait(position, PAGE_SIZE);
      this.#file.readNow(page, position);
    }
  }

  /** Writes the stage, or begins to. */
  flush(): void {
    const { bytes, position } = this.#pages;
    const length = this.#pages.length - this.#zeros;
    if (length > 0) this.#wait(position, length);
    if (length >= MIN_PARALLEL) {
      const free = this.#free.pop();
      if (!free) throw new Busy();
      this.#write({ bytes, position, length });
      this.#pages = { bytes: free, position, length: 0 };
    } else if (length > 0) this.#file.writeNow(bytes.subarray(0, length), position);
    this.#pages.length = 0;
    this.#zeros = 0;
  }

  /** Waits until there is room again. Throws `Elf2dmpError`. */
  async settle(): Promise<void> {
    await this.#writing[0]?.done;
    await this.#file.settle();
  }

  /** Writes all, and waits for it. Throws `Elf2dmpError`. */
  async finish(): Promise<void> {
    while (this.#writing.length > 0) await this.settle();
    this.flush();
    while (this.#writing.length > 0) await this.settle();
  }

  #write(pages: Pages): void {
    const done = this.#file.overwrite(pages.bytes.subarray(0, pages.length), pages.position).then(() => {
      this.#writing.splice(this.#writing.indexOf(writing), 1);
      this.#free.push(pages.bytes);
    });
    const writing = { pages, done };
    this.#writing.push(writing);
    // `settle` tells of it: what failed stays.
    done.catch(() => undefined);
  }

  /** What is being written must not be overtaken. */
  #wait(position: number, length: number): void {
    const isOver = ({ pages }: Writing) =>
      position < pages.position + pages.length && pages.position < position + length;
    if (this.#writing.some(isOver)) throw new Busy();
  }

  /** Makes room in the stage for pages from a position on. Returns for how many, at least one. */
  #room(position: number, count: number): number {
    const from = position - this.#pages.position;
    if (from < 0 || from > this.#pages.length || from === STAGE) {
      this.flush();
      this.#pages.position = position;
      return Math.min(count, STAGE / PAGE_SIZE);
    }
    return Math.min(count, (STAGE - from) / PAGE_SIZE);
  }

  /** Counts pages as there, for which there is room. Returns where in the stage they begin. */
  #took(position: number, count: number): number {
    const from = position - this.#pages.position;
    const to = from + count * PAGE_SIZE;
    // Zeros in front of them are written with them.
    if (to > this.#pages.length - this.#zeros) this.#zeros = Math.max(0, this.#pages.length - to);
    this.#pages.length = Math.max(this.#pages.length, to);
    this.end = Math.max(this.end, position + count * PAGE_SIZE);
    return from;
  }
}

/** Bits, of which a damaged stream can claim any number. */
class PageBits {
  readonly #chunks = new Map<number, Uint32Array>();

  has(page: number): boolean {
    const chunk = this.#chunks.get(Math.floor(page / CHUNK_PAGES));
    return chunk !== undefined && ((chunk[(page % CHUNK_PAGES) >>> 5]! >>> (page & 31)) & 1) === 1;
  }

  add(page: number): void {
    this.#chunk(page)[(page % CHUNK_PAGES) >>> 5]! |= 1 << (page & 31);
  }

  #chunk(page: number): Uint32Array {
    const index = Math.floor(page / CHUNK_PAGES);
    let chunk = this.#chunks.get(index);
    if (!chunk) {
      chunk = new Uint32Array(CHUNK_PAGES / 32);
      this.#chunks.set(index, chunk);
    }
    return chunk;
  }

  addRun(page: number, count: number): void {
    for (let at = page; at < page + count; ) {
      // Whole words at once.
      const inWord = Math.min(32 - (at & 31), page + count - at);
      if (inWord < 32) this.add(at);
      else this.#chunk(at)[(at % CHUNK_PAGES) >>> 5] = 0xffff_ffff;
      at += inWord < 32 ? 1 : 32;
    }
  }

  /** The first page from `page` on that is set, or that is not; `pages` where there is none. */
  next(page: number, set: boolean, pages: number): number {
    for (let at = page; at < pages; ) {
      const chunk = this.#chunks.get(Math.floor(at / CHUNK_PAGES));
      if (chunk === undefined) {
        if (!set) return at;
        at = (Math.floor(at / CHUNK_PAGES) + 1) * CHUNK_PAGES;
        continue;
      }
      const word = chunk[(at % CHUNK_PAGES) >>> 5]!;
      if ((at & 31) === 0 && word === (set ? 0 : -1 >>> 0)) at += 32;
      else if (((word >>> (at & 31)) & 1) === (set ? 1 : 0)) return at;
      else at++;
    }
    return pages;
  }
}

const CHUNK_PAGES = 32_768;

/** A block whose pages go to their places. */
export class PlacedBlock implements PlacedPages {
  readonly pages: number;
  /** Of its first page in the space of all blocks; undefined: its pages are dropped. */
  readonly base: number | undefined;
  readonly #placing: Placing;
  readonly #present = new PageBits();
  /** Those that may not be zero in the file. */
  readonly #written = new PageBits();
  /** Pages that can't be made, which are zeros. */
  readonly damaged = new Set<number>();

  constructor(placing: Placing, pages: number, base: number | undefined) {
    this.#placing = placing;
    this.pages = pages;
    this.base = base;
  }

  has(page: number): boolean {
    return this.#present.has(page);
  }

  run(page: number): { absent: boolean; pages: number } {
    const absent = !this.has(page);
    return { absent, pages: this.#present.next(page, absent, this.pages) - page };
  }

  fill(page: number, byte: number): void {
    this.damaged.delete(page);
    if (byte !== 0 || this.#written.has(page) || !this.#placing.zerosAreHoles) this.#put(page, filled(byte));
    else {
      this.#present.add(page);
      if (this.base !== undefined) this.#placing.skip(this.base + page * PAGE_SIZE, 1);
    }
  }

  zeroRun(page: number, count: number): number {
    const clean = this.#placing.zerosAreHoles ? this.#written.next(page, true, page + count) - page : 0;
    if (clean === 0) {
      this.fill(page, 0);
      return 1;
    }
    const skipped = this.base === undefined ? clean : this.#placing.skip(this.base + page * PAGE_SIZE, clean);
    this.#present.addRun(page, skipped);
    this.#sound(page, skipped);
    return skipped;
  }

  rawRun(page: number, records: Buffer, { from, count }: { from: number; count: number }): number {
    const isZero = (i: number) => isZeroPage(records, from + i * RAW_RECORD + 8);
    const zeros = isZero(0);
    let alike = 1;
    while (alike < count && isZero(alike) === zeros) alike++;
    if (zeros) return this.zeroRun(page, alike);
    const { base } = this;
    const put =
      base === undefined ? alike : this.#placing.putRun(base + page * PAGE_SIZE, records, { from, count: alike });
    this.#present.addRun(page, put);
    this.#written.addRun(page, put);
    this.#sound(page, put);
    return put;
  }

  raw(page: number, bytes: Buffer): void {
    if (bytes[0] === 0 && bytes.equals(filled(0))) {
      this.fill(page, 0);
      return;
    }
    this.damaged.delete(page);
    this.#put(page, bytes);
  }

  compressed(page: number, bytes: Buffer): void {
    const inflated = inflatedPage(bytes);
    if (inflated) this.raw(page, inflated);
    else this.#lose(page);
  }

  delta(page: number, bytes: Buffer): void {
    if (this.damaged.has(page) || this.base === undefined) return;
    const whole = this.#placing.get(this.base + page * PAGE_SIZE);
    if (!whole) return;
    if (applyDelta(whole, bytes)) this.#put(page, whole);
    else this.#lose(page);
  }

  /** Pages that came whole. */
  #sound(page: number, count: number): void {
    if (this.damaged.size === 0) return;
    for (let at = page; at < page + count; at++) this.damaged.delete(at);
  }

  #lose(page: number): void {
    this.#put(page, filled(0));
    this.damaged.add(page);
  }

  #put(page: number, bytes: Buffer): void {
    this.#present.add(page);
    this.#written.add(page);
    if (this.base !== undefined) this.#placing.put(this.base + page * PAGE_SIZE, bytes);
  }
}

/** All blocks of a stream. */
export class Placing {
  readonly #arrangement: Arrangement;
  readonly #stage: Stage;
  readonly #page = Buffer.alloc(PAGE_SIZE);
  readonly #bases: ReadonlyMap<string, number>;

  /** @param bases of the blocks in the space that the arrangement arranges; others are dropped */
  constructor(arrangement: Arrangement, bases: ReadonlyMap<string, number>) {
    this.#arrangement = arrangement;
    this.#stage = new Stage(arrangement.file);
    this.#bases = bases;
  }

  get zerosAreHoles(): boolean {
    return this.#arrangement.file.holes;
  }

  readonly block = (name: string, size: number): PlacedBlock =>
    new PlacedBlock(this, size / PAGE_SIZE, this.#bases.get(name));

  /** Waits until what came can be gone on with. Throws `Elf2dmpError`. */
  settle(): Promise<void> {
    return this.#stage.settle();
  }

  /** Writes all. Returns where the file's last page ends. Throws `Elf2dmpError`. */
  async end(): Promise<number> {
    await this.#stage.finish();
    return this.#stage.end;
  }

  /** Throws `Busy`: then it has to be done again after `settle`, here and below. */
  put(offset: number, bytes: Buffer): void {
    const kept = this.#kept(offset);
    if (kept) bytes.copy(kept);
    const position = this.#arrangement.placeOf(offset)?.position;
    if (position !== undefined) this.#stage.put(position, bytes);
  }

  /** As `put`, of pages in records. Returns how many were taken: at least one. */
  putRun(offset: number, records: Buffer, { from, count }: { from: number; count: number }): number {
    const pages = this.#inOnePlace(offset, count);
    if (pages > 0)
      return this.#stage.putRun(this.#arrangement.placeOf(offset)!.position, records, { from, count: pages });
    this.put(offset, records.subarray(from + 8, from + RAW_RECORD));
    return 1;
  }

  /** Pages of zeros, where nothing was put yet. Returns how many were taken: at least one. Throws `Busy`. */
  skip(offset: number, count: number): number {
    const pages = this.#inOnePlace(offset, count);
    if (pages > 0) this.#stage.skip(this.#arrangement.placeOf(offset)!.position, pages);
    return Math.max(1, pages);
  }

  /** Pages of `count` that follow each other in the file too, of which nothing is kept; 0 where the first one does not. */
  #inOnePlace(offset: number, count: number): number {
    const place = this.#arrangement.placeOf(offset);
    if (!place) return 0;
    const kept = this.#arrangement.keptFrom(offset);
    const size = Math.min(place.size, (kept?.offset ?? Number.POSITIVE_INFINITY) - offset, count * PAGE_SIZE);
    return Math.floor(size / PAGE_SIZE);
  }

  /** A page as it is now, to be changed; undefined for one that was dropped. */
  get(offset: number): Buffer | undefined {
    const position = this.#arrangement.placeOf(offset)?.position;
    if (position !== undefined) this.#stage.get(position, this.#page);
    else {
      const kept = this.#kept(offset);
      if (!kept) return undefined;
      kept.copy(this.#page);
    }
    return this.#page;
  }

  #kept(offset: number): Buffer | undefined {
    const kept = this.#arrangement.keptFrom(offset);
    return kept?.offset === offset && kept.bytes.length >= PAGE_SIZE ? kept.bytes.subarray(0, PAGE_SIZE) : undefined;
  }
}

/** Whether a page of a record is zeros. */
function isZeroPage(bytes: Buffer, at: number): boolean {
  // Most are told by their first bytes.
  if (bytes.readInt32LE(at) !== 0 || bytes.readInt32LE(at + PAGE_SIZE / 2) !== 0) return false;
  return bytes.compare(filled(0), 0, PAGE_SIZE, at, at + PAGE_SIZE) === 0;
}

const FILLED: Buffer[] = [];
const filled = (byte: number): Buffer => {
  FILLED[byte] ??= Buffer.alloc(PAGE_SIZE, byte);
  return FILLED[byte];
};

/** A page; undefined where it is damaged. */
export function inflatedPage(bytes: Buffer): Buffer | undefined {
  try {
    const page = inflateSync(bytes, { maxOutputLength: PAGE_SIZE });
    return page.length === PAGE_SIZE ? page : undefined;
  } catch {
    return undefined;
  }
}
