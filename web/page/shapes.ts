import {
  CORNERS,
  isLine,
  isRule,
  isZone,
  type Line,
  MAX_SHAPES,
  type Options,
  type OptionsPatch,
  type Point,
  type Rule,
  type Zone,
} from "../sdk/index.js";

/** The zones, lines and rules of a session. Every function here gives a new one and leaves the old as it was. */
export interface Site {
  zones: Zone[];
  lines: Line[];
  rules: Rule[];
}

/** Names longer than this are cut. */
const NAME_LENGTH = 40;
/** Servers take no zone that is smaller, in parts of the picture. */
const LEAST_AREA = 0.0001;
/** Fractions are given with this many digits: a tenth of a pixel of the widest frame. */
const DIGITS = 4;

/** A site with nothing in it. */
export const NOTHING: Site = { zones: [], lines: [], rules: [] };

/**
 * An example for the sample scene: the yard between the blue booth and the green hut, where nobody may be without a
 * helmet for longer than two seconds. Boxes are those of heads, so the zone lies where heads of people in the yard are.
 */
export const EXAMPLE: Site = {
  zones: [{ name: "work", polygon: [[0.3, 0.29], [0.67, 0.29], [0.74, 0.56], [0.24, 0.56]], anchor: "center" }],
  lines: [],
  rules: [{ name: "bare head", zone: "work", classes: ["head"], longer_than_s: 2 }],
};

/** What of `options` is of the site. */
export function siteOf({ zones, lines, rules = [] }: Pick<Options, "zones" | "lines" | "rules">): Site {
  return { zones, lines, rules };
}

/** The lists that differ from `from` to `to`, whole, as `configure` takes them. */
export function patchOf(from: Site, to: Site): OptionsPatch {
  const changed = (key: keyof Site): boolean => JSON.stringify(from[key]) !== JSON.stringify(to[key]);
  return {
    ...(changed("zones") && { zones: to.zones }),
    ...(changed("lines") && { lines: to.lines }),
    ...(changed("rules") && { rules: to.rules }),
  };
}

/** The site that the address asks for by `zones`, `lines` and `rules`, each JSON, and by `example=site`. */
export function siteOfQuery(query: URLSearchParams): Site {
  const zones = listOf(query.get("zones"), isZone);
  const known = new Set(zones.map(({ name }) => name));
  const rules = listOf(query.get("rules"), isRule).filter(({ zone }) => known.has(zone));
  const asked: Site = { zones, lines: listOf(query.get("lines"), isLine), rules };
  return query.get("example") === "site" ? withSite(asked, EXAMPLE) : asked;
}

/** `site` with all of `added`; what has the same name there gives way. */
export function withSite(site: Site, added: Site): Site {
  const merge = <T extends { name: string }>(old: T[], fresh: T[]): T[] => {
    const kept = old.filter(({ name }) => !fresh.some((one) => one.name === name));
    return [...kept, ...fresh].slice(-MAX_SHAPES);
  };
  const zones = merge(site.zones, added.zones);
  const rules = merge(site.rules, added.rules).filter(({ zone }) => zones.some(({ name }) => name === zone));
  return { zones, lines: merge(site.lines, added.lines), rules };
}

/** `site` with a shape that was just drawn, under a name of its own; `null` when there is no place for it. */
export function withDrawn(site: Site, { kind, corners }: Draft): Site | null {
  if (kind === "zone") {
    if (corners.length < CORNERS.min || site.zones.length >= MAX_SHAPES) return null;
    return { ...site, zones: [...site.zones, { name: freeName("zone", site.zones), polygon: corners, anchor: "center" }] };
  }
  const [first, second] = corners;
  if (!first || !second || site.lines.length >= MAX_SHAPES) return null;
  const line: Line = { name: freeName("line", site.lines), points: [first, second], anchor: "center" };
  return { ...site, lines: [...site.lines, line] };
}

