import type { Environment } from "./environment.js";
import { SaccadeError } from "./errors.js";

/** Which codec the offer prefers; `auto` leaves the browser's order. */
export type CodecChoice = "auto" | "h264" | "vp8";

/** What a {@link Peer} is made of. */
export interface PeerConfig {
  iceServers: RTCIceServer[];
  stream: MediaStream;
  codec: CodecChoice;
  /** Whether video may come back; false offers `sendonly`. */
  receiveVideo: boolean;
  /** Upper bound of the sent bitrate, in kilobits a second. */
  maxBitrateKbps: number | null;
  /** Whether to open an `events` data channel beside `results`. */
  eventsChannel: boolean;
  /** Whether to open a `control` data channel beside `results`. */
  controlChannel: boolean;
}

/** What a {@link Peer} tells its owner. Nothing is told after {@link Peer.close}. */
export interface PeerHandlers {
  /** A local candidate; `null` ends them. */
  onCandidate(candidate: RTCIceCandidateInit | null): void;
  onConnectionState(state: RTCPeerConnectionState): void;
  /** Returned video. */
  onTrack(track: MediaStreamTrack): void;
  /** A text on one of the data channels. */
  onText(label: "results" | "events" | "control", text: string): void;
  /** An encoded frame was seen on its way out; `seenAt` is on the clock of `performance.now()`. */
  onSighting(rtpTimestamp: number, seenAt: number): void;
}

/** Remote candidates kept while their answer has not come. */
const MAX_EARLY_CANDIDATES = 64;

/** One `RTCPeerConnection` with its transceiver and data channels. */
export class Peer {
  readonly #connection: RTCPeerConnection;
  readonly #sender: RTCRtpSender;
  #handlers: PeerHandlers | null;
  #control: RTCDataChannel | null = null;
  #worker: Worker | null = null;
  #early: (RTCIceCandidateInit | null)[] = [];
  #awaitingAnswer = false;

  constructor(environment: Environment, config: PeerConfig, handlers: PeerHandlers) {
    this.#handlers = handlers;
    const connection = environment.createPeer({ iceServers: config.iceServers, bundlePolicy: "max-bundle" });
    this.#connection = connection;
    connection.onicecandidate = ({ candidate }) => {
      // Browsers end a generation with an empty line and the gathering with null; the latter is enough.
      if (candidate?.candidate === "") return;
      this.#handlers?.onCandidate(candidate ? candidate.toJSON() : null);
    };
    connection.onconnectionstatechange = () => this.#handlers?.onConnectionState(connection.connectionState);
    connection.ontrack = ({ track }) => {
      if (track.kind === "video") this.#handlers?.onTrack(track);
    };
    connection.ondatachannel = ({ channel }) => this.#listen(channel);

    const track = config.stream.getVideoTracks()[0];
    if (!track) throw new SaccadeError("no_video");
    const transceiver = connection.addTransceiver(track, {
      direction: config.receiveVideo ? "sendrecv" : "sendonly",
      streams: [config.stream],
      ...(config.maxBitrateKbps && { sendEncodings: [{ maxBitrate: config.maxBitrateKbps * 1_000 }] }),
    });
    this.#sender = transceiver.sender;
    preferCodec(transceiver, config.codec);
    this.#listen(connection.createDataChannel("results", { ordered: false, maxRetransmits: 0 }));
    // The server keeps events until somebody opens their channel.
    if (config.eventsChannel) this.#listen(connection.createDataChannel("events"));
    if (config.controlChannel) {
      this.#control = connection.createDataChannel("control");
      this.#listen(this.#control);
    }
  }

  /** State of the connection as a whole. */
  get state(): RTCPeerConnectionState {
    return this.#connection.connectionState;
  }

  /** Whether an offer waits for its answer. */
  get awaitingAnswer(): boolean {
    return this.#awaitingAnswer;
  }

  /** Servers for candidates that are gathered from the next restart on. */
  setIceServers(iceServers: RTCIceServer[]): void {
    this.#connection.setConfiguration({ ...this.#connection.getConfiguration(), iceServers });
  }

  /** Makes an offer and returns its SDP; `restart` asks for new ICE credentials. */
  async offer(restart: boolean): Promise<string> {
    this.#awaitingAnswer = true;
    const offer = await this.#connection.createOffer({ iceRestart: restart });
    await this.#connection.setLocalDescription(offer);
    return this.#connection.localDescription?.sdp ?? offer.sdp ?? "";
  }

