import { BoundedMap } from "./bounded.js";
import type { SessionResult } from "./wire.js";

/** A returned frame as it was put on screen. */
export interface ShownFrame {
  /** RTP timestamp of the frame, equal to `rtp_timestamp_out` of its result. */
  rtpTimestamp: number;
  /** When the browser presented it, on the clock of `performance.now()`. */
  shownAt: number;
  /** Width of the decoded picture, in pixels. */
  width: number;
  /** Height of the decoded picture, in pixels. */
  height: number;
}

/** Frames and results kept while they wait for each other: some eight seconds at 30 frames a second. */
const KEPT = 240;

/**
 * Joins results to the frames on screen by RTP timestamp. A result usually comes first, but the video never waits for
 * the data channel, so either order is taken. Both sides are bounded.
 */
export class Joiner {
  readonly #results = new BoundedMap<number, SessionResult>(KEPT);
  readonly #frames = new BoundedMap<number, ShownFrame>(KEPT);
  #joined = 0;

  /** @param onJoin called once for each frame that met its result. */
  constructor(private readonly onJoin: (frame: ShownFrame, result: SessionResult) => void) {}

  /** Frames that met their result so far. */
  get joined(): number {
    return this.#joined;
  }

  /** Takes a result; one without a returned frame is not kept. */
  result(result: SessionResult): void {
    const timestamp = result.rtp_timestamp_out;
    if (timestamp === null) return;
    const known = this.#results.has(timestamp);
    this.#results.set(timestamp, result);
    const frame = this.#frames.get(timestamp);
    if (frame && !known) this.#join(frame, result);
  }

  /** Takes a frame just shown and returns its result, if that came already. */
  frame(frame: ShownFrame): SessionResult | null {
    const known = this.#frames.has(frame.rtpTimestamp);
    this.#frames.set(frame.rtpTimestamp, frame);
    const result = this.#results.get(frame.rtpTimestamp) ?? null;
    if (result && !known) this.#join(frame, result);
    return result;
  }

  /** The result of the frame with this RTP timestamp, if it came and is still kept. */
  resultForFrame(rtpTimestamp: number): SessionResult | null {
    return this.#results.get(rtpTimestamp) ?? null;
  }

  /** Forgets all; another session's timestamps mean other frames. */
  clear(): void {
    this.#results.clear();
    this.#frames.clear();
  }

  #join(frame: ShownFrame, result: SessionResult): void {
    this.#joined += 1;
    this.onJoin(frame, result);
  }
}
