// A TCP relay between browser and server that can cut signaling sockets, as a network would. Media does not pass here.
import net from "node:net";

/** Relays to the server at `url`. */
export class Relay {
  #signaling = new Set();
  #sockets = new Set();
  #listener;

  /** Address of the page through the relay. */
  url = "";
  /** Signaling sockets opened so far. */
  opened = 0;

  static async start(url) {
    const relay = new Relay();
    const { hostname, port } = new URL(url);
    relay.#listener = net.createServer((near) => relay.#accept(near, net.connect(Number(port), hostname)));
    await new Promise((done, failed) => relay.#listener.once("error", failed).listen(0, "127.0.0.1", done));
    relay.url = `http://127.0.0.1:${relay.#listener.address().port}`;
    return relay;
  }

  /** Cuts every signaling socket, without a word to either end. */
  cut() {
    for (const socket of this.#signaling) socket.resetAndDestroy();
  }

  /** Ends the relay. */
  async stop() {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((done) => this.#listener.close(done));
  }

  #accept(near, far) {
    near.once("data", (head) => {
      if (!head.toString("latin1").startsWith("GET /v1/signal")) return;
      this.opened += 1;
      for (const socket of [near, far]) this.#signaling.add(socket);
    });
    for (const [from, to] of [[near, far], [far, near]]) {
      this.#sockets.add(from);
      from.on("error", () => undefined);
      from.on("close", () => {
        to.destroy();
        this.#sockets.delete(from);
        this.#signaling.delete(from);
      });
      from.pipe(to);
    }
  }
}
