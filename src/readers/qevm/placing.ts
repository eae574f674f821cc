/**
 * Puts a stream's pages where a file has them while they come: what came last is there, and differences are applied
 * there. RAM blocks lie one behind the other in a space of their own, whose offsets an arrangement knows.
 */
import { inflateSync } from 'node:zlib';
import { KIB, MIB, PAGE_SIZE } from '../../core/units.ts';
import type { ArrangedFile, Arrangement } from '../../source/arranged.ts';
import { applyDelta, type PlacedPages } from './ram.ts';

/** Bytes that are written together. */
const STAGE = MIB;
/** Zeros between pages are written with them if they are fewer: short holes cost more than they save. */
const MIN_HOLE = 64 * KIB;

/** What is to be done has to wait for the disk: to be done again after that. */
export class Busy extends Error {}

/** Bytes from which on writing is left to another thread; smaller pieces are written sooner than that has begun. */
const MIN_PARALLEL = STAGE / 4;

/** Pages that follow each other in the file, until they are written. */
interface Pages {
  bytes: Buffer;
  /** In the file. */
  position: number;
  length: number;
}

/** Writes pages to the arrangement's file, those that follow each other together. */
class Stage {
  readonly #file: ArrangedFile;
  #pages: Pages = { bytes: Buffer.alloc(STAGE), position: 0, length: 0 };
  /** Zeros at the end of the stage, which need not be written. */
  #zeros = 0;
  /** Pages that are being written; no others are, and nobody changes them. */
  #writing: Pages | undefined;
  #done: Promise<void> = Promise.resolve();
  #free: Buffer | undefined = Buffer.alloc(STAGE);
  /** Where the furthest page ends. */
  end = 0;

  constructor(file: ArrangedFile) {
    this.#file = file;
  }

  /** Throws `Busy`, as all of them. */
  put(position: number, page: Buffer): void {
    const from = this.#room(position);
    page.copy(this.#pages.bytes, from);
    // Zeros in front of it are written with it.
    if (from + PAGE_SIZE > this.#pages.length - this.#zeros) this.#zeros = 0;
  }

  /** A page of zeros, where the file has nothing yet. */
  skip(position: number): void {
    this.end = Math.max(this.end, position + PAGE_SIZE);
    if (this.#pages.length === 0 || position !== this.#pages.position + this.#pages.length) return;
    const from = this.#room(position);
    this.#pages.bytes.fill(0, from, from + PAGE_SIZE);
    this.#zeros += PAGE_SIZE;
    if (this.#zeros >= MIN_HOLE) this.flush();
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
    const free = this.#free;
    if (length >= MIN_PARALLEL) {
      if (this.#writing || !free) throw new Busy();
      this.#write({ bytes, position, length }, free);
    } else if (length > 0) {
      this.#wait(position, length);
      this.#file.writeNow(bytes.subarray(0, length), position);
    }
    this.#pages.length = 0;
    this.#zeros = 0;
  }

  /** Waits for what is being written. Throws `Elf2dmpError`. */
  async settle(): Promise<void> {
    await this.#done;
    await this.#file.settle();
  }

  #write(pages: Pages, free: Buffer): void {
    this.#writing = pages;
    this.#pages = { bytes: free, position: pages.position, length: 0 };
    this.#free = undefined;
    this.#done = this.#file.overwrite(pages.bytes.subarray(0, pages.length), pages.position).finally(() => {
      this.#writing = undefined;
      this.#free = pages.bytes;
    });
    // `settle` tells of it.
    this.#done.catch(() => undefined);
  }

  /** What is being written must not be overtaken. */
  #wait(position: number, length: number): void {
    const writing = this.#writing;
    if (writing && position < writing.position + writing.length && writing.position < position + length) {
      throw new Busy();
    }
  }

  /** Where in the stage a page goes. */
  #room(position: number): number {
    const from = position - this.#pages.position;
    const { length } = this.#pages;
    this.end = Math.max(this.end, position + PAGE_SIZE);
    if (from >= 0 && from + PAGE_SIZE <= length) return from;
    if (from !== length || length === STAGE) {
      this.flush();
      this.#pages.position = position;
    }
    this.#pages.length += PAGE_SIZE;
    return this.#pages.length - PAGE_SIZE;
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
    const index = Math.floor(page / CHUNK_PAGES);
    let chunk = this.#chunks.get(index);
    if (!chunk) {
      chunk = new Uint32Array(CHUNK_PAGES / 32);
      this.#chunks.set(index, chunk);
    }
    chunk[(page % CHUNK_PAGES) >>> 5]! |= 1 << (page & 31);
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
      if (this.base !== undefined) this.#placing.skip(this.base + page * PAGE_SIZE);
    }
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
    await this.settle();
    this.#stage.flush();
    await this.settle();
    return this.#stage.end;
  }

  /** Throws `Busy`: then it has to be done again after `settle`, here and below. */
  put(offset: number, bytes: Buffer): void {
    const kept = this.#kept(offset);
    if (kept) bytes.copy(kept);
    const position = this.#arrangement.placeOf(offset)?.position;
    if (position !== undefined) this.#stage.put(position, bytes);
  }

  skip(offset: number): void {
    const position = this.#arrangement.placeOf(offset)?.position;
    if (position !== undefined) this.#stage.skip(position);
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
