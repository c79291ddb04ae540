/**
 * Wire types of the `saccade.v1` protocol, mirrored from the Rust crate `saccade-signaling`, with guards for what a
 * server sends and builders for what a client sends. Both sides are checked against the same golden JSON files.
 *
 * Names are snake_case as on the wire, except in the browser's own objects, which pass through verbatim.
 *
 * @module
 */

import {
  type Guard,
  isBoolean,
  isNumber,
  isRecord,
  isString,
  list,
  literal,
  nullable,
  numbers,
  optional,
  shape,
} from "./guards.js";
import { type Keypoint, keypoint, type Label, label, type Segment, segment, type Tensor, tensor } from "./findings.js";
import { type Line, line, type Rule, rule, type Zone, zone } from "./zones.js";

export {
  type AlertEnded,
  type AlertStarted,
  type EventObject,
  isSessionEvent,
  type LineCrossed,
  type ResolutionChanged,
  type SessionEvent,
  type TrackStarted,
  type ZoneDwelled,
  type ZoneEntered,
  type ZoneLeft,
} from "./events.js";
export type { Keypoint, Label, Rle, Segment, Tensor } from "./findings.js";
export { type Anchor, CORNERS, isLine, isRule, isZone, type Line, MAX_SHAPES, type Point, type Rule, type Zone } from "./zones.js";

/** Subprotocol of the signaling WebSocket. */
export const SUBPROTOCOL = "saccade.v1";
/** Protocol version this client speaks; `welcome.protocol` must equal it. */
export const PROTOCOL_VERSION = 1;
/** Largest signaling message in bytes, either way. */
export const MAX_MESSAGE_BYTES = 64 * 1024;

/** Error codes that a server may send. A newer server may send others, so treat the list as open. */
export const SERVER_ERROR_CODES = [
  "bad_request",
  "bad_sdp",
  "no_common_codec",
  "no_video",
  "unknown_model",
  "bad_options",
  "unauthorized",
  "forbidden",
  "capacity",
  "rate_limited",
  "ice_timeout",
  "dtls_failed",
  "decode_failed",
  "model_failed",
  "not_found",
  "conflict",
  "precondition_failed",
  "precondition_required",
  "too_large",
  "unsupported_type",
  "draining",
  "internal",
] as const;

/** A stable error code of the server. */
export type ServerErrorCode = (typeof SERVER_ERROR_CODES)[number];

/**
 * Which video comes back: each frame with its own result (`exact`), each at once with the last result's boxes carried to
 * it by the motion of the objects (`predicted`), or none (`results`). Results come in every mode.
 */
export type ReturnMode = "exact" | "predicted" | "results";

/** Shape of the detections in each result. The typed {@link SessionResult} is the `saccade` format. */
export type ResultFormat = "saccade" | "coco" | "roboflow" | "supervision";

/**
 * What results tell of segments: their outlines, each of their pixels as run lengths of COCO at the model's resolution, or
 * neither.
 */
export type Masks = "outlines" | "rle" | "none";

/** What the server draws on returned video. */
export interface Overlay {
  /** What was found, where it is: outlines of detections, their keypoints, tinted segments. */
  boxes: boolean;
  /** What it is: class, score and object id beside each box; classes of the whole frame in a corner. */
  labels: boolean;
  /** A strip with the times of the stages. */
  timing: boolean;
  /** Zones and lines of the session. */
  zones: boolean;
}

