/** Lists that are asked for their members again and again. */

/** Values by key; of several with the same key the first, as a search of the list would find it. */
export function byKey<K, V>(values: readonly V[] | undefined, keyOf: (value: V) => K): ReadonlyMap<K, V> {
  const map = new Map<K, V>();
  for (const value of values ?? []) {
    const key = keyOf(value);
    if (!map.has(key)) map.set(key, value);
  }
  return map;
}

/** How often each value is in a list. */
export function countOf<T>(values: readonly T[]): Map<T, number> {
  const counts = new Map<T, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}
