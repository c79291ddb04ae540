// Saccade browser client. MIT OR Apache-2.0

// sdk/guards.ts
function isRecord(value) {
  return typeof value == "object" && value !== null && !Array.isArray(value);
}
var isString = (value) => typeof value == "string", isNumber = (value) => typeof value == "number" && Number.isFinite(value), isBoolean = (value) => typeof value == "boolean";
function optional(guard) {
  return (value) => value === void 0 || guard(value);
}
function nullable(guard) {
  return (value) => value === null || guard(value);
}
function list(guard) {
  return (value) => Array.isArray(value) && value.every(guard);
}
function numbers(length) {
  return (value) => Array.isArray(value) && value.length === length && value.every(isNumber);
}
function literal(...texts) {
  return (value) => texts.includes(value);
}
function shape(fields) {
  let entries = Object.entries(fields);
  return (value) => isRecord(value) && entries.every(([key, guard]) => guard(value[key]));
}

// sdk/findings.ts
var keypoint = numbers(3), label = shape({ class_id: isNumber, class: isString, score: isNumber }), segment = shape({
  class_id: isNumber,
  class: isString,
  area_ratio: isNumber,
  box: numbers(4),
  polygons: optional(list(list(numbers(2)))),
  rle: optional(shape({ size: numbers(2), counts: isString })),
  left_out: optional(isNumber)
}), tensor = shape({
  name: isString,
  shape: list(isNumber),
  data: nullable(list(nullable(isNumber))),
  left_out: optional(isNumber)
});

// sdk/zones.ts
var MAX_SHAPES = 16, CORNERS = { min: 3, max: 32 };
function isZone(value) {
  return zone(value) && value.polygon.length >= CORNERS.min && value.polygon.length <= CORNERS.max;
}
function isLine(value) {
  return line(value);
}
function isRule(value) {
  return rule(value);
}
var point = numbers(2), anchor = optional(literal("center", "bottom")), zone = shape({
  name: isString,
  polygon: list(point),
  anchor,
  dwell_s: optional(isNumber)
}), line = shape({
  name: isString,
  points: (value) => Array.isArray(value) && value.length === 2 && value.every(point),
  anchor
}), rule = shape({
  name: isString,
  zone: isString,
  classes: optional(list(isString)),
  longer_than_s: optional(isNumber),
  more_than: optional(isNumber)
});

// sdk/events.ts
function isSessionEvent(value) {
  if (!isRecord(value) || typeof value.type != "string") return !1;
  let type = value.type;
  return Object.hasOwn(sessionEvents, type) && sessionEvents[type](value);
}
var object = { rtp_timestamp: isNumber, object_id: isNumber, class_id: isNumber, class: isString }, sessionEvents = {
  track_started: shape({
    type: literal("track_started"),
    mid: isString,
    codec: isString,
    rtp_timestamp: optional(isNumber)
  }),
  resolution_changed: shape({
    type: literal("resolution_changed"),
    width: isNumber,
    height: isNumber,
    rtp_timestamp: optional(isNumber)
  }),
  zone_entered: shape({ type: literal("zone_entered"), ...object, zone: isString, count: isNumber }),
  zone_left: shape({
    type: literal("zone_left"),
    ...object,
    zone: isString,
    dwell_ms: isNumber,
    count: isNumber
  }),
  zone_dwelled: shape({ type: literal("zone_dwelled"), ...object, zone: isString, dwell_ms: isNumber }),
  line_crossed: shape({
    type: literal("line_crossed"),
    ...object,
    line: isString,
    direction: literal("left_to_right", "right_to_left"),
    left_to_right: isNumber,
    right_to_left: isNumber
  }),
  alert_started: shape({
    type: literal("alert_started"),
    rtp_timestamp: isNumber,
    rule: isString,
    zone: isString,
    object_id: nullable(isNumber),
    class_id: nullable(isNumber),
    class: nullable(isString),
    count: isNumber
  }),
  alert_ended: shape({
    type: literal("alert_ended"),
    rtp_timestamp: isNumber,
    rule: isString,
    zone: isString,
    object_id: nullable(isNumber),
    duration_ms: isNumber
  })
};

// sdk/wire.ts
var SUBPROTOCOL = "saccade.v1", PROTOCOL_VERSION = 1, MAX_MESSAGE_BYTES = 64 * 1024, SERVER_ERROR_CODES = [
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
  "internal"
], STAGES = [
  "reorder",
  "decode",
  "queue",
  "preprocess",
  "inference",
  "postprocess",
  "annotate",
  "encode"
], DEGRADATION_STEPS = ["skip_inference", "smaller_input", "lower_fps", "lower_resolution"], WireError = class extends Error {
  name = "WireError";
};
function parseServerMessage(text2) {
  let value = parseJson(text2);
  if (!isRecord(value) || typeof value.type != "string") throw new WireError("a message needs a type");
  let type = value.type;
  if (!Object.hasOwn(serverMessages, type)) return null;
  if (!serverMessages[type](value)) throw new WireError(`malformed ${type} message`);
  return value;
}
function isSessionResult(value) {
  return sessionResult(value);
}
function isImageResult(value) {
  return imageResult(value);
}
function isImageError(value) {
  return imageError(value);
}
function isProblem(value) {
  return problem(value);
}
function isSessionView(value) {
  return sessionView(value);
}
function isCameraView(value) {
  return cameraView(value);
}
function isModelView(value) {
  return modelView(value);
}
function isRouteView(value) {
  return routeView(value);
}
function isOfferResponse(value) {
  return offerResponse(value);
}
var build = {
  /** Starts a session, renegotiates, or resumes the session `sessionId`; `span` is the one in which that is done. */
  offer(sdp, options2, sessionId, span) {
    return { type: "offer", sdp, ...options2 && { options: options2 }, ...sessionId && { session_id: sessionId }, ...span };
  },
  /** One trickled candidate; `null` ends them. */
  candidate(candidate) {
    if (!candidate?.candidate) return { type: "candidate", candidate: null };
    let { candidate: line2, sdpMid = null, sdpMLineIndex = null, usernameFragment } = candidate;
    return {
      type: "candidate",
      candidate: { candidate: line2, sdpMid, sdpMLineIndex, ...usernameFragment && { usernameFragment } }
    };
  },
  /** Changes options while the session runs. */
  configure(options2) {
    return { type: "configure", options: options2 };
  },
  /** Ends the session. */
  bye() {
    return { type: "bye" };
  },
  /** Authenticates. */
  auth(token) {
    return { type: "auth", token };
  },
  /** Body of `POST /v1/offer`. */
  offerRequest(sdp, options2) {
    return { sdp, type: "offer", ...options2 && { options: options2 } };
  }
};
function mergeOptions(base, patch) {
  let merged = { ...base, ...patch };
  return base.overlay && patch.overlay && (merged.overlay = { ...base.overlay, ...patch.overlay }), merged;
}
function parseJson(text2) {
  try {
    return JSON.parse(text2);
  } catch {
    throw new WireError("not JSON");
  }
}
var options = shape({
  model: isString,
  return: literal("exact", "predicted", "results"),
  budget_ms: isNumber,
  score_threshold: isNumber,
  iou_threshold: isNumber,
  max_detections: isNumber,
  classes: nullable(list(isString)),
  track: isBoolean,
  overlay: shape({ boxes: isBoolean, labels: isBoolean, timing: isBoolean, zones: isBoolean }),
  format: literal("saccade", "coco", "roboflow", "supervision"),
  masks: optional(literal("outlines", "rle", "none")),
  zones: list(zone),
  lines: list(line),
  rules: optional(list(rule))
}), candidateInit = shape({
  candidate: isString,
  sdpMid: optional(nullable(isString)),
  sdpMLineIndex: optional(nullable(isNumber)),
  usernameFragment: optional(nullable(isString))
}), serverMessages = {
  welcome: shape({
    type: literal("welcome"),
    protocol: isNumber,
    server: isString,
    ice_servers: list(shape({
      urls: list(isString),
      username: optional(isString),
      credential: optional(isString)
    })),
    models: list(isString),
    limits: shape({
      width: isNumber,
      height: isNumber,
      fps: isNumber,
      message_bytes: isNumber,
      sdp_bytes: isNumber
    })
  }),
  answer: shape({ type: literal("answer"), sdp: isString, session_id: isString, options }),
  candidate: shape({ type: literal("candidate"), candidate: nullable(candidateInit) }),
  configured: shape({ type: literal("configured"), options }),
  error: shape({
    type: literal("error"),
    code: isString,
    message: isString,
    fatal: isBoolean,
    retry_after_ms: optional(isNumber)
  }),
  draining: shape({ type: literal("draining"), reconnect_after_ms: isNumber }),
  closed: shape({ type: literal("closed"), reason: isString })
}, dropped = shape({ superseded: isNumber, late: isNumber, skipped: optional(isNumber) }), timing = shape(
  Object.fromEntries([...STAGES, "total"].map((stage) => [stage, isNumber]))
), detection = shape({
  box: numbers(4),
  class_id: isNumber,
  class: isString,
  score: isNumber,
  object_id: nullable(isNumber),
  keypoints: optional(list(keypoint))
}), sessionResult = shape({
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
  mask_box: optional(numbers(4)),
  tensors: optional(list(tensor)),
  timing_ms: timing,
  budget_ms: isNumber,
  met: isBoolean,
  batch_size: isNumber,
  dropped,
  degraded: list(isString)
}), imageResult = shape({
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
  mask_box: optional(numbers(4)),
  tensors: optional(list(tensor)),
  timing_ms: timing,
  budget_ms: isNumber,
  met: isBoolean,
  batch_size: isNumber,
  annotated: optional(isString)
}), imageError = shape({
  type: literal("error"),
  image: isNumber,
  name: nullable(isString),
  code: isString,
  message: isString,
  status: isNumber,
  retry_after_ms: optional(isNumber)
}), problem = shape({ code: isString, title: isString, detail: isString, status: isNumber }), transportView = shape({
  round_trip_ms: nullable(isNumber),
  local_candidate: isString,
  remote_candidate: isString,
  protocol: isString,
  bytes_in: isNumber,
  bytes_out: isNumber,
  available_out_bps: isNumber,
  inbound: shape({
    packets: isNumber,
    packets_lost: isNumber,
    loss_ratio: nullable(isNumber),
    jitter_ms: nullable(isNumber),
    nacks_sent: isNumber
  }),
  outbound: nullable(
    shape({
      packets: isNumber,
      packets_lost: nullable(isNumber),
      loss_ratio: nullable(isNumber),
      jitter_ms: nullable(isNumber),
      nacks_received: isNumber
    })
  )
}), sessionView = shape({
  session_id: isString,
  state: isString,
  camera: optional(nullable(isString)),
  codec: nullable(isString),
  resolution: nullable(numbers(2)),
  age_s: isNumber,
  options,
  counters: (value) => isRecord(value) && dropped(value.dropped),
  stages: list(shape({ stage: isString, p50_ms: isNumber, p95_ms: isNumber })),
  viewers: optional(isNumber),
  transport: optional(nullable(transportView))
}), cameraView = shape({
  name: isString,
  state: isString,
  state_age_s: isNumber,
  reason: nullable(shape({ code: isString, message: isString })),
  retry_after_ms: nullable(isNumber),
  connects: isNumber,
  failures: isNumber,
  session_id: nullable(isString)
}), modelView = shape({
  name: isString,
  version: isString,
  task: isString,
  licence: isString,
  input: numbers(2),
  classes: list(isString),
  score_threshold: isNumber,
  backend: isString,
  precision: isString,
  default: isBoolean,
  state: optional(isString),
  reason: optional(isString)
}), splitRoute = shape({
  split: list(shape({ model: isString, weight: isNumber })),
  shadow: optional(isString)
}), ensembleRoute = shape({
  ensemble: list(isString),
  fusion: isString
}), routeView = shape({
  name: isString,
  default: isBoolean,
  classes: list(isString),
  route: (value) => splitRoute(value) || ensembleRoute(value)
}), offerResponse = shape({ sdp: isString, type: literal("answer"), session_id: isString });

