import type { SessionResult } from "../sdk/index.js";
import type { EventLine } from "./activity.js";
import { element, figure, make } from "./dom.js";

/** Lines kept. */
const LINES = 60;
/** A change is written at most this often, so that reading aloud keeps up, in milliseconds. */
const CHANGE_MS = 1_500;
/** Without a change, a line is written this often, in milliseconds. */
const STEADY_MS = 10_000;

/** The readable list of what was found and what happened: a line when it changes, newest first, bounded. */
export class ResultsLog {
  readonly #list = element("log", HTMLOListElement);
  readonly #json = element("json", HTMLPreElement);
  readonly #details = element("json-details", HTMLDetailsElement);
  #last = "";
  #lastAt = -Infinity;
  #jsonAt = -Infinity;

  /** Takes a result that came at `now`. */
  add(result: SessionResult, now: number): void {
    if (this.#details.open && now - this.#jsonAt > 500) {
      this.#jsonAt = now;
      this.#json.textContent = JSON.stringify(result, null, 2);
    }
    const text = describe(result);
    const since = now - this.#lastAt;
    if (since < (text === this.#last ? STEADY_MS : CHANGE_MS)) return;
    this.#last = text;
    this.#lastAt = now;
    const total = make("span", `${figure(result.timing_ms.total)} ms`, "ms");
    this.#write([make("span", text), total]);
  }

  /** Takes something that happened. */
  note({ text, mark }: EventLine): void {
    this.#write([make("span", text)], mark ?? "event");
  }

  /** Removes all lines. */
  clear(): void {
    this.#list.replaceChildren();
    this.#last = "";
    this.#lastAt = -Infinity;
  }

  #write(parts: Node[], mark = "result"): void {
    const time = new Date();
    const stamp = make("time", time.toLocaleTimeString());
    stamp.dateTime = time.toISOString();
    const line = make("li", [stamp, ...parts]);
    line.dataset["mark"] = mark;
    this.#list.prepend(line);
    while (this.#list.childElementCount > LINES) this.#list.lastElementChild?.remove();
  }
}

/** What a result tells of its frame. */
export type Findings = Pick<SessionResult, "detections" | "classes" | "segments" | "tensors">;

/**
 * Such as `2 × helmet, 1 × head`; classes in order of how many, then by name. Of what is told of the whole frame: `seven 97 %`,
 * `person 13 %` or `2 tensors`.
 */
export function describe({ detections, classes, segments, tensors }: Findings): string {
  const percent = (name: string, share: number): string => `${name}\u00a0${Math.round(share * 100)}\u00a0%`;
  if (classes) return classes.map(({ class: name, score }) => percent(name, score)).join(", ") || "no class sure enough";
  if (segments) return segments.map(({ class: name, area_ratio }) => percent(name, area_ratio)).join(", ") || "nothing found";
  if (tensors) return tensors.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
  const counts = new Map<string, number>();
  for (const { class: name } of detections) counts.set(name, (counts.get(name) ?? 0) + 1);
  if (counts.size === 0) return "nothing found";
  return [...counts]
    .sort(([a, many], [b, more]) => more - many || a.localeCompare(b))
    .map(([name, count]) => `${count}\u00a0×\u00a0${name}`)
    .join(", ");
}
