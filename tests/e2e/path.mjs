// What a viewer in Chromium sees while the way back to it narrows and gets wide again. Needs root.
//
//     SACCADE_BIN=target/release/saccade node tests/e2e/path.mjs [SECONDS.json]
//
// The page sends the drawn scene with the time in it, as a row of black and white squares, and reads the time from what comes
// back: latency is from a picture's drawing to its being shown.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findBrowser, launch, openPage } from "./browser.mjs";
import { lacksNamespaces, Networks, SERVER } from "./networks.mjs";
import { findBinary, Server } from "./server.mjs";

/** Seconds of each phase, and what the way back carries in it, in kbit/s. */
const PHASES = [[20, 2_000], [20, 300], [25, 2_000]];
/** Seconds from the beginning of which nothing is told. */
const WARM_UP = 5;
/** Seconds that a narrower path is new. */
const NEW = 4;

const [binary, chromium] = [findBinary(), findBrowser()];
const missing = [!binary && "the server's binary (SACCADE_BIN)", !chromium && "Chromium", lacksNamespaces()];
if (missing.some(Boolean)) {
  console.error(`missing: ${missing.filter(Boolean).join(", ")}`);
  process.exit(69);
}
const folder = mkdtempSync(join(tmpdir(), "saccade-path-"));
const networks = new Networks();
let server = null;
let browser = null;
try {
  const settings = { "http.listen": `${SERVER}:0`, "ops.listen": `${SERVER}:0`, "media.listen": SERVER };
  const place = { within: networks.within("server"), flags: ["--insecure"] };
  server = await Server.start(binary, join(folder, "log"), settings, place);
  const trusted = [`--unsafely-treat-insecure-origin-as-secure=${server.url}`];
  browser = await launch(networks.wrapped(chromium, folder), null, trusted);
  const { page } = await openPage(browser, `${server.url}/?source=scene&model=scene-blobs&autostart=1`);
  await page.waitForFunction(() => saccadePage.state === "connected" && probe.results.length > 1);
  await page.evaluate(stream);
  await page.waitForFunction(() => watched.shown.length > 10);
  const begin = await page.evaluate(() => performance.now());
  const changes = [];
  for (const [seconds, kbits] of PHASES) {
    networks.narrow("wifi", kbits);
    changes.push(await page.evaluate(() => performance.now()));
    await page.waitForTimeout(seconds * 1_000);
  }
  const { shown, results, received } = await page.evaluate(() => watched);
  report(shown, results, received, changes);
  if (process.argv[2]) writeFileSync(process.argv[2], JSON.stringify({ begin, changes, shown, results, received }));
} finally {
  await Promise.allSettled([browser?.close(), server?.stop()]);
  networks.remove();
  rmSync(folder, { recursive: true, force: true });
}

