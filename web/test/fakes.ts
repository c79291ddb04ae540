import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Environment } from "../sdk/environment.js";
import { SaccadeSession, type SessionConfig, type StateChange } from "../sdk/session.js";
import type { SaccadeError } from "../sdk/errors.js";
import type { ClientMessage, IceServer, Options, ServerMessage, SessionEvent, SessionResult } from "../sdk/wire.js";

declare const __WEB_ROOT__: string;

/** Name and parsed content of every golden file whose name starts with `prefix`. */
export function golden(prefix = ""): [string, unknown][] {
  const folder = join(__WEB_ROOT__, "../signaling/golden");
  return readdirSync(folder)
    .filter((name) => name.startsWith(prefix) && name.endsWith(".json"))
    .map((name) => [name.slice(0, -5), JSON.parse(readFileSync(join(folder, name), "utf8")) as unknown]);
}

/** The golden file of this name. */
export function goldenOne<T>(name: string): T {
  const found = golden(name).find(([known]) => known === name);
  if (!found) throw new Error(`no golden file ${name}`);
  return found[1] as T;
}

/** A WebSocket that the test plays the server of. */
export class FakeSocket {
  readyState = 0;
  sent: ClientMessage[] = [];
  closedWith: number | null = null;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;

  constructor(
    readonly url: string,
    readonly protocol: string,
  ) {}

  send(text: string): void {
    this.sent.push(JSON.parse(text) as ClientMessage);
  }

  close(code: number): void {
    this.readyState = 3;
    this.closedWith = code;
  }

  /** The handshake succeeds and the server says `welcome`. */
  welcome(protocol = 1, iceServers?: IceServer[]): void {
    this.readyState = 1;
    this.onopen?.();
    const welcome = goldenOne<ServerMessage & { type: "welcome" }>("server_welcome");
    this.say({ ...welcome, protocol, ...(iceServers && { ice_servers: iceServers }) });
  }

  say(message: ServerMessage): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  /** The network takes the socket, or the server closes it. */
  lose(code = 1006, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  /** What was sent of this type. */
  of<T extends ClientMessage["type"]>(type: T): Extract<ClientMessage, { type: T }>[] {
    return this.sent.filter((message) => message.type === type) as Extract<ClientMessage, { type: T }>[];
  }
}

export class FakeChannel {
  readyState = "open";
  sent: string[] = [];
  onmessage: ((event: { data: unknown }) => void) | null = null;

  constructor(
    readonly label: string,
    readonly init: RTCDataChannelInit | undefined,
  ) {}

  send(text: string): void {
    this.sent.push(text);
  }
}

/** An RTCPeerConnection that does nothing by itself. */
export class FakePeer {
  connectionState = "new";
  signalingState = "stable";
  localDescription: { sdp: string } | null = null;
  remote: string[] = [];
  added: RTCIceCandidateInit[] = [];
  offers: RTCOfferOptions[] = [];
  channels: FakeChannel[] = [];
  transceivers: { track: unknown; init: RTCRtpTransceiverInit; preferences: unknown[] }[] = [];
  replaced: unknown[] = [];
  closed = false;
  onicecandidate: ((event: { candidate: unknown }) => void) | null = null;
  onconnectionstatechange: (() => void) | null = null;
  ontrack: ((event: unknown) => void) | null = null;
  ondatachannel: ((event: { channel: FakeChannel }) => void) | null = null;

  constructor(public configuration: RTCConfiguration) {}

  getConfiguration(): RTCConfiguration {
    return this.configuration;
  }

  setConfiguration(configuration: RTCConfiguration): void {
    this.configuration = configuration;
  }

  addTransceiver(track: unknown, init: RTCRtpTransceiverInit): unknown {
    const made = { track, init, preferences: [] as unknown[] };
    this.transceivers.push(made);
    return {
      sender: { replaceTrack: (next: unknown) => Promise.resolve(this.replaced.push(next)) },
      setCodecPreferences: (codecs: unknown[]) => (made.preferences = codecs),
    };
  }

  createDataChannel(label: string, init?: RTCDataChannelInit): FakeChannel {
    const channel = new FakeChannel(label, init);
    this.channels.push(channel);
    return channel;
  }

  createOffer(options: RTCOfferOptions): Promise<{ type: string; sdp: string }> {
    this.offers.push(options);
    return Promise.resolve({ type: "offer", sdp: `offer ${this.offers.length}` });
  }

  setLocalDescription(description: { type: string; sdp: string }): Promise<void> {
    this.signalingState = description.type === "rollback" ? "stable" : "have-local-offer";
    this.localDescription = description;
    // Browsers may gather before the caller goes on.
    if (description.type === "offer") this.gather(`candidate:early ${this.offers.length}`);
    return Promise.resolve();
  }

  setRemoteDescription({ sdp }: { sdp: string }): Promise<void> {
    this.signalingState = "stable";
    this.remote.push(sdp);
    return Promise.resolve();
  }

  addIceCandidate(candidate: RTCIceCandidateInit): Promise<void> {
    this.added.push(candidate);
    return Promise.resolve();
  }

  getStats(): Promise<Map<string, unknown>> {
    return Promise.resolve(new Map());
  }

  close(): void {
    this.closed = true;
    this.connectionState = "closed";
  }

