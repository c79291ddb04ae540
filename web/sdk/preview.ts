import { Samples } from "./meters.js";
import { drawResult, type DrawOptions, drawShapes, type Shapes } from "./overlay.js";
import type { SourceClock, SourceFrame } from "./source-clock.js";
import type { SessionResult } from "./wire.js";

/** Longest delay of the picture, in milliseconds; results older than that are drawn over newer frames. */
const MAX_DELAY_MS = 1_000;
/** Memory for frames that wait for their result, in bytes. */
const MAX_BYTES = 64 * 1024 * 1024;
/** How long boxes stay over frames that have none of their own, in milliseconds. */
const HOLD_MS = 1_000;
/** The wait that this share of results keep becomes the delay. */
const DELAY_PERCENTILE = 90;

interface Held {
  frame: SourceFrame;
  picture: HTMLCanvasElement;
}

interface Placed {
  result: SessionResult;
  capturedAt: number;
}

/** What the preview shows at the moment. */
export interface PreviewFrame {
  /** The frame on the canvas. */
  frame: SourceFrame;
  /** The result whose boxes are drawn, or `null`. */
  result: SessionResult | null;
  /** Whether the result is this very frame's; otherwise it is the last one before it. */
  exact: boolean;
}

/**
 * The local picture with boxes, for sessions that return no video. Frames are held for as long as results usually take
 * and shown with their own boxes; a frame that the server skipped is shown with those of the last one before it.
 */
export class LocalPreview {
  readonly #context: CanvasRenderingContext2D | null;
  readonly #held: Held[] = [];
  readonly #spare: HTMLCanvasElement[] = [];
  readonly #waits = new Samples(60);
  #placed: Placed[] = [];
  #shownAt = -Infinity;
  #drawing: DrawOptions = {};
  #shapes: Shapes | null = null;

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly clock: SourceClock,
    private readonly onShown: (shown: PreviewFrame) => void,
  ) {
    this.#context = canvas.getContext("2d");
  }

  /** Current delay of the picture in milliseconds. */
  get delayMs(): number {
    return Math.min(MAX_DELAY_MS, this.#waits.percentile(DELAY_PERCENTILE) ?? 0);
  }

  /** What is drawn over the picture. */
  set drawing(options: DrawOptions) {
    this.#drawing = options;
  }

  /** Zones and lines to draw, or `null`. */
  set shapes(shapes: Shapes | null) {
    this.#shapes = shapes;
  }

  /** Takes a frame that `video` shows now, and draws the frame whose time has come. */
  frame(video: HTMLVideoElement, frame: SourceFrame, now: number): void {
    const { videoWidth: width, videoHeight: height } = video;
    if (width === 0 || height === 0) return;
    const picture = this.#spare.pop() ?? document.createElement("canvas");
    if (picture.width !== width) picture.width = width;
    if (picture.height !== height) picture.height = height;
    picture.getContext("2d", { alpha: false })?.drawImage(video, 0, 0, width, height);
    this.#held.push({ frame, picture });
    const capacity = Math.max(2, Math.floor(MAX_BYTES / (width * height * 4)));
    while (this.#held.length > capacity) this.#release(this.#held.shift());
    this.#show(now);
  }

  /** Takes a result that came at `now`. */
  result(result: SessionResult, now: number): void {
    const capturedAt = this.clock.capturedAt(result.rtp_timestamp_in) ?? now - result.timing_ms.total;
    this.#waits.add(Math.max(0, now - capturedAt));
    this.#placed.push({ result, capturedAt });
    this.#placed.sort((a, b) => a.capturedAt - b.capturedAt);
    this.#placed = this.#placed.filter((placed) => now - placed.capturedAt < MAX_DELAY_MS + HOLD_MS).slice(-90);
    this.#show(now);
  }

  /** Forgets frames and results and clears the canvas. */
  clear(): void {
    for (const held of this.#held.splice(0)) this.#release(held);
    this.#spare.length = 0;
    this.#placed = [];
    this.#waits.clear();
    this.#shownAt = -Infinity;
    this.#context?.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  #show(now: number): void {
    const due = now - this.delayMs;
    let next: Held | undefined;
    while (this.#held[0] && this.#held[0].frame.capturedAt <= due) {
      this.#release(next);
      next = this.#held.shift();
    }
    if (!next || next.frame.capturedAt <= this.#shownAt) return this.#release(next);
    this.#shownAt = next.frame.capturedAt;
    this.#draw(next);
    this.#release(next);
  }

  #draw({ frame, picture }: Held): void {
    const context = this.#context;
    if (!context) return;
    if (this.canvas.width !== picture.width) this.canvas.width = picture.width;
    if (this.canvas.height !== picture.height) this.canvas.height = picture.height;
    context.drawImage(picture, 0, 0);
    const { result, exact } = this.#resultFor(frame);
    if (this.#shapes) drawShapes(context, this.#shapes);
    if (result) drawResult(context, result, this.#drawing);
    this.onShown({ frame, result, exact });
  }

  #resultFor(frame: SourceFrame): { result: SessionResult | null; exact: boolean } {
    let before: Placed | null = null;
    for (const placed of this.#placed) {
      const own = this.clock.frameOf(placed.result.rtp_timestamp_in);
      if (own?.mediaTime === frame.mediaTime) return { result: placed.result, exact: true };
      if (placed.capturedAt <= frame.capturedAt + 1) before = placed;
    }
    const held = before && frame.capturedAt - before.capturedAt < HOLD_MS ? before.result : null;
    return { result: held, exact: false };
  }

  #release(held: Held | undefined): void {
    if (held && this.#spare.length < 4) this.#spare.push(held.picture);
  }
}
