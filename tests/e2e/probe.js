// Runs in the page before its own scripts. Records what the browser itself tells of peers, data channels, videos and
// pixels, so that the page's own figures need not be believed.
(() => {
  /** Colours of the classes, as the server draws them. */
  const CLASSES = [[235, 94, 20], [86, 190, 240], [240, 228, 66], [0, 168, 125]];
  /** Frames of the source kept: half a second. */
  const KEPT = 16;
  /** A frame of the source belongs to a result when both say they were captured within this time. */
  const SAME_FRAME_MS = 10;

  const peers = [];
  /** Results as they came over the data channel. */
  const results = [];
  /** RTP timestamps of returned frames put on screen. */
  const shown = new Set();
  /** Of results whose truth the page knows: `{ width, height, detections, truth }`. */
  const judged = [];

  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(...args) {
      super(...args);
      peers.push(this);
    }

    createDataChannel(label, options) {
      const channel = super.createDataChannel(label, options);
      if (label === "results") channel.addEventListener("message", ({ data }) => onResult(JSON.parse(data)));
      return channel;
    }
  };

  function onResult(result) {
    results.push(result);
    // The page listens too, but later.
    setTimeout(() => {
      const { lastTruth } = window.saccadePage;
      if (lastTruth?.rtp_timestamp_in !== result.rtp_timestamp_in) return;
      judged.push({ detections: result.detections, truth: lastTruth.boxes });
    });
  }

  addEventListener("DOMContentLoaded", () => {
    const video = document.getElementById("returned-video");
    const step = (_now, { rtpTimestamp }) => {
      if (rtpTimestamp !== undefined) shown.add(rtpTimestamp);
      video.requestVideoFrameCallback(step);
    };
    video.requestVideoFrameCallback(step);
  });

  /** What the browser counted so far. */
  async function counts() {
    const counted = { framesSent: 0, framesDecoded: 0, results: results.length, shown: shown.size };
    for (const peer of peers) {
      if (peer.connectionState !== "connected") continue;
      for (const entry of (await peer.getStats()).values()) {
        if (entry.type === "outbound-rtp") counted.framesSent += entry.framesSent ?? 0;
        if (entry.type === "inbound-rtp") counted.framesDecoded += entry.framesDecoded ?? 0;
      }
    }
    const quality = document.getElementById("returned-video").getVideoPlaybackQuality();
    const { previewShown: previewed, previewExact: previewedExact } = window.saccadePage;
    return { ...counted, played: quality.totalVideoFrames - quality.droppedVideoFrames, previewed, previewedExact };
  }

  /** Codecs in use: `{ sent, received }`, such as `video/H264`. */
  async function codecs() {
    const found = {};
    for (const peer of peers) {
      const report = await peer.getStats();
      for (const { type, codecId } of report.values()) {
        if (type === "outbound-rtp" && codecId) found.sent = report.get(codecId).mimeType;
        if (type === "inbound-rtp" && codecId) found.received = report.get(codecId).mimeType;
      }
    }
    return found;
  }

  /**
   * Compares `wanted` returned frames with the very frames that were sent: on the edges of the boxes found in each, and
   * on a grid away from them. Gives, for each frame, medians of the colour difference, and the share of points on edges
   * that have their class's colour, before and after. Resolves when enough frames were seen.
   */
  function compare(wanted) {
    const source = document.getElementById("source-video");
    const returned = document.getElementById("returned-video");
    const kept = [];
    const spare = [];
    const compared = [];
    return new Promise((done) => {
      let ended = false;
      const keep = (_now, { captureTime, presentationTime }) => {
        if (ended) return;
        source.requestVideoFrameCallback(keep);
        const picture = kept.length < KEPT ? spare.pop() : kept.shift().picture;
        kept.push({ capturedAt: captureTime ?? presentationTime, picture: draw(source, picture) });
      };
      const look = (_now, { rtpTimestamp }) => {
        if (ended) return;
        returned.requestVideoFrameCallback(look);
        const { session } = window.saccadePage;
        const result = session?.resultForFrame(rtpTimestamp);
        const capturedAt = result ? session.capturedAt(result) : null;
        if (capturedAt === null || result.detections.length === 0) return;
        const sent = kept.find((one) => Math.abs(one.capturedAt - capturedAt) < SAME_FRAME_MS);
        if (!sent || returned.videoWidth !== result.width) return;
        const compares = differences(result, pixels(sent.picture), pixels(draw(returned)));
        if (!compares) return;
        compared.push(compares);
        if (compared.length < wanted) return;
        ended = true;
        done(compared);
      };
      source.requestVideoFrameCallback(keep);
      returned.requestVideoFrameCallback(look);
    });
  }

  /** Share of the points on edges of the last result's boxes that have their class's colour in the preview. */
  function previewPainted() {
    const canvas = document.getElementById("preview");
    const result = results.at(-1);
    if (result.detections.length === 0 || canvas.width !== result.width) return 0;
    const picture = pixels(canvas);
    return share(edges(result), (point) => nearest(picture, point, CLASSES[point.classId]) < 60);
  }

  function differences(result, sent, back) {
    const points = edges(result);
    if (points.length === 0) return null;
    const away = grid(result);
    return {
      edges: median(points.map((point) => changed(sent, back, point))),
      elsewhere: median(away.map((point) => changed(sent, back, point))),
      colouredBefore: share(points, (point) => nearest(sent, point, CLASSES[point.classId]) < 110),
      colouredAfter: share(points, (point) => nearest(back, point, CLASSES[point.classId]) < 110),
    };
  }

  /** Points on left, right and lower edges, where labels rarely are. */
  function edges({ detections, width, height }) {
    const points = [];
    for (const { box: [x1, y1, x2, y2], class_id: classId } of detections) {
      if (x1 < 4 || y1 < 4 || x2 > width - 4 || y2 > height - 4 || x2 - x1 < 16 || y2 - y1 < 16) continue;
      for (let part = 0.3; part < 0.9; part += 0.06) {
        const y = Math.round(y1 + part * (y2 - y1));
        const x = Math.round(x1 + part * (x2 - x1));
        points.push({ x: Math.round(x1), y, dx: 1, dy: 0, classId });
        points.push({ x: Math.round(x2), y, dx: 1, dy: 0, classId });
        points.push({ x, y: Math.round(y2), dx: 0, dy: 1, classId });
      }
    }
    return points;
  }

  /** Points all over the frame where neither boxes nor labels are. */
  function grid({ detections, width, height }) {
    const points = [];
    for (let x = 12; x < width - 12; x += 16) {
      for (let y = 12; y < height - 12; y += 16) {
        const near = detections.some(({ box: [x1, y1, x2, y2] }) => x > x1 - 60 && x < x2 + 140 && y > y1 - 60 && y < y2 + 60);
        if (!near) points.push({ x, y, dx: 1, dy: 0 });
      }
    }
    return points;
  }

  /** The largest difference across the edge. */
  function changed(sent, back, point) {
    return Math.max(...across(point).map(([x, y]) => distance(at(sent, x, y), at(back, x, y))));
  }

  /** The distance to `color` of the pixel nearest to it across the edge. */
  function nearest(picture, point, color) {
    return Math.min(...across(point).map(([x, y]) => distance(at(picture, x, y), color)));
  }

  function across({ x, y, dx, dy }) {
    return [-2, -1, 0, 1, 2].map((off) => [x + off * dx, y + off * dy]);
  }

  function at({ data, width }, x, y) {
    const first = 4 * (y * width + x);
    return [data[first], data[first + 1], data[first + 2]];
  }

  function distance(a, b) {
    return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
  }

  function median(values) {
    const sorted = values.toSorted((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)];
  }

  function share(points, holds) {
    return points.filter(holds).length / points.length;
  }

  function size({ width, height }) {
    return { width, height };
  }

  function draw(video, canvas = document.createElement("canvas")) {
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d", { willReadFrequently: true }).drawImage(video, 0, 0);
    return canvas;
  }

  function pixels(canvas) {
    return { data: canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data, ...size(canvas) };
  }

  window.probe = { results, shown, judged, counts, codecs, compare, previewPainted };
})();
