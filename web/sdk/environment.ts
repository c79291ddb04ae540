/** What a session needs of the browser; replaced in tests. */
export interface Environment {
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

/** The real browser. */
export function browserEnvironment(): Environment {
  return {
    createSocket: (url, protocol) => new WebSocket(url, protocol),
    createPeer: (configuration) => new RTCPeerConnection(configuration),
    now: () => performance.now(),
    setTimer: (action, ms) => setTimeout(action, ms),
    clearTimer: (timer) => clearTimeout(timer as ReturnType<typeof setTimeout>),
    random: () => Math.random(),
    onNetworkChange(action) {
      // `change` also tells of new estimates of speed; only another kind of network is another way to the server.
      const connection = (navigator as { connection?: EventTarget & { type?: string } }).connection;
      let type = connection?.type;
      const changed = (): void => {
        if (connection?.type === type) return;
        type = connection?.type;
        action();
      };
      window.addEventListener("online", action);
      connection?.addEventListener("change", changed);
      return () => {
        window.removeEventListener("online", action);
        connection?.removeEventListener("change", changed);
      };
    },
  };
}
