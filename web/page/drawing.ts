import type { Point } from "../sdk/index.js";
import { element } from "./dom.js";
import { closable, type Draft, fraction, fractionAt, placed, problemOf, type Rect } from "./shapes.js";
import type { Stage } from "./stage.js";

/** Points closer than this are one, in CSS pixels, for a mouse or pen and for a finger. */
const NEAR = 10;
const NEAR_TOUCH = 24;
/** How far an arrow key moves the crosshair, in fractions of the picture; with Shift further. */
const STEP = 0.01;
const STRIDE = 0.05;

const ARROWS: Record<string, Point> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

/** Draws a zone or a line on the stage, by mouse, finger or keys. */
export class Drawing {
  readonly #pad = element("pad", HTMLDivElement);
  readonly #bar = element("drawbar", HTMLDivElement);
  readonly #hint = element("draw-hint", HTMLElement);
  readonly #status = element("draw-status", HTMLElement);
  readonly #close = element("draw-close", HTMLButtonElement);
  readonly #undo = element("draw-undo", HTMLButtonElement);
  #draft: Draft | null = null;
  #pointer: Point | null = null;
  #cursor: Point = [0.5, 0.5];
  #crosshair = false;
  #pressed: { pointer: number; done: boolean; corner: number } | null = null;
  #touched = false;
  #from: HTMLElement | null = null;

