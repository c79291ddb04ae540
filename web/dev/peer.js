// The media side of a fake server: takes the offer, draws moving boxes over the received video, sends it back, and sends
// a result for each frame with both RTP timestamps. One session at a time; a resumed one goes on. Zones, lines and rules
// act on the boxes. A budget below 50 ms degrades the session; one below 20 ms is refused.
import { Watch } from "./watch.js";

const socket = new WebSocket(`ws://${location.host}/dev/peer`, "saccade.v1");
const SESSION = "7f1d3c52-9a0e-4f7c-8d52-0c6f8c7f3a11";
const DEFAULTS = { model: "ppe-nano", return: "exact", budget_ms: 200, score_threshold: 0.35, iou_threshold: 0.45, max_detections: 100, classes: null, track: true, overlay: { boxes: true, labels: true, timing: false, zones: false }, format: "saccade", zones: [], lines: [], rules: [] };
let session = null;
let client = null;

socket.onmessage = async ({ data }) => {
  const { from, message } = JSON.parse(data);
  if (message.type === "offer") return takeOffer(from, message);
  if (from !== client) return;
  if (message.type === "candidate" && message.candidate) await session?.connection.addIceCandidate(message.candidate);
  if (message.type === "configure") configure(message.options);
  if (message.type === "bye") end();
};

const tell = (message) => socket.send(JSON.stringify({ to: client, message }));

async function takeOffer(from, { sdp, options, session_id }) {
  if (session_id && (!session || session_id !== SESSION)) {
    client = from;
    return tell({ type: "error", code: "not_found", message: "No such session.", fatal: false });
  }
  const again = session && (session_id || from === client);
  client = from;
  if (!again) {
    end();
    session = make(options);
    if (!merge(options ?? {})) return;
  }
  await session.connection.setRemoteDescription({ type: "offer", sdp });
  await session.connection.setLocalDescription();
  tell({ type: "answer", sdp: session.connection.localDescription.sdp, session_id: SESSION, options: session.options });
}

function make() {
  const connection = new RTCPeerConnection();
  const made = { connection, options: structuredClone(DEFAULTS), channel: null, canvas: document.createElement("canvas"), drawn: [], frame: 0, dropped: { superseded: 0, late: 0, skipped: 0 }, watch: new Watch() };
  connection.onicecandidate = ({ candidate }) => tell({ type: "candidate", candidate: candidate?.toJSON() ?? null });
  connection.ondatachannel = ({ channel }) => {
    if (channel.label === "results") made.channel = channel;
    if (channel.label === "events") made.events = channel;
  };
  connection.ontrack = ({ track }) => {
    made.video = document.createElement("video");
    made.video.muted = true;
    made.video.srcObject = new MediaStream([track]);
    made.video.play();
    const step = (now, metadata) => {
      if (session !== made) return;
      made.video.requestVideoFrameCallback(step);
      take(made, metadata);
    };
    made.video.requestVideoFrameCallback(step);
  };
  made.canvas.width = 640;
  made.canvas.height = 480;
  made.canvas.getContext("2d");
  made.track = made.canvas.captureStream(0).getVideoTracks()[0];
  // Chromium heeds a transform only when it is set in the task that made the sender.
  const sender = connection.addTrack(made.track);
  made.worker = new Worker("/saccade-worker.js");
  made.worker.onmessage = ({ data }) => {
    const { metadata, at, boxes } = made.drawn.shift() ?? {};
    if (metadata) send(made, metadata, data.rtpTimestamp, at, boxes);
  };
  sender.transform = new RTCRtpScriptTransform(made.worker);
  return made;
}

