import type { Environment } from "./environment.js";
import {
  type ClientMessage,
  MAX_MESSAGE_BYTES,
  parseServerMessage,
  type ServerMessage,
  SUBPROTOCOL,
  WireError,
} from "./wire.js";

/** What a {@link Signaling} tells its owner. Nothing is told after `onClosed` or {@link Signaling.close}. */
export interface SignalingHandlers {
  onOpen(): void;
  onMessage(message: ServerMessage): void;
  /** A message could not be read; the socket stays open. */
  onMalformed(error: WireError): void;
  /** The socket is gone; `code` is its close code, 1006 when there was none. */
  onClosed(code: number, reason: string): void;
}

/** One signaling WebSocket: text in, messages out. */
export class Signaling {
  readonly #socket: WebSocket;
  #handlers: SignalingHandlers | null;

  constructor(environment: Environment, url: string, handlers: SignalingHandlers) {
    this.#handlers = handlers;
    this.#socket = environment.createSocket(url, SUBPROTOCOL);
    this.#socket.onopen = () => this.#handlers?.onOpen();
    this.#socket.onmessage = ({ data }: MessageEvent<unknown>) => this.#read(data);
    this.#socket.onclose = ({ code, reason }) => {
      const told = this.#handlers;
      this.#handlers = null;
      told?.onClosed(code, reason);
    };
  }

  /** Whether a message can be sent. */
  get open(): boolean {
    return this.#handlers !== null && this.#socket.readyState === 1;
  }

  /** Sends `message` and returns true, or returns false when the socket is not open or the message is too large. */
  send(message: ClientMessage): boolean {
    if (!this.open) return false;
    const text = JSON.stringify(message);
    if (new TextEncoder().encode(text).length > MAX_MESSAGE_BYTES) return false;
    this.#socket.send(text);
    return true;
  }

  /** Closes the socket; `farewell` says `bye` first, which ends the session. */
  close(farewell: ClientMessage | null = null): void {
    if (farewell) this.send(farewell);
    this.#handlers = null;
    this.#socket.close(1000);
  }

  #read(data: unknown): void {
    if (typeof data !== "string") return;
    try {
      const message = parseServerMessage(data);
      if (message) this.#handlers?.onMessage(message);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#handlers?.onMalformed(error);
    }
  }
}