/** All options of a session, as in force on the server. */
export interface Options {
  /** Model or route name. */
  model: string;
  /** Which video comes back. */
  return: ReturnMode;
  /** Latency budget in milliseconds, last packet in to first packet out. */
  budget_ms: number;
  /** Lowest score that is reported, 0..1. */
  score_threshold: number;
  /** Overlap above which the weaker of two boxes of one class goes, 0..1. */
  iou_threshold: number;
  /** Detections reported for a frame at most. */
  max_detections: number;
  /** Class names that are reported; `null`: all. */
  classes: string[] | null;
  /** Whether objects are followed from frame to frame. */
  track: boolean;
  /** What is drawn. */
  overlay: Overlay;
  /** Shape of the results. */
  format: ResultFormat;
  /** What is told of segments; absent from servers that find none. */
  masks?: Masks;
  /** Watched areas; they, lines and rules need `track`. */
  zones: Zone[];
  /** Counting lines. */
  lines: Line[];
  /** What raises alerts; absent from servers that have none. */
  rules?: Rule[];
}

/** Options to set or change; an absent key stays as it is. An unknown key is refused (`bad_options`). */
export type OptionsPatch = Partial<Omit<Options, "overlay" | "classes">> & {
  /** Class names to report; an empty list reports all again. */
  classes?: string[];
  /** Only the switches to change. */
  overlay?: Partial<Overlay>;
};

/** What the server refuses to exceed. */
export interface Limits {
  /** Widest frame taken, in pixels. */
  width: number;
  /** Highest frame taken, in pixels. */
  height: number;
  /** Frames a second that are processed at most. */
  fps: number;
  /** Largest signaling message, in bytes. */
  message_bytes: number;
  /** Largest SDP, in bytes. */
  sdp_bytes: number;
}

/** A server to give to `RTCPeerConnection`. */
export interface IceServer {
  urls: string[];
  username?: string;
  credential?: string;
}

/** First message of the server. */
export interface Welcome {
  type: "welcome";
  protocol: number;
  /** Name and version, such as `saccade/0.1.0`. */
  server: string;
  ice_servers: IceServer[];
  /** Models that `options.model` may name; the first is the default. */
  models: string[];
  limits: Limits;
}

/** Answer to an offer. */
export interface Answer {
  type: "answer";
  sdp: string;
  session_id: string;
  /** All options now in force. */
  options: Options;
}

/** One trickled candidate, either way; `null` ends them. */
export interface CandidateMessage {
  type: "candidate";
  candidate: RTCIceCandidateInit | null;
}

/** Answer to `configure`. */
export interface Configured {
  type: "configured";
  options: Options;
}

/** Something was refused or failed. */
export interface ErrorMessage {
  type: "error";
  /** A {@link ServerErrorCode}, or one of a newer server. */
  code: string;
  /** A sentence that says what to do. */
  message: string;
  /** Whether the session (or, before one, the socket) ends with this. */
  fatal: boolean;
  /** When to try again. */
  retry_after_ms?: number;
}

/** The server is shutting down. */
export interface Draining {
  type: "draining";
  reconnect_after_ms: number;
}

/** The session ended. */
export interface Closed {
  type: "closed";
  reason: string;
}

/** What the server sends on the signaling WebSocket. */
export type ServerMessage = Welcome | Answer | CandidateMessage | Configured | ErrorMessage | Draining | Closed;

/** What a client sends on the signaling WebSocket. */
export type ClientMessage =
  | { type: "offer"; sdp: string; options?: OptionsPatch; session_id?: string; traceparent?: string; tracestate?: string }
  | CandidateMessage
  | { type: "configure"; options: OptionsPatch }
  | { type: "bye" }
  | { type: "auth"; token: string };

/** One found object. */
export interface Detection {
  /** Corners `[x1, y1, x2, y2]` in pixels of the upright frame as sent. */
  box: [number, number, number, number];
  /** Index of the class in the model. */
  class_id: number;
  /** Name of the class. */
  class: string;
  /** Score, 0..1. */
  score: number;
  /** Identity across frames; `null` with `track: false`. */
  object_id: number | null;
  /** Its points in the model's order, where the model's task is `pose` and it saw this frame. */
  keypoints?: Keypoint[];
}

/** Stages in the order in which a frame meets them; keys of {@link Timing} but for `total`. */
export const STAGES = [
  "reorder",
  "decode",
  "queue",
  "preprocess",
  "inference",
  "postprocess",
  "annotate",
  "encode",
] as const;