/** `site` with a rule more; `null` when there is no place for it. A name that is taken or empty is replaced. */
export function withRule(site: Site, rule: Rule): Site | null {
  if (site.rules.length >= MAX_SHAPES) return null;
  const name = usable(rule.name, site.rules) ?? freeName("alert", site.rules);
  return { ...site, rules: [...site.rules, { ...rule, name }] };
}

/** `site` with another name for a zone, in its rules as well; `null` when the name is empty or taken. */
export function renamedZone(site: Site, index: number, name: string): Site | null {
  const old = site.zones[index]?.name;
  const given = usable(name, site.zones, index);
  if (given === null) return null;
  return {
    ...changedZone(site, index, { name: given }),
    rules: site.rules.map((rule) => (rule.zone === old ? { ...rule, zone: given } : rule)),
  };
}

/** `site` with another name for a line; `null` when the name is empty or taken. */
export function renamedLine(site: Site, index: number, name: string): Site | null {
  const given = usable(name, site.lines, index);
  return given === null ? null : changedLine(site, index, { name: given });
}

/** `site` with other properties of one zone. */
export function changedZone(site: Site, index: number, change: Partial<Zone>): Site {
  return { ...site, zones: site.zones.map((zone, at) => (at === index ? { ...zone, ...change } : zone)) };
}

/** `site` with another `dwell_s` of one zone, or none. */
export function withDwell(site: Site, index: number, seconds: number | null): Site {
  const zones = site.zones.map((zone, at) => {
    if (at !== index) return zone;
    const { dwell_s: _, ...rest } = zone;
    return seconds === null ? rest : { ...rest, dwell_s: seconds };
  });
  return { ...site, zones };
}

/** `site` with other properties of one line. */
export function changedLine(site: Site, index: number, change: Partial<Line>): Site {
  return { ...site, lines: site.lines.map((line, at) => (at === index ? { ...line, ...change } : line)) };
}

/** `site` with a line that begins where it ended, so that left and right change sides. */
export function flippedLine(site: Site, index: number): Site {
  const line = site.lines[index];
  return line ? changedLine(site, index, { points: [line.points[1], line.points[0]] }) : site;
}

/** `site` without a zone and its rules. */
export function withoutZone(site: Site, index: number): Site {
  const gone = site.zones[index]?.name;
  return {
    ...site,
    zones: site.zones.filter((_, at) => at !== index),
    rules: site.rules.filter(({ zone }) => zone !== gone),
  };
}

/** `site` without a line. */
export function withoutLine(site: Site, index: number): Site {
  return { ...site, lines: site.lines.filter((_, at) => at !== index) };
}

/** `site` without the rule of this name. */
export function withoutRule(site: Site, name: string): Site {
  return { ...site, rules: site.rules.filter((rule) => rule.name !== name) };
}

/** A rule in words, such as `head for longer than 2 s`. */
export function ruleWords({ classes, longer_than_s: seconds = 0, more_than: count }: Rule): string {
  const what = classes?.length ? classes.join(" or ") : "anything";
  const many = count === undefined ? what : `more than ${count} of ${what}`;
  return seconds > 0 ? `${many} for longer than ${seconds} s` : `${many}, at once`;
}

/** A shape that is being drawn. */
export interface Draft {
  kind: "zone" | "line";
  corners: Point[];
}

/** Whether the draft has corners enough to be a zone. */
export function closable({ kind, corners }: Draft): boolean {
  return kind === "zone" && corners.length >= CORNERS.min;
}

/** Why no server would take the draft as it is, and what to do; `null` when one would. */
export function problemOf({ kind, corners }: Draft): string | null {
  if (kind === "line") return corners.length < 2 ? "A line needs two ends." : null;
  if (corners.length < CORNERS.min) return "A zone needs three corners.";
  if (areCrossing(corners)) return "The zone's sides cross: take corners back, and go around it in order.";
  return areaOf(corners) < LEAST_AREA ? "The zone is too small." : null;
}

/**
 * A click at `point`. A zone is done by one on its first or its last corner, the latter being what a double-click is; a
 * line is done by its second end.
 *
 * @param near whether two points are too close to be told apart.
 */
