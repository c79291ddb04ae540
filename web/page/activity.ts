import { type AlertStarted, DEGRADATION_STEPS, type DegradationStep, type LineCrossed, type SessionEvent } from "../sdk/index.js";
import type { Site } from "./shapes.js";

/** An event as one line for people. */
export interface EventLine {
  text: string;
  /** What it marks: the start of an alert, the end of one, or neither. */
  mark: "alert" | "over" | null;
}

/** A rule whose alert is on. */
export interface ActiveAlert {
  rule: string;
  zone: string;
  /** What it is about, such as `head #7`, `2 objects` or `4 inside`. */
  about: string;
  /** When the first of it began, on the clock that `take` was given. */
  since: number;
}

/** Crossings of a line, each way. */
export type Crossings = Pick<LineCrossed, "left_to_right" | "right_to_left">;

const STEP_WORDS: Record<DegradationStep, string> = {
  skip_inference: "boxes carried between model runs",
  smaller_input: "smaller model input",
  lower_fps: "lower frame rate",
  lower_resolution: "lower resolution",
};

/** What the events of a session amount to: how many are inside, how many crossed, which alerts are on. */
export class Activity {
  readonly #inside = new Map<string, number>();
  readonly #crossings = new Map<string, Crossings>();
  readonly #alerts = new Map<string, ActiveAlert & { object: boolean }>();

  /** Takes an event that came at `now`. */
  take(event: SessionEvent, now: number): void {
    switch (event.type) {
      case "zone_entered":
      case "zone_left":
        this.#inside.set(event.zone, event.count);
        break;
      case "line_crossed":
        this.#crossings.set(event.line, { left_to_right: event.left_to_right, right_to_left: event.right_to_left });
        break;
      case "alert_started": {
        const { rule, zone, object_id } = event;
        this.#alerts.set(keyOf(event), { rule, zone, about: aboutWords(event), object: object_id !== null, since: now });
        break;
      }
      case "alert_ended":
        this.#alerts.delete(keyOf(event));
        break;
      default:
    }
  }

  /** Objects in a zone as of its last event; `null` before one. */
  inside(zone: string): number | null {
    return this.#inside.get(zone) ?? null;
  }

  /** Crossings of a line as of its last event; `null` before one. */
  crossings(line: string): Crossings | null {
    return this.#crossings.get(line) ?? null;
  }

  /** The alerts that are on, one for each rule and zone, the oldest first. */
  get alerts(): ActiveAlert[] {
    const grouped = new Map<string, ActiveAlert & { objects: number }>();
    for (const { rule, zone, about, object, since } of this.#alerts.values()) {
      const key = JSON.stringify([rule, zone]);
      const group = grouped.get(key);
      if (!group) {
        grouped.set(key, { rule, zone, about, since, objects: object ? 1 : 0 });
      } else if (object) {
        group.objects += 1;
        if (group.objects > 1) group.about = `${group.objects} objects`;
      }
    }
    return [...grouped.values()].map(({ rule, zone, about, since }) => ({ rule, zone, about, since }));
  }

  /** Forgets what is of shapes and rules that are not in `site`. */
  keep({ zones, lines, rules }: Site): void {
    const has = (list: readonly { name: string }[], name: string): boolean => list.some((one) => one.name === name);
    for (const name of this.#inside.keys()) if (!has(zones, name)) this.#inside.delete(name);
    for (const name of this.#crossings.keys()) if (!has(lines, name)) this.#crossings.delete(name);
    for (const [key, { rule, zone }] of this.#alerts) {
      if (!has(rules, rule) || !has(zones, zone)) this.#alerts.delete(key);
    }
  }

  /** Forgets everything: another session counts anew. */
  clear(): void {
    this.#inside.clear();
    this.#crossings.clear();
    this.#alerts.clear();
  }
}

/** An event as one line for people. */
export function eventLine(event: SessionEvent): EventLine {
  const plain = (text: string): EventLine => ({ text, mark: null });
  switch (event.type) {
    case "track_started":
      return plain(`Video comes in as ${event.codec}`);
    case "resolution_changed":
      return plain(`Incoming video is ${event.width}×${event.height}`);
    case "zone_entered":
      return plain(`${objectWords(event)} entered ${event.zone}, ${event.count} inside`);
    case "zone_left":
      return plain(`${objectWords(event)} left ${event.zone} after ${seconds(event.dwell_ms)}, ${event.count} inside`);
    case "zone_dwelled":
      return plain(`${objectWords(event)} has been in ${event.zone} for ${seconds(event.dwell_ms)}`);
    case "line_crossed": {
      const { left_to_right: right, right_to_left: left } = event;
      const [way, there, back] = event.direction === "left_to_right" ? ["left to right", right, left] : ["right to left", left, right];
      return plain(`${objectWords(event)} crossed ${event.line} ${way}: ${there} that way, ${back} the other`);
    }
    case "alert_started":
      return { text: `Alert: ${event.rule} in ${event.zone}, ${aboutWords(event)}`, mark: "alert" };
    case "alert_ended": {
      const about = event.object_id === null ? "" : `, #${event.object_id}`;
      return { text: `Alert over: ${event.rule} in ${event.zone}${about}, after ${seconds(event.duration_ms)}`, mark: "over" };
    }
  }
}

/** The steps of degradation in plain words; nothing when there is none. Steps of a newer server keep their name. */
export function degradationWords(steps: readonly string[]): string {
  if (steps.length === 0) return "";
  const known: readonly string[] = DEGRADATION_STEPS;
  const words = steps.map((step) => (known.includes(step) ? STEP_WORDS[step as DegradationStep] : step.replaceAll("_", " ")));
  return `Saving work: ${words.join(", ")}`;
}

function keyOf({ rule, zone, object_id }: { rule: string; zone: string; object_id: number | null }): string {
  return JSON.stringify([rule, zone, object_id]);
}

function aboutWords({ object_id, class: name, count }: AlertStarted): string {
  return object_id === null ? `${count} inside` : `${name ?? "object"} #${object_id}`;
}

function objectWords({ class: name, object_id }: { class: string; object_id: number }): string {
  return `${name} #${object_id}`;
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(ms < 9_950 ? 1 : 0)} s`;
}
