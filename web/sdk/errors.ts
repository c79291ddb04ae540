import { SERVER_ERROR_CODES, type ServerErrorCode } from "./wire.js";

/** Errors that arise in the browser, beside the server's own. */
export type ClientErrorCode =
  | "aborted"
  | "browser_fault"
  | "camera_busy"
  | "camera_denied"
  | "camera_missing"
  | "camera_unsuitable"
  | "file_unplayable"
  | "insecure_context"
  | "media_lost"
  | "not_connected"
  | "screen_denied"
  | "server_unreachable"
  | "session_ended"
  | "source_ended"
  | "timeout"
  | "unsupported_browser"
  | "wrong_version";

/** Every code of a {@link SaccadeError}; stable, unlike the sentences. */
export type ErrorCode = ClientErrorCode | ServerErrorCode;

interface Wording {
  title: string;
  hint: string;
  /** Whether trying again later may help with nothing changed. */
  retry?: true;
}

const WORDINGS: Record<ErrorCode, Wording> = {
  aborted: { title: "Stopped", hint: "The connection was called off before it was made." },
  browser_fault: {
    title: "This page has a fault",
    hint: "Reload it. If it stays, report it with the browser's name and version.",
  },
  camera_busy: {
    title: "The camera is in use",
    hint: "Another program or tab holds the camera. Close it there, then start again.",
  },
  camera_denied: {
    title: "The camera was refused",
    hint: "Allow the camera for this page in the browser's address bar, then start again.",
  },
  camera_missing: {
    title: "No camera was found",
    hint: "Connect a camera, or choose a screen, a video file or the sample scene instead.",
  },
  camera_unsuitable: {
    title: "The camera cannot do this",
    hint: "The camera offers no picture of the wanted size or rate. Choose another camera.",
  },
  file_unplayable: {
    title: "This file cannot be played",
    hint: "The browser does not know its format. Choose an MP4 (H.264) or WebM (VP8, VP9) file.",
  },
  insecure_context: {
    title: "This page is not secure",
    hint: "Browsers give cameras and screens only to pages opened over https:// or on localhost.",
  },
  media_lost: {
    title: "The video connection was lost",
    hint: "The network may have changed. Connecting again.",
    retry: true,
  },
  not_connected: { title: "Not connected", hint: "There is no session to change. Connect first." },
  screen_denied: {
    title: "Sharing the screen was refused",
    hint: "Start again and choose a screen, window or tab to share.",
  },
  server_unreachable: {
    title: "The server does not answer",
    hint: "Check that Saccade runs at this address and that no proxy blocks WebSockets.",
    retry: true,
  },
  session_ended: { title: "The session has ended", hint: "The server ended it. Start again for a new one." },
  source_ended: {
    title: "The source ended",
    hint: "The camera was unplugged or sharing was stopped. Choose a source and start again.",
  },
  timeout: { title: "The server took too long", hint: "It accepted the connection but did not answer.", retry: true },
  unsupported_browser: {
    title: "This browser cannot do this",
    hint: "It lacks WebRTC or a part of it. Use a current Chrome, Edge, Firefox or Safari.",
  },
  wrong_version: {
    title: "Page and server do not match",
    hint: "The server speaks another protocol version. Reload the page; if that does not help, update the client.",
  },
  bad_request: { title: "The server did not understand", hint: "Reload the page, then start again." },
  bad_sdp: {
    title: "The video offer was not understood",
    hint: "The server could not read the browser's offer. Try another browser, and report this one.",
  },
  no_common_codec: {
    title: "No common video codec",
    hint: "Browser and server share no codec under this choice. Set the codec to automatic.",
  },
  no_video: { title: "No video was offered", hint: "The chosen source has no picture. Choose another one." },
  unknown_model: { title: "Unknown model", hint: "The server has no model of this name. Choose one of its list." },
  bad_options: { title: "The server refused this setting", hint: "It keeps the settings it had." },
  unauthorized: { title: "Signing in is needed", hint: "The token is missing, wrong or expired. Get a new one." },
  forbidden: { title: "This is not allowed", hint: "The token does not allow this. Ask for one that does." },
  capacity: { title: "The server is full", hint: "Every place is taken. Trying again shortly.", retry: true },
  rate_limited: { title: "Too many requests", hint: "Wait a moment. Trying again shortly.", retry: true },
  ice_timeout: {
    title: "No way through the network",
    hint:
      "The video could not reach the server. A firewall or VPN may block UDP: open the server's media port " +
      "(UDP 8189 by default), or set up a TURN server.",
    retry: true,
  },
  dtls_failed: { title: "The secure channel failed", hint: "The encrypted video channel could not be set up.", retry: true },
  decode_failed: {
    title: "The server cannot decode the video",
    hint: "Choose another codec and start again.",
    retry: true,
  },
  model_failed: {
    title: "The model failed",
    hint: "The server could not run the model. Choose another, or ask its operator.",
    retry: true,
  },
  not_found: { title: "The session is gone", hint: "The server no longer knows it. A new one is made.", retry: true },
  conflict: { title: "The session is in another state", hint: "Start again for a new session.", retry: true },
  precondition_failed: { title: "The session has changed", hint: "Start again for a new session." },
  precondition_required: { title: "The request was incomplete", hint: "Start again for a new session." },
  too_large: { title: "The message is too large", hint: "The browser's offer is over the server's limit." },
  unsupported_type: { title: "The server does not take this", hint: "This kind of content is not taken here." },
  draining: { title: "The server is shutting down", hint: "Connecting again when it is back.", retry: true },
  internal: { title: "The server has a fault", hint: "Trying again. If it stays, its log says more.", retry: true },
};

