/** How often and how patiently to connect again. */
export interface ReconnectPolicy {
	/** First delay, in milliseconds. */
	baseMs: number;
	/** Longest delay, in milliseconds. */
	maxMs: number;
	/** Attempts in a row before giving up. */
	maxAttempts: number;
	/** How long a connection must hold before the count starts anew, in milliseconds. */
	stableMs: number;
}
/** 0.5 s, 1 s, 2 s … 15 s, each shortened by chance to as little as half, ten times. */
export declare const DEFAULT_RECONNECT: ReconnectPolicy;
interface Environment {
	/** Opens a WebSocket. */
	createSocket(url: string, protocol: string): WebSocket;
	/** Makes a peer connection. */
	createPeer(configuration: RTCConfiguration): RTCPeerConnection;
	/** Milliseconds on the clock of `performance.now()`. */
	now(): number;
	/** Runs `action` once after `ms`. */
	setTimer(action: () => void, ms: number): unknown;
	/** Calls off what {@link setTimer} returned. */
	clearTimer(timer: unknown): void;
	/** Uniform in 0..1. */
	random(): number;
	/** Calls `action` whenever the network may have changed; the returned function ends that. */
	onNetworkChange(action: () => void): () => void;
}
/** A point of an object: x and y in pixels of the upright frame, and its score, 0..1. */
export type Keypoint = [
	x: number,
	y: number,
	score: number
];
/** A class of the whole frame. */
export interface Label {
	/** Index of the class in the model. */
	class_id: number;
	/** Name of the class. */
	class: string;
	/** Score, 0..1. */
	score: number;
}
/** A mask in the run lengths of COCO. */
export interface Rle {
	/** Height and width of the mask; `mask_box` of the result says where it lies in the frame. */
	size: [
		height: number,
		width: number
	];
	/** Lengths of runs down the columns, outside and inside by turns, in COCO's compressed text. */
	counts: string;
}
/** All pixels of one class. */
export interface Segment {
	/** Index of the class in the model. */
	class_id: number;
	/** Name of the class. */
	class: string;
	/** Share of the frame that it covers, 0..1. */
	area_ratio: number;
	/** Corners `[x1, y1, x2, y2]` around all of it, in pixels of the upright frame. */
	box: [
		number,
		number,
		number,
		number
	];
	/**
	 * Its outlines with `masks: "outlines"`: closed rings of points in pixels of the upright frame. A ring inside another one
	 * is a hole (even-odd rule).
	 */
	polygons?: [
		x: number,
		y: number
	][][];
	/** Its pixels with `masks: "rle"`. */
	rle?: Rle;
	/** Small outlines that were left out, or 1 for its run lengths, where the message would have become too large. */
	left_out?: number;
}
/** An output of a model, as it is. */
export interface Tensor {
	name: string;
	/** Its sides, the batch first: 1. */
	shape: number[];
	/** Its values, row by row, `null` for one that is no number; `null` altogether where they are left out. */
	data: (number | null)[] | null;
	/** How many values are left out, since a message would have become too large. */
	left_out?: number;
}
/** `[x, y]` in fractions of the upright frame, each 0..1. */
export type Point = [
	number,
	number
];
/** Zones, lines and rules that a session may have, of each. */
export declare const MAX_SHAPES = 16;
/** Corners that a zone has, at least and at most. */
export declare const CORNERS: {
	readonly min: 3;
	readonly max: 32;
};
/** The point of a box that counts for zones and lines: its centre, or the middle of its lower edge. */
export type Anchor = "center" | "bottom";
/** A named polygon of 3 to 32 corners, whose sides do not cross. An object is in it while its anchor is. */
export interface Zone {
	/** Name, unique among the session's zones. */
	name: string;
	/** Corners in order. */
	polygon: Point[];
	/** Which point of a box counts; the centre where absent. */
	anchor?: Anchor;
	/** `zone_dwelled` comes when an object has been inside for this many seconds; absent: never. */
	dwell_s?: number;
}
/** A named line. Left and right are as seen when looking from its first point to its second. */
export interface Line {
	/** Name, unique among the session's lines. */
	name: string;
	points: [
		Point,
		Point
	];
	/** Which point of a box must cross; the centre where absent. */
	anchor?: Anchor;
}
/**
 * What raises an alert. Without `more_than` each object of these classes that is in the zone too long raises one of its
 * own; with it, too many of them there for too long raise one together.
 */
