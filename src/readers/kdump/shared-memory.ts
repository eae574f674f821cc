/** Pieces of memory that all threads see, used again and again: fresh ones would be cleared each time. */

/** Lends pieces of one size. As many stay as were lent at once. */
export class SharedMemory {
  readonly #size: number;
  readonly #free: SharedArrayBuffer[] = [];

  constructor(size: number) {
    this.#size = size;
  }

  /** Lends a piece for as long as `use` takes. What it holds at first is undefined. */
  async lend<T>(use: (piece: Uint8Array<SharedArrayBuffer>) => Promise<T>): Promise<T> {
    const piece = this.#free.pop() ?? new SharedArrayBuffer(this.#size);
    try {
      return await use(new Uint8Array(piece));
    } finally {
      this.#free.push(piece);
    }
  }
}