/** Name of a stage. */
export type Stage = (typeof STAGES)[number];

/** Milliseconds spent in each stage; `total` runs from the frame's last packet to the result. */
export type Timing = Record<Stage | "total", number>;

/** Frames dropped since the session began, by reason. */
export interface Dropped {
  /** A newer frame came before the model was free. */
  superseded: number;
  /** The frame could no longer keep its deadline. */
  late: number;
  /** The frame was kept from the model on purpose, to save work; absent from servers that never do. */
  skipped?: number;
}

/** Steps by which a server saves work when a session's budget would not hold otherwise. A newer one may have others. */
export const DEGRADATION_STEPS = ["skip_inference", "smaller_input", "lower_fps", "lower_resolution"] as const;

/** Name of a step: not each frame to the model, a smaller input of the model, fewer frames, a smaller picture. */
export type DegradationStep = (typeof DEGRADATION_STEPS)[number];

/** One processed frame: the message of the `results` data channel in the `saccade` format. */
export interface SessionResult {
  type: "result";
  /** Version of this shape: 1. */
  version: number;
  session_id: string;
  /** Number of the frame among those decoded in this session, from 0. */
  frame_id: number;
  /** RTP timestamp of the frame as received (90 kHz, wraps at 2^32). */
  rtp_timestamp_in: number;
  /** RTP timestamp of the returned frame, as `requestVideoFrameCallback` reports it; `null` when none returns. */
  rtp_timestamp_out: number | null;
  /** Capture time in milliseconds since 1970, where the sender tells it. */
  capture_time_ms: number | null;
  /** Width of the upright frame, in pixels. */
  width: number;
  /** Height of the upright frame, in pixels. */
  height: number;
  /** Name and version of the model, such as `ppe-nano@1`. */
  model: string;
  /** What was found, best score first; empty where the model's task is not to find boxes. */
  detections: Detection[];
  /** Classes of the whole frame, best score first, where the model's task is `classify`. */
  classes?: Label[];
  /** Classes of its pixels, the largest first, where the model's task is `segment`. */
  segments?: Segment[];
  /** Where the corners of the masks in {@link Segment.rle} lie, in pixels of the upright frame: `[x1, y1, x2, y2]`. */
  mask_box?: [number, number, number, number];
  /** The model's outputs as they are, where its task is `raw`. */
  tensors?: Tensor[];
  /** Where the time went. */
  timing_ms: Timing;
  /** The session's latency budget. */
  budget_ms: number;
  /** Whether this frame kept the budget. */
  met: boolean;
  /** Frames that ran through the model together with this one; 0: it ran on none, and the boxes are carried ones. */
  batch_size: number;
  dropped: Dropped;
  /** Steps by which the server saves work now, each a {@link DegradationStep} or one of a newer server. */
  degraded: string[];
}

/** What `POST /v1/detect` answers for one picture, in the `saccade` format. */
export interface ImageResult {
  type: "result";
  /** Version of this shape: 1. */
  version: number;
  /** Place of the picture in its request, from 0. */
  image: number;
  /** File name or name of the picture's part; `null` where the picture is the body. */
  name: string | null;
  /** Width of the upright picture, in pixels. */
  width: number;
  /** Height of the upright picture, in pixels. */
  height: number;
  /** Name and version of the model; of several, that of their route. */
  model: string;
  /** What was found, best score first, in pixels of the whole upright picture. */
  detections: Detection[];
  /** See {@link SessionResult.classes}. */
  classes?: Label[];
  /** See {@link SessionResult.segments}. */
  segments?: Segment[];
  /** See {@link SessionResult.mask_box}. */
  mask_box?: [number, number, number, number];
  /** See {@link SessionResult.tensors}. */
  tensors?: Tensor[];
  /** Where the time went; `reorder` is always 0. */
  timing_ms: Timing;
  /** The picture's latency budget. */
  budget_ms: number;
  /** Whether it was kept. */
  met: boolean;
  /** Frames and pictures that ran through the model together with this one. */
  batch_size: number;
  /** The picture with what was found drawn on it, as a `data:` URL, where it was asked for. */
  annotated?: string;
}

