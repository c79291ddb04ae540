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
const SAME_FRAME_TICKS = 2 * TICKS;
/** How much earlier than the newest possible frame the right one may be: slow encoders take several frames' time. */
const SEARCHED_MS = 200;
/** Of the sightings, this share must agree. */
const AGREED = 0.3;
/** With evenly spaced frames, neighbours fit nearly as well; among those the newest is right. */
const NEARLY = 0.85;
/** Once the constant is known, it is looked at anew after so many sightings. */
const EVERY = 15;
/** How much later than its encoding a frame may claim to have been captured, for clocks read in different threads. */
const CLOCK_SLACK_MS = 2;
/** Sightings before the first judgement. */
const ENOUGH = 8;

/**
 * Tells which frame of the local source became which RTP timestamp.
 *
 * The browser stamps both the local `<video>`'s `mediaTime` and the RTP timestamp from one capture clock, so they differ
 * by a constant; only that constant is unknown. It is found from sightings of encoded frames (RTP timestamp and when it
 * was seen, from a sender-side transform): no frame is encoded before it is captured, which bounds the difference, and
 * the right difference lays nearly every sighting on a local frame, while a wrong one does so only where frames are
 * evenly spaced; then the smallest that causality allows is taken. Without a transform, sightings deduced from results
 * bring it within a frame or two.
 *
 * Pure: it is told of frames and sightings, and asked.
 */
export class SourceClock {
  readonly #frames = new BoundedMap<number, SourceFrame>(KEPT);
  readonly #sightings = new BoundedMap<number, number>(KEPT);
  #base: number | null = null;
  #tightest = Infinity;
  #offset: number | null = null;
  #sinceJudged = 0;

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
    this.#sinceJudged += 1;
    if (this.#sightings.size >= ENOUGH && (this.#offset === null || this.#sinceJudged >= EVERY)) this.#judge();
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
    this.#sinceJudged = 0;
    const frames = [...this.#frames.values()];
    const differences: number[] = [];
    for (const [rtpTimestamp] of this.#sightings.entries()) {
      const since = this.#sinceBase(rtpTimestamp);
      const latest = since / TICKS + this.#tightest + CLOCK_SLACK_MS;
      for (const frame of frames) {
        if (frame.capturedAt <= latest && frame.capturedAt > latest - SEARCHED_MS) differences.push(since - ticks(frame));
      }
    }
    const agreed = smallestAgreed(differences, Math.max(ENOUGH / 2, this.#sightings.size * AGREED));
    if (agreed !== null) this.#offset = agreed;
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

/** The middle of the first group of nearly as many values within a frame's rounding of each other as of any group. */
function smallestAgreed(values: readonly number[], least: number): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  const groups: { first: number; count: number }[] = [];
  for (let first = 0, last = 0; first < sorted.length; first += 1) {
    while (last + 1 < sorted.length && (sorted[last + 1] ?? 0) - (sorted[first] ?? 0) <= SAME_FRAME_TICKS) last += 1;
    groups.push({ first, count: last - first + 1 });
  }
  const most = groups.reduce((max, { count }) => Math.max(max, count), 0);
  if (most < least) return null;
  const chosen = groups.find(({ count }) => count >= most * NEARLY);
  return chosen ? (sorted[chosen.first + Math.floor(chosen.count / 2)] ?? null) : null;
}
