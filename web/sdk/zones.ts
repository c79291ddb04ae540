import { isNumber, isString, list, literal, numbers, optional, shape } from "./guards.js";

/** `[x, y]` in fractions of the upright frame, each 0..1. */
export type Point = [number, number];

/** Zones, lines and rules that a session may have, of each. */
export const MAX_SHAPES = 16;
/** Corners that a zone has, at least and at most. */
export const CORNERS = { min: 3, max: 32 } as const;

/** The point of a box that counts for zones and lines: its centre, or the middle of its lower edge. */
export type Anchor = "center" | "bottom";

/** A named polygon of 3 to 32 corners, whose sides do not cross. An object is in it while its anchor is. */
export interface Zone {
  /** Name, unique among the session's zones. */
  name: string;
  /** Corners in order. */
  polygon: Point[];
  /** Which point of a box counts; the centre where absent. */
  anchor?: Anchor;
  /** `zone_dwelled` comes when an object has been inside for this many seconds; absent: never. */
  dwell_s?: number;
}

/** A named line. Left and right are as seen when looking from its first point to its second. */
export interface Line {
  /** Name, unique among the session's lines. */
  name: string;
  points: [Point, Point];
  /** Which point of a box must cross; the centre where absent. */
  anchor?: Anchor;
}

/**
 * What raises an alert. Without `more_than` each object of these classes that is in the zone too long raises one of its
 * own; with it, too many of them there for too long raise one together.
 */
export interface Rule {
  /** Name, unique among the session's rules. */
  name: string;
  /** Name of a zone of the session. */
  zone: string;
  /** Class names that count; absent: all. */
  classes?: string[];
  /** Seconds that it has to last; absent: none. */
  longer_than_s?: number;
  /** Number of objects that is still fine. */
  more_than?: number;
}

/** Whether `value` is a {@link Zone} that a server may take. */
export function isZone(value: unknown): value is Zone {
  return zone(value) && value.polygon.length >= CORNERS.min && value.polygon.length <= CORNERS.max;
}

/** Whether `value` is a {@link Line}. */
export function isLine(value: unknown): value is Line {
  return line(value);
}

/** Whether `value` is a {@link Rule}. */
export function isRule(value: unknown): value is Rule {
  return rule(value);
}

const point = numbers<Point>(2);
const anchor = optional(literal<Anchor>("center", "bottom"));

/** Fields of a {@link Zone}, whatever its corners. */
export const zone = shape<Zone>({
  name: isString,
  polygon: list(point),
  anchor,
  dwell_s: optional(isNumber),
});

/** Fields of a {@link Line}. */
export const line = shape<Line>({
  name: isString,
  points: (value): value is [Point, Point] => Array.isArray(value) && value.length === 2 && value.every(point),
  anchor,
});

/** Fields of a {@link Rule}. */
export const rule = shape<Rule>({
  name: isString,
  zone: isString,
  classes: optional(list(isString)),
  longer_than_s: optional(isNumber),
  more_than: optional(isNumber),
});
