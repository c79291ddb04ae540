import { errorOfCapture, SaccadeError } from "./errors.js";

/** What the camera is asked for. Missing parts are left to the browser. */
export interface CameraWishes {
  /** A `deviceId` of {@link listCameras}. */
  deviceId?: string;
  /** Width in pixels, taken as a wish. */
  width?: number;
  /** Height in pixels, taken as a wish. */
  height?: number;
  /** Frames a second, taken as a wish. */
  frameRate?: number;
  /** `user` (towards the person) or `environment`. */
  facingMode?: "user" | "environment";
}

/** An opened source. */
export interface OpenSource {
  /** Holds one video track. */
  stream: MediaStream;
  /** Stops the tracks and frees what feeds them. */
  stop(): void;
}

/** A video file or URL that plays into a stream. */
export interface PlayingSource extends OpenSource {
  /** The element that plays it; pause and seek it as you like. */
  video: HTMLVideoElement;
  /**
   * The time in the video, in seconds, of the frame that was drawn at `at` (clock of `performance.now()`), or `null`
   * when that is too long ago. Tells which frame of a known clip a result belongs to.
   */
  timeDrawnAt(at: number): number | null;
}

/** A camera, as {@link listCameras} gives it. */
export interface CameraInfo {
  deviceId: string;
  /** Name for people; numbered when the browser keeps it secret until the camera was allowed. */
  label: string;
}

/** The cameras the browser knows; empty where there is none or the page is not secure. */
export async function listCameras(): Promise<CameraInfo[]> {
  const devices = (await mediaDevices()?.enumerateDevices().catch(() => [])) ?? [];
  return devices
    .filter(({ kind }) => kind === "videoinput")
    .map(({ deviceId, label }, index) => ({ deviceId, label: label || `Camera ${index + 1}` }));
}

/**
 * Opens a camera; without wishes, 1280×720 at 30 frames a second.
 *
 * @throws {@link SaccadeError} `camera_denied`, `camera_missing`, `camera_busy`, `camera_unsuitable` or
 * `insecure_context`.
 */
export async function openCamera(wishes: CameraWishes = {}): Promise<OpenSource> {
  const devices = mediaDevices();
  if (!devices?.getUserMedia) throw new SaccadeError(notThere());
  const { deviceId, width = 1280, height = 720, frameRate = 30, facingMode } = wishes;
  try {
    const video: MediaTrackConstraints = {
      width: { ideal: width },
      height: { ideal: height },
      frameRate: { ideal: frameRate },
      ...(deviceId ? { deviceId: { exact: deviceId } } : facingMode && { facingMode }),
    };
    return opened(await devices.getUserMedia({ video, audio: false }));
  } catch (cause) {
    throw errorOfCapture(cause, "camera");
  }
}

/**
 * Asks for a screen, window or tab. Must follow a click or key press.
 *
 * @throws {@link SaccadeError} `screen_denied`, `insecure_context` or `unsupported_browser`.
 */
export async function openScreen(): Promise<OpenSource> {
  const devices = mediaDevices();
  if (!devices?.getDisplayMedia) throw new SaccadeError(notThere());
  try {
    return opened(await devices.getDisplayMedia({ video: { frameRate: { ideal: 30 } }, audio: false }));
  } catch (cause) {
    throw errorOfCapture(cause, "screen");
  }
}

/**
 * Plays a video, looping and silent, into a stream. The frames go through a canvas, so that it works in every browser
 * and each frame's time in the video is known.
 *
 * @param from a file the user chose, or addresses of the same video in several formats, best first.
 * @throws {@link SaccadeError} `file_unplayable`.
 */
export async function openVideo(from: Blob | readonly string[] | string): Promise<PlayingSource> {
  const addresses = from instanceof Blob ? [URL.createObjectURL(from)] : typeof from === "string" ? [from] : from;
  const video = document.createElement("video");
  video.muted = true;
  video.loop = true;
  video.playsInline = true;
  video.crossOrigin = "anonymous";
  try {
    await playFirst(video, addresses);
  } catch (cause) {
    if (from instanceof Blob) addresses.forEach((address) => URL.revokeObjectURL(address));
    throw new SaccadeError("file_unplayable", { cause });
  }
  return throughCanvas(video, () => {
    if (from instanceof Blob) addresses.forEach((address) => URL.revokeObjectURL(address));
  });
}

/** `navigator.mediaDevices`, which is missing on pages that are not secure. */
function mediaDevices(): MediaDevices | undefined {
  return (navigator as Partial<Navigator>).mediaDevices;
}

function notThere(): "insecure_context" | "unsupported_browser" {
  return window.isSecureContext ? "unsupported_browser" : "insecure_context";
}

function opened(stream: MediaStream): OpenSource {
  return { stream, stop: () => stream.getTracks().forEach((track) => track.stop()) };
}

async function playFirst(video: HTMLVideoElement, addresses: readonly string[]): Promise<void> {
  let last: unknown = new Error("no address");
  for (const address of addresses) {
    try {
      await new Promise<void>((resolve, reject) => {
        video.onloadeddata = () => resolve();
        video.onerror = () => reject(new Error(video.error?.message ?? "cannot be played"));
        video.src = address;
      });
      if (video.videoWidth === 0) throw new Error("no picture");
      await video.play();
      video.onerror = null;
      return;
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

/**
 * What has a captured canvas give its picture to its stream. The specification has it on the track, Firefox on the
 * stream (MDN, CanvasCaptureMediaStreamTrack.requestFrame).
 */
export function frameRequest(stream: MediaStream, track: MediaStreamTrack): (() => void) | undefined {
  for (const owner of [track, stream] as { requestFrame?: () => void }[]) {
    if (typeof owner.requestFrame === "function") return owner.requestFrame.bind(owner);
  }
  return undefined;
}

function throughCanvas(video: HTMLVideoElement, release: () => void): PlayingSource {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  const context = canvas.getContext("2d", { alpha: false });
  const stream = canvas.captureStream(0);
  const track = stream.getVideoTracks()[0];
  const requestFrame = track && frameRequest(stream, track);
  if (!context || !requestFrame) throw new SaccadeError("unsupported_browser");
  const drawn: { at: number; mediaTime: number }[] = [];
  let lastDraw = -Infinity;
  let stopped = false;

  const draw = (mediaTime: number): void => {
    if (video.videoWidth !== canvas.width || video.videoHeight !== canvas.height) {
      canvas.width = video.videoWidth;
      canvas.height = video.videoHeight;
    }
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    lastDraw = performance.now();
    drawn.push({ at: lastDraw, mediaTime });
    if (drawn.length > 240) drawn.shift();
    requestFrame();
  };
  const step: VideoFrameRequestCallback = (_now, { mediaTime }) => {
    if (stopped) return;
    draw(mediaTime);
    video.requestVideoFrameCallback(step);
  };
  video.requestVideoFrameCallback(step);
  draw(video.currentTime);
  // A paused or hidden page presents no frames; the picture is repeated so that the session does not look idle.
  const idle = setInterval(() => {
    if (performance.now() - lastDraw > 900) draw(video.currentTime);
  }, 1_000);

  return {
    stream,
    video,
    timeDrawnAt(at) {
      let best: { at: number; mediaTime: number } | null = null;
      for (const one of drawn) {
        if (!best || Math.abs(one.at - at) < Math.abs(best.at - at)) best = one;
      }
      return best && Math.abs(best.at - at) < 100 ? best.mediaTime : null;
    },
    stop() {
      stopped = true;
      clearInterval(idle);
      track.stop();
      video.pause();
      video.removeAttribute("src");
      video.load();
      release();
    },
  };
}