/** In the page: streams the scene with the time in it, and notes what comes, and when. */
async function stream() {
  const { connect } = await import("/saccade.js");
  const [BITS, SIDE, LEFT, TOP, NOISE] = [16, 24, 64, 440, 24];
  const scene = document.getElementById("source-video");
  const canvasOf = () => Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
  const [canvas, read] = [canvasOf(), canvasOf()];
  const paper = canvas.getContext("2d");
  // As a sensor's, so that pictures take the bits that a camera's do.
  const noise = Object.assign(document.createElement("canvas"), { width: 704, height: 544 });
  const grain = noise.getContext("2d").createImageData(704, 544);
  for (let at = 0; at < grain.data.length; at += 4) grain.data.fill(Math.random() * 256, at, at + 3).fill(NOISE, at + 3, at + 4);
  noise.getContext("2d").putImageData(grain, 0, 0);
  const back = read.getContext("2d", { willReadFrequently: true });
  window.saccadePage.session.close();
  const draw = () => {
    paper.drawImage(scene, 0, 0, 640, 480);
    paper.drawImage(noise, -Math.random() * 64, -Math.random() * 64);
    const time = Math.round(performance.now()) & 0xffff;
    // Gray code, so that a square that is read wrongly while it changes is a small error.
    const code = time ^ (time >> 1);
    for (let bit = 0; bit < BITS; bit += 1) {
      paper.fillStyle = (code >> bit) & 1 ? "#ffffff" : "#000000";
      paper.fillRect(LEFT + bit * SIDE, TOP, SIDE, SIDE);
    }
  };
  draw();
  setInterval(draw, 1_000 / 30);
  const watched = (window.watched = { shown: [], results: [], received: [] });
  const video = document.getElementById("returned-video");
  const onFrame = () => {
    const now = performance.now();
    back.drawImage(video, 0, 0, 640, 480);
    const row = back.getImageData(LEFT, TOP + SIDE / 2, BITS * SIDE, 1).data;
    let time = 0;
    for (let bit = 0; bit < BITS; bit += 1) time |= (row[(bit * SIDE + SIDE / 2) * 4] > 127 ? 1 : 0) << bit;
    for (let shift = 1; shift < BITS; shift *= 2) time ^= time >> shift;
    watched.shown.push({ at: now, latency: (Math.round(now) - time) & 0xffff, height: video.videoHeight });
  };
  const onResult = () => watched.results.push(performance.now());
  const peers = [];
  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    constructor(...words) {
      super(...words);
      peers.push(this);
    }
  };
  const options = { model: "scene-blobs", return: "predicted", overlay: { boxes: false, labels: false, timing: false } };
  await connect({ source: canvas, video, options, onFrame, onResult });
  setInterval(async () => {
    for (const it of (await peers.at(-1).getStats()).values()) {
      if (it.type !== "inbound-rtp" || it.kind !== "video") continue;
      const { bytesReceived: bytes, nackCount, pliCount, keyFramesDecoded, framesDropped, freezeCount } = it;
      watched.received.push({ at: performance.now(), bytes, nackCount, pliCount, keyFramesDecoded, framesDropped, freezeCount });
    }
  }, 500);
}

/** Prints a table of the phases. */
function report(shown, results, received, changes) {
  console.log("| way back | video | frames a second | p95 and longest latency | longest without a frame | results a second |");
  console.log("|---|---|---|---|---|---|");
  const row = (name, from, to) => {
    const within = ({ at }) => at >= from && at < to;
    const frames = shown.filter(within);
    const seconds = (to - from) / 1_000;
    const latencies = frames.map(({ latency }) => latency).sort((a, b) => a - b);
    const times = [from, ...frames.map(({ at }) => at), to];
    const gap = Math.max(...times.slice(1).map((at, index) => at - times[index]));
    const looks = received.filter(within);
    const [first, last] = [looks[0], looks.at(-1)];
    const kbits = first && ((last.bytes - first.bytes) * 8) / (last.at - first.at);
    const told = results.filter((at) => at >= from && at < to).length;
    const p95 = latencies[Math.floor(latencies.length * 0.95)];
    const columns = [
      name, `${kbits?.toFixed(0)} kbit/s`, (frames.length / seconds).toFixed(1), `${p95} and ${latencies.at(-1)} ms`,
      `${gap.toFixed(0)} ms`, (told / seconds).toFixed(1),
    ];
    console.log(`| ${columns.join(" | ")} |`);
  };
  const ends = [...changes.slice(1), changes.at(-1) + PHASES.at(-1)[0] * 1_000];
  PHASES.forEach(([, kbits], index) => {
    const [from, to] = [changes[index], ends[index]];
    if (index === 0) return row(`${kbits} kbit/s`, from + WARM_UP * 1_000, to);
    const settled = from + (index === 1 ? NEW : 10) * 1_000;
    row(`${kbits} kbit/s, the first ${(settled - from) / 1_000} s`, from, settled);
    row(`${kbits} kbit/s, the rest`, settled, to);
  });
}
