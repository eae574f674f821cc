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
  #starts: Uint32Array;
  #sizes: Uint32Array;
  #values: Uint32Array;
  #length = 0;
  #sorted = true;

  /** @param expected how many there will be, if that is known */
  constructor(expected = 0x100) {
    this.#starts = new Uint32Array(expected);
    this.#sizes = new Uint32Array(expected);
    this.#values = new Uint32Array(expected);
  }

  get length(): number {
    return this.#length;
  }

  add(start: number, size: number, value: number): void {
    const at = this.#length++;
    if (at === this.#starts.length) {
      this.#starts = grown(this.#starts);
      this.#sizes = grown(this.#sizes);
      this.#values = grown(this.#values);
    }
    this.#sorted &&= at === 0 || start >= this.#starts[at - 1]!;
    this.#starts[at] = start;
    this.#sizes[at] = size;
    this.#values[at] = value;
  }

  finish(): Ranges {
    const [starts, sizes, values] = [this.#starts, this.#sizes, this.#values].map((c) => c.subarray(0, this.#length));
    const all = { starts: starts!, sizes: sizes!, values: values! };
    if (this.#sorted) return all;
    const order = Uint32Array.from(all.starts, (_, i) => i);
    // Equal starts keep their order.
    order.sort((a, b) => all.starts[a]! - all.starts[b]! || a - b);
    const inOrder = (column: Uint32Array) => order.map((i) => column[i]!);
    return { starts: inOrder(all.starts), sizes: inOrder(all.sizes), values: inOrder(all.values) };
  }
}

function grown(column: Uint32Array): Uint32Array {
  const result = new Uint32Array(2 * column.length + 1);
  result.set(column);
  return result;
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
