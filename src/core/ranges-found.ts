/** Finds the ranges that an address lies in, of many that may overlap. */
import { firstIndex } from './sorted.ts';

/** A range of virtual addresses. */
export interface FoundRange {
  from: bigint;
  /** Bytes. */
  size: number;
}

interface Place<R> {
  range: R;
  /** In the list. */
  index: number;
  end: bigint;
  /** How far up this one or any before it reaches. */
  reach: bigint;
}

/** Ranges, found by address in the order of their list, without going through all of it. */
export class RangesFound<R extends FoundRange> {
  /** By address. */
  readonly #places: readonly Place<R>[];

  constructor(ranges: readonly R[]) {
    let reach = 0n;
    this.#places = ranges
      .map((range, index) => ({ range, index, end: range.from + BigInt(range.size) }))
      .sort((a, b) => compare(a.range.from, b.range.from) || a.index - b.index)
      .map((place) => {
        if (place.end > reach) reach = place.end;
        return { ...place, reach };
      });
  }

  /** The first in the list that has a byte of [address, address + size). */
  first(address: bigint, size = 1): R | undefined {
    let found: Place<R> | undefined;
    for (let i = this.#before(address + BigInt(size)); i >= 0; i--) {
      const place = this.#places[i]!;
      if (place.reach <= address) break;
      if (place.end > address && (found === undefined || place.index < found.index)) found = place;
    }
    return found?.range;
  }

  /** All that have a byte of [address, address + size), in the order of the list. */
  all(address: bigint, size = 1): R[] {
    const found: Place<R>[] = [];
    for (let i = this.#before(address + BigInt(size)); i >= 0; i--) {
      const place = this.#places[i]!;
      if (place.reach <= address) break;
      if (place.end > address) found.push(place);
    }
    return found.sort((a, b) => a.index - b.index).map(({ range }) => range);
  }

  /** The last place that begins before `end`; -1 if there is none. */
  #before(end: bigint): number {
    return firstIndex(this.#places.length, (at) => this.#places[at]!.range.from >= end) - 1;
  }
}

function compare(a: bigint, b: bigint): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