export function placed(draft: Draft, point: Point, near: (a: Point, b: Point) => boolean): { draft: Draft; done: boolean } {
  const first = draft.corners[0];
  const last = draft.corners.at(-1);
  const onCorner = (first !== undefined && near(first, point)) || (last !== undefined && near(last, point));
  if (onCorner) return { draft, done: closable(draft) };
  const corners = [...draft.corners, point];
  const done = draft.kind === "line" ? corners.length === 2 : corners.length === CORNERS.max;
  return { draft: { ...draft, corners }, done };
}

/** Width and height. */
export interface Size {
  width: number;
  height: number;
}

/** A rectangle in CSS pixels. */
export interface Rect extends Size {
  left: number;
  top: number;
}

/** Where a picture is in its box with `object-fit: contain`; all of the box while its size is not known. */
export function pictureIn(box: Size, picture: Size): Rect {
  if (picture.width <= 0 || picture.height <= 0) return { left: 0, top: 0, ...box };
  const scale = Math.min(box.width / picture.width, box.height / picture.height);
  const width = picture.width * scale;
  const height = picture.height * scale;
  return { left: (box.width - width) / 2, top: (box.height - height) / 2, width, height };
}

/** The point of the picture under a pixel, in fractions; beside the picture, the nearest one on its edge. */
export function fractionAt({ left, top, width, height }: Rect, x: number, y: number): Point {
  return [fraction((x - left) / Math.max(1, width)), fraction((y - top) / Math.max(1, height))];
}

/** A point's pixel, from the picture's upper left corner. */
export function pixelOf({ width, height }: Size, [x, y]: Point): Point {
  return [x * width, y * height];
}

/** A fraction as the site has it: within 0..1, with few digits. */
export function fraction(value: number): number {
  return Number(Math.min(1, Math.max(0, value)).toFixed(DIGITS));
}

/** Whether two sides of a polygon, other than neighbours, have a point in common. */
function areCrossing(corners: readonly Point[]): boolean {
  const side = (index: number): [Point, Point] => [corners[index] ?? [0, 0], corners[(index + 1) % corners.length] ?? [0, 0]];
  return corners.some((_, first) =>
    corners.some((_, second) => {
      const apart = Math.abs(first - second);
      return apart > 1 && apart < corners.length - 1 && areMeeting(side(first), side(second));
    }),
  );
}

function areMeeting([a, b]: [Point, Point], [c, d]: [Point, Point]): boolean {
  const turn = (from: Point, to: Point, at: Point): number =>
    (to[0] - from[0]) * (at[1] - from[1]) - (to[1] - from[1]) * (at[0] - from[0]);
  return turn(a, b, c) * turn(a, b, d) <= 0 && turn(c, d, a) * turn(c, d, b) <= 0;
}

/** Area in parts of the picture (shoelace formula). */
function areaOf(corners: readonly Point[]): number {
  let twice = 0;
  corners.forEach(([x, y], index) => {
    const [nextX, nextY] = corners[(index + 1) % corners.length] ?? [x, y];
    twice += x * nextY - y * nextX;
  });
  return Math.abs(twice) / 2;
}

function listOf<T>(text: string | null, guard: (value: unknown) => value is T): T[] {
  try {
    const value: unknown = JSON.parse(text ?? "[]");
    return Array.isArray(value) ? value.filter(guard).slice(0, MAX_SHAPES) : [];
  } catch {
    return [];
  }
}

function usable(name: string, others: readonly { name: string }[], own = -1): string | null {
  const given = name.trim().slice(0, NAME_LENGTH).trim();
  const taken = others.some((other, at) => at !== own && other.name === given);
  return given === "" || taken ? null : given;
}

function freeName(kind: string, others: readonly { name: string }[]): string {
  for (let number = 1; ; number += 1) {
    const name = `${kind} ${number}`;
    if (!others.some((other) => other.name === name)) return name;
  }
}