/** What takes the place of an {@link ImageResult} among those of several pictures. */
export interface ImageError {
  type: "error";
  /** Place of the picture in its request, from 0. */
  image: number;
  name: string | null;
  /** Stable code. */
  code: string;
  /** What to do about it. */
  message: string;
  /** HTTP status that the picture would have got by itself. */
  status: number;
  /** When to try again, in milliseconds. */
  retry_after_ms?: number;
}

/** Body of `POST /v1/offer`. */
export interface OfferRequest {
  sdp: string;
  type: "offer";
  options?: OptionsPatch;
}

/** Answer to `POST /v1/offer`. */
export interface OfferResponse {
  sdp: string;
  type: "answer";
  session_id: string;
}

/** Body of every error of the HTTP API (RFC 9457). */
export interface Problem {
  code: string;
  title: string;
  detail: string;
  status: number;
}

/** The network path of a session, looked at twice a second; what comes from RTCP is as old as the last report. */
export interface TransportView {
  /** Last round trip in milliseconds; `null` before the first. */
  round_trip_ms: number | null;
  /** How the server's address was found: `host`, `srflx`, `prflx` or `relay`. */
  local_candidate: string;
  /** How the peer's address was found. */
  remote_candidate: string;
  /** `udp` or `tcp`. */
  protocol: string;
  /** Bytes received, of every protocol above `protocol`. */
  bytes_in: number;
  /** Bytes sent, of every protocol above `protocol`. */
  bytes_out: number;
  /** Bits a second that the path to the peer is thought to carry. */
  available_out_bps: number;
  /** Video from the peer, as the server receives it. */
  inbound: {
    packets: number;
    packets_lost: number;
    /** Share of lost packets in the interval of the last report, 0..1. */
    loss_ratio: number | null;
    jitter_ms: number | null;
    nacks_sent: number;
  };
  /** Video to the peer, as its reports tell; `null` when it takes none. */
  outbound: {
    packets: number;
    packets_lost: number | null;
    /** Share of lost packets in the interval of the peer's last report, 0..1. */
    loss_ratio: number | null;
    jitter_ms: number | null;
    nacks_received: number;
  } | null;
}

/** One session as `GET /v1/sessions/{id}` shows it. */
export interface SessionView {
  session_id: string;
  state: string;
  /** Name of the configured camera that the video comes from; absent from servers that do not tell. */
  camera?: string | null;
  codec: string | null;
  resolution: [number, number] | null;
  age_s: number;
  options: Options;
  counters: Record<string, unknown> & { dropped: Dropped };
  stages: { stage: string; p50_ms: number; p95_ms: number }[];
  /** Who watches the session's video by WHEP; absent from servers that do not tell. */
  viewers?: number;
  /** `null` before the session is connected; absent from servers that do not tell. */
  transport?: TransportView | null;
}

/** One configured camera as `GET /v1/cameras` shows it. */
export interface CameraView {
  name: string;
  /** `connecting`, `live`, or `waiting` until it is tried again. */
  state: string;
  /** Seconds since that began. */
  state_age_s: number;
  /** Why it is waited; `null` in other states. */
  reason: { code: string; message: string } | null;
  /** Until it is tried again; `null` in other states. */
  retry_after_ms: number | null;
  connects: number;
  failures: number;
  /** `null` while it has none. */
  session_id: string | null;
}

