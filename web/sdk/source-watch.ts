import type { SourceClock, SourceFrame } from "./source-clock.js";

/** Plays the source in a `<video>` of its own, out of sight, and tells the clock of each frame. */
export class SourceWatch {
  readonly #video: HTMLVideoElement | null;
  #handle = 0;
  /** Called with each frame while `video` shows it. */
  onFrame: ((video: HTMLVideoElement, frame: SourceFrame) => void) | null = null;

  constructor(private readonly clock: SourceClock) {
    const possible = typeof document !== "undefined";
    this.#video = possible ? document.createElement("video") : null;
    if (!this.#video) return;
    this.#video.muted = true;
    this.#video.playsInline = true;
  }

  /** Watches `stream` from now on. */
  attach(stream: MediaStream): void {
    const video = this.#video;
    if (!video || typeof video.requestVideoFrameCallback !== "function") return;
    video.cancelVideoFrameCallback(this.#handle);
    video.srcObject = stream;
    video.play().catch(() => undefined);
    const step: VideoFrameRequestCallback = (_now, metadata) => {
      this.#handle = video.requestVideoFrameCallback(step);
      const frame = {
        mediaTime: metadata.mediaTime,
        capturedAt: metadata.captureTime ?? metadata.presentationTime,
      };
      this.clock.frame(frame);
      this.onFrame?.(video, frame);
    };
    this.#handle = video.requestVideoFrameCallback(step);
  }

  /** Stops watching and lets the stream go. */
  detach(): void {
    this.onFrame = null;
    if (!this.#video) return;
    this.#video.cancelVideoFrameCallback?.(this.#handle);
    this.#video.srcObject = null;
  }
}
