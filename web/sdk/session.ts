import { Backoff, DEFAULT_RECONNECT, type ReconnectPolicy } from "./backoff.js";
import { browserEnvironment, type Environment } from "./environment.js";
import { errorOfCloseCode, type ErrorCode, SaccadeError } from "./errors.js";
import { Joiner, type ShownFrame } from "./joiner.js";
import type { DrawOptions } from "./overlay.js";
import { type CodecChoice, Peer } from "./peer.js";
import { LocalPreview, type PreviewFrame } from "./preview.js";
import { Signaling } from "./signaling.js";
import { SourceClock } from "./source-clock.js";
import { SourceWatch } from "./source-watch.js";
import { type SessionStats, Statistics } from "./stats.js";
import {
  build,
  type ErrorMessage,
  isSessionEvent,
  isSessionResult,
  mergeOptions,
  type Options,
  type OptionsPatch,
  parseServerMessage,
  PROTOCOL_VERSION,
  type ServerMessage,
  type SessionEvent,
  type SessionResult,
  type Welcome,
} from "./wire.js";

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

/** From the socket's opening to `welcome`, in milliseconds. */
const WELCOME_MS = 10_000;
/** From an offer to its answer. */
const ANSWER_MS = 10_000;
/** The same on a socket that has been open for a while: it may be dead unseen, and a server that is reached answers at once. */
const RESTART_ANSWER_MS = 2_000;
/** User names of TURN servers that begin with a smaller number than this begin with no time, in seconds since 1970. */
const EARLIEST_EXPIRY_S = 1e9;
/** Credentials of TURN servers that end sooner than this count as ended, in milliseconds. */
const CREDENTIALS_MARGIN_MS = 5_000;
/** From an answer to connected media. */
const MEDIA_MS = 12_000;
/** How long a `disconnected` connection may heal by itself. */
const HEAL_MS = 2_000;
/** From `configure` to its answer. */
const CONFIGURE_MS = 10_000;
/** ICE restarts in a row before a new session is made. */
const MAX_RESTARTS = 2;
const STATS_MS = 1_000;

interface Change {
  patch: OptionsPatch;
  sent: boolean;
  resolve(options: Options): void;
  reject(error: SaccadeError): void;
  timer: unknown;
}

type Timer = "retry" | "welcome" | "answer" | "media" | "heal" | "stable" | "drain" | "stats" | "network";

/**
 * One session: signaling, media, results, and getting all of it back after a loss.
 *
 * The socket and the media live and die apart. A lost socket is opened anew and resumes the session while the media
 * goes on; lost media gets an ICE restart over the socket; where neither helps, a new session takes its place, with the
 * options last in force. Attempts are spaced by exponential back-off with jitter, and bounded.
 */
export class SaccadeSession {
  readonly #config: SessionConfig;
  readonly #environment: Environment;
  readonly #backoff: Backoff;
  readonly #policy: ReconnectPolicy;
  readonly #timers = new Map<Timer, unknown>();
  readonly #joiner: Joiner;
  readonly #statistics: Statistics;
  readonly #clock = new SourceClock();
  readonly #watch: SourceWatch | null;
  readonly #preview: LocalPreview | null;
  readonly #changes: Change[] = [];
  readonly #started: { promise: Promise<void>; resolve(): void; reject(error: SaccadeError): void };
  #stream: MediaStream;
  #wanted: OptionsPatch;
  #options: Options | null = null;
  #welcome: Welcome | null = null;
  #signaling: Signaling | null = null;
  #peer: Peer | null = null;
  #sessionId: string | null = null;
  #returned: MediaStream | null = null;
  #state: SessionState = "connecting";
  #greeted = false;
  #sighted = false;
  #resuming = false;
  #offerAgain = false;
  #restarts = 0;
  #restartWanted = false;
  #lost: { at: number; sessionId: string | null } | null = null;
  #localCandidates: (RTCIceCandidateInit | null)[] | null = null;
  #stopNetworkWatch: (() => void) | null = null;
  #unwatchVideo: (() => void) | null = null;