/** One model as `GET /v1/models` shows it. */
export interface ModelView {
  name: string;
  version: string;
  task: string;
  licence: string;
  input: [number, number];
  classes: string[];
  score_threshold: number;
  backend: string;
  precision: string;
  default: boolean;
  /** `ready`, `loading`, `unloaded` or `refused`; older servers list those that are ready, and say nothing. */
  state?: string;
  /** Why it is not ready, where there is something to say. */
  reason?: string;
}

/** One route as `GET /v1/routes` shows it. */
export interface RouteView {
  name: string;
  /** Whether sessions that name no model get it. */
  default: boolean;
  /** Names of the classes of all its models; the index is the class id. */
  classes: string[];
  /** The models that it stands for. */
  route:
    | { split: { model: string; weight: number }[]; shadow?: string }
    | { ensemble: string[]; fusion: string };
}

/** The text was not a message of this protocol. */
export class WireError extends Error {
  override name = "WireError";
}

/**
 * Reads one message of the signaling WebSocket. Fields that this client does not know are left alone, so that a newer
 * server can talk to it.
 *
 * @returns the message, or `null` when its `type` is not known to this client.
 * @throws {@link WireError} when the text is not JSON or a known message lacks a field.
 */
export function parseServerMessage(text: string): ServerMessage | null {
  const value = parseJson(text);
  if (!isRecord(value) || typeof value["type"] !== "string") throw new WireError("a message needs a type");
  const type = value["type"];
  if (!Object.hasOwn(serverMessages, type)) return null;
  if (!serverMessages[type as ServerMessage["type"]](value)) throw new WireError(`malformed ${type} message`);
  return value as unknown as ServerMessage;
}

/** Whether `value` is a {@link SessionResult}; false for the other result formats. */
export function isSessionResult(value: unknown): value is SessionResult {
  return sessionResult(value);
}

/** Whether `value` is an {@link ImageResult}; false for the other result formats. */
export function isImageResult(value: unknown): value is ImageResult {
  return imageResult(value);
}

/** Whether `value` is an {@link ImageError}. */
export function isImageError(value: unknown): value is ImageError {
  return imageError(value);
}

/** Whether `value` is a {@link Problem}. */
export function isProblem(value: unknown): value is Problem {
  return problem(value);
}

/** Whether `value` is a {@link SessionView}. */
export function isSessionView(value: unknown): value is SessionView {
  return sessionView(value);
}

/** Whether `value` is a {@link CameraView}. */
export function isCameraView(value: unknown): value is CameraView {
  return cameraView(value);
}

/** Whether `value` is a {@link ModelView}. */
export function isModelView(value: unknown): value is ModelView {
  return modelView(value);
}

/** Whether `value` is a {@link RouteView}. */
export function isRouteView(value: unknown): value is RouteView {
  return routeView(value);
}

/** Whether `value` is an {@link OfferResponse}. */
export function isOfferResponse(value: unknown): value is OfferResponse {
  return offerResponse(value);
}

/** Builds the messages that a client sends; absent parts are left out, never `null`. */
export const build = {
  /** Starts a session, renegotiates, or resumes the session `sessionId`; `span` is the one in which that is done. */
  offer(
    sdp: string,
    options?: OptionsPatch,
    sessionId?: string | null,
    span?: { traceparent: string; tracestate?: string },
  ): ClientMessage {
    return { type: "offer", sdp, ...(options && { options }), ...(sessionId && { session_id: sessionId }), ...span };
  },
  /** One trickled candidate; `null` ends them. */
  candidate(candidate: RTCIceCandidateInit | null): ClientMessage {
    if (!candidate?.candidate) return { type: "candidate", candidate: null };
    const { candidate: line, sdpMid = null, sdpMLineIndex = null, usernameFragment } = candidate;
    return {
      type: "candidate",
      candidate: { candidate: line, sdpMid, sdpMLineIndex, ...(usernameFragment && { usernameFragment }) },
    };
  },
  /** Changes options while the session runs. */
  configure(options: OptionsPatch): ClientMessage {
    return { type: "configure", options };
  },
  /** Ends the session. */
  bye(): ClientMessage {
    return { type: "bye" };
  },
  /** Authenticates. */
  auth(token: string): ClientMessage {
    return { type: "auth", token };
  },
  /** Body of `POST /v1/offer`. */
  offerRequest(sdp: string, options?: OptionsPatch): OfferRequest {
    return { sdp, type: "offer", ...(options && { options }) };
  },
};

