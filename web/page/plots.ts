import { element, figure, make } from "./dom.js";

/** One line, area or bar of a plot. */
export interface Series {
  /** Name for people. */
  name: string;
  /** CSS custom property that holds the colour. */
  color: string;
}

/** How the series of a plot lie to each other. */
export type PlotKind = "stacked" | "lines" | "bars";

/** Points shown; one each half second makes a minute. */
const POINTS = 120;

/** A small plot of the last minute, with a legend that also says the newest values. */
export class Plot {
  readonly #canvas: HTMLCanvasElement;
  readonly #values: HTMLElement[];
  readonly #points: (readonly number[] | null)[] = [];
  #mark: number | null = null;

  /** @param least the value axis reaches at least this far, so that small noise does not fill the plot. */
  constructor(
    name: string,
    private readonly title: string,
    private readonly kind: PlotKind,
    private readonly series: readonly Series[],
    private readonly least: number,
  ) {
    this.#canvas = element(`plot-${name}`, HTMLCanvasElement);
    const legend = element(`legend-${name}`, HTMLUListElement);
    this.#values = series.map(({ name: label, color }) => {
      const swatch = make("i");
      swatch.style.setProperty("background", `var(${color})`);
      const value = make("b", "–");
      legend.append(make("li", [swatch, document.createTextNode(label), value]));
      return value;
    });
    new ResizeObserver(() => this.draw()).observe(this.#canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Adds the newest point; `null` leaves a gap. */
  add(point: readonly number[] | null): void {
    this.#points.push(point);
    if (this.#points.length > POINTS) this.#points.shift();
    this.#values.forEach((value, index) => {
      value.textContent = figure(point?.[index]);
    });
    this.draw();
  }

  /** A level to mark with a dashed line, or `null`. */
  set mark(level: number | null) {
    this.#mark = level;
  }

  /** Forgets all points. */
  clear(): void {
    this.#points.length = 0;
    this.draw();
  }

  /** Says the newest values in words, for those who do not see the plot. */
  describe(): void {
    const last = this.#points.at(-1);
    const words = last ? this.series.map(({ name }, index) => `${name} ${figure(last[index])}`).join(", ") : "no data";
    this.#canvas.setAttribute("aria-label", `${this.title}: ${words}`);
  }

  /** Draws everything anew. */
  draw(): void {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const context = this.#canvas.getContext("2d");
    if (!context || width === 0) return;
    const ratio = window.devicePixelRatio || 1;
    this.#canvas.width = Math.round(width * ratio);
    this.#canvas.height = Math.round(height * ratio);
    context.scale(ratio, ratio);
    const style = getComputedStyle(this.#canvas);
    const root = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const text = Math.round(root * 0.72);
    const frame: Frame = {
      left: Math.round(text * 2.6),
      right: width - 2,
      top: Math.round(text * 0.7),
      bottom: height - Math.round(text * 0.6),
      max: this.#max(),
    };
    this.#drawAxis(context, frame, style, text);
    const colors = this.series.map(({ color }) => style.getPropertyValue(color).trim());
    if (this.kind === "lines") this.#drawLines(context, frame, colors);
    else if (this.kind === "stacked") this.#drawAreas(context, frame, colors);
    else this.#drawBars(context, frame, colors);
  }

  #max(): number {
    let max = this.least;
    for (const point of this.#points) {
      if (!point) continue;
      max = Math.max(max, this.kind === "lines" ? Math.max(...point) : point.reduce((sum, value) => sum + value, 0));
    }
    return niceCeiling(max * 1.05);
  }

  #drawAxis(context: CanvasRenderingContext2D, frame: Frame, style: CSSStyleDeclaration, text: number): void {
    context.font = `${text}px ${style.fontFamily}`;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.lineWidth = 1;
    for (const share of [0, 0.5, 1]) {
      const y = Math.round(yOf(frame, frame.max * share)) + 0.5;
      context.strokeStyle = style.getPropertyValue("--line");
      context.beginPath();
      context.moveTo(frame.left, y);
      context.lineTo(frame.right, y);
      context.stroke();
      context.fillStyle = style.getPropertyValue("--ink-soft");
      const label = frame.max * share;
      context.fillText(Number.isInteger(label) ? String(label) : label.toFixed(1), frame.left - 6, y);
    }
    if (this.#mark !== null && this.#mark <= frame.max) {
      const y = Math.round(yOf(frame, this.#mark)) + 0.5;
      context.save();
      context.setLineDash([5, 4]);
      context.strokeStyle = style.getPropertyValue("--bad");
      context.beginPath();
      context.moveTo(frame.left, y);
      context.lineTo(frame.right, y);
      context.stroke();
      context.restore();
    }
  }

  #drawLines(context: CanvasRenderingContext2D, frame: Frame, colors: readonly string[]): void {
    context.lineWidth = 2;
    context.lineJoin = "round";
    colors.forEach((color, index) => {
      context.strokeStyle = color;
      context.beginPath();
      let down = false;
      this.#points.forEach((point, at) => {
        if (!point) {
          down = false;
          return;
        }
        const x = this.#x(frame, at);
        const y = yOf(frame, point[index] ?? 0);
        if (down) context.lineTo(x, y);
        else context.moveTo(x, y);
        down = true;
      });
      context.stroke();
    });
  }

  #drawAreas(context: CanvasRenderingContext2D, frame: Frame, colors: readonly string[]): void {
    for (const [first, last] of this.#runs()) {
      const sums = new Array<number>(last - first + 1).fill(0);
      colors.forEach((color, index) => {
        const lower = [...sums];
        for (let at = first; at <= last; at += 1) sums[at - first] = (sums[at - first] ?? 0) + (this.#points[at]?.[index] ?? 0);
        context.fillStyle = color;
        context.beginPath();
        for (let at = first; at <= last; at += 1) context.lineTo(this.#x(frame, at), yOf(frame, sums[at - first] ?? 0));
        for (let at = last; at >= first; at -= 1) context.lineTo(this.#x(frame, at), yOf(frame, lower[at - first] ?? 0));
        context.closePath();
        context.fill();
      });
    }
  }

  #drawBars(context: CanvasRenderingContext2D, frame: Frame, colors: readonly string[]): void {
    const width = Math.max(1, (frame.right - frame.left) / POINTS - 1);
    this.#points.forEach((point, at) => {
      let below = 0;
      colors.forEach((color, index) => {
        const value = point?.[index] ?? 0;
        if (value <= 0) return;
        context.fillStyle = color;
        const top = yOf(frame, below + value);
        context.fillRect(this.#x(frame, at) - width, top, width, yOf(frame, below) - top);
        below += value;
      });
    });
  }

  /** First and last index of each run without gaps. */
  #runs(): [number, number][] {
    const runs: [number, number][] = [];
    this.#points.forEach((point, at) => {
      const run = runs.at(-1);
      if (!point) return;
      if (run && run[1] === at - 1) run[1] = at;
      else runs.push([at, at]);
    });
    return runs;
  }

  #x(frame: Frame, at: number): number {
    const fromRight = this.#points.length - 1 - at;
    return frame.right - (fromRight * (frame.right - frame.left)) / (POINTS - 1);
  }
}

interface Frame {
  left: number;
  right: number;
  top: number;
  bottom: number;
  max: number;
}

function yOf({ top, bottom, max }: Frame, value: number): number {
  return bottom - (Math.min(value, max) / max) * (bottom - top);
}

/** The next of 1, 2, 4, 5, 6, 8 or 10 times a power of ten. */
function niceCeiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-6)));
  const step = [1, 2, 4, 5, 6, 8, 10].find((candidate) => candidate * power >= value) ?? 10;
  return step * power;
}
