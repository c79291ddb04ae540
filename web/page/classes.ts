import type { ModelView, RouteView } from "../sdk/index.js";

/**
 * The classes of what a session with this `model` gets; none named: what the server gives by default. `null`: the server
 * has told of no such model or route.
 */
export function classesOf(
  model: string | undefined,
  models: readonly ModelView[],
  routes: readonly RouteView[],
): readonly string[] | null {
  const is = model === undefined ? (one: { default: boolean }) => one.default : (one: { name: string }) => one.name === model;
  // As the server resolves it: a route before a model, and of a model's versions, which come oldest first, the newest.
  const route = routes.find(is);
  const found = route ?? models.findLast((one) => is(one) || `${one.name}@${one.version}` === model);
  return found?.classes ?? null;
}

/** Answers of which only the one to the last question counts. */
export class Latest {
  #asked = 0;

  /** The answer, unless another question came or {@link drop} was called in the meantime: then `null`. */
  async ask<T>(question: () => Promise<T>): Promise<T | null> {
    const number = ++this.#asked;
    const answer = await question();
    return number === this.#asked ? answer : null;
  }

  /** Nobody waits for the answer any more. */
  drop(): void {
    this.#asked += 1;
  }
}