// sdk/errors.ts
var WORDINGS = {
  aborted: { title: "Stopped", hint: "The connection was called off before it was made." },
  browser_fault: {
    title: "This page has a fault",
    hint: "Reload it. If it stays, report it with the browser's name and version."
  },
  camera_busy: {
    title: "The camera is in use",
    hint: "Another program or tab holds the camera. Close it there, then start again."
  },
  camera_denied: {
    title: "The camera was refused",
    hint: "Allow the camera for this page in the browser's address bar, then start again."
  },
  camera_missing: {
    title: "No camera was found",
    hint: "Connect a camera, or choose a screen, a video file or the sample scene instead."
  },
  camera_unsuitable: {
    title: "The camera cannot do this",
    hint: "The camera offers no picture of the wanted size or rate. Choose another camera."
  },
  file_unplayable: {
    title: "This file cannot be played",
    hint: "The browser does not know its format. Choose an MP4 (H.264) or WebM (VP8, VP9) file."
  },
  insecure_context: {
    title: "This page is not secure",
    hint: "Browsers give cameras and screens only to pages opened over https:// or on localhost."
  },
  media_lost: {
    title: "The video connection was lost",
    hint: "The network may have changed. Connecting again.",
    retry: !0
  },
  not_connected: { title: "Not connected", hint: "There is no session to change. Connect first." },
  screen_denied: {
    title: "Sharing the screen was refused",
    hint: "Start again and choose a screen, window or tab to share."
  },
  server_unreachable: {
    title: "The server does not answer",
    hint: "Check that Saccade runs at this address and that no proxy blocks WebSockets.",
    retry: !0
  },
  session_ended: { title: "The session has ended", hint: "The server ended it. Start again for a new one." },
  source_ended: {
    title: "The source ended",
    hint: "The camera was unplugged or sharing was stopped. Choose a source and start again."
  },
  timeout: { title: "The server took too long", hint: "It accepted the connection but did not answer.", retry: !0 },
  unsupported_browser: {
    title: "This browser cannot do this",
    hint: "It lacks WebRTC or a part of it. Use a current Chrome, Edge, Firefox or Safari."
  },
  wrong_version: {
    title: "Page and server do not match",
    hint: "The server speaks another protocol version. Reload the page; if that does not help, update the client."
  },
  bad_request: { title: "The server did not understand", hint: "Reload the page, then start again." },
  bad_sdp: {
    title: "The video offer was not understood",
    hint: "The server could not read the browser's offer. Try another browser, and report this one."
  },
  no_common_codec: {
    title: "No common video codec",
    hint: "Browser and server share no codec under this choice. Set the codec to automatic."
  },
  no_video: { title: "No video was offered", hint: "The chosen source has no picture. Choose another one." },
  unknown_model: { title: "Unknown model", hint: "The server has no model of this name. Choose one of its list." },
  bad_options: { title: "The server refused this setting", hint: "It keeps the settings it had." },
  unauthorized: { title: "Signing in is needed", hint: "The token is missing, wrong or expired. Get a new one." },
  forbidden: { title: "This is not allowed", hint: "The token does not allow this. Ask for one that does." },
  capacity: { title: "The server is full", hint: "Every place is taken. Trying again shortly.", retry: !0 },
  rate_limited: { title: "Too many requests", hint: "Wait a moment. Trying again shortly.", retry: !0 },
  ice_timeout: {
    title: "No way through the network",
    hint: "The video could not reach the server. A firewall or VPN may block UDP: open the server's media port (UDP 8189 by default), or set up a TURN server.",
    retry: !0
  },
  dtls_failed: { title: "The secure channel failed", hint: "The encrypted video channel could not be set up.", retry: !0 },
  decode_failed: {
    title: "The server cannot decode the video",
    hint: "Choose another codec and start again.",
    retry: !0
  },
  model_failed: {
    title: "The model failed",
    hint: "The server could not run the model. Choose another, or ask its operator.",
    retry: !0
  },
  not_found: { title: "The session is gone", hint: "The server no longer knows it. A new one is made.", retry: !0 },
  conflict: { title: "The session is in another state", hint: "Start again for a new session.", retry: !0 },
  precondition_failed: { title: "The session has changed", hint: "Start again for a new session." },
  precondition_required: { title: "The request was incomplete", hint: "Start again for a new session." },
  too_large: { title: "The message is too large", hint: "The browser's offer is over the server's limit." },
  unsupported_type: { title: "The server does not take this", hint: "This kind of content is not taken here." },
  draining: { title: "The server is shutting down", hint: "Connecting again when it is back.", retry: !0 },
  internal: { title: "The server has a fault", hint: "Trying again. If it stays, its log says more.", retry: !0 }
}, SaccadeError = class _SaccadeError extends Error {
  name = "SaccadeError";
  /** Stable code. A newer server may send one that this list does not have. */
  code;
  /** What happened, in a few words. */
  title;
  /** What to do about it, in a sentence. */
  hint;
  /** The server's own sentence, or a technical detail. */
  detail;
  /** Whether the session is over. */
  fatal;
  /** When the server wants to be asked again, in milliseconds. */
  retryAfterMs;
  constructor(code, { detail, fatal = !0, retryAfterMs, cause } = {}) {
    let { title, hint } = wording(code);
    super(detail ? `${title}: ${detail}` : title, { cause }), this.code = code, this.title = title, this.hint = hint, this.detail = detail ?? null, this.fatal = fatal, this.retryAfterMs = retryAfterMs ?? null;
  }
  /** Whether trying again with nothing changed may help. */
  get retryable() {
    return wording(this.code).retry === !0;
  }
  /** The same error, with `fatal` as given. */
  withFatal(fatal) {
    return fatal === this.fatal ? this : new _SaccadeError(this.code, {
      detail: this.detail ?? void 0,
      fatal,
      retryAfterMs: this.retryAfterMs ?? void 0,
      cause: this.cause
    });
  }
};
function errorOfCloseCode(code, reason) {
  let detail = reason || void 0;
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
function errorOfCapture(cause, kind) {
  if (cause instanceof SaccadeError) return cause;
  let name = typeof cause == "object" && cause !== null && "name" in cause ? String(cause.name) : "", detail = cause instanceof Error && cause.message ? cause.message : void 0, code = (() => {
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
function wording(code) {
  return Object.hasOwn(WORDINGS, code) ? WORDINGS[code] : { title: "Something went wrong", hint: "Start again." };
}

// sdk/backoff.ts
var DEFAULT_RECONNECT = { baseMs: 500, maxMs: 15e3, maxAttempts: 10, stableMs: 5e3 }, Backoff = class {
  constructor(policy, random) {
    this.policy = policy;
    this.random = random;
  }
  policy;
  random;
  #attempt = 0;
  /** Attempts since the last {@link reset}. */
  get attempt() {
    return this.#attempt;
  }
  /**
   * Delay before the next attempt in milliseconds, or `null` when no attempt is left.
   *
   * @param atLeastMs what the server asked for; jitter of up to a quarter is added on top, never taken off.
   */
  next(atLeastMs = 0) {
    if (this.#attempt >= this.policy.maxAttempts) return null;
    let full = Math.min(this.policy.maxMs, this.policy.baseMs * 2 ** this.#attempt);
    this.#attempt += 1;
    let own = full * (0.5 + 0.5 * this.random());
    return Math.round(Math.max(own, atLeastMs * (1 + 0.25 * this.random())));
  }
  /** Starts the count anew. */
  reset() {
    this.#attempt = 0;
  }
};

// sdk/environment.ts
function browserEnvironment() {
  return {
    createSocket: (url, protocol) => new WebSocket(url, protocol),
    createPeer: (configuration) => new RTCPeerConnection(configuration),
    now: () => performance.now(),
    setTimer: (action, ms) => setTimeout(action, ms),
    clearTimer: (timer) => clearTimeout(timer),
    random: () => Math.random(),
    onNetworkChange(action) {
      let connection = navigator.connection, type = connection?.type, changed = () => {
        connection?.type !== type && (type = connection?.type, action());
      };
      return window.addEventListener("online", action), connection?.addEventListener("change", changed), () => {
        window.removeEventListener("online", action), connection?.removeEventListener("change", changed);
      };
    }
  };
}

// sdk/bounded.ts
var BoundedMap = class {
  /** @param capacity entries kept at most, 1 or more. */
  constructor(capacity) {
    this.capacity = capacity;
    if (!(capacity >= 1)) throw new RangeError("capacity must be 1 or more");
  }
  capacity;
  #entries = /* @__PURE__ */ new Map();
  /** Entries held. */
  get size() {
    return this.#entries.size;
  }
  get(key) {
    return this.#entries.get(key);
  }
  has(key) {
    return this.#entries.has(key);
  }
  /** Keeps `value` under `key` and returns the entry that had to go for it, if any. */
  set(key, value) {
    if (this.#entries.delete(key), this.#entries.set(key, value), this.#entries.size <= this.capacity) return null;
    let oldest = this.#entries.entries().next();
    return oldest.done ? null : (this.#entries.delete(oldest.value[0]), oldest.value);
  }
  delete(key) {
    return this.#entries.delete(key);
  }
  clear() {
    this.#entries.clear();
  }
  /** Entries from oldest to newest. */
  entries() {
    return this.#entries.entries();
  }
  /** Values from oldest to newest. */
  values() {
    return this.#entries.values();
  }
};

// sdk/joiner.ts
var KEPT = 240, Joiner = class {
  /** @param onJoin called once for each frame that met its result. */
  constructor(onJoin) {
    this.onJoin = onJoin;
  }
  onJoin;
  #results = new BoundedMap(KEPT);
  #frames = new BoundedMap(KEPT);
  #joined = 0;
  /** Frames that met their result so far. */
  get joined() {
    return this.#joined;
  }
  /** Takes a result; one without a returned frame is not kept. */
  result(result) {
    let timestamp = result.rtp_timestamp_out;
    if (timestamp === null) return;
    let known = this.#results.has(timestamp);
    this.#results.set(timestamp, result);
    let frame = this.#frames.get(timestamp);
    frame && !known && this.#join(frame, result);
  }
  /** Takes a frame just shown and returns its result, if that came already. */
  frame(frame) {
    let known = this.#frames.has(frame.rtpTimestamp);
    this.#frames.set(frame.rtpTimestamp, frame);
    let result = this.#results.get(frame.rtpTimestamp) ?? null;
    return result && !known && this.#join(frame, result), result;
  }
  /** The result of the frame with this RTP timestamp, if it came and is still kept. */
  resultForFrame(rtpTimestamp) {
    return this.#results.get(rtpTimestamp) ?? null;
  }
  /** Forgets all; another session's timestamps mean other frames. */
  clear() {
    this.#results.clear(), this.#frames.clear();
  }
  #join(frame, result) {
    this.#joined += 1, this.onJoin(frame, result);
  }
};

// sdk/peer.ts
var MAX_EARLY_CANDIDATES = 64, Peer = class {
  #connection;
  #sender;
  #handlers;
  #control = null;
  #worker = null;
  #early = [];
  #awaitingAnswer = !1;
  constructor(environment, config, handlers) {
    this.#handlers = handlers;
    let connection = environment.createPeer({ iceServers: config.iceServers, bundlePolicy: "max-bundle" });
    this.#connection = connection, connection.onicecandidate = ({ candidate }) => {
      candidate?.candidate !== "" && this.#handlers?.onCandidate(candidate ? candidate.toJSON() : null);
    }, connection.onconnectionstatechange = () => this.#handlers?.onConnectionState(connection.connectionState), connection.ontrack = ({ track: track2 }) => {
      track2.kind === "video" && this.#handlers?.onTrack(track2);
    }, connection.ondatachannel = ({ channel }) => this.#listen(channel);
    let track = config.stream.getVideoTracks()[0];
    if (!track) throw new SaccadeError("no_video");
    let transceiver = connection.addTransceiver(track, {
      direction: config.receiveVideo ? "sendrecv" : "sendonly",
      streams: [config.stream],
      ...config.maxBitrateKbps && { sendEncodings: [{ maxBitrate: config.maxBitrateKbps * 1e3 }] }
    });
    this.#sender = transceiver.sender, preferCodec(transceiver, config.codec), this.#listen(connection.createDataChannel("results", { ordered: !1, maxRetransmits: 0 })), config.eventsChannel && this.#listen(connection.createDataChannel("events")), config.controlChannel && (this.#control = connection.createDataChannel("control"), this.#listen(this.#control));
  }
  /** State of the connection as a whole. */
  get state() {
    return this.#connection.connectionState;
  }
  /** Whether an offer waits for its answer. */
  get awaitingAnswer() {
    return this.#awaitingAnswer;
  }
  /** Servers for candidates that are gathered from the next restart on. */
  setIceServers(iceServers) {
    this.#connection.setConfiguration({ ...this.#connection.getConfiguration(), iceServers });
  }
  /** Makes an offer and returns its SDP; `restart` asks for new ICE credentials. */
  async offer(restart) {
    this.#awaitingAnswer = !0;
    let offer = await this.#connection.createOffer({ iceRestart: restart });
    return await this.#connection.setLocalDescription(offer), this.#connection.localDescription?.sdp ?? offer.sdp ?? "";
  }
  /** Takes back an offer that will get no answer. */
  async rollback() {
    this.#connection.signalingState === "have-local-offer" && await this.#connection.setLocalDescription({ type: "rollback" }), this.#awaitingAnswer = !1;
  }
  /** Takes the answer, then the candidates that came before it. */
  async answer(sdp) {
    await this.#connection.setRemoteDescription({ type: "answer", sdp }), this.#awaitingAnswer = !1;
    let early = this.#early;
    this.#early = [];
    for (let candidate of early) await this.#add(candidate);
  }
  /** Takes a remote candidate; before its answer it is kept, up to a bound. */
  async candidate(candidate) {
    if (!this.#awaitingAnswer) return this.#add(candidate);
    this.#early.length < MAX_EARLY_CANDIDATES && this.#early.push(candidate);
  }
  /** Sends `text` on the `control` channel and returns whether that was possible. */
  control(text2) {
    return this.#control?.readyState !== "open" ? !1 : (this.#control.send(text2), !0);
  }
  /** Puts another track in the place of the one being sent. */
  async replace(track) {
    await this.#sender.replaceTrack(track);
  }
  /**
   * Starts to tell of encoded frames, through a sender-side transform; does nothing where the browser has none or does
   * not let the worker load.
   *
   * @param workerUrl address of `saccade-worker.js`, of the page's own origin.
   * @param timeOrigin `performance.timeOrigin` of the page.
   */
  watchEncoded(workerUrl, timeOrigin) {
    if (!(typeof RTCRtpScriptTransform > "u"))
      try {
        let worker = new Worker(workerUrl);
        worker.onmessage = ({ data }) => this.#handlers?.onSighting(data.rtpTimestamp, data.seenAt - timeOrigin), worker.onerror = (event) => {
          event.preventDefault(), this.unwatchEncoded();
        }, this.#sender.transform = new RTCRtpScriptTransform(worker), this.#worker = worker;
      } catch {
      }
  }
  /** Ends {@link watchEncoded}. */
  unwatchEncoded() {
    this.#worker && (this.#sender.transform = null, this.#worker.terminate(), this.#worker = null);
  }
  /** The browser's own statistics. */
  stats() {
    return this.#connection.getStats();
  }
  /** Closes everything; nothing more is told. */
  close() {
    this.#handlers = null, this.#connection.onicecandidate = null, this.#connection.onconnectionstatechange = null, this.#connection.ontrack = null, this.#connection.ondatachannel = null, this.#connection.close(), this.#worker?.terminate(), this.#worker = null, this.#early = [];
  }
  async #add(candidate) {
    if (candidate?.candidate)
      try {
        await this.#connection.addIceCandidate(candidate);
      } catch {
      }
  }
  #listen(channel) {
    let { label: label2 } = channel;
    label2 !== "results" && label2 !== "events" && label2 !== "control" || (channel.onmessage = ({ data }) => {
      typeof data == "string" && this.#handlers?.onText(label2, data);
    });
  }
};
function preferCodec(transceiver, choice) {
  if (choice === "auto" || typeof transceiver.setCodecPreferences != "function") return;
  let known = RTCRtpReceiver.getCapabilities("video")?.codecs ?? [], wanted = known.filter(({ mimeType }) => mimeType.toLowerCase() === `video/${choice}`), helpers = known.filter(({ mimeType }) => /\/(rtx|red|ulpfec|flexfec-03)$/i.test(mimeType));
  if (wanted.length === 0)
    throw new SaccadeError("no_common_codec", { detail: `this browser has no ${choice.toUpperCase()}` });
  transceiver.setCodecPreferences([...wanted, ...helpers]);
}

// sdk/meters.ts
var Rate = class {
  /** @param windowMs length of the window, in milliseconds. */
  constructor(windowMs = 2e3) {
    this.windowMs = windowMs;
  }
  windowMs;
  #times = [];
  /** Counts one event at `now`. */
  add(now) {
    this.#times.push(now), this.#forget(now);
  }
  /** Events a second as of `now`. */
  perSecond(now) {
    return this.#forget(now), this.#times.length * 1e3 / this.windowMs;
  }
  #forget(now) {
    let old = 0;
    for (; old < this.#times.length && now - (this.#times[old] ?? now) >= this.windowMs; ) old += 1;
    old > 0 && this.#times.splice(0, old);
  }
}, Samples = class {
  /** @param capacity samples kept, newest first. */
  constructor(capacity = 120) {
    this.capacity = capacity;
  }
  capacity;
  #values = [];
  #next = 0;
  add(value) {
    this.#values[this.#next] = value, this.#next = (this.#next + 1) % this.capacity;
  }
  /** Samples held. */
  get size() {
    return this.#values.length;
  }
  /** The `p`-th percentile (nearest rank), `p` in 0..100, or `null` while there is no sample. */
  percentile(p) {
    if (this.#values.length === 0) return null;
    let sorted = [...this.#values].sort((a, b) => a - b), rank = Math.ceil(p / 100 * sorted.length);
    return sorted[Math.min(sorted.length, Math.max(1, rank)) - 1] ?? null;
  }
  /** The mean, 0 while there is no sample. */
  mean() {
    return this.#values.reduce((sum, value) => sum + value, 0) / Math.max(1, this.#values.length);
  }
  clear() {
    this.#values.length = 0, this.#next = 0;
  }
};

// sdk/overlay.ts
var PALETTE = ["#eb5e14", "#56bef0", "#f0e442", "#00a87d", "#d682b0", "#2878cd", "#f2a50a", "#e1e1e6"];
function classColor(classId) {
  return PALETTE[(classId % PALETTE.length + PALETTE.length) % PALETTE.length] ?? "#ffffff";
}
var TINT = 0.42, LINES = 8;
function drawResult(context, result, options2 = {}) {
  let { boxes = !0, labels = !0, opacity = 1 } = options2, { segments = [], classes = [] } = result;
  boxes && segments.length > 0 && drawSegments(context, segments, result, opacity), drawDetections(context, result.detections, result, options2), labels && drawList(context, [...classes.map(lineOfLabel), ...segments.map(lineOfSegment)], opacity);
}
function lineOfLabel({ class: name, class_id, score }) {
  return [`${name} ${score.toFixed(2)}`, class_id];
}
function lineOfSegment({ class: name, class_id, area_ratio }) {
  return [`${name} ${Math.round(area_ratio * 100)} %`, class_id];
}
function drawSegments(context, segments, size, opacity) {
  let scaleX = context.canvas.width / Math.max(1, size.width), scaleY = context.canvas.height / Math.max(1, size.height);
  context.save();
  for (let { class_id, polygons = [] } of segments) {
    let path = new Path2D();
    for (let ring of polygons) {
      let outline = pathOf(ring.map(([x, y]) => [x * scaleX, y * scaleY]));
      outline.closePath(), path.addPath(outline);
    }
    context.globalAlpha = opacity * TINT, context.fillStyle = classColor(class_id), context.fill(path, "evenodd"), context.globalAlpha = opacity, context.strokeStyle = classColor(class_id), context.lineWidth = Math.max(1, Math.round(Math.min(context.canvas.width, context.canvas.height) / 320)), context.stroke(path);
  }
  context.restore();
}
function drawList(context, lines, opacity) {
  let { width, height } = context.canvas, text2 = Math.max(11, Math.round(Math.min(width, height) / 32));
  context.save(), context.globalAlpha = opacity, context.textBaseline = "middle", context.font = `600 ${text2}px system-ui, sans-serif`;
  for (let [index, [line2, classId]] of lines.slice(0, LINES).entries())
    drawLabel(context, line2, text2 / 2, text2 / 2 + (index + 1) * 1.7 * text2, text2, classColor(classId));
  context.restore();
}
function drawDetections(context, detections, size, { boxes = !0, labels = !0, opacity = 1 } = {}) {
  let { width, height } = context.canvas, scaleX = width / Math.max(1, size.width), scaleY = height / Math.max(1, size.height), stroke = Math.max(2, Math.round(Math.min(width, height) / 220)), text2 = Math.max(11, Math.round(Math.min(width, height) / 32));
  context.save(), context.globalAlpha = opacity, context.lineJoin = "round", context.textBaseline = "middle", context.font = `600 ${text2}px system-ui, sans-serif`;
  for (let detection2 of [...detections].reverse()) {
    let [x1, y1, x2, y2] = detection2.box, left = x1 * scaleX, top = y1 * scaleY, color = classColor(detection2.class_id);
    if (boxes) {
      context.lineWidth = stroke + 2, context.strokeStyle = "rgba(0, 0, 0, 0.55)", context.strokeRect(left, top, (x2 - x1) * scaleX, (y2 - y1) * scaleY), context.lineWidth = stroke, context.strokeStyle = color, context.strokeRect(left, top, (x2 - x1) * scaleX, (y2 - y1) * scaleY);
      for (let [x, y] of detection2.keypoints ?? []) drawDot(context, x * scaleX, y * scaleY, stroke + 1, color);
    }
    labels && drawLabel(context, labelOf(detection2), left - stroke / 2, top, text2, color);
  }
  context.restore();
}
function drawDot(context, x, y, radius, color) {
  context.beginPath(), context.arc(x, y, radius + 1, 0, 2 * Math.PI), context.fillStyle = "rgba(0, 0, 0, 0.6)", context.fill(), context.beginPath(), context.arc(x, y, radius, 0, 2 * Math.PI), context.fillStyle = color, context.fill();
}
function labelOf({ class: name, score, object_id }) {
  let id = object_id === null ? "" : ` #${object_id}`;
  return `${name} ${score.toFixed(2)}${id}`;
}
var SHAPE_COLORS = { zone: "#3fd0bc", line: "#f5c063" };
function drawShapes(context, { zones, lines }) {
  let { width, height } = context.canvas, stroke = Math.max(2, Math.round(Math.min(width, height) / 240)), text2 = Math.max(11, Math.round(Math.min(width, height) / 34)), at = ([x, y]) => [x * width, y * height], draw = (path, color) => {
    context.lineWidth = stroke + 2, context.strokeStyle = "rgba(0, 0, 0, 0.55)", context.stroke(path), context.lineWidth = stroke, context.strokeStyle = color, context.stroke(path);
  };
  context.save(), context.lineJoin = "round", context.lineCap = "round", context.textBaseline = "middle", context.font = `600 ${text2}px system-ui, sans-serif`;
  for (let { name, polygon } of zones) {
    let corners = polygon.map(at), [first] = corners;
    if (!first) continue;
    let path = pathOf(corners);
    path.closePath(), context.fillStyle = "rgba(63, 208, 188, 0.12)", context.fill(path), draw(path, SHAPE_COLORS.zone);
    let top = corners.reduce((highest, corner) => corner[1] < highest[1] ? corner : highest, first);
    drawLabel(context, name, ...top, text2, SHAPE_COLORS.zone);
  }
  for (let { name, points } of lines) {
    let ends = [at(points[0]), at(points[1])];
    draw(pathOf(ends), SHAPE_COLORS.line), draw(pathOf(arrowOf(ends, 7 * stroke)), SHAPE_COLORS.line), drawLabel(context, name, ...ends[0], text2, SHAPE_COLORS.line);
  }
  context.restore();
}
function arrowOf([[x1, y1], [x2, y2]], length) {
  let whole = Math.hypot(x2 - x1, y2 - y1) || 1, along = [(x2 - x1) / whole, (y2 - y1) / whole], right = [-along[1], along[0]], middle = [(x1 + x2) / 2, (y1 + y2) / 2], point2 = (rightwards, forwards) => [
    middle[0] + rightwards * right[0] + forwards * along[0],
    middle[1] + rightwards * right[1] + forwards * along[1]
  ], tip = point2(length, 0), back = 0.6 * length, wing = 0.4 * length;
  return [middle, tip, point2(back, wing), tip, point2(back, -wing)];
}
function pathOf(points) {
  let path = new Path2D();
  for (let [x, y] of points) path.lineTo(x, y);
  return path;
}
function drawLabel(context, label2, left, boxTop, text2, color) {
  let padding = Math.round(text2 * 0.35), width = Math.ceil(context.measureText(label2).width) + 2 * padding, height = text2 + 2 * Math.round(padding * 0.7), x = Math.max(0, Math.min(left, context.canvas.width - width)), y = boxTop - height >= 0 ? boxTop - height : boxTop;
  context.fillStyle = color, context.fillRect(x, y, width, height), context.fillStyle = "#0b0d10", context.fillText(label2, x + padding, y + height / 2 + 1);
}

// sdk/preview.ts
var MAX_DELAY_MS = 1e3, MAX_BYTES = 64 * 1024 * 1024, HOLD_MS = 1e3, DELAY_PERCENTILE = 90, LocalPreview = class {
  constructor(canvas, clock, onShown) {
    this.canvas = canvas;
    this.clock = clock;
    this.onShown = onShown;
    this.#context = canvas.getContext("2d");
  }
  canvas;
  clock;
  onShown;
  #context;
  #held = [];
  #spare = [];
  #waits = new Samples(60);
  #placed = [];
  #shownAt = -1 / 0;
  #drawing = {};
  #shapes = null;
  /** Current delay of the picture in milliseconds. */
  get delayMs() {
    return Math.min(MAX_DELAY_MS, this.#waits.percentile(DELAY_PERCENTILE) ?? 0);
  }
  /** What is drawn over the picture. */
  set drawing(options2) {
    this.#drawing = options2;
  }
  /** Zones and lines to draw, or `null`. */
  set shapes(shapes) {
    this.#shapes = shapes;
  }
  /** Takes a frame that `video` shows now, and draws the frame whose time has come. */
  frame(video, frame, now) {
    let { videoWidth: width, videoHeight: height } = video;
    if (width === 0 || height === 0) return;
    let picture = this.#spare.pop() ?? document.createElement("canvas");
    picture.width !== width && (picture.width = width), picture.height !== height && (picture.height = height), picture.getContext("2d", { alpha: !1 })?.drawImage(video, 0, 0, width, height), this.#held.push({ frame, picture });
    let capacity = Math.max(2, Math.floor(MAX_BYTES / (width * height * 4)));
    for (; this.#held.length > capacity; ) this.#release(this.#held.shift());
    this.#show(now);
  }
  /** Takes a result that came at `now`. */
  result(result, now) {
    let capturedAt = this.clock.capturedAt(result.rtp_timestamp_in) ?? now - result.timing_ms.total;
    this.#waits.add(Math.max(0, now - capturedAt)), this.#placed.push({ result, capturedAt }), this.#placed.sort((a, b) => a.capturedAt - b.capturedAt), this.#placed = this.#placed.filter((placed) => now - placed.capturedAt < MAX_DELAY_MS + HOLD_MS).slice(-90), this.#show(now);
  }
  /** Forgets frames and results and clears the canvas. */
  clear() {
    for (let held of this.#held.splice(0)) this.#release(held);
    this.#spare.length = 0, this.#placed = [], this.#waits.clear(), this.#shownAt = -1 / 0, this.#context?.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }
  #show(now) {
    let due = now - this.delayMs, next;
    for (; this.#held[0] && this.#held[0].frame.capturedAt <= due; )
      this.#release(next), next = this.#held.shift();
    if (!next || next.frame.capturedAt <= this.#shownAt) return this.#release(next);
    this.#shownAt = next.frame.capturedAt, this.#draw(next), this.#release(next);
  }
  #draw({ frame, picture }) {
    let context = this.#context;
    if (!context) return;
    this.canvas.width !== picture.width && (this.canvas.width = picture.width), this.canvas.height !== picture.height && (this.canvas.height = picture.height), context.drawImage(picture, 0, 0);
    let { result, exact } = this.#resultFor(frame);
    this.#shapes && drawShapes(context, this.#shapes), result && drawResult(context, result, this.#drawing), this.onShown({ frame, result, exact });
  }
  #resultFor(frame) {
    let before = null;
    for (let placed of this.#placed) {
      if (this.clock.frameOf(placed.result.rtp_timestamp_in)?.mediaTime === frame.mediaTime) return { result: placed.result, exact: !0 };
      placed.capturedAt <= frame.capturedAt + 1 && (before = placed);
    }
    return { result: before && frame.capturedAt - before.capturedAt < HOLD_MS ? before.result : null, exact: !1 };
  }
  #release(held) {
    held && this.#spare.length < 4 && this.#spare.push(held.picture);
  }
};

// sdk/signaling.ts
var Signaling = class {
  #socket;
  #handlers;
  constructor(environment, url, handlers) {
    this.#handlers = handlers, this.#socket = environment.createSocket(url, SUBPROTOCOL), this.#socket.onopen = () => this.#handlers?.onOpen(), this.#socket.onmessage = ({ data }) => this.#read(data), this.#socket.onclose = ({ code, reason }) => {
      let told = this.#handlers;
      this.#handlers = null, told?.onClosed(code, reason);
    };
  }
  /** Whether a message can be sent. */
  get open() {
    return this.#handlers !== null && this.#socket.readyState === 1;
  }
  /** Sends `message` and returns true, or returns false when the socket is not open or the message is too large. */
  send(message) {
    if (!this.open) return !1;
    let text2 = JSON.stringify(message);
    return new TextEncoder().encode(text2).length > MAX_MESSAGE_BYTES ? !1 : (this.#socket.send(text2), !0);
  }
  /** Closes the socket; `farewell` says `bye` first, which ends the session. */
  close(farewell = null) {
    farewell && this.send(farewell), this.#handlers = null, this.#socket.close(1e3);
  }
  #read(data) {
    if (typeof data == "string")
      try {
        let message = parseServerMessage(data);
        message && this.#handlers?.onMessage(message);
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
        this.#handlers?.onMalformed(error);
      }
  }
};

// sdk/source-clock.ts
var TICKS = 90, WRAP = 2 ** 32, KEPT2 = 120, SAME_FRAME_TICKS = 2 * TICKS, SEARCHED_MS = 200, AGREED = 0.3, NEARLY = 0.85, EVERY = 15, CLOCK_SLACK_MS = 2, ENOUGH = 8, SourceClock = class {
  #frames = new BoundedMap(KEPT2);
  #sightings = new BoundedMap(KEPT2);
  #base = null;
  #tightest = 1 / 0;
  #offset = null;
  #sinceJudged = 0;
  /** Whether RTP timestamps can be mapped yet. */
  get ready() {
    return this.#offset !== null;
  }
  /** Takes a frame of the local source. */
  frame(frame) {
    this.#frames.set(frame.mediaTime, frame);
  }
  /** Takes an encoded frame: its RTP timestamp and when it was seen, on the clock of `performance.now()`. */
  sighting(rtpTimestamp, seenAt) {
    this.#base ??= rtpTimestamp, this.#sightings.set(rtpTimestamp, seenAt), this.#tightest = Math.min(this.#tightest, seenAt - this.#sinceBase(rtpTimestamp) / TICKS), this.#sinceJudged += 1, this.#sightings.size >= ENOUGH && (this.#offset === null || this.#sinceJudged >= EVERY) && this.#judge();
  }
  /** The local frame that has this RTP timestamp, or `null` when it is unknown or no longer kept. */
  frameOf(rtpTimestamp) {
    if (this.#offset === null) return null;
    let wanted = this.#sinceBase(rtpTimestamp) - this.#offset;
    for (let frame of this.#frames.values())
      if (Math.abs(ticks(frame) - wanted) <= SAME_FRAME_TICKS) return frame;
    return null;
  }
  /** When the frame with this RTP timestamp was captured, on the clock of `performance.now()`; `null` if unknown. */
  capturedAt(rtpTimestamp) {
    let exact = this.frameOf(rtpTimestamp);
    if (exact) return exact.capturedAt;
    let last = [...this.#frames.values()].at(-1);
    return this.#offset === null || !last ? null : last.capturedAt + (this.#sinceBase(rtpTimestamp) - this.#offset - ticks(last)) / TICKS;
  }
  /** Forgets the constant; a new sender starts at another RTP timestamp. */
  reset() {
    this.#sightings.clear(), this.#base = null, this.#tightest = 1 / 0, this.#offset = null;
  }
  #judge() {
    this.#sinceJudged = 0;
    let frames = [...this.#frames.values()], differences = [];
    for (let [rtpTimestamp] of this.#sightings.entries()) {
      let since = this.#sinceBase(rtpTimestamp), latest = since / TICKS + this.#tightest + CLOCK_SLACK_MS;
      for (let frame of frames)
        frame.capturedAt <= latest && frame.capturedAt > latest - SEARCHED_MS && differences.push(since - ticks(frame));
    }
    let agreed = smallestAgreed(differences, Math.max(ENOUGH / 2, this.#sightings.size * AGREED));
    agreed !== null && (this.#offset = agreed);
  }
  /** Ticks from the first sighting, signed, so that the wrap at 2^32 does not matter. */
  #sinceBase(rtpTimestamp) {
    let delta = ((rtpTimestamp - (this.#base ?? rtpTimestamp)) % WRAP + WRAP) % WRAP;
    return delta >= WRAP / 2 ? delta - WRAP : delta;
  }
};
function ticks(frame) {
  return frame.mediaTime * 1e3 * TICKS;
}
function smallestAgreed(values, least) {
  let sorted = [...values].sort((a, b) => a - b), groups = [];
  for (let first = 0, last = 0; first < sorted.length; first += 1) {
    for (; last + 1 < sorted.length && (sorted[last + 1] ?? 0) - (sorted[first] ?? 0) <= SAME_FRAME_TICKS; ) last += 1;
    groups.push({ first, count: last - first + 1 });
  }
  let most = groups.reduce((max, { count }) => Math.max(max, count), 0);
  if (most < least) return null;
  let chosen = groups.find(({ count }) => count >= most * NEARLY);
  return chosen ? sorted[chosen.first + Math.floor(chosen.count / 2)] ?? null : null;
}

// sdk/source-watch.ts
var SourceWatch = class {
  constructor(clock) {
    this.clock = clock;
    let possible = typeof document < "u";
    this.#video = possible ? document.createElement("video") : null, this.#video && (this.#video.muted = !0, this.#video.playsInline = !0);
  }
  clock;
  #video;
  #handle = 0;
  /** Called with each frame while `video` shows it. */
  onFrame = null;
  /** Watches `stream` from now on. */
  attach(stream) {
    let video = this.#video;
    if (!video || typeof video.requestVideoFrameCallback != "function") return;
    video.cancelVideoFrameCallback(this.#handle), video.srcObject = stream, video.play().catch(() => {
    });
    let step = (_now, metadata) => {
      this.#handle = video.requestVideoFrameCallback(step);
      let frame = {
        mediaTime: metadata.mediaTime,
        capturedAt: metadata.captureTime ?? metadata.presentationTime
      };
      this.clock.frame(frame), this.onFrame?.(video, frame);
    };
    this.#handle = video.requestVideoFrameCallback(step);
  }
  /** Stops watching and lets the stream go. */
  detach() {
    this.onFrame = null, this.#video && (this.#video.cancelVideoFrameCallback?.(this.#handle), this.#video.srcObject = null);
  }
};

// sdk/stats.ts
var Statistics = class {
  constructor(joiner) {
    this.joiner = joiner;
  }
  joiner;
  #resultRate = new Rate();
  #shownRate = new Rate();
  #stages = Object.fromEntries(STAGES.map((stage) => [stage, new Samples()]));
  #total = new Samples();
  #resultAge = new Samples();
  #shownAge = new Samples();
  #met = new Samples();
  #results = 0;
  #framesShown = 0;
  #dropped = { superseded: 0, late: 0 };
  #degraded = [];
  #transport = null;
  #kbps = { sent: 0, received: 0 };
  /** Counts a result that came at `now`, captured at `capturedAt` where that is known. */
  result(result, now, capturedAt) {
    this.#results += 1, this.#resultRate.add(now);
    for (let stage of STAGES) this.#stages[stage].add(result.timing_ms[stage]);
    this.#total.add(result.timing_ms.total), this.#met.add(result.met ? 1 : 0), capturedAt !== null && this.#resultAge.add(now - capturedAt), this.#dropped = result.dropped, this.#degraded = result.degraded;
  }
  /** Counts a frame put on screen. */
  shown(now) {
    this.#framesShown += 1, this.#shownRate.add(now);
  }
  /** Counts how old a frame was when it was put on screen. */
  age(ms) {
    this.#shownAge.add(ms);
  }
  /** Reads the browser's statistics. */
  transport(report, at) {
    let next = {
      fpsSent: 0,
      rttMs: null,
      codec: null,
      sentSize: null,
      bytesSent: 0,
      bytesReceived: 0,
      at
    }, codecs = /* @__PURE__ */ new Map(), codecId;
    report.forEach((entry) => {
      if (entry.type === "codec" && codecs.set(entry.id, text(entry.mimeType).replace(/^video\//i, "")), entry.type === "outbound-rtp") {
        next.fpsSent = number(entry.framesPerSecond) ?? 0, next.bytesSent = number(entry.bytesSent) ?? 0, codecId = text(entry.codecId);
        let width = number(entry.frameWidth), height = number(entry.frameHeight);
        width && height && (next.sentSize = { width, height });
      }
      if (entry.type === "inbound-rtp" && (next.bytesReceived = number(entry.bytesReceived) ?? 0), entry.type === "candidate-pair" && (entry.nominated === !0 || entry.selected === !0)) {
        let seconds = number(entry.currentRoundTripTime);
        seconds !== null && (next.rttMs = seconds * 1e3);
      }
    }), next.codec = codecId && codecs.get(codecId) || null;
    let last = this.#transport;
    if (last && at > last.at) {
      let kbps = (now, before) => Math.max(0, (now - before) * 8 / (at - last.at));
      this.#kbps = {
        sent: kbps(next.bytesSent, last.bytesSent),
        received: kbps(next.bytesReceived, last.bytesReceived)
      };
    }
    this.#transport = next;
  }
  /** Everything as of `now`. */
  snapshot(now) {
    return {
      fpsSent: this.#transport?.fpsSent ?? 0,
      fpsShown: this.#shownRate.perSecond(now),
      resultsPerSecond: this.#resultRate.perSecond(now),
      results: this.#results,
      framesShown: this.#framesShown,
      joined: this.joiner.joined,
      stages: Object.fromEntries(
        STAGES.map((stage) => [stage, this.#stages[stage].percentile(50) ?? 0])
      ),
      total: spread(this.#total),
      resultAge: spread(this.#resultAge),
      shownAge: spread(this.#shownAge),
      met: mean(this.#met),
      dropped: this.#dropped,
      degraded: this.#degraded,
      rttMs: this.#transport?.rttMs ?? null,
      codec: this.#transport?.codec ?? null,
      sentSize: this.#transport?.sentSize ?? null,
      kbpsSent: this.#kbps.sent,
      kbpsReceived: this.#kbps.received
    };
  }
};
function spread(samples) {
  let p50 = samples.percentile(50), p95 = samples.percentile(95);
  return p50 === null || p95 === null ? null : { p50, p95 };
}
function mean(samples) {
  return samples.size === 0 ? null : samples.mean();
}
function number(value) {
  return typeof value == "number" ? value : null;
}
function text(value) {
  return typeof value == "string" ? value : "";
}

// sdk/session.ts
var WELCOME_MS = 1e4, ANSWER_MS = 1e4, RESTART_ANSWER_MS = 2e3, EARLIEST_EXPIRY_S = 1e9, CREDENTIALS_MARGIN_MS = 5e3, MEDIA_MS = 12e3, HEAL_MS = 2e3, CONFIGURE_MS = 1e4, MAX_RESTARTS = 2, STATS_MS = 1e3, SaccadeSession = class {
  #config;
  #environment;
  #backoff;
  #policy;
  #timers = /* @__PURE__ */ new Map();
  #joiner;
  #statistics;
  #clock = new SourceClock();
  #watch;
  #preview;
  #changes = [];
  #started;
  #stream;
  #wanted;
  #options = null;
  #welcome = null;
  #signaling = null;
  #peer = null;
  #sessionId = null;
  #returned = null;
  #state = "connecting";
  #greeted = !1;
  #sighted = !1;
  #resuming = !1;
  #offerAgain = !1;
  #restarts = 0;
  #restartWanted = !1;
  #lost = null;
  #localCandidates = null;
  #stopNetworkWatch = null;
  #unwatchVideo = null;
  /** Prepares a session; {@link start} connects it. */
  constructor(config, environment = browserEnvironment()) {
    this.#config = config, this.#environment = environment, this.#stream = config.stream, this.#wanted = config.options ?? {}, this.#policy = { ...DEFAULT_RECONNECT, ...config.reconnect || {} }, config.reconnect === !1 && (this.#policy.maxAttempts = 0), this.#backoff = new Backoff(this.#policy, () => environment.random()), this.#joiner = new Joiner((frame, result) => {
      let capturedAt = this.#clock.capturedAt(result.rtp_timestamp_in);
      capturedAt !== null && this.#statistics.age(frame.shownAt - capturedAt), config.onJoin?.(frame, result);
    }), this.#statistics = new Statistics(this.#joiner), this.#preview = config.preview ? new LocalPreview(config.preview, this.#clock, (shown) => config.onPreview?.(shown)) : null, this.#watch = config.preview || config.trackSource ? new SourceWatch(this.#clock) : null;
    let resolve = () => {
    }, reject = (_) => {
    }, promise = new Promise((done, failed) => {
      resolve = done, reject = failed;
    });
    promise.catch(() => {
    }), this.#started = { promise, resolve, reject };
  }
  /** Where the session stands. */
  get state() {
    return this.#state;
  }
  /** Id that the server gave, or `null` before the first answer. */
  get sessionId() {
    return this.#sessionId;
  }
  /** The options in force, or `null` before the first answer. */
  get options() {
    return this.#options;
  }
  /** The server's first message, or `null` before it. */
  get welcome() {
    return this.#welcome;
  }
  /** The returned video, or `null` while there is none. */
  get returned() {
    return this.#returned;
  }
  /** Delay of the preview's picture in milliseconds; 0 without a preview. */
  get previewDelayMs() {
    return this.#preview?.delayMs ?? 0;
  }
  /**
   * Connects; resolves when media flows.
   *
   * @throws {@link SaccadeError} the fatal error that ended the session before that.
   */
  start() {
    if (this.#state === "connecting" && !this.#signaling) {
      if (this.#tellState(null, null), this.#stopNetworkWatch = this.#environment.onNetworkChange(() => this.#onNetworkChange()), this.#watchTrack(this.#stream), this.#preview && this.#watch) {
        let preview = this.#preview;
        this.#watch.onFrame = (video, frame) => {
          this.#options?.return === "results" && preview.frame(video, frame, this.#environment.now());
        };
      }
      this.#watch?.attach(this.#stream), this.#config.video && (this.#unwatchVideo = this.watchVideo(this.#config.video)), this.#openSocket();
    }
    return this.#started.promise;
  }
  /**
   * Changes options while the session runs; resolves with all options now in force. While the socket is away the change
   * waits for it.
   *
   * @throws {@link SaccadeError} `bad_options` or `unknown_model` when the server refuses (the old options stay),
   * `timeout`, or `not_connected`.
   */
  configure(patch) {
    return this.#state === "closed" ? Promise.reject(new SaccadeError("not_connected")) : new Promise((resolve, reject) => {
      let change = { patch, sent: !1, resolve, reject, timer: null };
      change.timer = this.#environment.setTimer(() => {
        this.#changes.splice(this.#changes.indexOf(change), 1), reject(new SaccadeError("timeout", { fatal: !1 }));
      }, CONFIGURE_MS), this.#changes.push(change), this.#sendChanges();
    });
  }
  /** The result of the returned frame with this RTP timestamp, if it came and is still kept (about eight seconds). */
  resultForFrame(rtpTimestamp) {
    return this.#joiner.resultForFrame(rtpTimestamp);
  }
  /**
   * When the frame that `result` belongs to was captured, on the clock of `performance.now()`; `null` while unknown.
   * Needs `trackSource` or `preview`.
   */
  capturedAt(result) {
    return this.#clock.capturedAt(result.rtp_timestamp_in);
  }
  /** Statistics as of now. */
  stats() {
    return this.#statistics.snapshot(this.#environment.now());
  }
  /** What the preview draws over the local picture. */
  setPreviewDrawing(options2) {
    this.#preview && (this.#preview.drawing = options2);
  }
  /** Sends another stream from now on; the session goes on. */
  async setStream(stream) {
    let track = stream.getVideoTracks()[0];
    if (!track) throw new SaccadeError("no_video", { fatal: !1 });
    this.#stream = stream, this.#watchTrack(stream), this.#watch?.attach(stream), this.#clock.reset(), await this.#peer?.replace(track);
  }
  /**
   * Reports each frame that `video` shows to `onFrame` and `onJoin`. The `video` given to `connect` is watched already.
   *
   * @returns a function that ends it.
   */
  watchVideo(video) {
    if (typeof video.requestVideoFrameCallback != "function") return () => {
    };
    let handle = 0, step = (_now, metadata) => {
      if (handle = video.requestVideoFrameCallback(step), metadata.rtpTimestamp === void 0) return;
      let frame = {
        rtpTimestamp: metadata.rtpTimestamp,
        shownAt: metadata.expectedDisplayTime,
        width: metadata.width,
        height: metadata.height
      };
      this.#statistics.shown(this.#environment.now());
      let result = this.#joiner.frame(frame);
      this.#config.onFrame?.(frame, result);
    };
    return handle = video.requestVideoFrameCallback(step), () => video.cancelVideoFrameCallback(handle);
  }
  /** Ends the session and frees everything. Safe to call more than once. */
  close() {
    this.#end(null);
  }
  async #openSocket() {
    this.#stopTimer("retry"), this.#greeted = !1;
    let token;
    try {
      let { token: given } = this.#config;
      token = typeof given == "function" ? await given() : given;
    } catch (cause) {
      return this.#retry(new SaccadeError("unauthorized", { detail: "no token could be had", cause }));
    }
    if (this.#state !== "closed") {
      try {
        this.#signaling = new Signaling(this.#environment, this.#config.url, {
          onOpen: () => {
            token && this.#signaling?.send(build.auth(token));
          },
          onMessage: (message) => this.#onMessage(message),
          onMalformed: (error) => {
            let malformed = new SaccadeError("wrong_version", { detail: error.message, fatal: !this.#greeted });
            this.#greeted ? this.#config.onError?.(malformed) : this.#end(malformed);
          },
          onClosed: (code, reason) => this.#onSocketClosed(code, reason)
        });
      } catch (cause) {
        return this.#end(new SaccadeError("server_unreachable", { detail: "the address is not valid", cause }));
      }
      this.#startTimer("welcome", WELCOME_MS, () => {
        this.#dropSocket(), this.#retry(new SaccadeError("timeout"));
      });
    }
  }
  #onMessage(message) {
    switch (message.type) {
      case "welcome":
        return this.#onWelcome(message);
      case "answer":
        this.#onAnswer(message);
        return;
      case "candidate":
        this.#peer?.candidate(message.candidate);
        return;
      case "configured":
        return this.#onConfigured(message.options);
      case "error":
        return this.#onErrorMessage(message);
      case "draining":
        return this.#onDraining(message.reconnect_after_ms);
      case "closed":
        return this.#onServerClosed(message.reason);
    }
  }
  #onWelcome(welcome) {
    if (this.#stopTimer("welcome"), this.#greeted = !0, this.#welcome = welcome, welcome.protocol !== PROTOCOL_VERSION)
      return this.#end(new SaccadeError("wrong_version", { detail: `the server speaks version ${welcome.protocol}` }));
    this.#config.onWelcome?.(welcome), this.#state !== "closed" && (this.#peer && this.#sessionId ? (this.#resuming = !0, this.#peer.setIceServers(this.#iceServers()), this.#offer(this.#restartWanted || this.#peer.state !== "connected")) : this.#newSession());
  }
  #newSession() {
    this.#dropPeer(), this.#restarts = 0;
    try {
      let config = this.#config, peer = new Peer(
        this.#environment,
        {
          iceServers: this.#iceServers(),
          stream: this.#stream,
          codec: config.codec ?? "auto",
          receiveVideo: config.receiveVideo ?? !0,
          maxBitrateKbps: config.maxBitrateKbps ?? null,
          eventsChannel: config.onEvent !== void 0 || config.onForeignEvent !== void 0,
          controlChannel: config.controlChannel ?? !1
        },
        {
          onCandidate: (candidate) => this.#onLocalCandidate(candidate),
          onConnectionState: (state) => this.#onPeerState(peer, state),
          onTrack: (track) => this.#onReturnedTrack(track),
          onText: (label2, text2) => this.#onText(label2, text2),
          onSighting: (rtpTimestamp, seenAt) => {
            this.#sighted = !0, this.#clock.sighting(rtpTimestamp, seenAt);
          }
        }
      );
      this.#peer = peer, this.#watch && config.workerUrl !== void 0 && peer.watchEncoded(new URL(config.workerUrl), performance.timeOrigin);
    } catch (cause) {
      return this.#end(cause instanceof SaccadeError ? cause : new SaccadeError("unsupported_browser", { cause }));
    }
    this.#offer(!1);
  }
  #iceServers() {
    return [...(this.#welcome?.ice_servers ?? []).map((server) => ({ ...server })), ...this.#config.iceServers ?? []];
  }
  /** Whether a TURN server would refuse what `welcome` brought: user names of that kind begin with the time of their end. */
  #credentialsEnded() {
    return (this.#welcome?.ice_servers ?? []).map(({ username }) => Number(/^(\d+)(:|$)/.exec(username ?? "")?.[1] ?? NaN)).some((end) => end > EARLIEST_EXPIRY_S && end * 1e3 < Date.now() + CREDENTIALS_MARGIN_MS);
  }
  async #offer(restart) {
    let peer = this.#peer;
    if (!peer || !this.#signaling?.open) return;
    if (peer.awaitingAnswer && !this.#resuming) {
      this.#offerAgain = !0;
      return;
    }
    this.#localCandidates = [];
    let resumed = null;
    try {
      peer.awaitingAnswer && await peer.rollback();
      let sdp = await peer.offer(restart);
      if (peer !== this.#peer) return;
      let fresh = this.#sessionId === null;
      resumed = this.#resuming ? this.#sessionId : null;
      let options2 = fresh && Object.keys(this.#wanted).length > 0 ? this.#wanted : void 0;
      if (!this.#signaling?.send(build.offer(sdp, options2, resumed))) {
        this.#signaling?.open && this.#end(new SaccadeError("too_large"));
        return;
      }
    } catch (cause) {
      peer === this.#peer && this.#end(new SaccadeError("unsupported_browser", { detail: String(cause), cause }));
      return;
    }
    let early = this.#localCandidates;
    this.#localCandidates = null;
    for (let candidate of early ?? []) this.#signaling?.send(build.candidate(candidate));
    this.#sessionId === null || this.#policy.maxAttempts === 0 ? this.#startTimer("answer", ANSWER_MS, () => this.#rebuild(new SaccadeError("timeout"))) : this.#startTimer("answer", resumed === null ? RESTART_ANSWER_MS : ANSWER_MS, () => this.#changeSocket());
  }
  /** Restarts ICE over this socket, or over another where the credentials have ended and there may be another. */
  #offerRestart() {
    this.#policy.maxAttempts > 0 && this.#credentialsEnded() ? this.#changeSocket() : this.#offer(!0);
  }
  /** Resumes the session on another socket: this one is dead, or its credentials have ended. */
  #changeSocket() {
    this.#dropSocket(), this.#retry(new SaccadeError("timeout", { fatal: !1 }));
  }
  #onLocalCandidate(candidate) {
    this.#localCandidates ? this.#localCandidates.push(candidate) : this.#signaling?.send(build.candidate(candidate));
  }
  async #onAnswer({ sdp, session_id, options: options2 }) {
    let peer = this.#peer;
    if (peer?.awaitingAnswer) {
      this.#stopTimer("answer"), this.#resuming = !1, this.#restartWanted = !1, this.#sessionId !== null && this.#sessionId !== session_id && this.#joiner.clear(), this.#sessionId = session_id, this.#setOptions(options2), peer.state !== "connected" && this.#startTimer("media", MEDIA_MS, () => this.#rebuild(new SaccadeError("ice_timeout")));
      try {
        await peer.answer(sdp);
      } catch (cause) {
        peer === this.#peer && this.#rebuild(new SaccadeError("bad_sdp", { detail: String(cause), cause }));
        return;
      }
      peer === this.#peer && (this.#sendChanges(), peer.state === "connected" && this.#onConnected(), this.#offerAgain && (this.#offerAgain = !1, this.#offer(!0)));
    }
  }
  #onPeerState(peer, state) {
    if (peer === this.#peer)
      switch (this.#stopTimer("heal"), state) {
        case "connected":
          return this.#onConnected();
        case "disconnected":
          return this.#startTimer("heal", HEAL_MS, () => this.#restartIce());
        case "failed":
          return this.#restartIce();
        default:
      }
  }
  #onConnected() {
    if (this.#stopTimer("media"), this.#restarts = 0, this.#startTimer("stable", this.#policy.stableMs, () => this.#backoff.reset()), this.#timers.has("stats") || this.#pollStats(), !(this.#state !== "connected" && (this.#state = "connected", this.#tellState(null, null), this.#closedMeanwhile())) && (this.#started.resolve(), this.#lost)) {
      let { at, sessionId } = this.#lost;
      this.#lost = null, this.#config.onReconnected?.({ resumed: sessionId === this.#sessionId, tookMs: this.#environment.now() - at });
    }
  }
  /** Tells the page of a loss, once; the page may close the session meanwhile. */
  #loseMedia(error) {
    let had = this.#state === "connected" && !this.#lost;
    this.#state = "reconnecting", had && (this.#lost = { at: this.#environment.now(), sessionId: this.#sessionId }, this.#config.onReconnecting?.(error));
  }
  /** Lost media: new ICE credentials over the socket, or over the one being opened, else a new session. */
  #restartIce() {
    if (!(!this.#peer || this.#state === "closed")) {
      if (this.#stopTimer("stable"), this.#state === "connected") {
        let lost = new SaccadeError("media_lost", { fatal: !1 });
        if (this.#loseMedia(lost), this.#closedMeanwhile() || (this.#tellState(lost, null), this.#closedMeanwhile())) return;
      }
      if (this.#sessionId === null || this.#restarts >= MAX_RESTARTS)
        return this.#rebuild(new SaccadeError(this.#sessionId === null ? "ice_timeout" : "media_lost"));
      this.#restartWanted = !0, !(!this.#signaling?.open || !this.#greeted) && (this.#restarts += 1, this.#startTimer("media", MEDIA_MS, () => this.#rebuild(new SaccadeError("ice_timeout"))), this.#offerRestart());
    }
  }
  #onNetworkChange() {
    this.#startTimer("network", 500, () => {
      this.#peer && this.#sessionId && (this.#restartWanted = !0), this.#timers.has("retry") ? this.#openSocket() : this.#peer && this.#sessionId && this.#signaling?.open && this.#greeted && this.#offerRestart();
    });
  }
  #onSocketClosed(code, reason) {
    if (this.#signaling = null, this.#stopTimer("welcome"), this.#stopTimer("answer"), this.#timers.has("drain")) return;
    let meant = errorOfCloseCode(code, reason);
    if (meant && !meant.retryable) return this.#end(meant);
    this.#sessionId === null && this.#dropPeer(), this.#retry(meant ?? new SaccadeError("server_unreachable", { detail: `the connection closed (${code})` }));
  }
  #onErrorMessage(message) {
    let { fatal, message: detail, retry_after_ms: retryAfterMs } = message, error = new SaccadeError(message.code, { detail, fatal, retryAfterMs });
    if (this.#resuming && this.#peer?.awaitingAnswer) return this.#onResumeRefused(fatal);
    if (!fatal) {
      let change = this.#changes.find(({ sent }) => sent), refused = change && (error.code === "bad_options" || error.code === "unknown_model");
      if (change && (refused || !this.#peer?.awaitingAnswer)) return this.#settle(change, (it) => it.reject(error));
      if (this.#sessionId !== null) return this.#config.onError?.(error);
    }
    error.retryable ? this.#rebuild(error) : this.#end(error.withFatal(!0));
  }
  /** The session could not be resumed: a new one takes its place. */
  #onResumeRefused(fatal) {
    if (this.#resuming = !1, this.#stopTimer("answer"), this.#sessionId = null, this.#state === "connected") {
      let lost = new SaccadeError("not_found", { fatal: !1 });
      if (this.#loseMedia(lost), this.#closedMeanwhile() || (this.#tellState(lost, null), this.#closedMeanwhile())) return;
    }
    fatal ? this.#rebuild(new SaccadeError("not_found")) : this.#newSession();
  }
  #onDraining(afterMs) {
    let jittered = Math.round(afterMs * (1 + 0.25 * this.#environment.random()));
    this.#config.onError?.(new SaccadeError("draining", { fatal: !1, retryAfterMs: jittered })), this.#policy.maxAttempts !== 0 && this.#startTimer("drain", jittered, () => {
      this.#dropSocket(!0), this.#dropPeer(), this.#sessionId = null;
      let lost = new SaccadeError("draining", { fatal: !1 });
      this.#loseMedia(lost), !this.#closedMeanwhile() && (this.#tellState(lost, null), this.#closedMeanwhile() || this.#openSocket());
    });
  }
  #onServerClosed(reason) {
    if (!this.#timers.has("drain")) {
      if (/drain|shutdown/.test(reason)) return this.#rebuild(new SaccadeError("draining"));
      this.#end(new SaccadeError("session_ended", { detail: reason }));
    }
  }
  /** Gives the session up and makes another after a pause. */
  #rebuild(error) {
    this.#dropSocket(this.#sessionId !== null), this.#dropPeer(), this.#sessionId = null, this.#retry(error);
  }
  /** Opens a socket after a pause, or ends the session when no attempt is left. */
  #retry(error) {
    if (this.#state === "closed") return;
    let wait = error.retryable ? this.#backoff.next(error.retryAfterMs ?? 0) : null;
    if (wait === null) return this.#end(error.withFatal(!0));
    if (!(this.#peer?.state === "connected")) {
      let told = error.withFatal(!1);
      if (this.#state === "connected" && this.#loseMedia(told), this.#closedMeanwhile() || (this.#config.onError?.(told), this.#closedMeanwhile())) return;
      this.#tellState(told, wait);
    }
    this.#startTimer("retry", wait, () => {
      this.#openSocket();
    });
  }
  #setOptions(options2) {
    this.#options = options2, this.#preview && (options2.return !== "results" && this.#preview.clear(), this.#preview.shapes = options2.overlay.zones ? options2 : null), this.#config.onOptions?.(options2);
  }
  #onConfigured(options2) {
    this.#setOptions(options2);
    let change = this.#changes.find(({ sent }) => sent);
    change && (this.#wanted = mergeOptions(this.#wanted, change.patch), this.#settle(change, (it) => it.resolve(options2)));
  }
  #settle(change, how) {
    this.#environment.clearTimer(change.timer), this.#changes.splice(this.#changes.indexOf(change), 1), how(change);
  }
  #sendChanges() {
    if (this.#sessionId !== null)
      for (let change of this.#changes) {
        if (change.sent) continue;
        let message = build.configure(change.patch), ready = this.#greeted && !this.#resuming;
        change.sent = ready && this.#signaling?.send(message) || this.#peer?.control(JSON.stringify(message)) || !1;
      }
  }
  #onReturnedTrack(track) {
    this.#returned = new MediaStream([track]);
    let { video } = this.#config;
    video && (video.srcObject = this.#returned, video.play().catch(() => {
    }));
  }
  #onText(label2, text2) {
    if (label2 === "control") {
      let message = readControl(text2);
      (message?.type === "configured" || message?.type === "error") && this.#onMessage(message);
      return;
    }
    let value;
    try {
      value = JSON.parse(text2);
    } catch {
      return;
    }
    label2 === "events" ? isSessionEvent(value) ? this.#config.onEvent?.(value) : this.#config.onForeignEvent?.(value) : isSessionResult(value) ? this.#onResult(value) : this.#config.onForeignResult?.(value);
  }
  #onResult(result) {
    let now = this.#environment.now();
    if (this.#watch && !this.#sighted) {
      let way = (this.stats().rttMs ?? 0) / 2;
      this.#clock.sighting(result.rtp_timestamp_in, now - (result.timing_ms.total - result.timing_ms.encode) - way);
    }
    this.#statistics.result(result, now, this.#clock.capturedAt(result.rtp_timestamp_in)), this.#joiner.result(result), this.#options?.return === "results" && this.#preview?.result(result, now), this.#config.onResult?.(result);
  }
  #watchTrack(stream) {
    stream.getVideoTracks()[0]?.addEventListener("ended", () => {
      stream === this.#stream && this.#state !== "closed" && this.#end(new SaccadeError("source_ended"));
    });
  }
  #pollStats() {
    this.#startTimer("stats", STATS_MS, () => {
      let peer = this.#peer;
      this.#pollStats(), !(!peer || this.#state !== "connected") && peer.stats().then(
        (report) => {
          this.#closedMeanwhile() || (this.#statistics.transport(report, this.#environment.now()), this.#config.onStats?.(this.stats()));
        },
        () => {
        }
      );
    });
  }
  #dropSocket(farewell = !1) {
    this.#stopTimer("welcome"), this.#stopTimer("answer"), this.#signaling?.close(farewell ? build.bye() : null), this.#signaling = null, this.#greeted = !1;
  }
  #dropPeer() {
    for (let timer of ["media", "heal", "stable"]) this.#stopTimer(timer);
    this.#peer?.close(), this.#peer = null, this.#resuming = !1, this.#restartWanted = !1, this.#offerAgain = !1, this.#localCandidates = null, this.#joiner.clear(), this.#clock.reset(), this.#sighted = !1;
    for (let change of this.#changes) change.sent = !1;
  }
  #end(error) {
    if (this.#state === "closed") return;
    this.#state = "closed", this.#dropSocket(!0), this.#dropPeer();
    for (let timer of [...this.#timers.keys()]) this.#stopTimer(timer);
    this.#stopNetworkWatch?.(), this.#unwatchVideo?.(), this.#watch?.detach(), this.#preview?.clear();
    let { video } = this.#config;
    video && this.#returned && video.srcObject === this.#returned && (video.srcObject = null), this.#returned = null;
    for (let change of [...this.#changes])
      this.#settle(change, (it) => it.reject(error ?? new SaccadeError("not_connected")));
    error && this.#config.onError?.(error), this.#tellState(error, null), this.#started.reject(error ?? new SaccadeError("aborted"));
  }
  #closedMeanwhile() {
    return this.#state === "closed";
  }
  #tellState(error, retryInMs) {
    this.#config.onState?.({ state: this.#state, attempt: this.#backoff.attempt, retryInMs, error });
  }
  #startTimer(name, ms, action) {
    this.#stopTimer(name);
    let timer = this.#environment.setTimer(() => {
      this.#timers.delete(name), action();
    }, ms);
    this.#timers.set(name, timer);
  }
  #stopTimer(name) {
    let timer = this.#timers.get(name);
    timer !== void 0 && (this.#environment.clearTimer(timer), this.#timers.delete(name));
  }
};
function readControl(text2) {
  try {
    return parseServerMessage(text2);
  } catch {
    return null;
  }
}

