/** Sorted tables of address ranges, in columns: a module may have hundreds of thousands. */

/** Sorted by start; of equal starts, in the order in which they were added. */
export interface Ranges {
  starts: Uint32Array;
  /** Bytes. */
  sizes: Uint32Array;
  /** What the range is of: an offset or index of the caller's. */
  values: Uint32Array;
}

/** Collects ranges. All numbers fit 32 bits. */
export class RangeCollector {
  readonly #starts: number[] = [];
  readonly #sizes: number[] = [];
  readonly #values: number[] = [];
  #sorted = true;

  get length(): number {
    return this.#starts.length;
  }

  add(start: number, size: number, value: number): void {
    this.#sorted &&= this.length === 0 || start >= this.#starts[this.length - 1]!;
    this.#starts.push(start);
    this.#sizes.push(size);
    this.#values.push(value);
  }

  finish(): Ranges {
    const columns = [this.#starts, this.#sizes, this.#values];
    if (this.#sorted) {
      const [starts, sizes, values] = columns.map((column) => Uint32Array.from(column));
      return { starts: starts!, sizes: sizes!, values: values! };
    }
    const order = Uint32Array.from(this.#starts, (_, i) => i);
    // Stable: equal starts keep their order.
    order.sort((a, b) => this.#starts[a]! - this.#starts[b]! || a - b);
    const [starts, sizes, values] = columns.map((column) => Uint32Array.from(order, (i) => column[i]!));
    return { starts: starts!, sizes: sizes!, values: values! };
  }
}

/** Index of the last element that is at most `value`; -1: there is none. */
export function lastAtOrBelow(sorted: Uint32Array, value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Index of the first element that is equal to the one at `index`. */
export function firstAt(sorted: Uint32Array, index: number): number {
  let first = index;
  while (first > 0 && sorted[first - 1] === sorted[index]) first--;
  return first;
}