/** What a {@link SaccadeError} may carry beside its code. */
export interface ErrorDetails {
  /** The server's own sentence, or a technical detail. */
  detail?: string | undefined;
  /** Whether the session is over; `false`: it goes on or is being made anew. */
  fatal?: boolean;
  /** When the server wants to be asked again. */
  retryAfterMs?: number | undefined;
  /** What was thrown beneath. */
  cause?: unknown;
}

/**
 * Everything that goes wrong, in plain language: `code` for programs, `title` and `hint` for people, `detail` for the
 * curious. `message` joins title and detail.
 */
export class SaccadeError extends Error {
  override readonly name = "SaccadeError";
  /** Stable code. A newer server may send one that this list does not have. */
  readonly code: ErrorCode;
  /** What happened, in a few words. */
  readonly title: string;
  /** What to do about it, in a sentence. */
  readonly hint: string;
  /** The server's own sentence, or a technical detail. */
  readonly detail: string | null;
  /** Whether the session is over. */
  readonly fatal: boolean;
  /** When the server wants to be asked again, in milliseconds. */
  readonly retryAfterMs: number | null;

  constructor(code: ErrorCode, { detail, fatal = true, retryAfterMs, cause }: ErrorDetails = {}) {
    const { title, hint } = wording(code);
    super(detail ? `${title}: ${detail}` : title, { cause });
    this.code = code;
    this.title = title;
    this.hint = hint;
    this.detail = detail ?? null;
    this.fatal = fatal;
    this.retryAfterMs = retryAfterMs ?? null;
  }

  /** Whether trying again with nothing changed may help. */
  get retryable(): boolean {
    return wording(this.code).retry === true;
  }

  /** The same error, with `fatal` as given. */
  withFatal(fatal: boolean): SaccadeError {
    if (fatal === this.fatal) return this;
    return new SaccadeError(this.code, {
      detail: this.detail ?? undefined,
      fatal,
      retryAfterMs: this.retryAfterMs ?? undefined,
      cause: this.cause,
    });
  }
}

/** The error that a close code of the signaling WebSocket means, or `null` for an ordinary loss. */
export function errorOfCloseCode(code: number, reason: string): SaccadeError | null {
  const detail = reason || undefined;
  switch (code) {
    case 1003:
    case 1007:
    case 1008:
      return new SaccadeError("bad_request", { detail });
    case 1009:
      return new SaccadeError("too_large", { detail });
    case 1013:
      return new SaccadeError("capacity", { detail });
    case 4401:
      return new SaccadeError("unauthorized", { detail });
    case 4403:
      return new SaccadeError("forbidden", { detail });
    case 4429:
      return new SaccadeError("rate_limited", { detail });
    default:
      return null;
  }
}

/** The error that a refusal of `getUserMedia` or `getDisplayMedia` means. */
export function errorOfCapture(cause: unknown, kind: "camera" | "screen"): SaccadeError {
  if (cause instanceof SaccadeError) return cause;
  const name = typeof cause === "object" && cause !== null && "name" in cause ? String(cause.name) : "";
  const detail = cause instanceof Error && cause.message ? cause.message : undefined;
  const code = ((): ErrorCode => {
    switch (name) {
      case "NotAllowedError":
      case "PermissionDeniedError":
      case "SecurityError":
        return kind === "camera" ? "camera_denied" : "screen_denied";
      case "NotFoundError":
      case "DevicesNotFoundError":
        return "camera_missing";
      case "NotReadableError":
      case "TrackStartError":
      case "AbortError":
        return "camera_busy";
      case "OverconstrainedError":
        return "camera_unsuitable";
      default:
        return "unsupported_browser";
    }
  })();
  return new SaccadeError(code, { detail, cause });
}

/** Whether `code` is one that the server may send. */
export function isServerErrorCode(code: string): code is ServerErrorCode {
  return (SERVER_ERROR_CODES as readonly string[]).includes(code);
}

function wording(code: ErrorCode): Wording {
  return Object.hasOwn(WORDINGS, code) ? WORDINGS[code] : { title: "Something went wrong", hint: "Start again." };
}