  /**
   * @param onDrawn called with what was drawn; `touched` tells whether a finger did it.
   * @param onChange called whenever there is something else to show.
   */
  constructor(
    private readonly stage: Stage,
    private readonly onDrawn: (draft: Draft, touched: boolean) => void,
    private readonly onChange: () => void,
  ) {
    const pad = this.#pad;
    pad.addEventListener("pointerdown", (event) => this.#onDown(event));
    pad.addEventListener("pointermove", (event) => this.#onMove(event));
    pad.addEventListener("pointerup", (event) => this.#onUp(event));
    pad.addEventListener("pointercancel", () => (this.#pressed = null));
    pad.addEventListener("pointerleave", () => {
      if (!this.#crosshair) this.#point(null);
    });
    pad.addEventListener("keydown", (event) => this.#onKey(event));
    document.addEventListener("keydown", ({ key }) => {
      if (key === "Escape") this.cancel();
    });
    this.#close.addEventListener("click", () => this.#finish());
    this.#undo.addEventListener("click", () => {
      this.#takeBack();
      pad.focus({ preventScroll: true });
    });
    element("draw-cancel", HTMLButtonElement).addEventListener("click", () => this.cancel());
  }

  /** The shape that is being drawn, or `null`. */
  get draft(): Draft | null {
    return this.#draft;
  }

  /** Where its next corner would be. */
  get pointer(): Point | null {
    return this.#pointer;
  }

  /** Whether the next corner is moved by keys. */
  get crosshair(): boolean {
    return this.#crosshair;
  }

  /** Begins a shape. */
  start(kind: Draft["kind"]): void {
    const active = document.activeElement;
    this.#from = active instanceof HTMLElement ? active : null;
    this.#draft = { kind, corners: [] };
    this.#pointer = null;
    this.#crosshair = false;
    this.#touched = false;
    this.#cursor = [0.5, 0.5];
    const zone = kind === "zone";
    this.#hint.textContent = zone
      ? "Click the corners of the zone. A double-click or Enter closes it, Escape cancels."
      : "Click the line's two ends. Looking from the first to the second, the arrow points right. Escape cancels.";
    this.#close.hidden = !zone;
    this.#bar.hidden = false;
    this.#pad.hidden = false;
    this.#pad.setAttribute("aria-label", zone ? "Draw a zone on the video" : "Draw a line on the video");
    this.stage.drawing = true;
    this.#pad.scrollIntoView({ block: "nearest" });
    this.#pad.focus({ preventScroll: true });
    this.#changed();
  }

  /** Gives up what is being drawn. */
  cancel(): void {
    if (!this.#draft) return;
    this.#end();
    this.#from?.focus({ preventScroll: true });
  }

  #onDown(event: PointerEvent): void {
    if (event.button !== 0 || this.#pressed || !this.#draft) return;
    const rect = this.stage.pictureAt(event.clientX, event.clientY);
    this.#crosshair = false;
    this.#touched = event.pointerType === "touch";
    const before = this.#draft.corners.length;
    const done = this.#place(fractionAt(rect, event.clientX, event.clientY), rect);
    const added = this.#draft.corners.length > before;
    this.#pressed = { pointer: event.pointerId, done, corner: added ? before : -1 };
    this.#pad.setPointerCapture(event.pointerId);
    this.#point(null);
  }

  #onMove(event: PointerEvent): void {
    if (!this.#draft) return;
    const point = fractionAt(this.stage.pictureAt(event.clientX, event.clientY), event.clientX, event.clientY);
    if (this.#pressed?.pointer === event.pointerId) {
      // A corner follows the pointer until it is let go.
      const { corner } = this.#pressed;
      if (corner < 0) return;
      this.#draft = { ...this.#draft, corners: this.#draft.corners.map((old, at) => (at === corner ? point : old)) };
      this.#changed();
    } else if (event.pointerType !== "touch") {
      this.#crosshair = false;
      this.#point(point);
    }
  }

  #onUp(event: PointerEvent): void {
    const pressed = this.#pressed;
    if (pressed?.pointer !== event.pointerId) return;
    this.#pressed = null;
    if (pressed.done) this.#finish();
  }

  #onKey(event: KeyboardEvent): void {
    const draft = this.#draft;
    if (!draft || event.altKey || event.ctrlKey || event.metaKey) return;
    const arrow = ARROWS[event.key];
    const place = event.key === " " || (event.key === "Enter" && draft.kind === "line");
    if (arrow) this.#steer(arrow, event.shiftKey ? STRIDE : STEP);
    else if (place) this.#placeByKey();
    else if (event.key === "Enter") this.#finish();
    else if (event.key === "Backspace" || event.key === "Delete") this.#takeBack();
    else return;
    event.preventDefault();
  }

  #steer([x, y]: Point, step: number): void {
    const from = this.#crosshair ? this.#cursor : (this.#pointer ?? this.#draft?.corners.at(-1) ?? this.#cursor);
    this.#cursor = [fraction(from[0] + x * step), fraction(from[1] + y * step)];
    this.#crosshair = true;
    this.#point(this.#cursor);
  }

  #placeByKey(): void {
    if (!this.#crosshair) {
      this.#steer([0, 0], 0);
      return;
    }
    this.#touched = false;
    if (this.#place(this.#cursor, this.stage.pictureAt(0, 0))) this.#finish();
  }

  /** Puts a corner; returns whether the shape is done. */
  #place(point: Point, { width, height }: Rect): boolean {
    if (!this.#draft) return false;
    const reach = this.#touched ? NEAR_TOUCH : NEAR;
    const near = (a: Point, b: Point): boolean => Math.hypot((a[0] - b[0]) * width, (a[1] - b[1]) * height) < reach;
    const { draft, done } = placed(this.#draft, point, near);
    this.#draft = draft;
    this.#changed();
    return done;
  }

  #takeBack(): void {
    if (!this.#draft) return;
    this.#draft = { ...this.#draft, corners: this.#draft.corners.slice(0, -1) };
    this.#changed();
  }

  #finish(): void {
    const draft = this.#draft;
    if (!draft) return;
    const problem = problemOf(draft);
    if (problem) {
      this.#status.textContent = problem;
      return;
    }
    const touched = this.#touched;
    this.#end();
    this.onDrawn(draft, touched);
  }

  #end(): void {
    this.#draft = null;
    this.#pointer = null;
    this.#pressed = null;
    this.#crosshair = false;
    this.#bar.hidden = true;
    this.#pad.hidden = true;
    this.stage.drawing = false;
    this.onChange();
  }

  #point(point: Point | null): void {
    this.#pointer = point;
    this.#changed();
  }

  #changed(): void {
    if (this.#draft) {
      const { kind, corners } = this.#draft;
      this.#close.disabled = !closable(this.#draft);
      this.#undo.disabled = corners.length === 0;
      const last = corners.at(-1);
      const where = last ? `, the last at ${percent(last[0])} from the left and ${percent(last[1])} from the top` : "";
      const count = `${corners.length} ${corners.length === 1 ? "corner" : "corners"}`;
      const status = `${kind === "zone" ? count : count.replace("corner", "end")}${where}`;
      if (this.#status.textContent !== status) this.#status.textContent = status;
    }
    this.onChange();
  }
}

function percent(value: number): string {
  return `${Math.round(value * 100)} %`;
}
