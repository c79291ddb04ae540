/** Events a second over a sliding window. */
export class Rate {
  readonly #times: number[] = [];

  /** @param windowMs length of the window, in milliseconds. */
  constructor(private readonly windowMs = 2_000) {}

  /** Counts one event at `now`. */
  add(now: number): void {
    this.#times.push(now);
    this.#forget(now);
  }

  /** Events a second as of `now`. */
  perSecond(now: number): number {
    this.#forget(now);
    return (this.#times.length * 1_000) / this.windowMs;
  }

  #forget(now: number): void {
    let old = 0;
    while (old < this.#times.length && now - (this.#times[old] ?? now) >= this.windowMs) old += 1;
    if (old > 0) this.#times.splice(0, old);
  }
}

/** The last samples of a quantity, for percentiles. */
export class Samples {
  readonly #values: number[] = [];
  #next = 0;

  /** @param capacity samples kept, newest first. */
  constructor(private readonly capacity = 120) {}

  add(value: number): void {
    this.#values[this.#next] = value;
    this.#next = (this.#next + 1) % this.capacity;
  }

  /** Samples held. */
  get size(): number {
    return this.#values.length;
  }

  /** The `p`-th percentile (nearest rank), `p` in 0..100, or `null` while there is no sample. */
  percentile(p: number): number | null {
    if (this.#values.length === 0) return null;
    const sorted = [...this.#values].sort((a, b) => a - b);
    const rank = Math.ceil((p / 100) * sorted.length);
    return sorted[Math.min(sorted.length, Math.max(1, rank)) - 1] ?? null;
  }

  /** The mean, 0 while there is no sample. */
  mean(): number {
    return this.#values.reduce((sum, value) => sum + value, 0) / Math.max(1, this.#values.length);
  }

  clear(): void {
    this.#values.length = 0;
    this.#next = 0;
  }
}
