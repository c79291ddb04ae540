/** A map that forgets its oldest entry when it is full. Setting a key again makes it the newest. */
export class BoundedMap<K, V> {
  readonly #entries = new Map<K, V>();

  /** @param capacity entries kept at most, 1 or more. */
  constructor(readonly capacity: number) {
    if (!(capacity >= 1)) throw new RangeError("capacity must be 1 or more");
  }

  /** Entries held. */
  get size(): number {
    return this.#entries.size;
  }

  get(key: K): V | undefined {
    return this.#entries.get(key);
  }

  has(key: K): boolean {
    return this.#entries.has(key);
  }

  /** Keeps `value` under `key` and returns the entry that had to go for it, if any. */
  set(key: K, value: V): [K, V] | null {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    if (this.#entries.size <= this.capacity) return null;
    const oldest = this.#entries.entries().next();
    if (oldest.done) return null;
    this.#entries.delete(oldest.value[0]);
    return oldest.value;
  }

  delete(key: K): boolean {
    return this.#entries.delete(key);
  }

  clear(): void {
    this.#entries.clear();
  }

  /** Entries from oldest to newest. */
  entries(): IterableIterator<[K, V]> {
    return this.#entries.entries();
  }

  /** Values from oldest to newest. */
  values(): IterableIterator<V> {
    return this.#entries.values();
  }
}
