/** How often and how patiently to connect again. */
export interface ReconnectPolicy {
  /** First delay, in milliseconds. */
  baseMs: number;
  /** Longest delay, in milliseconds. */
  maxMs: number;
  /** Attempts in a row before giving up. */
  maxAttempts: number;
  /** How long a connection must hold before the count starts anew, in milliseconds. */
  stableMs: number;
}

/** 0.5 s, 1 s, 2 s … 15 s, each shortened by chance to as little as half, ten times. */
export const DEFAULT_RECONNECT: ReconnectPolicy = { baseMs: 500, maxMs: 15_000, maxAttempts: 10, stableMs: 5_000 };

/** Exponential back-off with jitter, so that many clients of a restarted server do not come back in one moment. */
export class Backoff {
  #attempt = 0;

  constructor(
    private readonly policy: ReconnectPolicy,
    private readonly random: () => number,
  ) {}

  /** Attempts since the last {@link reset}. */
  get attempt(): number {
    return this.#attempt;
  }

  /**
   * Delay before the next attempt in milliseconds, or `null` when no attempt is left.
   *
   * @param atLeastMs what the server asked for; jitter of up to a quarter is added on top, never taken off.
   */
  next(atLeastMs = 0): number | null {
    if (this.#attempt >= this.policy.maxAttempts) return null;
    const full = Math.min(this.policy.maxMs, this.policy.baseMs * 2 ** this.#attempt);
    this.#attempt += 1;
    const own = full * (0.5 + 0.5 * this.random());
    return Math.round(Math.max(own, atLeastMs * (1 + 0.25 * this.random())));
  }

  /** Starts the count anew. */
  reset(): void {
    this.#attempt = 0;
  }
}