/** `base` with the keys of `patch`; overlay switches are merged one by one. */
export function mergeOptions(base: OptionsPatch, patch: OptionsPatch): OptionsPatch {
  const merged: OptionsPatch = { ...base, ...patch };
  if (base.overlay && patch.overlay) merged.overlay = { ...base.overlay, ...patch.overlay };
  return merged;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new WireError("not JSON");
  }
}

const options = shape<Options>({
  model: isString,
  return: literal("exact", "predicted", "results"),
  budget_ms: isNumber,
  score_threshold: isNumber,
  iou_threshold: isNumber,
  max_detections: isNumber,
  classes: nullable(list(isString)),
  track: isBoolean,
  overlay: shape<Overlay>({ boxes: isBoolean, labels: isBoolean, timing: isBoolean, zones: isBoolean }),
  format: literal("saccade", "coco", "roboflow", "supervision"),
  masks: optional(literal("outlines", "rle", "none")),
  zones: list(zone),
  lines: list(line),
  rules: optional(list(rule)),
});

const candidateInit = shape<RTCIceCandidateInit>({
  candidate: isString,
  sdpMid: optional(nullable(isString)),
  sdpMLineIndex: optional(nullable(isNumber)),
  usernameFragment: optional(nullable(isString)),
});

const serverMessages: { [K in ServerMessage["type"]]: Guard<Extract<ServerMessage, { type: K }>> } = {
  welcome: shape<Welcome>({
    type: literal("welcome"),
    protocol: isNumber,
    server: isString,
    ice_servers: list(shape<IceServer>({
      urls: list(isString),
      username: optional(isString),
      credential: optional(isString),
    })),
    models: list(isString),
    limits: shape<Limits>({
      width: isNumber,
      height: isNumber,
      fps: isNumber,
      message_bytes: isNumber,
      sdp_bytes: isNumber,
    }),
  }),
  answer: shape<Answer>({ type: literal("answer"), sdp: isString, session_id: isString, options }),
  candidate: shape<CandidateMessage>({ type: literal("candidate"), candidate: nullable(candidateInit) }),
  configured: shape<Configured>({ type: literal("configured"), options }),
  error: shape<ErrorMessage>({
    type: literal("error"),
    code: isString,
    message: isString,
    fatal: isBoolean,
    retry_after_ms: optional(isNumber),
  }),
  draining: shape<Draining>({ type: literal("draining"), reconnect_after_ms: isNumber }),
  closed: shape<Closed>({ type: literal("closed"), reason: isString }),
};

const dropped = shape<Dropped>({ superseded: isNumber, late: isNumber, skipped: optional(isNumber) });

const timing = shape<Timing>(
  Object.fromEntries([...STAGES, "total" as const].map((stage) => [stage, isNumber])) as Record<
    Stage | "total",
    Guard<number>
  >,
);

const detection = shape<Detection>({
  box: numbers<Detection["box"]>(4),
  class_id: isNumber,
  class: isString,
  score: isNumber,
  object_id: nullable(isNumber),
  keypoints: optional(list(keypoint)),
});

const sessionResult = shape<SessionResult>({
  type: literal("result"),
  version: isNumber,
  session_id: isString,
  frame_id: isNumber,
  rtp_timestamp_in: isNumber,
  rtp_timestamp_out: nullable(isNumber),
  capture_time_ms: nullable(isNumber),
  width: isNumber,
  height: isNumber,
  model: isString,
  detections: list(detection),
  classes: optional(list(label)),
  segments: optional(list(segment)),
  mask_box: optional(numbers<[number, number, number, number]>(4)),
  tensors: optional(list(tensor)),
  timing_ms: timing,
  budget_ms: isNumber,
  met: isBoolean,
  batch_size: isNumber,
  dropped,
  degraded: list(isString),
});