  /** Prepares a session; {@link start} connects it. */
  constructor(config: SessionConfig, environment: Environment = browserEnvironment()) {
    this.#config = config;
    this.#environment = environment;
    this.#stream = config.stream;
    this.#wanted = config.options ?? {};
    this.#policy = { ...DEFAULT_RECONNECT, ...(config.reconnect || {}) };
    if (config.reconnect === false) this.#policy.maxAttempts = 0;
    this.#backoff = new Backoff(this.#policy, () => environment.random());
    this.#joiner = new Joiner((frame, result) => {
      const capturedAt = this.#clock.capturedAt(result.rtp_timestamp_in);
      if (capturedAt !== null) this.#statistics.age(frame.shownAt - capturedAt);
      config.onJoin?.(frame, result);
    });
    this.#statistics = new Statistics(this.#joiner);
    this.#preview = config.preview
      ? new LocalPreview(config.preview, this.#clock, (shown) => config.onPreview?.(shown))
      : null;
    this.#watch = config.preview || config.trackSource ? new SourceWatch(this.#clock) : null;
    let resolve = (): void => undefined;
    let reject = (_: SaccadeError): void => undefined;
    const promise = new Promise<void>((done, failed) => {
      resolve = done;
      reject = failed;
    });
    promise.catch(() => undefined);
    this.#started = { promise, resolve, reject };
  }

  /** Where the session stands. */
  get state(): SessionState {
    return this.#state;
  }

  /** Id that the server gave, or `null` before the first answer. */
  get sessionId(): string | null {
    return this.#sessionId;
  }

  /** The options in force, or `null` before the first answer. */
  get options(): Options | null {
    return this.#options;
  }

  /** The server's first message, or `null` before it. */
  get welcome(): Welcome | null {
    return this.#welcome;
  }

  /** The returned video, or `null` while there is none. */
  get returned(): MediaStream | null {
    return this.#returned;
  }

  /** Delay of the preview's picture in milliseconds; 0 without a preview. */
  get previewDelayMs(): number {
    return this.#preview?.delayMs ?? 0;
  }

  /**
   * Connects; resolves when media flows.
   *
   * @throws {@link SaccadeError} the fatal error that ended the session before that.
   */
  start(): Promise<void> {
    if (this.#state === "connecting" && !this.#signaling) {
      this.#tellState(null, null);
      this.#stopNetworkWatch = this.#environment.onNetworkChange(() => this.#onNetworkChange());
      this.#watchTrack(this.#stream);
      if (this.#preview && this.#watch) {
        const preview = this.#preview;
        this.#watch.onFrame = (video, frame) => {
          if (this.#options?.return === "results") preview.frame(video, frame, this.#environment.now());
        };
      }
      this.#watch?.attach(this.#stream);
      if (this.#config.video) this.#unwatchVideo = this.watchVideo(this.#config.video);
      void this.#openSocket();
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
  configure(patch: OptionsPatch): Promise<Options> {
    if (this.#state === "closed") return Promise.reject(new SaccadeError("not_connected"));
    return new Promise((resolve, reject) => {
      const change: Change = { patch, sent: false, resolve, reject, timer: null };
      change.timer = this.#environment.setTimer(() => {
        this.#changes.splice(this.#changes.indexOf(change), 1);
        reject(new SaccadeError("timeout", { fatal: false }));
      }, CONFIGURE_MS);
      this.#changes.push(change);
      this.#sendChanges();
    });
  }

  /** The result of the returned frame with this RTP timestamp, if it came and is still kept (about eight seconds). */
  resultForFrame(rtpTimestamp: number): SessionResult | null {
    return this.#joiner.resultForFrame(rtpTimestamp);
  }

  /**
   * When the frame that `result` belongs to was captured, on the clock of `performance.now()`; `null` while unknown.
   * Needs `trackSource` or `preview`.
   */
  capturedAt(result: SessionResult): number | null {
    return this.#clock.capturedAt(result.rtp_timestamp_in);
  }

  /** Statistics as of now. */
  stats(): SessionStats {
    return this.#statistics.snapshot(this.#environment.now());
  }

  /** What the preview draws over the local picture. */
  setPreviewDrawing(options: DrawOptions): void {
    if (this.#preview) this.#preview.drawing = options;
  }

  /** Sends another stream from now on; the session goes on. */
  async setStream(stream: MediaStream): Promise<void> {
    const track = stream.getVideoTracks()[0];
    if (!track) throw new SaccadeError("no_video", { fatal: false });
    this.#stream = stream;
    this.#watchTrack(stream);
    this.#watch?.attach(stream);
    this.#clock.reset();
    await this.#peer?.replace(track);
  }

  /**
   * Reports each frame that `video` shows to `onFrame` and `onJoin`. The `video` given to `connect` is watched already.
   *
   * @returns a function that ends it.
   */
  watchVideo(video: HTMLVideoElement): () => void {
    if (typeof video.requestVideoFrameCallback !== "function") return () => undefined;
    let handle = 0;
    const step: VideoFrameRequestCallback = (_now, metadata) => {
      handle = video.requestVideoFrameCallback(step);
      if (metadata.rtpTimestamp === undefined) return;
      const frame: ShownFrame = {
        rtpTimestamp: metadata.rtpTimestamp,
        shownAt: metadata.expectedDisplayTime,
        width: metadata.width,
        height: metadata.height,
      };
      this.#statistics.shown(this.#environment.now());
      const result = this.#joiner.frame(frame);
      this.#config.onFrame?.(frame, result);
    };
    handle = video.requestVideoFrameCallback(step);
    return () => video.cancelVideoFrameCallback(handle);
  }

  /** Ends the session and frees everything. Safe to call more than once. */
  close(): void {
    this.#end(null);
  }

  async #openSocket(): Promise<void> {
    this.#stopTimer("retry");
    this.#greeted = false;
    let token: string | undefined;
    try {
      const { token: given } = this.#config;
      token = typeof given === "function" ? await given() : given;
    } catch (cause) {
      return this.#retry(new SaccadeError("unauthorized", { detail: "no token could be had", cause }));
    }
    if (this.#state === "closed") return;
    try {
      this.#signaling = new Signaling(this.#environment, this.#config.url, {
        onOpen: () => {
          if (token) this.#signaling?.send(build.auth(token));
        },
        onMessage: (message) => this.#onMessage(message),
        onMalformed: (error) => {
          const malformed = new SaccadeError("wrong_version", { detail: error.message, fatal: !this.#greeted });
          if (this.#greeted) this.#config.onError?.(malformed);
          else this.#end(malformed);
        },
        onClosed: (code, reason) => this.#onSocketClosed(code, reason),
      });
    } catch (cause) {
      return this.#end(new SaccadeError("server_unreachable", { detail: "the address is not valid", cause }));
    }
    this.#startTimer("welcome", WELCOME_MS, () => {
      this.#dropSocket();
      this.#retry(new SaccadeError("timeout"));
    });
  }

  #onMessage(message: ServerMessage): void {
    switch (message.type) {
      case "welcome":
        return this.#onWelcome(message);
      case "answer":
        void this.#onAnswer(message);
        return;
      case "candidate":
        void this.#peer?.candidate(message.candidate);
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

  #onWelcome(welcome: Welcome): void {
    this.#stopTimer("welcome");
    this.#greeted = true;
    this.#welcome = welcome;
    if (welcome.protocol !== PROTOCOL_VERSION) {
      return this.#end(new SaccadeError("wrong_version", { detail: `the server speaks version ${welcome.protocol}` }));
    }
    this.#config.onWelcome?.(welcome);
    if (this.#state === "closed") return;
    if (this.#peer && this.#sessionId) {
      this.#resuming = true;
      this.#peer.setIceServers(this.#iceServers());
      void this.#offer(this.#restartWanted || this.#peer.state !== "connected");
    } else {
      this.#newSession();
    }
  }

  #newSession(): void {
    this.#dropPeer();
    this.#restarts = 0;
    try {
      const config = this.#config;
      const peer: Peer = new Peer(
        this.#environment,
        {
          iceServers: this.#iceServers(),
          stream: this.#stream,
          codec: config.codec ?? "auto",
          receiveVideo: config.receiveVideo ?? true,
          maxBitrateKbps: config.maxBitrateKbps ?? null,
          eventsChannel: config.onEvent !== undefined || config.onForeignEvent !== undefined,
          controlChannel: config.controlChannel ?? false,
        },
        {
          onCandidate: (candidate) => this.#onLocalCandidate(candidate),
          onConnectionState: (state) => this.#onPeerState(peer, state),
          onTrack: (track) => this.#onReturnedTrack(track),
          onText: (label, text) => this.#onText(label, text),
          onSighting: (rtpTimestamp, seenAt) => {
            this.#sighted = true;
            this.#clock.sighting(rtpTimestamp, seenAt);
          },
        },
      );
      this.#peer = peer;
      if (this.#watch && config.workerUrl !== undefined) {
        peer.watchEncoded(new URL(config.workerUrl), performance.timeOrigin);
      }
    } catch (cause) {
      return this.#end(cause instanceof SaccadeError ? cause : new SaccadeError("unsupported_browser", { cause }));
    }
    void this.#offer(false);
  }

  #iceServers(): RTCIceServer[] {
    const announced = (this.#welcome?.ice_servers ?? []).map((server): RTCIceServer => ({ ...server }));
    return [...announced, ...(this.#config.iceServers ?? [])];
  }

  /** Whether a TURN server would refuse what `welcome` brought: user names of that kind begin with the time of their end. */
  #credentialsEnded(): boolean {
    const ends = (this.#welcome?.ice_servers ?? []).map(({ username }) => Number(/^(\d+)(:|$)/.exec(username ?? "")?.[1] ?? NaN));
    return ends.some((end) => end > EARLIEST_EXPIRY_S && end * 1_000 < Date.now() + CREDENTIALS_MARGIN_MS);
  }

  async #offer(restart: boolean): Promise<void> {
    const peer = this.#peer;
    if (!peer || !this.#signaling?.open) return;
    if (peer.awaitingAnswer && !this.#resuming) {
      this.#offerAgain = true;
      return;
    }
    this.#localCandidates = [];
    let resumed: string | null = null;
    try {
      if (peer.awaitingAnswer) await peer.rollback();
      const sdp = await peer.offer(restart);
      if (peer !== this.#peer) return;
      const fresh = this.#sessionId === null;
      resumed = this.#resuming ? this.#sessionId : null;
      const options = fresh && Object.keys(this.#wanted).length > 0 ? this.#wanted : undefined;
      if (!this.#signaling?.send(build.offer(sdp, options, resumed))) {
        if (this.#signaling?.open) this.#end(new SaccadeError("too_large"));
        return;
      }
    } catch (cause) {
      if (peer === this.#peer) this.#end(new SaccadeError("unsupported_browser", { detail: String(cause), cause }));
      return;
    }
    const early = this.#localCandidates;
    this.#localCandidates = null;
    for (const candidate of early ?? []) this.#signaling?.send(build.candidate(candidate));
    if (this.#sessionId === null || this.#policy.maxAttempts === 0) {
      this.#startTimer("answer", ANSWER_MS, () => this.#rebuild(new SaccadeError("timeout")));
    } else {
      // A session is resumed on a socket that has just said welcome.
      this.#startTimer("answer", resumed === null ? RESTART_ANSWER_MS : ANSWER_MS, () => this.#changeSocket());
    }
  }

  /** Restarts ICE over this socket, or over another where the credentials have ended and there may be another. */
  #offerRestart(): void {
    if (this.#policy.maxAttempts > 0 && this.#credentialsEnded()) this.#changeSocket();
    else void this.#offer(true);
  }

  /** Resumes the session on another socket: this one is dead, or its credentials have ended. */
  #changeSocket(): void {
    this.#dropSocket();
    this.#retry(new SaccadeError("timeout", { fatal: false }));
  }

  #onLocalCandidate(candidate: RTCIceCandidateInit | null): void {
    // A candidate must not overtake its offer.
    if (this.#localCandidates) this.#localCandidates.push(candidate);
    else this.#signaling?.send(build.candidate(candidate));
  }

  async #onAnswer({ sdp, session_id, options }: { sdp: string; session_id: string; options: Options }): Promise<void> {
    const peer = this.#peer;
    if (!peer?.awaitingAnswer) return;
    this.#stopTimer("answer");
    this.#resuming = false;
    this.#restartWanted = false;
    if (this.#sessionId !== null && this.#sessionId !== session_id) this.#joiner.clear();
    this.#sessionId = session_id;
    this.#setOptions(options);
    if (peer.state !== "connected") {
      this.#startTimer("media", MEDIA_MS, () => this.#rebuild(new SaccadeError("ice_timeout")));
    }
    try {
      await peer.answer(sdp);
    } catch (cause) {
      if (peer === this.#peer) this.#rebuild(new SaccadeError("bad_sdp", { detail: String(cause), cause }));
      return;
    }
    if (peer !== this.#peer) return;
    this.#sendChanges();
    if (peer.state === "connected") this.#onConnected();
    if (this.#offerAgain) {
      this.#offerAgain = false;
      void this.#offer(true);
    }
  }

  #onPeerState(peer: Peer, state: RTCPeerConnectionState): void {
    if (peer !== this.#peer) return;
    this.#stopTimer("heal");
    switch (state) {
      case "connected":
        return this.#onConnected();
      case "disconnected":
        return this.#startTimer("heal", HEAL_MS, () => this.#restartIce());
      case "failed":
        return this.#restartIce();
      default:
    }
  }

  #onConnected(): void {
    this.#stopTimer("media");
    this.#restarts = 0;
    this.#startTimer("stable", this.#policy.stableMs, () => this.#backoff.reset());
    if (!this.#timers.has("stats")) this.#pollStats();
    if (this.#state !== "connected") {
      this.#state = "connected";
      this.#tellState(null, null);
      if (this.#closedMeanwhile()) return;
    }
    this.#started.resolve();
    if (this.#lost) {
      const { at, sessionId } = this.#lost;
      this.#lost = null;
      this.#config.onReconnected?.({ resumed: sessionId === this.#sessionId, tookMs: this.#environment.now() - at });
    }
  }

  /** Tells the page of a loss, once; the page may close the session meanwhile. */
  #loseMedia(error: SaccadeError): void {
    const had = this.#state === "connected" && !this.#lost;
    this.#state = "reconnecting";
    if (!had) return;
    this.#lost = { at: this.#environment.now(), sessionId: this.#sessionId };
    this.#config.onReconnecting?.(error);
  }

  /** Lost media: new ICE credentials over the socket, or over the one being opened, else a new session. */
  #restartIce(): void {
    if (!this.#peer || this.#state === "closed") return;
    this.#stopTimer("stable");
    if (this.#state === "connected") {
      const lost = new SaccadeError("media_lost", { fatal: false });
      this.#loseMedia(lost);
      if (this.#closedMeanwhile()) return;
      this.#tellState(lost, null);
      if (this.#closedMeanwhile()) return;
    }
    if (this.#sessionId === null || this.#restarts >= MAX_RESTARTS) {
      return this.#rebuild(new SaccadeError(this.#sessionId === null ? "ice_timeout" : "media_lost"));
    }
    this.#restartWanted = true;
    if (!this.#signaling?.open || !this.#greeted) return;
    this.#restarts += 1;
    this.#startTimer("media", MEDIA_MS, () => this.#rebuild(new SaccadeError("ice_timeout")));
    this.#offerRestart();
  }

  #onNetworkChange(): void {
    // Several events come for one change; the first path that works again matters.
    this.#startTimer("network", 500, () => {
      if (this.#peer && this.#sessionId) this.#restartWanted = true;
      if (this.#timers.has("retry")) void this.#openSocket();
      else if (this.#peer && this.#sessionId && this.#signaling?.open && this.#greeted) this.#offerRestart();
    });
  }

  #onSocketClosed(code: number, reason: string): void {
    this.#signaling = null;
    this.#stopTimer("welcome");
    this.#stopTimer("answer");
    if (this.#timers.has("drain")) return;
    const meant = errorOfCloseCode(code, reason);
    if (meant && !meant.retryable) return this.#end(meant);
    if (this.#sessionId === null) this.#dropPeer();
    this.#retry(meant ?? new SaccadeError("server_unreachable", { detail: `the connection closed (${code})` }));
  }

  #onErrorMessage(message: ErrorMessage): void {
    const { fatal, message: detail, retry_after_ms: retryAfterMs } = message;
    const error = new SaccadeError(message.code as ErrorCode, { detail, fatal, retryAfterMs });
    if (this.#resuming && this.#peer?.awaitingAnswer) return this.#onResumeRefused(fatal);
    if (!fatal) {
      const change = this.#changes.find(({ sent }) => sent);
      const refused = change && (error.code === "bad_options" || error.code === "unknown_model");
      if (change && (refused || !this.#peer?.awaitingAnswer)) return this.#settle(change, (it) => it.reject(error));
      if (this.#sessionId !== null) return this.#config.onError?.(error);
    }
    if (error.retryable) this.#rebuild(error);
    else this.#end(error.withFatal(true));
  }

  /** The session could not be resumed: a new one takes its place. */
  #onResumeRefused(fatal: boolean): void {
    this.#resuming = false;
    this.#stopTimer("answer");
    this.#sessionId = null;
    if (this.#state === "connected") {
      const lost = new SaccadeError("not_found", { fatal: false });
      this.#loseMedia(lost);
      if (this.#closedMeanwhile()) return;
      this.#tellState(lost, null);
      if (this.#closedMeanwhile()) return;
    }
    if (fatal) this.#rebuild(new SaccadeError("not_found"));
    else this.#newSession();
  }

  #onDraining(afterMs: number): void {
    const jittered = Math.round(afterMs * (1 + 0.25 * this.#environment.random()));
    this.#config.onError?.(new SaccadeError("draining", { fatal: false, retryAfterMs: jittered }));
    if (this.#policy.maxAttempts === 0) return;
    this.#startTimer("drain", jittered, () => {
      this.#dropSocket(true);
      this.#dropPeer();
      this.#sessionId = null;
      const lost = new SaccadeError("draining", { fatal: false });
      this.#loseMedia(lost);
      if (this.#closedMeanwhile()) return;
      this.#tellState(lost, null);
      if (!this.#closedMeanwhile()) void this.#openSocket();
    });
  }

  #onServerClosed(reason: string): void {
    if (this.#timers.has("drain")) return;
    if (/drain|shutdown/.test(reason)) return this.#rebuild(new SaccadeError("draining"));
    this.#end(new SaccadeError("session_ended", { detail: reason }));
  }

  /** Gives the session up and makes another after a pause. */
  #rebuild(error: SaccadeError): void {
    this.#dropSocket(this.#sessionId !== null);
    this.#dropPeer();
    this.#sessionId = null;
    this.#retry(error);
  }

  /** Opens a socket after a pause, or ends the session when no attempt is left. */
  #retry(error: SaccadeError): void {
    if (this.#state === "closed") return;
    const wait = error.retryable ? this.#backoff.next(error.retryAfterMs ?? 0) : null;
    if (wait === null) return this.#end(error.withFatal(true));
    const mediaGoesOn = this.#peer?.state === "connected";
    if (!mediaGoesOn) {
      const told = error.withFatal(false);
      if (this.#state === "connected") this.#loseMedia(told);
      if (this.#closedMeanwhile()) return;
      this.#config.onError?.(told);
      if (this.#closedMeanwhile()) return;
      this.#tellState(told, wait);
    }
    this.#startTimer("retry", wait, () => void this.#openSocket());
  }

  #setOptions(options: Options): void {
    this.#options = options;
    if (this.#preview) {
      if (options.return !== "results") this.#preview.clear();
      this.#preview.shapes = options.overlay.zones ? options : null;
    }
    this.#config.onOptions?.(options);
  }

  #onConfigured(options: Options): void {
    this.#setOptions(options);
    const change = this.#changes.find(({ sent }) => sent);
    if (!change) return;
    this.#wanted = mergeOptions(this.#wanted, change.patch);
    this.#settle(change, (it) => it.resolve(options));
  }

  #settle(change: Change, how: (change: Change) => void): void {
    this.#environment.clearTimer(change.timer);
    this.#changes.splice(this.#changes.indexOf(change), 1);
    how(change);
  }

  #sendChanges(): void {
    if (this.#sessionId === null) return;
    for (const change of this.#changes) {
      if (change.sent) continue;
      const message = build.configure(change.patch);
      const ready = this.#greeted && !this.#resuming;
      change.sent = (ready && this.#signaling?.send(message)) || this.#peer?.control(JSON.stringify(message)) || false;
    }
  }

  #onReturnedTrack(track: MediaStreamTrack): void {
    this.#returned = new MediaStream([track]);
    const { video } = this.#config;
    if (!video) return;
    video.srcObject = this.#returned;
    video.play().catch(() => {
      // Autoplay may be refused for elements that are not muted; the page can call play() after a click.
    });
  }

  #onText(label: "results" | "events" | "control", text: string): void {
    if (label === "control") {
      const message = readControl(text);
      if (message?.type === "configured" || message?.type === "error") this.#onMessage(message);
      return;
    }
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return;
    }
    if (label === "events") {
      if (isSessionEvent(value)) this.#config.onEvent?.(value);
      else this.#config.onForeignEvent?.(value);
    } else if (isSessionResult(value)) {
      this.#onResult(value);
    } else {
      this.#config.onForeignResult?.(value);
    }
  }

  #onResult(result: SessionResult): void {
    const now = this.#environment.now();
    if (this.#watch && !this.#sighted) {
      // Without a transform: the frame was encoded no later than its result, less the server's time and half the way.
      const way = (this.stats().rttMs ?? 0) / 2;
      this.#clock.sighting(result.rtp_timestamp_in, now - (result.timing_ms.total - result.timing_ms.encode) - way);
    }
    this.#statistics.result(result, now, this.#clock.capturedAt(result.rtp_timestamp_in));
    this.#joiner.result(result);
    if (this.#options?.return === "results") this.#preview?.result(result, now);
    this.#config.onResult?.(result);
  }

  #watchTrack(stream: MediaStream): void {
    const track = stream.getVideoTracks()[0];
    track?.addEventListener("ended", () => {
      if (stream === this.#stream && this.#state !== "closed") this.#end(new SaccadeError("source_ended"));
    });
  }

  #pollStats(): void {
    this.#startTimer("stats", STATS_MS, () => {
      const peer = this.#peer;
      this.#pollStats();
      if (!peer || this.#state !== "connected") return;
      peer.stats().then(
        (report) => {
          if (this.#closedMeanwhile()) return;
          this.#statistics.transport(report, this.#environment.now());
          this.#config.onStats?.(this.stats());
        },
        () => undefined,
      );
    });
  }

  #dropSocket(farewell = false): void {
    this.#stopTimer("welcome");
    this.#stopTimer("answer");
    this.#signaling?.close(farewell ? build.bye() : null);
    this.#signaling = null;
    this.#greeted = false;
  }

  #dropPeer(): void {
    for (const timer of ["media", "heal", "stable"] as const) this.#stopTimer(timer);
    this.#peer?.close();
    this.#peer = null;
    this.#resuming = false;
    this.#restartWanted = false;
    this.#offerAgain = false;
    this.#localCandidates = null;
    this.#joiner.clear();
    this.#clock.reset();
    this.#sighted = false;
    for (const change of this.#changes) change.sent = false;
  }

  #end(error: SaccadeError | null): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#dropSocket(true);
    this.#dropPeer();
    for (const timer of [...this.#timers.keys()]) this.#stopTimer(timer);
    this.#stopNetworkWatch?.();
    this.#unwatchVideo?.();
    this.#watch?.detach();
    this.#preview?.clear();
    const { video } = this.#config;
    if (video && this.#returned && video.srcObject === this.#returned) video.srcObject = null;
    this.#returned = null;
    for (const change of [...this.#changes]) {
      this.#settle(change, (it) => it.reject(error ?? new SaccadeError("not_connected")));
    }
    if (error) this.#config.onError?.(error);
    this.#tellState(error, null);
    this.#started.reject(error ?? new SaccadeError("aborted"));
  }

  #closedMeanwhile(): boolean {
    return this.#state === "closed";
  }

  #tellState(error: SaccadeError | null, retryInMs: number | null): void {
    this.#config.onState?.({ state: this.#state, attempt: this.#backoff.attempt, retryInMs, error });
  }

  #startTimer(name: Timer, ms: number, action: () => void): void {
    this.#stopTimer(name);
    const timer = this.#environment.setTimer(() => {
      this.#timers.delete(name);
      action();
    }, ms);
    this.#timers.set(name, timer);
  }

  #stopTimer(name: Timer): void {
    const timer = this.#timers.get(name);
    if (timer === undefined) return;
    this.#environment.clearTimer(timer);
    this.#timers.delete(name);
  }
}

function readControl(text: string): ServerMessage | null {
  try {
    return parseServerMessage(text);
  } catch {
    return null;
  }
}
