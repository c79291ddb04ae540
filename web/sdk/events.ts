import { type Guard, isNumber, isRecord, isString, literal, nullable, optional, shape } from "./guards.js";

/** The object that an event is about. */
export interface EventObject {
  /** Identity across frames. */
  object_id: number;
  /** Index of the class in the model. */
  class_id: number;
  /** Name of the class. */
  class: string;
}

/** Video began to come in. */
export interface TrackStarted {
  type: "track_started";
  mid: string;
  codec: string;
  rtp_timestamp?: number;
}

/** The size of incoming video is another one. */
export interface ResolutionChanged {
  type: "resolution_changed";
  width: number;
  height: number;
  rtp_timestamp?: number;
}

/** An object came into a zone. */
export interface ZoneEntered extends EventObject {
  type: "zone_entered";
  /** RTP timestamp of the incoming frame in which it happened. */
  rtp_timestamp: number;
  zone: string;
  /** Objects inside now. */
  count: number;
}

/** An object left a zone, or was lost in it. */
export interface ZoneLeft extends EventObject {
  type: "zone_left";
  /** RTP timestamp of the incoming frame in which it happened. */
  rtp_timestamp: number;
  zone: string;
  /** How long it was inside, in milliseconds. */
  dwell_ms: number;
  /** Objects inside now. */
  count: number;
}

/** An object has been in a zone for the zone's `dwell_s`. */
export interface ZoneDwelled extends EventObject {
  type: "zone_dwelled";
  /** RTP timestamp of the incoming frame in which it happened. */
  rtp_timestamp: number;
  zone: string;
  /** How long it has been inside, in milliseconds. */
  dwell_ms: number;
}

/** An object crossed a line. */
export interface LineCrossed extends EventObject {
  type: "line_crossed";
  /** RTP timestamp of the incoming frame in which it happened. */
  rtp_timestamp: number;
  line: string;
  /** Its way, looking from the line's first point to its second. */
  direction: "left_to_right" | "right_to_left";
  /** Crossings so far, each way. */
  left_to_right: number;
  right_to_left: number;
}

/** A rule's condition holds from now on; it is about one object, or about how many there are. */
export interface AlertStarted {
  type: "alert_started";
  /** RTP timestamp of the incoming frame in which it happened. */
  rtp_timestamp: number;
  rule: string;
  zone: string;
  object_id: number | null;
  class_id: number | null;
  class: string | null;
  /** Objects of the rule's classes inside now. */
  count: number;
}

/** An alert is over. */
export interface AlertEnded {
  type: "alert_ended";
  /** RTP timestamp of the incoming frame in which it happened. */
  rtp_timestamp: number;
  rule: string;
  zone: string;
  /** The object that it began with. */
  object_id: number | null;
  /** How long it lasted, in milliseconds. */
  duration_ms: number;
}

/** A message of the `events` data channel; `type` tells which. */
export type SessionEvent =
  | TrackStarted
  | ResolutionChanged
  | ZoneEntered
  | ZoneLeft
  | ZoneDwelled
  | LineCrossed
  | AlertStarted
  | AlertEnded;

/** Whether `value` is a {@link SessionEvent}; false for events that only a newer server knows. */
export function isSessionEvent(value: unknown): value is SessionEvent {
  if (!isRecord(value) || typeof value["type"] !== "string") return false;
  const type = value["type"];
  return Object.hasOwn(sessionEvents, type) && sessionEvents[type as SessionEvent["type"]](value);
}

const object = { rtp_timestamp: isNumber, object_id: isNumber, class_id: isNumber, class: isString };

const sessionEvents: { [K in SessionEvent["type"]]: Guard<Extract<SessionEvent, { type: K }>> } = {
  track_started: shape<TrackStarted>({
    type: literal("track_started"),
    mid: isString,
    codec: isString,
    rtp_timestamp: optional(isNumber),
  }),
  resolution_changed: shape<ResolutionChanged>({
    type: literal("resolution_changed"),
    width: isNumber,
    height: isNumber,
    rtp_timestamp: optional(isNumber),
  }),
  zone_entered: shape<ZoneEntered>({ type: literal("zone_entered"), ...object, zone: isString, count: isNumber }),
  zone_left: shape<ZoneLeft>({
    type: literal("zone_left"),
    ...object,
    zone: isString,
    dwell_ms: isNumber,
    count: isNumber,
  }),
  zone_dwelled: shape<ZoneDwelled>({ type: literal("zone_dwelled"), ...object, zone: isString, dwell_ms: isNumber }),
  line_crossed: shape<LineCrossed>({
    type: literal("line_crossed"),
    ...object,
    line: isString,
    direction: literal("left_to_right", "right_to_left"),
    left_to_right: isNumber,
    right_to_left: isNumber,
  }),
  alert_started: shape<AlertStarted>({
    type: literal("alert_started"),
    rtp_timestamp: isNumber,
    rule: isString,
    zone: isString,
    object_id: nullable(isNumber),
    class_id: nullable(isNumber),
    class: nullable(isString),
    count: isNumber,
  }),
  alert_ended: shape<AlertEnded>({
    type: literal("alert_ended"),
    rtp_timestamp: isNumber,
    rule: isString,
    zone: isString,
    object_id: nullable(isNumber),
    duration_ms: isNumber,
  }),
};
