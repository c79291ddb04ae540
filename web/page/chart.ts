import { figure, make } from "./dom.js";

/** One line or area of a chart. */
export interface Line {
  /** Name for people. */
  name: string;
  /** CSS custom property that holds the colour. */
  color: string;
  /** Value at each point of time; `null` leaves a gap. */
  values: readonly (number | null)[];
}

/** Where a chart's values go. */
export interface Frame {
  width: number;
  height: number;
  left: number;
  top: number;
  right: number;
  bottom: number;
}

const NAMESPACE = "http://www.w3.org/2000/svg";

/** The least round number that is not below `value`, so that an axis has round marks. */
export function roundUp(value: number): number {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const lead = [1, 2, 2.5, 5, 10].find((step) => value <= step * power * (1 + 1e-9)) ?? 10;
  return lead * power;
}

/** Paths of the runs of a line that have no gap; a lone point becomes a short dash. */
export function pathOf(values: readonly (number | null)[], max: number, frame: Frame): string {
  const width = frame.width - frame.left - frame.right;
  const height = frame.height - frame.top - frame.bottom;
  const step = values.length > 1 ? width / (values.length - 1) : 0;
  const parts: string[] = [];
  let run: string[] = [];
  const flush = (): void => {
    if (run.length === 1) parts.push(`M${run[0] ?? ""}h1`);
    else if (run.length > 1) parts.push(`M${run.join("L")}`);
    run = [];
  };
  values.forEach((value, at) => {
    if (value === null || !Number.isFinite(value)) return flush();
    const y = frame.top + height * (1 - Math.min(Math.max(value / max, 0), 1));
    run.push(`${(frame.left + at * step).toFixed(1)} ${y.toFixed(1)}`);
  });
  flush();
  return parts.join("");
}

/** Each line with those below it added, for areas that lie on each other. */
export function stacked(lines: readonly Line[]): Line[] {
  const sums: number[] = [];
  return lines.map((line) => ({
    ...line,
    values: line.values.map((value, at) => (sums[at] = (sums[at] ?? 0) + (value ?? 0))),
  }));
}

/** Points of time as a browser's user writes them: hours within a day, else days. */
export function timeLabel(ms: number, rangeMs: number): string {
  const options: Intl.DateTimeFormatOptions =
    rangeMs <= 36 * 3_600_000 ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short" };
  return new Intl.DateTimeFormat(undefined, options).format(ms);
}

/** A chart over a range of time, as SVG with a legend: it scales, prints, and can be read out. */
export class Chart {
  readonly #svg: SVGSVGElement;
  readonly #legend: HTMLUListElement;

  constructor(
    figureElement: HTMLElement,
    private readonly title: string,
    private readonly kind: "lines" | "stacked",
  ) {
    this.#svg = document.createElementNS(NAMESPACE, "svg");
    this.#svg.setAttribute("role", "img");
    this.#svg.classList.add("chart");
    this.#legend = make("ul", "", "legend");
    figureElement.append(this.#svg, this.#legend);
    new ResizeObserver(() => this.#draw()).observe(this.#svg);
  }

  #lines: readonly Line[] = [];
  #times: readonly number[] = [];

  /** Shows these lines, whose values are those of `times`, in milliseconds since 1970. */
  show(times: readonly number[], lines: readonly Line[]): void {
    this.#times = times;
    this.#lines = lines;
    this.#legend.replaceChildren(
      ...lines.map(({ name, color, values }) => {
        const swatch = make("i");
        swatch.style.setProperty("background", `var(${color})`);
        const known = values.filter((value): value is number => value !== null);
        const mean = known.length > 0 ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
        return make("li", [swatch, document.createTextNode(name), make("b", figure(mean))]);
      }),
    );
    const words = lines.map(({ name, values }) => {
      const known = values.filter((value): value is number => value !== null);
      return known.length > 0 ? `${name} up to ${figure(Math.max(...known))}` : `${name} none`;
    });
    this.#svg.setAttribute("aria-label", `${this.title}: ${words.join(", ") || "no data"}`);
    this.#draw();
  }

  #draw(): void {
    const { clientWidth: width, clientHeight: height } = this.#svg;
    if (width === 0 || height === 0) return;
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const frame: Frame = { width, height, left: 46, right: 8, top: 10, bottom: 24 };
    const lines = this.kind === "stacked" ? stacked(this.#lines) : this.#lines;
    const most = Math.max(0, ...lines.flatMap(({ values }) => values.map((value) => value ?? 0)));
    const max = roundUp(most);
    const parts: SVGElement[] = [];
    for (const share of [0, 0.5, 1]) {
      const y = frame.top + (height - frame.top - frame.bottom) * (1 - share);
      parts.push(svg("line", { x1: frame.left, x2: width - frame.right, y1: y, y2: y, class: "grid" }));
      parts.push(label(figure(max * share), frame.left - 6, y + 4, "end"));
    }
    const [first, last] = [this.#times[0], this.#times.at(-1)];
    if (first !== undefined && last !== undefined && last > first) {
      for (const share of [0, 0.5, 1]) {
        const x = frame.left + (width - frame.left - frame.right) * share;
        const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
        parts.push(label(timeLabel(first + (last - first) * share, last - first), x, height - 6, anchor));
      }
    }
    // Those on top are drawn first, so that those below cover them.
    for (const line of this.kind === "stacked" ? [...lines].reverse() : lines) {
      const path = pathOf(line.values, max, frame);
      const area = this.kind === "stacked" && path !== "" && !path.includes("h1");
      const base = height - frame.bottom;
      const closed = area ? `${path}L${width - frame.right} ${base}L${frame.left} ${base}Z` : path;
      const drawn = svg("path", { d: closed, class: area ? "area" : "line" });
      drawn.style.setProperty(area ? "fill" : "stroke", `var(${line.color})`);
      parts.push(drawn);
    }
    if (most === 0) parts.push(label("Nothing in this range", width / 2, height / 2, "middle"));
    this.#svg.replaceChildren(...parts);
  }
}

function svg(tag: string, attributes: Record<string, string | number>): SVGElement {
  const made = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}

function label(text: string, x: number, y: number, anchor: string): SVGElement {
  const made = svg("text", { x, y, "text-anchor": anchor });
  made.textContent = text;
  return made;
}