// sdk/sources.ts
async function listCameras() {
  return (await mediaDevices()?.enumerateDevices().catch(() => []) ?? []).filter(({ kind }) => kind === "videoinput").map(({ deviceId, label: label2 }, index) => ({ deviceId, label: label2 || `Camera ${index + 1}` }));
}
async function openCamera(wishes = {}) {
  let devices = mediaDevices();
  if (!devices?.getUserMedia) throw new SaccadeError(notThere());
  let { deviceId, width = 1280, height = 720, frameRate = 30, facingMode } = wishes;
  try {
    let video = {
      width: { ideal: width },
      height: { ideal: height },
      frameRate: { ideal: frameRate },
      ...deviceId ? { deviceId: { exact: deviceId } } : facingMode && { facingMode }
    };
    return opened(await devices.getUserMedia({ video, audio: !1 }));
  } catch (cause) {
    throw errorOfCapture(cause, "camera");
  }
}
async function openScreen() {
  let devices = mediaDevices();
  if (!devices?.getDisplayMedia) throw new SaccadeError(notThere());
  try {
    return opened(await devices.getDisplayMedia({ video: { frameRate: { ideal: 30 } }, audio: !1 }));
  } catch (cause) {
    throw errorOfCapture(cause, "screen");
  }
}
async function openVideo(from) {
  let addresses = from instanceof Blob ? [URL.createObjectURL(from)] : typeof from == "string" ? [from] : from, video = document.createElement("video");
  video.muted = !0, video.loop = !0, video.playsInline = !0, video.crossOrigin = "anonymous";
  try {
    await playFirst(video, addresses);
  } catch (cause) {
    throw from instanceof Blob && addresses.forEach((address) => URL.revokeObjectURL(address)), new SaccadeError("file_unplayable", { cause });
  }
  return throughCanvas(video, () => {
    from instanceof Blob && addresses.forEach((address) => URL.revokeObjectURL(address));
  });
}
function mediaDevices() {
  return navigator.mediaDevices;
}
function notThere() {
  return window.isSecureContext ? "unsupported_browser" : "insecure_context";
}
function opened(stream) {
  return { stream, stop: () => stream.getTracks().forEach((track) => track.stop()) };
}
async function playFirst(video, addresses) {
  let last = new Error("no address");
  for (let address of addresses)
    try {
      if (await new Promise((resolve, reject) => {
        video.onloadeddata = () => resolve(), video.onerror = () => reject(new Error(video.error?.message ?? "cannot be played")), video.src = address;
      }), video.videoWidth === 0) throw new Error("no picture");
      await video.play(), video.onerror = null;
      return;
    } catch (error) {
      last = error;
    }
  throw last;
}
function frameRequest(stream, track) {
  for (let owner of [track, stream])
    if (typeof owner.requestFrame == "function") return owner.requestFrame.bind(owner);
}
function throughCanvas(video, release) {
  let canvas = document.createElement("canvas");
  canvas.width = video.videoWidth, canvas.height = video.videoHeight;
  let context = canvas.getContext("2d", { alpha: !1 }), stream = canvas.captureStream(0), track = stream.getVideoTracks()[0], requestFrame = track && frameRequest(stream, track);
  if (!context || !requestFrame) throw new SaccadeError("unsupported_browser");
  let drawn = [], lastDraw = -1 / 0, stopped = !1, draw = (mediaTime) => {
    (video.videoWidth !== canvas.width || video.videoHeight !== canvas.height) && (canvas.width = video.videoWidth, canvas.height = video.videoHeight), context.drawImage(video, 0, 0, canvas.width, canvas.height), lastDraw = performance.now(), drawn.push({ at: lastDraw, mediaTime }), drawn.length > 240 && drawn.shift(), requestFrame();
  }, step = (_now, { mediaTime }) => {
    stopped || (draw(mediaTime), video.requestVideoFrameCallback(step));
  };
  video.requestVideoFrameCallback(step), draw(video.currentTime);
  let idle = setInterval(() => {
    performance.now() - lastDraw > 900 && draw(video.currentTime);
  }, 1e3);
  return {
    stream,
    video,
    timeDrawnAt(at) {
      let best = null;
      for (let one of drawn)
        (!best || Math.abs(one.at - at) < Math.abs(best.at - at)) && (best = one);
      return best && Math.abs(best.at - at) < 100 ? best.mediaTime : null;
    },
    stop() {
      stopped = !0, clearInterval(idle), track.stop(), video.pause(), video.removeAttribute("src"), video.load(), release();
    }
  };
}

