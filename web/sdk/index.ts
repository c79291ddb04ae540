/**
 * Saccade's browser client: sends live video to a Saccade server and hands back results that fit the frame on screen.
 *
 * ```js
 * import { connect } from "https://vision.example/saccade.js";
 *
 * const session = await connect({
 *   video: document.querySelector("video"), // shows the annotated video
 *   onResult: (result) => console.log(result.detections),
 * });
 * ```
 *
 * @packageDocumentation
 */
import { errorOfCapture, SaccadeError } from "./errors.js";
import { SaccadeSession, type SessionConfig } from "./session.js";
import { type CameraWishes, openCamera, openScreen, type OpenSource } from "./sources.js";

export { DEFAULT_RECONNECT, type ReconnectPolicy } from "./backoff.js";
export { type ClientErrorCode, type ErrorCode, errorOfCapture, SaccadeError } from "./errors.js";
export type { ShownFrame } from "./joiner.js";
export {
  arrowOf,
  classColor,
  drawDetections,
  type DrawOptions,
  drawResult,
  drawShapes,
  labelOf,
  type Shapes,
} from "./overlay.js";
export type { CodecChoice } from "./peer.js";
export type { PreviewFrame } from "./preview.js";
export { type Reconnected, SaccadeSession, type SessionConfig, type SessionState, type StateChange } from "./session.js";
export type { SourceFrame } from "./source-clock.js";
export {
  type CameraInfo,
  type CameraWishes,
  listCameras,
  openCamera,
  openScreen,
  type OpenSource,
  openVideo,
  type PlayingSource,
} from "./sources.js";
export type { SessionStats } from "./stats.js";
export * from "./wire.js";

/** How to connect: everything of {@link SessionConfig}, with the address and the source made easy. */
export interface ConnectOptions extends Omit<SessionConfig, "stream" | "url"> {
  /** Video to send. Takes precedence over `source`. */
  stream?: MediaStream;
  /**
   * What to send when no `stream` is given: a camera (by default, or with wishes), a screen, or an element that plays or
   * shows something. What is opened here is also closed with the session.
   */
  source?: "camera" | "screen" | CameraWishes | HTMLCanvasElement | HTMLVideoElement;
  /** Address of the server or of its signaling endpoint; the server this script was loaded from by default. */
  url?: string | URL;
  /** Calls the connection off before it is made. */
  signal?: AbortSignal;
}

/**
 * Opens the source, connects, and resolves when media flows.
 *
 * Failures that may pass by themselves are retried with growing pauses, each told to `onError` with `fatal: false`.
 *
 * @throws {@link SaccadeError} with a stable `code`, a `title` and a `hint` for people.
 */
export async function connect(options: ConnectOptions): Promise<SaccadeSession> {
  const { stream, source, url, signal, ...config } = options;
  if (typeof RTCPeerConnection === "undefined") throw new SaccadeError("unsupported_browser");
  if (signal?.aborted) throw new SaccadeError("aborted");
  const opened: OpenSource = stream ? { stream, stop: () => undefined } : await openSource(source ?? "camera");
  const session = new SaccadeSession({
    ...config,
    stream: opened.stream,
    url: signalingUrl(url ?? import.meta.url),
    workerUrl: config.workerUrl ?? new URL("./saccade-worker.js", import.meta.url),
    onState: (change) => {
      if (change.state === "closed") opened.stop();
      config.onState?.(change);
    },
  });
  const abort = (): void => session.close();
  signal?.addEventListener("abort", abort, { once: true });
  try {
    if (signal?.aborted) session.close();
    await session.start();
    return session;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/**
 * Address of the signaling endpoint: `http:` becomes `ws:`, `https:` becomes `wss:`, and any other path than one that
 * ends in `/v1/signal` becomes `/v1/signal`. The query is kept, so that proxies may use it.
 *
 * @param base what a relative address is relative to; the page by default.
 */
export function signalingUrl(
  address: string | URL,
  base: string | undefined = globalThis.location?.href,
): string {
  let url: URL;
  try {
    url = new URL(address, base);
  } catch (cause) {
    throw new SaccadeError("server_unreachable", { detail: "the address is not valid", cause });
  }
  const scheme = { "http:": "ws:", "https:": "wss:", "ws:": "ws:", "wss:": "wss:" }[url.protocol];
  if (!scheme) throw new SaccadeError("server_unreachable", { detail: `no WebSocket address: ${url.protocol}` });
  // `protocol` of a URL object only changes between special schemes, which these four are.
  url.protocol = scheme;
  if (!url.pathname.endsWith("/v1/signal")) url.pathname = "/v1/signal";
  url.hash = "";
  return url.href;
}

async function openSource(source: NonNullable<ConnectOptions["source"]>): Promise<OpenSource> {
  if (source === "camera") return openCamera();
  if (source === "screen") return openScreen();
  if (!(source instanceof HTMLElement)) return openCamera(source);
  const element = source as { captureStream?: () => MediaStream; mozCaptureStream?: () => MediaStream };
  // Firefox has it for media elements under the older name only.
  const capture = element.captureStream ?? element.mozCaptureStream;
  if (!capture) throw new SaccadeError("unsupported_browser", { detail: "this element cannot be captured" });
  try {
    const stream = capture.call(source);
    return { stream, stop: () => stream.getTracks().forEach((track) => track.stop()) };
  } catch (cause) {
    throw errorOfCapture(cause, "camera");
  }
}
