import { isRecord } from "../sdk/guards.js";

/** One event of `GET /v1/events`. */
export interface EventRecord {
  id: string;
  time_ms: number;
  session_id: string;
  camera: string | null;
  event: Record<string, unknown>;
}

/** A page of them. */
export interface EventPage {
  events: EventRecord[];
  next_cursor: string | null;
}

/** One point of `GET /v1/stats`. */
export interface StatPoint {
  time_ms: number;
  group: string | null;
  results: number;
  met: number;
  alerts: number;
  detections: Record<string, number>;
  latency_ms: { p50: number | null; p95: number | null };
}

/** The page of events that this JSON is, or `null`. */
export function eventPage(json: unknown): EventPage | null {
  if (!isRecord(json) || !Array.isArray(json["events"])) return null;
  const events = json["events"].filter(
    (one): one is EventRecord =>
      isRecord(one) && typeof one["id"] === "string" && typeof one["time_ms"] === "number" && isRecord(one["event"]),
  );
  const next = json["next_cursor"];
  return { events, next_cursor: typeof next === "string" ? next : null };
}

/** The points and the step, in milliseconds, that this JSON has, or `null`. */
export function statPoints(json: unknown): { step: number; from: number; to: number; points: StatPoint[] } | null {
  if (!isRecord(json) || !Array.isArray(json["points"]) || typeof json["step_s"] !== "number") return null;
  const [from, to] = [Date.parse(String(json["from"])), Date.parse(String(json["to"]))];
  const points = json["points"].filter((one): one is StatPoint => isRecord(one) && typeof one["time_ms"] === "number");
  return { step: json["step_s"] * 1000, from, to, points };
}

/** The query that these fields make; empty ones say nothing. */
export function queryOf(fields: Record<string, string | number | null | undefined>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
  }
  return query.toString();
}

/** Rows of a table that are worth having: those in sight, and some before and behind. */
export function windowOf(
  scroll: number,
  height: number,
  row: number,
  count: number,
  spare = 8,
): { first: number; end: number } {
  const first = Math.max(0, Math.min(count, Math.floor(scroll / row)) - spare);
  const end = Math.min(count, Math.ceil((scroll + height) / row) + spare);
  return { first: Math.min(first, end), end };
}

/** Every step of a range, with nothing where there is no point: servers leave those out. */
export function everyStep(from: number, to: number, step: number, points: readonly StatPoint[]): (StatPoint | null)[] {
  const known = new Map(points.map((point) => [point.time_ms, point]));
  const steps: (StatPoint | null)[] = [];
  for (let at = from - (from % step); at < to && steps.length < 20_000; at += step) steps.push(known.get(at) ?? null);
  return steps;
}

/** An event in words, beyond its type, place and class. */
export function detailOf(event: Record<string, unknown>): string {
  const words: string[] = [];
  const put = (key: string, text: (value: string) => string): void => {
    const value = event[key];
    if (typeof value === "string" || typeof value === "number") words.push(text(String(value)));
  };
  put("object_id", (id) => `object ${id}`);
  put("direction", (way) => way.replaceAll("_", " "));
  put("count", (count) => `${count} inside`);
  put("dwell_ms", (ms) => `after ${(Number(ms) / 1000).toFixed(1)} s`);
  put("codec", (codec) => codec);
  if (typeof event["width"] === "number") put("height", (height) => `${String(event["width"])}×${height}`);
  return words.join(", ");
}

/** The size of a picture that is no larger than a model's input needs it, in pixels; never larger than it is. */
export function fitted(width: number, height: number, input: readonly [number, number]): [number, number] {
  const scale = Math.min(1, Math.max(input[0] / width, input[1] / height));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

/** Runs work for each item, a few at a time, in their order. */
export async function eachOf<T>(items: readonly T[], atOnce: number, work: (item: T) => Promise<void>): Promise<void> {
  const rest = items[Symbol.iterator]();
  const run = async (): Promise<void> => {
    for (let next = rest.next(); !next.done; next = rest.next()) await work(next.value);
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, run));
}