export interface Rule {
	/** Name, unique among the session's rules. */
	name: string;
	/** Name of a zone of the session. */
	zone: string;
	/** Class names that count; absent: all. */
	classes?: string[];
	/** Seconds that it has to last; absent: none. */
	longer_than_s?: number;
	/** Number of objects that is still fine. */
	more_than?: number;
}
/** Whether `value` is a {@link Zone} that a server may take. */
export declare function isZone(value: unknown): value is Zone;
/** Whether `value` is a {@link Line}. */
export declare function isLine(value: unknown): value is Line;
/** Whether `value` is a {@link Rule}. */
export declare function isRule(value: unknown): value is Rule;
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
export type SessionEvent = TrackStarted | ResolutionChanged | ZoneEntered | ZoneLeft | ZoneDwelled | LineCrossed | AlertStarted | AlertEnded;
/** Whether `value` is a {@link SessionEvent}; false for events that only a newer server knows. */
export declare function isSessionEvent(value: unknown): value is SessionEvent;
/** Subprotocol of the signaling WebSocket. */
export declare const SUBPROTOCOL = "saccade.v1";
/** Protocol version this client speaks; `welcome.protocol` must equal it. */
export declare const PROTOCOL_VERSION = 1;
/** Largest signaling message in bytes, either way. */
export declare const MAX_MESSAGE_BYTES: number;
/** Error codes that a server may send. A newer server may send others, so treat the list as open. */
export declare const SERVER_ERROR_CODES: readonly [
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
];
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
export type ClientMessage = {
	type: "offer";
	sdp: string;
	options?: OptionsPatch;
	session_id?: string;
	traceparent?: string;
	tracestate?: string;
} | CandidateMessage | {
	type: "configure";
	options: OptionsPatch;
} | {
	type: "bye";
} | {
	type: "auth";
	token: string;
};
/** One found object. */
export interface Detection {
	/** Corners `[x1, y1, x2, y2]` in pixels of the upright frame as sent. */
	box: [
		number,
		number,
		number,
		number
	];
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
export declare const STAGES: readonly [
	"reorder",
	"decode",
	"queue",
	"preprocess",
	"inference",
	"postprocess",
	"annotate",
	"encode"
];
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
export declare const DEGRADATION_STEPS: readonly [
	"skip_inference",
	"smaller_input",
	"lower_fps",
	"lower_resolution"
];
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
	mask_box?: [
		number,
		number,
		number,
		number
	];
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
	mask_box?: [
		number,
		number,
		number,
		number
	];
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
	resolution: [
		number,
		number
	] | null;
	age_s: number;
	options: Options;
	counters: Record<string, unknown> & {
		dropped: Dropped;
	};
	stages: {
		stage: string;
		p50_ms: number;
		p95_ms: number;
	}[];
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
	reason: {
		code: string;
		message: string;
	} | null;
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
	input: [
		number,
		number
	];
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
	route: {
		split: {
			model: string;
			weight: number;
		}[];
		shadow?: string;
	} | {
		ensemble: string[];
		fusion: string;
	};
}
/** The text was not a message of this protocol. */
export declare class WireError extends Error {
	name: string;
}
/**
 * Reads one message of the signaling WebSocket. Fields that this client does not know are left alone, so that a newer
 * server can talk to it.
 *
 * @returns the message, or `null` when its `type` is not known to this client.
 * @throws {@link WireError} when the text is not JSON or a known message lacks a field.
 */