function take(made, metadata) {
  const { canvas, video, options } = made;
  if (canvas.width !== video.videoWidth) [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const at = performance.now();
  const boxes = detections(made.frame++, canvas).filter(({ score }) => score >= options.score_threshold);
  for (const event of made.watch.look(boxes, options, canvas, at)) {
    if (made.events?.readyState === "open") made.events.send(JSON.stringify({ ...event, rtp_timestamp: metadata.rtpTimestamp }));
  }
  if (options.return === "results") return send(made, metadata, null, at, boxes);
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  context.lineWidth = 3;
  context.font = "600 16px sans-serif";
  for (const { box: [x1, y1, x2, y2], class: name, class_id, score } of boxes) {
    context.strokeStyle = context.fillStyle = class_id ? "#22d3ee" : "#ffb000";
    if (options.overlay.boxes) context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    if (options.overlay.labels) context.fillText(`${name} ${Math.round(score * 100)} %`, x1, y1 - 6);
  }
  if (options.overlay.zones) drawZones(context, options);
  made.drawn.push({ metadata, at, boxes });
  if (made.drawn.length > 3) made.drawn.shift();
  made.track.requestFrame();
}

function send(made, metadata, out, at, boxes) {
  if (made.channel?.readyState !== "open") return;
  const wave = (k) => 1 + 0.35 * Math.sin(made.frame / (17 + k)) + 0.15 * Math.random();
  if (Math.random() < 0.03) made.dropped.superseded += 1;
  const degraded = made.options.budget_ms < 50 ? ["skip_inference", "lower_resolution"] : [];
  const carried = degraded.length > 0 && made.frame % 3 > 0;
  if (carried) made.dropped.skipped += 1;
  const timing = { reorder: 0.4 * wave(1), decode: 1.3 * wave(2), queue: 1.8 * wave(3) ** 2, preprocess: 0.6 * wave(4), inference: carried ? 0 : 6.2 * wave(5), postprocess: 0.2 * wave(6), annotate: 0.5 * wave(7), encode: out === null ? 0 : 3.1 * wave(8) };
  timing.total = Object.values(timing).reduce((a, b) => a + b);
  made.channel.send(JSON.stringify({ type: "result", version: 1, session_id: SESSION, frame_id: made.frame, rtp_timestamp_in: metadata.rtpTimestamp, rtp_timestamp_out: out, capture_time_ms: null, width: made.video.videoWidth, height: made.video.videoHeight, model: `${made.options.model}@1`, detections: boxes, timing_ms: timing, budget_ms: made.options.budget_ms, met: timing.total < made.options.budget_ms, batch_size: carried ? 0 : 1, dropped: made.dropped, degraded }));
}

function drawZones(context, { zones, lines }) {
  const { width, height } = context.canvas;
  context.strokeStyle = "#ffffff";
  context.lineWidth = 2;
  for (const points of [...zones.map(({ polygon }) => [...polygon, polygon[0]]), ...lines.map(({ points }) => points)]) {
    context.beginPath();
    for (const [x, y] of points) context.lineTo(x * width, y * height);
    context.stroke();
  }
}

function detections(frame, { width, height }) {
  const swing = (k) => Math.sin(frame / 40 + k);
  const box = (cx, cy, size) => [cx - size, cy - size, cx + size, cy + size];
  const found = [
    { box: box(width * (0.5 + 0.18 * swing(0)), height * 0.42, height * 0.14), class_id: 1, class: "helmet", score: 0.9, object_id: 3 },
    { box: box(width * (0.28 + 0.1 * swing(2)), height * 0.5, height * 0.1), class_id: 0, class: "head", score: 0.62, object_id: 5 },
  ];
  if (Math.floor(frame / 120) % 2) found.push({ box: box(width * 0.8, height * (0.5 + 0.1 * swing(4)), height * 0.09), class_id: 1, class: "helmet", score: 0.47, object_id: 8 });
  return found;
}

function merge(patch) {
  if (patch.budget_ms < 20) {
    tell({ type: "error", code: "bad_options", message: `\`budget_ms\` is ${patch.budget_ms}; it must be 20 to 5000.`, fatal: false });
    return false;
  }
  session.options = { ...session.options, ...patch, overlay: { ...session.options.overlay, ...patch.overlay } };
  return true;
}

function configure(patch) {
  if (session && merge(patch)) tell({ type: "configured", options: session.options });
}

function end() {
  session?.connection.close();
  session = null;
}