// sdk/index.ts
async function connect(options2) {
  let { stream, source, url, signal, ...config } = options2;
  if (typeof RTCPeerConnection > "u") throw new SaccadeError("unsupported_browser");
  if (signal?.aborted) throw new SaccadeError("aborted");
  let opened2 = stream ? { stream, stop: () => {
  } } : await openSource(source ?? "camera"), session = new SaccadeSession({
    ...config,
    stream: opened2.stream,
    url: signalingUrl(url ?? import.meta.url),
    workerUrl: config.workerUrl ?? new URL("./saccade-worker.js", import.meta.url),
    onState: (change) => {
      change.state === "closed" && opened2.stop(), config.onState?.(change);
    }
  }), abort = () => session.close();
  signal?.addEventListener("abort", abort, { once: !0 });
  try {
    return signal?.aborted && session.close(), await session.start(), session;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}
function signalingUrl(address, base = globalThis.location?.href) {
  let url;
  try {
    url = new URL(address, base);
  } catch (cause) {
    throw new SaccadeError("server_unreachable", { detail: "the address is not valid", cause });
  }
  let scheme = { "http:": "ws:", "https:": "wss:", "ws:": "ws:", "wss:": "wss:" }[url.protocol];
  if (!scheme) throw new SaccadeError("server_unreachable", { detail: `no WebSocket address: ${url.protocol}` });
  return url.protocol = scheme, url.pathname.endsWith("/v1/signal") || (url.pathname = "/v1/signal"), url.hash = "", url.href;
}
async function openSource(source) {
  if (source === "camera") return openCamera();
  if (source === "screen") return openScreen();
  if (!(source instanceof HTMLElement)) return openCamera(source);
  let element = source, capture = element.captureStream ?? element.mozCaptureStream;
  if (!capture) throw new SaccadeError("unsupported_browser", { detail: "this element cannot be captured" });
  try {
    let stream = capture.call(source);
    return { stream, stop: () => stream.getTracks().forEach((track) => track.stop()) };
  } catch (cause) {
    throw errorOfCapture(cause, "camera");
  }
}
export {
  CORNERS,
  DEFAULT_RECONNECT,
  DEGRADATION_STEPS,
  MAX_MESSAGE_BYTES,
  MAX_SHAPES,
  PROTOCOL_VERSION,
  SERVER_ERROR_CODES,
  STAGES,
  SUBPROTOCOL,
  SaccadeError,
  SaccadeSession,
  WireError,
  arrowOf,
  build,
  classColor,
  connect,
  drawDetections,
  drawResult,
  drawShapes,
  errorOfCapture,
  isCameraView,
  isImageError,
  isImageResult,
  isLine,
  isModelView,
  isOfferResponse,
  isProblem,
  isRouteView,
  isRule,
  isSessionEvent,
  isSessionResult,
  isSessionView,
  isZone,
  labelOf,
  listCameras,
  mergeOptions,
  openCamera,
  openScreen,
  openVideo,
  parseServerMessage,
  signalingUrl
};
