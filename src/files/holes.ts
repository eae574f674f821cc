/** The holes of a sparse file, by SEEK_DATA and SEEK_HOLE (lseek(2)). */
import { fstatSync } from 'node:fs';
import { loadLibc } from './libc.ts';

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const ENXIO = 6;

/** A range of a file without data: `to` is the first byte after it. */
export interface Hole {
  from: number;
  to: number;
}

/** The holes of a file, asked for as they are needed. */
export class HoleMap {
  readonly #seek: (offset: number, whence: number) => number | undefined;
  readonly #size: number;
  /** The stretch that was asked for last, and whether it is a hole: callers go through a file in order. */
  #known = { from: 0, to: 0, hole: false };

  private constructor(size: number, seek: (offset: number, whence: number) => number | undefined) {
    this.#size = size;
    this.#seek = seek;
  }

  /** undefined if the file has no holes, or they cannot be found. */
  static async open(fd: number): Promise<HoleMap | undefined> {
    const { size, blocks } = fstatSync(fd);
    if (blocks * 512 >= size) return undefined;
    const libc = await loadLibc();
    if (typeof libc === 'string') return undefined;
    const lseek = libc.library.func('int64_t lseek(int fd, int64_t offset, int whence)');
    return new HoleMap(size, (offset, whence) => {
      const found = Number(lseek(fd, offset, whence));
      if (found >= 0) return found;
      // ENXIO alone means that nothing comes; whatever else it is, bytes are read rather than taken for zeros.
      if (libc.errno() === ENXIO) return undefined;
      return whence === SEEK_DATA ? offset : size;
    });
  }

  /** For tests: of stated holes. */
  static of(size: number, holes: readonly Hole[]): HoleMap {
    return new HoleMap(size, (offset, whence) => {
      const within = holes.find(({ from, to }) => offset >= from && offset < to);
      if (whence === SEEK_HOLE) return within ? offset : (holes.find(({ from }) => from > offset)?.from ?? size);
      if (!within) return offset < size ? offset : undefined;
      return within.to < size ? within.to : undefined;
    });
  }

  /** The parts of [from, to) that are holes, in order. */
  *within(from: number, to: number): Generator<Hole> {
    for (let at = from; at < to; ) {
      if (at < this.#known.from || at >= this.#known.to) this.#known = this.#look(at);
      const end = Math.min(to, this.#known.to);
      if (this.#known.hole) yield { from: at, to: end };
      at = end;
    }
  }

  #look(at: number): { from: number; to: number; hole: boolean } {
    const data = this.#seek(at, SEEK_DATA);
    // Only a hole follows, or the file shrank (a later read reports it).
    if (data === undefined) return { from: at, to: Math.max(this.#size, at + 1), hole: at < this.#size };
    if (data > at) return { from: at, to: data, hole: true };
    return { from: at, to: Math.max(at + 1, this.#seek(at, SEEK_HOLE) ?? this.#size), hole: false };
  }
}