export declare function parseServerMessage(text: string): ServerMessage | null;
/** Whether `value` is a {@link SessionResult}; false for the other result formats. */
export declare function isSessionResult(value: unknown): value is SessionResult;
/** Whether `value` is an {@link ImageResult}; false for the other result formats. */
export declare function isImageResult(value: unknown): value is ImageResult;
/** Whether `value` is an {@link ImageError}. */
export declare function isImageError(value: unknown): value is ImageError;
/** Whether `value` is a {@link Problem}. */
export declare function isProblem(value: unknown): value is Problem;
/** Whether `value` is a {@link SessionView}. */
export declare function isSessionView(value: unknown): value is SessionView;
/** Whether `value` is a {@link CameraView}. */
export declare function isCameraView(value: unknown): value is CameraView;
/** Whether `value` is a {@link ModelView}. */
export declare function isModelView(value: unknown): value is ModelView;
/** Whether `value` is a {@link RouteView}. */
export declare function isRouteView(value: unknown): value is RouteView;
/** Whether `value` is an {@link OfferResponse}. */
export declare function isOfferResponse(value: unknown): value is OfferResponse;
/** Builds the messages that a client sends; absent parts are left out, never `null`. */
export declare const build: {
	/** Starts a session, renegotiates, or resumes the session `sessionId`; `span` is the one in which that is done. */
	offer(sdp: string, options?: OptionsPatch, sessionId?: string | null, span?: {
		traceparent: string;
		tracestate?: string;
	}): ClientMessage;
	/** One trickled candidate; `null` ends them. */
	candidate(candidate: RTCIceCandidateInit | null): ClientMessage;
	/** Changes options while the session runs. */
	configure(options: OptionsPatch): ClientMessage;
	/** Ends the session. */
	bye(): ClientMessage;
	/** Authenticates. */
	auth(token: string): ClientMessage;
	/** Body of `POST /v1/offer`. */
	offerRequest(sdp: string, options?: OptionsPatch): OfferRequest;
};
/** `base` with the keys of `patch`; overlay switches are merged one by one. */
export declare function mergeOptions(base: OptionsPatch, patch: OptionsPatch): OptionsPatch;
/** Errors that arise in the browser, beside the server's own. */
export type ClientErrorCode = "aborted" | "browser_fault" | "camera_busy" | "camera_denied" | "camera_missing" | "camera_unsuitable" | "file_unplayable" | "insecure_context" | "media_lost" | "not_connected" | "screen_denied" | "server_unreachable" | "session_ended" | "source_ended" | "timeout" | "unsupported_browser" | "wrong_version";
/** Every code of a {@link SaccadeError}; stable, unlike the sentences. */
export type ErrorCode = ClientErrorCode | ServerErrorCode;
interface ErrorDetails {
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
export declare class SaccadeError extends Error {
	readonly name = "SaccadeError";
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
	constructor(code: ErrorCode, { detail, fatal, retryAfterMs, cause }?: ErrorDetails);
	/** Whether trying again with nothing changed may help. */
	get retryable(): boolean;
	/** The same error, with `fatal` as given. */
	withFatal(fatal: boolean): SaccadeError;
}
/** The error that a refusal of `getUserMedia` or `getDisplayMedia` means. */
export declare function errorOfCapture(cause: unknown, kind: "camera" | "screen"): SaccadeError;
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
/** What {@link drawDetections} draws. */
export interface DrawOptions {
	/** Outlines, keypoints and tinted segments; on by default. */
	boxes?: boolean;
	/** Class, score and object id beside each box, and classes of the whole frame in a corner; on by default. */
	labels?: boolean;
	/** Opacity, 0..1; 1 by default. */
	opacity?: number;
}
/** The colour of a class, as a CSS colour. */
export declare function classColor(classId: number): string;
/**
 * Draws all that a result tells of its frame over a picture that fills the canvas: segments, detections with their keypoints,
 * and classes of the whole frame.
 */
export declare function drawResult(context: CanvasRenderingContext2D, result: SessionResult, options?: DrawOptions): void;
/**
 * Draws detections over a picture that fills the canvas.
 *
 * @param size width and height of the frame that the boxes refer to; they are scaled to the canvas.
 */
export declare function drawDetections(context: CanvasRenderingContext2D, detections: readonly Detection[], size: {
	width: number;
	height: number;
}, { boxes, labels, opacity }?: DrawOptions): void;
/** Text of a detection's label as the server writes it, such as `helmet 0.91 #7`. */
export declare function labelOf({ class: name, score, object_id }: Detection): string;
/** What {@link drawShapes} draws; session options have it. */
export interface Shapes {
	zones: readonly Zone[];
	lines: readonly Line[];
}
/**
 * Draws zones and lines, each with its name, over a picture that fills the canvas. A line's arrow points from its left to
 * its right.
 */
export declare function drawShapes(context: CanvasRenderingContext2D, { zones, lines }: Shapes): void;
/**
 * The arrow of a line, in pixels: from the line's middle to its right by `length`, then both sides of the head. Right is
 * that of somebody who looks from the first end to the second.
 */
export declare function arrowOf([[x1, y1], [x2, y2]]: [
	Point,
	Point
], length: number): Point[];
/** Which codec the offer prefers; `auto` leaves the browser's order. */
export type CodecChoice = "auto" | "h264" | "vp8";
/** A frame of the source as this page saw it. */
export interface SourceFrame {
	/** Its time in the local `<video>`, in seconds: the capture clock, from an arbitrary zero. */
	mediaTime: number;
	/** When it was captured, on the clock of `performance.now()`, within a few milliseconds. */
	capturedAt: number;
}
/** What the preview shows at the moment. */
export interface PreviewFrame {
	/** The frame on the canvas. */
	frame: SourceFrame;
	/** The result whose boxes are drawn, or `null`. */
	result: SessionResult | null;
	/** Whether the result is this very frame's; otherwise it is the last one before it. */
	exact: boolean;
}
/** How the session does, as of the last second or so. Times are milliseconds. */
export interface SessionStats {
	/** Frames a second that leave the browser. */
	fpsSent: number;
	/** Frames a second of returned video put on screen. */
	fpsShown: number;
	/** Results a second. */
	resultsPerSecond: number;
	/** Results since the session began. */
	results: number;
	/** Frames of returned video put on screen. */
	framesShown: number;
	/** Shown frames that met their result. */
	joined: number;
	/** Median server time by stage over the last results. */
	stages: Record<Stage, number>;
	/** Median and 95th percentile of `timing_ms.total`. */
	total: {
		p50: number;
		p95: number;
	} | null;
	/** Median and 95th percentile from capture to the arrival of the result, where the source is tracked. */
	resultAge: {
		p50: number;
		p95: number;
	} | null;
	/** Median and 95th percentile from capture to the returned frame on screen, where the source is tracked. */
	shownAge: {
		p50: number;
		p95: number;
	} | null;
	/** Share of results that kept the budget, 0..1. */
	met: number | null;
	/** Frames that the server dropped. */
	dropped: Dropped;
	/** Steps by which the server saved work as of the last result. */
	degraded: string[];
	/** Round trip to the server. */
	rttMs: number | null;
	/** Codec being sent, such as `H264`. */
	codec: string | null;
	/** Size being sent, in pixels. */
	sentSize: {
		width: number;
		height: number;
	} | null;
	/** Bitrate sent and received, in kilobits a second. */
	kbpsSent: number;
	kbpsReceived: number;
}
/** Where a session stands. */
export type SessionState = "connecting" | "connected" | "reconnecting" | "closed";
/** What `onState` is told. */
export interface StateChange {
	state: SessionState;
	/** Attempts in a row since the last connection that held; 0 for the first. */
	attempt: number;
	/** When the next attempt begins, in milliseconds, while waiting for it. */
	retryInMs: number | null;
	/** Why the session is reconnecting or closed; `null` for a close that was asked for. */
	error: SaccadeError | null;
}
/** How media came back. */
export interface Reconnected {
	/** Whether it is the same session, with its options and object ids; false: a new one took its place. */
	resumed: boolean;
	/** From the notice of the loss to media, in milliseconds. */
	tookMs: number;
}
/** How a session is made; see `connect`. */
export interface SessionConfig {
	/** Video to send: a stream with a video track. */
	stream: MediaStream;
	/** Plays the returned video. */
	video?: HTMLVideoElement | undefined;
	/** Shows the local picture with boxes while no video returns; see {@link LocalPreview}. */
	preview?: HTMLCanvasElement | undefined;
	/** Address of the signaling endpoint, `ws:`, `wss:`, `http:` or `https:`. */
	url: string;
	/** A JWT, or what gives a fresh one at each connection. */
	token?: string | (() => string | Promise<string>) | undefined;
	/** Options of the session; what is absent keeps the server's default. */
	options?: OptionsPatch | undefined;
	/** Which codec to prefer; `auto` by default. */
	codec?: CodecChoice | undefined;
	/** Whether video may ever come back; true by default. With false the session is results-only for good. */
	receiveVideo?: boolean | undefined;
	/** Upper bound of the sent bitrate, in kilobits a second. */
	maxBitrateKbps?: number | undefined;
	/** Used beside the ICE servers that the server announces. */
	iceServers?: RTCIceServer[] | undefined;
	/** How to reconnect; `false`: never. */
	reconnect?: Partial<ReconnectPolicy> | false | undefined;
	/** Opens a `control` data channel, so that `configure` works while the socket is away. */
	controlChannel?: boolean | undefined;
	/** Finds out when each frame was captured, for `capturedAt`, `resultAge` and `shownAge`; always on with `preview`. */
	trackSource?: boolean | undefined;
	/** Address of `saccade-worker.js`; beside the SDK by default. */
	workerUrl?: string | URL | undefined;
	/** Each result in the `saccade` format. */
	onResult?: ((result: SessionResult) => void) | undefined;
	/** Each result in one of the other formats, parsed but not checked. */
	onForeignResult?: ((result: unknown) => void) | undefined;
	/** Each event: tracks, zones, lines and alerts. `event.type` tells its shape. */
	onEvent?: ((event: SessionEvent) => void) | undefined;
	/** Each event of a kind or shape that this client does not know, parsed but not checked. */
	onForeignEvent?: ((event: unknown) => void) | undefined;
	/** Each returned frame as it is shown, with its result if that came already. */
	onFrame?: ((frame: ShownFrame, result: SessionResult | null) => void) | undefined;
	/** Each returned frame once it has both been shown and met its result. */
	onJoin?: ((frame: ShownFrame, result: SessionResult) => void) | undefined;
	/** Each frame that the preview draws. */
	onPreview?: ((shown: PreviewFrame) => void) | undefined;
	/** Each change of state. */
	onState?: ((change: StateChange) => void) | undefined;
	/** Media is lost and is being brought back; once each time, whatever the number of attempts. */
	onReconnecting?: ((error: SaccadeError) => void) | undefined;
	/** Media is back after `onReconnecting`. */
	onReconnected?: ((how: Reconnected) => void) | undefined;
	/** Each error; `error.fatal` tells whether the session is over. */
	onError?: ((error: SaccadeError) => void) | undefined;
	/** The server's first message on each socket. */
	onWelcome?: ((welcome: Welcome) => void) | undefined;
	/** The options in force, whenever the server states them. */
	onOptions?: ((options: Options) => void) | undefined;
	/** Statistics, once a second while connected. */
	onStats?: ((stats: SessionStats) => void) | undefined;
}
/**
 * One session: signaling, media, results, and getting all of it back after a loss.
 *
 * The socket and the media live and die apart. A lost socket is opened anew and resumes the session while the media
 * goes on; lost media gets an ICE restart over the socket; where neither helps, a new session takes its place, with the
 * options last in force. Attempts are spaced by exponential back-off with jitter, and bounded.
 */
export declare class SaccadeSession {
	#private;
	/** Prepares a session; {@link start} connects it. */
	constructor(config: SessionConfig, environment?: Environment);
	/** Where the session stands. */
	get state(): SessionState;
	/** Id that the server gave, or `null` before the first answer. */
	get sessionId(): string | null;
	/** The options in force, or `null` before the first answer. */
	get options(): Options | null;
	/** The server's first message, or `null` before it. */
	get welcome(): Welcome | null;
	/** The returned video, or `null` while there is none. */
	get returned(): MediaStream | null;
	/** Delay of the preview's picture in milliseconds; 0 without a preview. */
	get previewDelayMs(): number;
	/**
	 * Connects; resolves when media flows.
	 *
	 * @throws {@link SaccadeError} the fatal error that ended the session before that.
	 */
	start(): Promise<void>;
	/**
	 * Changes options while the session runs; resolves with all options now in force. While the socket is away the change
	 * waits for it.
	 *
	 * @throws {@link SaccadeError} `bad_options` or `unknown_model` when the server refuses (the old options stay),
	 * `timeout`, or `not_connected`.
	 */
	configure(patch: OptionsPatch): Promise<Options>;
	/** The result of the returned frame with this RTP timestamp, if it came and is still kept (about eight seconds). */
	resultForFrame(rtpTimestamp: number): SessionResult | null;
	/**
	 * When the frame that `result` belongs to was captured, on the clock of `performance.now()`; `null` while unknown.
	 * Needs `trackSource` or `preview`.
	 */
	capturedAt(result: SessionResult): number | null;
	/** Statistics as of now. */
	stats(): SessionStats;
	/** What the preview draws over the local picture. */
	setPreviewDrawing(options: DrawOptions): void;
	/** Sends another stream from now on; the session goes on. */
	setStream(stream: MediaStream): Promise<void>;
	/**
	 * Reports each frame that `video` shows to `onFrame` and `onJoin`. The `video` given to `connect` is watched already.
	 *
	 * @returns a function that ends it.
	 */
	watchVideo(video: HTMLVideoElement): () => void;
	/** Ends the session and frees everything. Safe to call more than once. */
	close(): void;
}
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
export declare function listCameras(): Promise<CameraInfo[]>;
/**
 * Opens a camera; without wishes, 1280×720 at 30 frames a second.
 *
 * @throws {@link SaccadeError} `camera_denied`, `camera_missing`, `camera_busy`, `camera_unsuitable` or
 * `insecure_context`.
 */
export declare function openCamera(wishes?: CameraWishes): Promise<OpenSource>;
/**
 * Asks for a screen, window or tab. Must follow a click or key press.
 *
 * @throws {@link SaccadeError} `screen_denied`, `insecure_context` or `unsupported_browser`.
 */
export declare function openScreen(): Promise<OpenSource>;
/**
 * Plays a video, looping and silent, into a stream. The frames go through a canvas, so that it works in every browser
 * and each frame's time in the video is known.
 *
 * @param from a file the user chose, or addresses of the same video in several formats, best first.
 * @throws {@link SaccadeError} `file_unplayable`.
 */
export declare function openVideo(from: Blob | readonly string[] | string): Promise<PlayingSource>;
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
export declare function connect(options: ConnectOptions): Promise<SaccadeSession>;
/**
 * Address of the signaling endpoint: `http:` becomes `ws:`, `https:` becomes `wss:`, and any other path than one that
 * ends in `/v1/signal` becomes `/v1/signal`. The query is kept, so that proxies may use it.
 *
 * @param base what a relative address is relative to; the page by default.
 */
export declare function signalingUrl(address: string | URL, base?: string | undefined): string;

export {};
