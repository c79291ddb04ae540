import { arrowOf, type Point } from "../sdk/index.js";
import type { Activity } from "./activity.js";
import { type Draft, pixelOf, type Rect, type Site, type Size } from "./shapes.js";

const SVG = "http://www.w3.org/2000/svg";
/** Length of a line's arrow, in CSS pixels. */
const ARROW = 16;
/** Radius of a corner that is being drawn. */
const HANDLE = 5;

/** What a {@link Layer} shows. */
export interface LayerView {
  site: Site;
  /** Whether the picture has zones and lines already; then those with an alert alone are marked. */
  inPicture: boolean;
  activity: Activity;
  /** The shape that is being drawn. */
  draft: Draft | null;
  /** Where its next corner would be. */
  pointer: Point | null;
  /** Whether `pointer` is moved by keys, and needs a mark of its own. */
  crosshair: boolean;
}

/** Zones and lines over a picture: an SVG that covers the picture exactly, whatever bars are beside it. */
export class Layer {
  constructor(private readonly svg: SVGSVGElement) {}

  /** Draws everything anew. */
  draw(rect: Rect, { site, inPicture, activity, draft, pointer, crosshair }: LayerView): void {
    const { svg } = this;
    svg.style.left = `${rect.left}px`;
    svg.style.top = `${rect.top}px`;
    svg.setAttribute("width", String(rect.width));
    svg.setAttribute("height", String(rect.height));
    svg.replaceChildren();
    const alarmed = new Set(activity.alerts.map(({ zone }) => zone));
    for (const { name, polygon } of site.zones) {
      if (inPicture && !alarmed.has(name)) continue;
      const group = add(svg, "g", { class: alarmed.has(name) ? "zone alarmed" : "zone" });
      const points = pointsOf(polygon, rect);
      add(group, "polygon", { class: "halo", points });
      add(group, "polygon", { class: "shape", points });
      if (inPicture) continue;
      const inside = activity.inside(name);
      label(group, inside === null ? name : `${name} · ${inside}`, topOf(polygon), rect);
    }
    for (const { name, points } of inPicture ? [] : site.lines) {
      const group = add(svg, "g", { class: "line" });
      const ends: [Point, Point] = [pixelOf(rect, points[0]), pixelOf(rect, points[1])];
      for (const kind of ["halo", "shape"]) {
        add(group, "polyline", { class: kind, points: textOf(ends) });
        add(group, "polyline", { class: kind, points: textOf(arrowOf(ends, ARROW)) });
      }
      const crossings = activity.crossings(name);
      const counts = crossings ? ` · ${crossings.left_to_right} / ${crossings.right_to_left}` : "";
      label(group, name + counts, points[0], rect);
    }
    if (draft) this.#drawDraft(draft, pointer, rect);
    if (pointer && crosshair) this.#drawCrosshair(pixelOf(rect, pointer), rect);
  }

  #drawDraft({ kind, corners }: Draft, pointer: Point | null, rect: Size): void {
    const group = add(this.svg, "g", { class: `draft ${kind}` });
    const path = pointer && corners.length > 0 ? [...corners, pointer] : corners;
    const points = pointsOf(path, rect);
    const shape = kind === "zone" ? "polygon" : "polyline";
    add(group, shape, { class: "halo", points });
    add(group, shape, { class: "shape", points });
    if (kind === "line" && path[0] && path[1]) {
      const arrow = textOf(arrowOf([pixelOf(rect, path[0]), pixelOf(rect, path[1])], ARROW));
      add(group, "polyline", { class: "halo", points: arrow });
      add(group, "polyline", { class: "shape", points: arrow });
    }
    for (const corner of corners) {
      const [cx, cy] = pixelOf(rect, corner);
      add(group, "circle", { class: "corner", cx, cy, r: HANDLE });
    }
  }

  #drawCrosshair([x, y]: Point, { width, height }: Size): void {
    const group = add(this.svg, "g", { class: "crosshair" });
    for (const kind of ["halo", "shape"]) {
      add(group, "line", { class: kind, x1: 0, y1: y, x2: width, y2: y });
      add(group, "line", { class: kind, x1: x, y1: 0, x2: x, y2: height });
    }
  }
}

function add(parent: SVGElement, tag: string, attributes: Record<string, string | number>): SVGElement {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  parent.append(made);
  return made;
}

/** A name at a point, kept within the picture. */
function label(parent: SVGElement, text: string, at: Point, size: Size): void {
  const [x, y] = pixelOf(size, at);
  const anchor = x > 0.7 * size.width ? "end" : "start";
  const shift = anchor === "end" ? -4 : 4;
  const made = add(parent, "text", { x: x + shift, y: y < 22 ? y + 18 : y - 8, "text-anchor": anchor });
  made.textContent = text;
}

/** The highest corner. */
function topOf(polygon: readonly Point[]): Point {
  return polygon.reduce<Point>((top, corner) => (corner[1] < top[1] ? corner : top), polygon[0] ?? [0, 0]);
}

function pointsOf(points: readonly Point[], size: Size): string {
  return textOf(points.map((point) => pixelOf(size, point)));
}

function textOf(points: readonly Point[]): string {
  return points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
}
