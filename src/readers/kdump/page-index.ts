/** Which pages a file holds, and the number of each one's descriptor. */
import { popcount } from '../../core/bits.ts';
import { PageDescriptor } from '../../formats/kdump.ts';

/** Finds a page's descriptor: how many pages come before it, from counts every 16 words (1/16 of the bitmap). */
export class PageIndex {
  readonly words: Uint32Array;
  readonly count: number;
  readonly #descriptorsAt: number;
  readonly #before: Uint32Array;

  constructor(bitmap: Buffer, descriptorsAt: number) {
    const words = new Uint32Array(bitmap.length / 4);
    for (let i = 0; i < words.length; i++) words[i] = bitmap.readUInt32LE(4 * i);
    this.words = words;
    this.#before = new Uint32Array(Math.ceil(words.length / 16));
    let count = 0;
    for (let i = 0; i < words.length; i++) {
      if (i % 16 === 0) this.#before[i / 16] = count;
      count += popcount(words[i]!);
    }
    this.count = count;
    this.#descriptorsAt = descriptorsAt;
  }

  /** File offset of descriptor number `n`. */
  descriptorAt(n: number): number {
    return this.#descriptorsAt + n * PageDescriptor.size;
  }

  /** Number of the page's descriptor. */
  rank(page: number): number {
    const word = Math.floor(page / 32);
    let n = this.#before[word >>> 4]!;
    for (let i = word & ~15; i < word; i++) n += popcount(this.words[i]!);
    return n + popcount(this.words[word]! & ((1 << (page % 32)) - 1));
  }

  /** Calls back with the number of each page in the file, in ascending order: the order of the descriptors. */
  forEach(take: (page: number) => void): void {
    for (let i = 0; i < this.words.length; i++) {
      const word = this.words[i]!;
      if (word === 0) continue;
      for (let bit = 0; bit < 32; bit++) if (((word >>> bit) & 1) === 1) take(32 * i + bit);
    }
  }
}
