import { BoundedMap } from "./bounded.js";

/** A frame of the source as this page saw it. */
export interface SourceFrame {
  /** Its time in the local `<video>`, in seconds: the capture clock, from an arbitrary zero. */
  mediaTime: number;
  /** When it was captured, on the clock of `performance.now()`, within a few milliseconds. */
  capturedAt: number;
}

/** RTP ticks a millisecond (90 kHz). */
const TICKS = 90;
const WRAP = 2 ** 32;
/** Frames and sightings kept: some four seconds at 30 frames a second. */
const KEPT = 120;
/** Browsers round the capture time to whole milliseconds before they make the RTP timestamp of it. */
const SAME_FRAME_TICKS = 2.5 * TICKS;
/** How much later than its encoding a frame may claim to have been captured, for clocks read in different threads. */
const CLOCK_SLACK_MS = 2;
/** Sightings before the first judgement. */
const ENOUGH = 8;

/**
 * Tells which frame of the local source became which RTP timestamp.
 *
 * The browser stamps both the local `<video>`'s `mediaTime` and the RTP timestamp from one capture clock, so they differ
 * by a constant; only that constant is unknown. It is found from sightings of encoded frames (RTP timestamp and when it
 * was seen, from a sender-side transform): no frame is encoded before it is captured, and some frame is encoded within
 * a frame interval, so the tightest sighting picks the right local frame, and the difference that most frames agree on is
 * the constant. Without a transform, sightings deduced from results bring it within a frame or two.
 *
 * Pure: it is told of frames and sightings, and asked.
 */
export class SourceClock {
  readonly #frames = new BoundedMap<number, SourceFrame>(KEPT);
  readonly #sightings = new BoundedMap<number, number>(KEPT);
  #base: number | null = null;
  #tightest = Infinity;
  #offset: number | null = null;

  /** Whether RTP timestamps can be mapped yet. */
  get ready(): boolean {
    return this.#offset !== null;
  }

  /** Takes a frame of the local source. */
  frame(frame: SourceFrame): void {
    this.#frames.set(frame.mediaTime, frame);
  }

  /** Takes an encoded frame: its RTP timestamp and when it was seen, on the clock of `performance.now()`. */
  sighting(rtpTimestamp: number, seenAt: number): void {
    this.#base ??= rtpTimestamp;
    this.#sightings.set(rtpTimestamp, seenAt);
    this.#tightest = Math.min(this.#tightest, seenAt - this.#sinceBase(rtpTimestamp) / TICKS);
    if (this.#sightings.size >= ENOUGH) this.#judge();
  }

  /** The local frame that has this RTP timestamp, or `null` when it is unknown or no longer kept. */
  frameOf(rtpTimestamp: number): SourceFrame | null {
    if (this.#offset === null) return null;
    const wanted = this.#sinceBase(rtpTimestamp) - this.#offset;
    for (const frame of this.#frames.values()) {
      if (Math.abs(ticks(frame) - wanted) <= SAME_FRAME_TICKS) return frame;
    }
    return null;
  }

  /** When the frame with this RTP timestamp was captured, on the clock of `performance.now()`; `null` if unknown. */
  capturedAt(rtpTimestamp: number): number | null {
    const exact = this.frameOf(rtpTimestamp);
    if (exact) return exact.capturedAt;
    const last = [...this.#frames.values()].at(-1);
    if (this.#offset === null || !last) return null;
    return last.capturedAt + (this.#sinceBase(rtpTimestamp) - this.#offset - ticks(last)) / TICKS;
  }

  /** Forgets the constant; a new sender starts at another RTP timestamp. */
  reset(): void {
    this.#sightings.clear();
    this.#base = null;
    this.#tightest = Infinity;
    this.#offset = null;
  }

  #judge(): void {
    const frames = [...this.#frames.values()];
    const differences: number[] = [];
    for (const [rtpTimestamp] of this.#sightings.entries()) {
      const latest = this.#sinceBase(rtpTimestamp) / TICKS + this.#tightest + CLOCK_SLACK_MS;
      const frame = newestUntil(frames, latest);
      if (frame) differences.push(this.#sinceBase(rtpTimestamp) - ticks(frame));
    }
    const common = mode(differences);
    if (common !== null) this.#offset = common;
  }

  /** Ticks from the first sighting, signed, so that the wrap at 2^32 does not matter. */
  #sinceBase(rtpTimestamp: number): number {
    const delta = (((rtpTimestamp - (this.#base ?? rtpTimestamp)) % WRAP) + WRAP) % WRAP;
    return delta >= WRAP / 2 ? delta - WRAP : delta;
  }
}

function ticks(frame: SourceFrame): number {
  return frame.mediaTime * 1_000 * TICKS;
}

function newestUntil(frames: readonly SourceFrame[], latest: number): SourceFrame | null {
  const oldest = frames[0];
  if (!oldest || oldest.capturedAt > latest) return null;
  let best: SourceFrame | null = null;
  for (const frame of frames) {
    if (frame.capturedAt <= latest && (!best || frame.capturedAt > best.capturedAt)) best = frame;
  }
  return best;
}

/** The middle of the largest group of values within a frame's rounding of each other. */
function mode(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  let best: { count: number; middle: number } | null = null;
  for (let first = 0, last = 0; first < sorted.length; first += 1) {
    while (last + 1 < sorted.length && (sorted[last + 1] ?? 0) - (sorted[first] ?? 0) <= SAME_FRAME_TICKS) last += 1;
    const count = last - first + 1;
    if (!best || count > best.count) {
      best = { count, middle: ((sorted[first] ?? 0) + (sorted[last] ?? 0)) / 2 };
    }
  }
  return best && best.count * 2 >= values.length && best.count >= ENOUGH / 2 ? best.middle : null;
}
