/** Binary searches. What is searched need not be an array: it is asked by index. */

/**
 * The first index below `count` at which `holds` is true; `count` where there is none.
 *
 * @param holds false up to some index and true from there on
 */
export function firstIndex(count: number, holds: (index: number) => boolean): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = low + Math.floor((high - low) / 2);
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * An index below `count` at which `compare` is 0; undefined where there is none.
 *
 * @param compare negative where what is looked for comes before that index, positive where it comes after;
 *   undefined ends the search
 */
export function findIndex(count: number, compare: (index: number) => number | undefined): number | undefined {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = low + Math.floor((high - low) / 2);
    const order = compare(middle);
    if (order === undefined) return undefined;
    if (order === 0) return middle;
    if (order < 0) high = middle;
    else low = middle + 1;
  }
  return undefined;
}
