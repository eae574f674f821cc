/** The searches of an input that can be read in more than one way: by machine and by layout. */
import { MACHINES } from '../machines/index.ts';
import type { Machine } from '../machines/machine.ts';
import type { RootClue } from '../machines/page-search.ts';
import type { MemoryImage } from '../memory/image.ts';
import { areSameBytes, MemorySearch, type SearchOptions } from './memory-search.ts';
import { leadsToWindows, type Search } from './place.ts';

/**
 * Ends a search only if a processor's own data names the root: tables that merely point to themselves may be an earlier
 * boot's, so that the newest of all has to be chosen.
 */
const isNamed = ({ rank }: RootClue): boolean => rank === 0;

/** One search for all readings of the same bytes. What it finds is named by the addresses that memory itself has for it. */
export class ReadingSearches {
  readonly #options: SearchOptions;
  /** The first layout of each machine, which are searched together. */
  #together: readonly MemoryImage[];
  readonly #begun = new Map<MemoryImage, MemorySearch>();

  constructor(readings: readonly MemoryImage[], options: SearchOptions) {
    this.#options = options;
    const firsts = MACHINES.flatMap((machine) => readings.find((image) => image.machine === machine) ?? []);
    const [given] = readings;
    this.#together = firsts.filter((image) => image === given || areSameBytes(image, given!));
  }

  /** By a layout that serves others too. Tables that point to themselves are found where it is right. */
  of(searched: MemoryImage): Search {
    return (enough = () => false) =>
      this.#searchOf(searched).run((clue, image) => image === searched && isNamed(clue) && enough(clue), searched);
  }

  /**
   * The machine through whose tables a search first finds Windows; undefined where there is none. What is
   * searched further is searched for that machine: the others begin anew, should they get their turn at all.
   */
  async firstMachine(): Promise<Machine | undefined> {
    const search = this.#searchOf(this.#together[0]!);
    let found: MemoryImage | undefined;
    await search.run((clue, image) => {
      if (leadsToWindows(image, clue.root)) found ??= image;
      return found !== undefined;
    });
    if (!found) return undefined;
    search.narrowTo(found);
    this.#together = this.#together.filter((image) => image !== found);
    for (const image of this.#together) this.#begun.delete(image);
    return found.machine;
  }

  #searchOf(searched: MemoryImage): MemorySearch {
    const begun = this.#begun.get(searched);
    if (begun) return begun;
    const images = this.#together.includes(searched) ? this.#together : [searched];
    const search = new MemorySearch(images, this.#options);
    for (const image of images) this.#begun.set(image, search);
    return search;
  }
}