const imageResult = shape<ImageResult>({
  type: literal("result"),
  version: isNumber,
  image: isNumber,
  name: nullable(isString),
  width: isNumber,
  height: isNumber,
  model: isString,
  detections: list(detection),
  classes: optional(list(label)),
  segments: optional(list(segment)),
  mask_box: optional(numbers<[number, number, number, number]>(4)),
  tensors: optional(list(tensor)),
  timing_ms: timing,
  budget_ms: isNumber,
  met: isBoolean,
  batch_size: isNumber,
  annotated: optional(isString),
});

const imageError = shape<ImageError>({
  type: literal("error"),
  image: isNumber,
  name: nullable(isString),
  code: isString,
  message: isString,
  status: isNumber,
  retry_after_ms: optional(isNumber),
});

const problem = shape<Problem>({ code: isString, title: isString, detail: isString, status: isNumber });

const transportView = shape<TransportView>({
  round_trip_ms: nullable(isNumber),
  local_candidate: isString,
  remote_candidate: isString,
  protocol: isString,
  bytes_in: isNumber,
  bytes_out: isNumber,
  available_out_bps: isNumber,
  inbound: shape<TransportView["inbound"]>({
    packets: isNumber,
    packets_lost: isNumber,
    loss_ratio: nullable(isNumber),
    jitter_ms: nullable(isNumber),
    nacks_sent: isNumber,
  }),
  outbound: nullable(
    shape<NonNullable<TransportView["outbound"]>>({
      packets: isNumber,
      packets_lost: nullable(isNumber),
      loss_ratio: nullable(isNumber),
      jitter_ms: nullable(isNumber),
      nacks_received: isNumber,
    }),
  ),
});

const sessionView = shape<SessionView>({
  session_id: isString,
  state: isString,
  camera: optional(nullable(isString)),
  codec: nullable(isString),
  resolution: nullable(numbers<[number, number]>(2)),
  age_s: isNumber,
  options,
  counters: (value): value is SessionView["counters"] => isRecord(value) && dropped(value["dropped"]),
  stages: list(shape<SessionView["stages"][number]>({ stage: isString, p50_ms: isNumber, p95_ms: isNumber })),
  viewers: optional(isNumber),
  transport: optional(nullable(transportView)),
});

const cameraView = shape<CameraView>({
  name: isString,
  state: isString,
  state_age_s: isNumber,
  reason: nullable(shape<NonNullable<CameraView["reason"]>>({ code: isString, message: isString })),
  retry_after_ms: nullable(isNumber),
  connects: isNumber,
  failures: isNumber,
  session_id: nullable(isString),
});

const modelView = shape<ModelView>({
  name: isString,
  version: isString,
  task: isString,
  licence: isString,
  input: numbers<[number, number]>(2),
  classes: list(isString),
  score_threshold: isNumber,
  backend: isString,
  precision: isString,
  default: isBoolean,
  state: optional(isString),
  reason: optional(isString),
});

const splitRoute = shape<Extract<RouteView["route"], { split: unknown }>>({
  split: list(shape<{ model: string; weight: number }>({ model: isString, weight: isNumber })),
  shadow: optional(isString),
});

const ensembleRoute = shape<Extract<RouteView["route"], { ensemble: unknown }>>({
  ensemble: list(isString),
  fusion: isString,
});

const routeView = shape<RouteView>({
  name: isString,
  default: isBoolean,
  classes: list(isString),
  route: (value): value is RouteView["route"] => splitRoute(value) || ensembleRoute(value),
});

const offerResponse = shape<OfferResponse>({ sdp: isString, type: literal("answer"), session_id: isString });
