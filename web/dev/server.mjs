// Serves dist/ as the real server does, headers included, and speaks enough of saccade.v1 to try the page by hand: a
// second browser page, dev/peer.html, plays the server's media side.
//
//   npm run build && node dev/server.mjs [port]     then open / and, in another window, /dev/peer.html
//
// `?fake=full` in the address of the signaling endpoint answers with `capacity`, `?fake=old` with protocol 2.
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";

const root = resolve(fileURLToPath(import.meta.url), "../..");
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json", ".mp4": "video/mp4", ".webm": "video/webm", ".ts": "text/plain" };
const CSP = "default-src 'self'; connect-src 'self' ws: wss:; media-src 'self' blob:; img-src 'self' data: blob:; style-src 'self'";

const MODELS = ["ppe-nano", "scene-blobs"].map((name) => ({ name, version: "1", task: "detect", licence: "MIT OR Apache-2.0", input: [416, 416], classes: ["head", "helmet"], score_threshold: 0.35, backend: "onnxruntime-cpu", precision: "fp32", default: name === "ppe-nano" }));

/** Starts the server; `cut()` drops every signaling socket without a word. */
export function serve(port = 0) {
  let peer = null;
  const clients = new Map();
  const http = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/v1/models") {
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(MODELS));
      return;
    }
    const folder = pathname.startsWith("/dev/") ? root : join(root, "dist");
    const path = join(folder, normalize(pathname === "/" ? "/index.html" : pathname));
    let size;
    try {
      size = statSync(path).size;
    } catch {
      response.writeHead(404).end();
      return;
    }
    const head = { "content-type": TYPES[extname(path)] ?? "application/octet-stream", "accept-ranges": "bytes" };
    if (!pathname.startsWith("/dev/")) head["content-security-policy"] = CSP;
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const first = range ? Number(range[1]) : 0;
    const last = range?.[2] ? Number(range[2]) : size - 1;
    if (range) head["content-range"] = `bytes ${first}-${last}/${size}`;
    response.writeHead(range ? 206 : 200, { ...head, "content-length": last - first + 1 });
    createReadStream(path, { start: first, end: last }).pipe(response);
  });
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: (offered) => (offered.has("saccade.v1") ? "saccade.v1" : false) });
  http.on("upgrade", (request, socket, head) => {
    const url = new URL(request.url, "http://localhost");
    sockets.handleUpgrade(request, socket, head, (ws) => {
      if (url.pathname === "/dev/peer") return attachPeer(ws);
      return attachClient(ws, url.searchParams.get("fake"));
    });
  });

  function attachPeer(ws) {
    peer = ws;
    ws.on("message", (data) => {
      const { to, message } = JSON.parse(data);
      clients.get(to)?.send(JSON.stringify(message));
    });
    ws.on("close", () => (peer = null));
  }

  let next = 0;
  function attachClient(ws, fake) {
    const id = String(next++);
    clients.set(id, ws);
    const send = (message) => ws.send(JSON.stringify(message));
    send({
      type: "welcome",
      protocol: fake === "old" ? 2 : 1,
      server: "saccade/0.1.0",
      ice_servers: [],
      models: ["ppe-nano", "scene-blobs"],
      limits: { width: 1920, height: 1920, fps: 60, message_bytes: 65536, sdp_bytes: 65536 },
    });
    ws.on("message", (data) => {
      const message = JSON.parse(data);
      if (fake === "full" || !peer) {
        if (message.type === "offer") send({ type: "error", code: "capacity", message: "All 24 places are taken.", fatal: true, retry_after_ms: 4000 });
      } else {
        peer.send(JSON.stringify({ from: id, message }));
      }
    });
    ws.on("close", () => {
      clients.delete(id);
      peer?.send(JSON.stringify({ from: id, message: { type: "gone" } }));
    });
  }

  return new Promise((done) => {
    http.listen(port, "127.0.0.1", () =>
      done({
        port: http.address().port,
        cut: () => clients.forEach((ws) => ws.terminate()),
        close: () => {
          sockets.clients.forEach((ws) => ws.terminate());
          http.close();
        },
      }),
    );
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { port } = await serve(Number(process.argv[2] ?? 8090));
  console.log(`http://127.0.0.1:${port}/ and http://127.0.0.1:${port}/dev/peer.html`);
}