  /** A local candidate was gathered. */
  gather(line: string | null): void {
    const candidate = line === null ? null : { candidate: line, toJSON: () => ({ candidate: line, sdpMid: "0", sdpMLineIndex: 0 }) };
    this.onicecandidate?.({ candidate });
  }

  become(state: string): void {
    this.connectionState = state;
    this.onconnectionstatechange?.();
  }
}

/** Time, chance, sockets and peers in the test's hand. */
export class FakeEnvironment implements Environment {
  time = 1_000;
  chance = 1;
  sockets: FakeSocket[] = [];
  peers: FakePeer[] = [];
  networkChanged: (() => void) | null = null;
  #timers = new Map<number, { at: number; action: () => void }>();
  #next = 1;

  createSocket(url: string, protocol: string): WebSocket {
    const socket = new FakeSocket(url, protocol);
    this.sockets.push(socket);
    return socket as unknown as WebSocket;
  }

  createPeer(configuration: RTCConfiguration): RTCPeerConnection {
    const peer = new FakePeer(configuration);
    this.peers.push(peer);
    return peer as unknown as RTCPeerConnection;
  }

  now(): number {
    return this.time;
  }

  setTimer(action: () => void, ms: number): unknown {
    this.#timers.set(this.#next, { at: this.time + ms, action });
    return this.#next++;
  }

  clearTimer(timer: unknown): void {
    this.#timers.delete(timer as number);
  }

  random(): number {
    return this.chance;
  }

  onNetworkChange(action: () => void): () => void {
    this.networkChanged = action;
    return () => (this.networkChanged = null);
  }

  /** Timers that still run. */
  get timers(): number {
    return this.#timers.size;
  }

  get socket(): FakeSocket {
    return last(this.sockets);
  }

  get peer(): FakePeer {
    return last(this.peers);
  }

  /** Lets `ms` pass, timer by timer, and what they set off settle. */
  async pass(ms: number): Promise<void> {
    const until = this.time + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= until).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      this.#timers.delete(due[0]);
      this.time = due[1].at;
      due[1].action();
      await settle();
    }
    this.time = until;
    await settle();
  }
}

/** Lets promises run dry. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 200; turn += 1) await Promise.resolve();
}

export class FakeTrack extends EventTarget {
  kind = "video";
}

export function fakeStream(track: FakeTrack | null = new FakeTrack()): MediaStream {
  return { getVideoTracks: () => (track ? [track] : []), getTracks: () => (track ? [track] : []) } as unknown as MediaStream;
}

export const OPTIONS = goldenOne<{ options: Options }>("server_answer").options;
export const RESULT = goldenOne<SessionResult>("result");

const head = { rtp_timestamp: 3_735_928_559, object_id: 7, class_id: 0, class: "head" };

/** One event of each type of zones, lines and alerts, with every field of the protocol. */
export const EVENTS = {
  zone_entered: { type: "zone_entered", ...head, zone: "work", count: 2 },
  zone_left: { type: "zone_left", ...head, zone: "work", dwell_ms: 2_400, count: 1 },
  zone_dwelled: { type: "zone_dwelled", ...head, zone: "work", dwell_ms: 2_000 },
  line_crossed: { type: "line_crossed", ...head, line: "gate", direction: "left_to_right", left_to_right: 3, right_to_left: 1 },
  alert_started: { type: "alert_started", ...head, rule: "bare head", zone: "work", count: 1 },
  alert_ended: { type: "alert_ended", rtp_timestamp: 3_735_928_559, rule: "bare head", zone: "work", object_id: 7, duration_ms: 1_500 },
} satisfies { [K in SessionEvent["type"]]?: Extract<SessionEvent, { type: K }> };

/** A session and what it told. */
export interface Tried {
  environment: FakeEnvironment;
  session: SaccadeSession;
  started: Promise<void>;
  states: StateChange[];
  errors: SaccadeError[];
  results: SessionResult[];
}

/** Starts a session. */
export async function tryOut(config: Partial<SessionConfig> = {}): Promise<Tried> {
  const environment = new FakeEnvironment();
  const states: StateChange[] = [];
  const errors: SaccadeError[] = [];
  const results: SessionResult[] = [];
  const session = new SaccadeSession(
    {
      stream: fakeStream(),
      url: "wss://vision.example/v1/signal",
      onState: (change) => states.push(change),
      onError: (error) => errors.push(error),
      onResult: (result) => results.push(result),
      ...config,
    },
    environment,
  );
  const started = session.start();
  started.catch(() => undefined);
  await settle();
  return { environment, session, started, states, errors, results };
}

/** Answers the newest offer and lets media connect. */
export async function answer({ environment }: Tried, id = "s1", options: Options = OPTIONS): Promise<void> {
  environment.socket.say({ type: "answer", sdp: "answer", session_id: id, options });
  await settle();
  environment.peer.become("connected");
  await settle();
}

/** Starts a session and connects it. */
export async function connected(config: Partial<SessionConfig> = {}): Promise<Tried> {
  const tried = await tryOut(config);
  tried.environment.socket.welcome();
  await settle();
  await answer(tried);
  return tried;
}

function last<T>(list: T[]): T {
  const found = list.at(-1);
  if (found === undefined) throw new Error("there is none yet");
  return found;
}