  /** Takes back an offer that will get no answer. */
  async rollback(): Promise<void> {
    if (this.#connection.signalingState === "have-local-offer") {
      await this.#connection.setLocalDescription({ type: "rollback" });
    }
    this.#awaitingAnswer = false;
  }

  /** Takes the answer, then the candidates that came before it. */
  async answer(sdp: string): Promise<void> {
    await this.#connection.setRemoteDescription({ type: "answer", sdp });
    this.#awaitingAnswer = false;
    const early = this.#early;
    this.#early = [];
    for (const candidate of early) await this.#add(candidate);
  }

  /** Takes a remote candidate; before its answer it is kept, up to a bound. */
  async candidate(candidate: RTCIceCandidateInit | null): Promise<void> {
    if (!this.#awaitingAnswer) return this.#add(candidate);
    if (this.#early.length < MAX_EARLY_CANDIDATES) this.#early.push(candidate);
  }

  /** Sends `text` on the `control` channel and returns whether that was possible. */
  control(text: string): boolean {
    if (this.#control?.readyState !== "open") return false;
    this.#control.send(text);
    return true;
  }

  /** Puts another track in the place of the one being sent. */
  async replace(track: MediaStreamTrack): Promise<void> {
    await this.#sender.replaceTrack(track);
  }

  /**
   * Starts to tell of encoded frames, through a sender-side transform; does nothing where the browser has none or does
   * not let the worker load.
   *
   * @param workerUrl address of `saccade-worker.js`, of the page's own origin.
   * @param timeOrigin `performance.timeOrigin` of the page.
   */
  watchEncoded(workerUrl: URL, timeOrigin: number): void {
    if (typeof RTCRtpScriptTransform === "undefined") return;
    try {
      const worker = new Worker(workerUrl);
      worker.onmessage = ({ data }: MessageEvent<{ rtpTimestamp: number; seenAt: number }>) =>
        this.#handlers?.onSighting(data.rtpTimestamp, data.seenAt - timeOrigin);
      // Without the script no frame would pass: give the sender its direct way back.
      worker.onerror = (event) => {
        event.preventDefault();
        this.unwatchEncoded();
      };
      this.#sender.transform = new RTCRtpScriptTransform(worker);
      this.#worker = worker;
    } catch {
      // A worker of another origin is refused; results are then matched by their arrival.
    }
  }

  /** Ends {@link watchEncoded}. */
  unwatchEncoded(): void {
    if (!this.#worker) return;
    this.#sender.transform = null;
    this.#worker.terminate();
    this.#worker = null;
  }

  /** The browser's own statistics. */
  stats(): Promise<RTCStatsReport> {
    return this.#connection.getStats();
  }

  /** Closes everything; nothing more is told. */
  close(): void {
    this.#handlers = null;
    this.#connection.onicecandidate = null;
    this.#connection.onconnectionstatechange = null;
    this.#connection.ontrack = null;
    this.#connection.ondatachannel = null;
    this.#connection.close();
    this.#worker?.terminate();
    this.#worker = null;
    this.#early = [];
  }

  async #add(candidate: RTCIceCandidateInit | null): Promise<void> {
    if (!candidate?.candidate) return;
    try {
      await this.#connection.addIceCandidate(candidate);
    } catch {
      // A candidate of an older generation, or of a kind this browser does not know: the others go on.
    }
  }

  #listen(channel: RTCDataChannel): void {
    const { label } = channel;
    if (label !== "results" && label !== "events" && label !== "control") return;
    channel.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (typeof data === "string") this.#handlers?.onText(label, data);
    };
  }
}

function preferCodec(transceiver: RTCRtpTransceiver, choice: CodecChoice): void {
  if (choice === "auto" || typeof transceiver.setCodecPreferences !== "function") return;
  const known = RTCRtpReceiver.getCapabilities("video")?.codecs ?? [];
  const wanted = known.filter(({ mimeType }) => mimeType.toLowerCase() === `video/${choice}`);
  // Retransmission and error correction are formats of their own and belong to every choice.
  const helpers = known.filter(({ mimeType }) => /\/(rtx|red|ulpfec|flexfec-03)$/i.test(mimeType));
  if (wanted.length === 0) {
    throw new SaccadeError("no_common_codec", { detail: `this browser has no ${choice.toUpperCase()}` });
  }
  transceiver.setCodecPreferences([...wanted, ...helpers]);
}
