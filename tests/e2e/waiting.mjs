// Waiting for conditions.
import { setTimeout as pause } from "node:timers/promises";

/**
 * Asks `condition` again and again, with a pause of `every` milliseconds, until it gives something true, and returns that.
 * Fails after `ms`, saying what for.
 */
export async function until(what, ms, condition, every = 50) {
  const deadline = performance.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`${what}: not within ${ms} ms`);
    await pause(every);
  }
}
