import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { asCamera, findBrowser, launch, openPage } from "./browser.mjs";
import { Relay } from "./relay.mjs";
import { findBinary, ROOT, Server } from "./server.mjs";
import { until } from "./waiting.mjs";

const ARTIFACTS = process.env.SACCADE_ARTIFACTS || "/tmp/saccade-artifacts";
const CLIP = join(process.env.SACCADE_TEST_ASSETS || join(ROOT, "../shared"), "clips/webcam_signer_640x480.mp4");
const CODECS = { h264: "video/H264", vp8: "video/VP8" };
/**
 * How much colours may change where nothing is drawn, as distance in RGB. Chromium sends a canvas in full range, which
 * VP8 itself cannot say, and a camera in limited range.
 */
const CHANGED_ELSEWHERE = 12;
/** Every session that lost its socket is gone after this. */
const RESUME_MS = 3_000;

const binary = findBinary();
const chromium = findBrowser();
const lacks = [
  [!binary, "the server's binary (SACCADE_BIN)"],
  [!chromium, "Chromium"],
];
const lacksClip = [
  ...lacks,
  [!existsSync(CLIP), CLIP],
  [spawnSync("ffmpeg", ["-version"]).error !== undefined, "ffmpeg"],
];

/** What node:test is told: skip for what is missing, but never where everything should be there. */
function needs(list) {
  const missing = list.filter(([absent]) => absent).map(([, name]) => name);
  const skip = missing.length > 0 && process.env.CI !== "true" ? `missing: ${missing.join(", ")}` : false;
  return { skip, timeout: 60_000 };
}

const passed = new Set();
let folder;
let server;
let browser;

before(async () => {
  if (needs(lacks).skip) return;
  assert.ok(binary, "there is no server: build it, or name it in SACCADE_BIN");
  assert.ok(chromium, "there is no Chromium");
  mkdirSync(ARTIFACTS, { recursive: true });
  folder = mkdtempSync(join(tmpdir(), "saccade-e2e-"));
  const settings = { "session.resume_ms": RESUME_MS };
  server = await Server.start(binary, join(ARTIFACTS, "server.log"), settings);
  const clip = !needs(lacksClip).skip;
  browser = await launch(chromium, clip ? await asCamera(CLIP, folder) : null);
});

after(async () => {
  await browser?.close();
  const how = await server?.stop();
  if (folder) rmSync(folder, { recursive: true, force: true });
  if (how) assert.deepEqual(how, { code: 0, signal: null }, "the server ends cleanly when it is asked to");
});

/** Opens the page at `path` in a context that ends with the test `t`, which leaves a screenshot if it fails. */
async function visit(t, path, { at = server.url, ...looks } = {}) {
  const visited = await openPage(browser, at + path, looks);
  t.after(async () => {
    if (!passed.has(t.name)) await screenshot(visited.page, `failed ${t.name}`).catch(() => undefined);
    await visited.close();
  });
  return visited;
}

/** A test that is known to have passed when what it opened is closed. */
function proof(name, options, body) {
  test(name, options, async (t) => {
    await body(t);
    passed.add(name);
  });
}

/** Waits until results and returned frames meet on screen. */
function live(page) {
  return page.waitForFunction(() => saccadePage.state === "connected" && saccadePage.joined > 10);
}

/** Waits until `count` more results came over the data channel, and gives them. */
async function nextResults(page, count) {
  const from = await page.evaluate(() => probe.results.length);
  await page.waitForFunction((enough) => probe.results.length >= enough, from + count);
  return page.evaluate((first) => probe.results.slice(first), from);
}

/** Waits until `count` results in a row are as `holds` says of their number of boxes. */
function inARow(page, count, holds) {
  return until(`${count} results in a row`, 20_000, async () => (await nextResults(page, count)).every(holds));
}

/** Lets the page run until it sent `frames` more frames, and tells by how much every count grew meanwhile. */
async function grow(page, frames) {
  const first = await page.evaluate(() => probe.counts());
  const last = await until(`${frames} frames are sent`, 30_000, async () => {
    const now = await page.evaluate(() => probe.counts());
    return now.framesSent - first.framesSent >= frames && now;
  });
  return Object.fromEntries(Object.keys(first).map((key) => [key, last[key] - first[key]]));
}

/** Waits until the options in force are as `wanted`. */
function inForce(page, wanted) {
  const holds = (wanted) => {
    const { options } = saccadePage.session ?? {};
    const same = (value, of) =>
      typeof value === "object" ? Object.keys(value).every((key) => same(value[key], of?.[key])) : value === of;
    return same(wanted, options);
  };
  return page.waitForFunction(holds, wanted);
}

/** Medians of what the probe's `compare` gives of `frames` frames. */
async function compare(page, frames = 5) {
  const compared = await page.evaluate((frames) => probe.compare(frames), frames);
  return Object.fromEntries(Object.keys(compared[0]).map((key) => [key, median(compared.map((one) => one[key]))]));
}

function screenshot(page, name) {
  return page.screenshot({ path: join(ARTIFACTS, `${name.replaceAll(/[^\w.-]+/g, "-")}.png`), fullPage: true });
}

/** Intersection over union. */
function iou([ax1, ay1, ax2, ay2], [bx1, by1, bx2, by2]) {
  const width = Math.max(0, Math.min(ax2, bx2) - Math.max(ax1, bx1));
  const height = Math.max(0, Math.min(ay2, by2) - Math.max(ay1, by1));
  const both = width * height;
  return both / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - both);
}

/** How well boxes agree with the truth over many frames: shares of found and of right ones, and the median IoU. */
function agreement(judged) {
  const best = (one, others) =>
    Math.max(0, ...others.filter(({ class_id }) => class_id === one.class_id).map(({ box }) => iou(one.box, box)));
  const ofTruth = judged.flatMap(({ detections, truth }) => truth.map((one) => best(one, detections)));
  const ofFound = judged.flatMap(({ detections, truth }) => detections.map((one) => best(one, truth)));
  const hits = (overlaps) => overlaps.filter((overlap) => overlap > 0.5).length / overlaps.length;
  return { frames: judged.length, recall: hits(ofTruth), precision: hits(ofFound), iou: median(ofTruth) };
}

function median(values) {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

/** Asserts that `value` is at least `least` and at most `most`, and tells all of `context` if not. */
function between(value, least, most, what, context) {
  assert.ok(value >= least && value <= most, `${what} is ${value}, not in ${least}..${most}: ${JSON.stringify(context)}`);
}

/** Asserts that boxes are painted in their colours, and nothing else is changed. */
function assertPainted(compared, changedElsewhere) {
  between(compared.edges, 60, Infinity, "the change on edges of boxes", compared);
  between(compared.elsewhere, 0, changedElsewhere, "the change elsewhere", compared);
  between(compared.colouredAfter, 0.7, 1, "the share of edges that have the class's colour", compared);
  between(compared.colouredAfter - compared.colouredBefore, 0.3, 1, "the growth of that share", compared);
}

/** Asserts that edges of boxes are as they were sent. */
function assertPlain(compared) {
  between(compared.edges, 0, 35, "the change on edges of boxes", compared);
  between(compared.colouredAfter - compared.colouredBefore, -1, 0.1, "the growth of coloured edges", compared);
}

/** Waits until results come for more than half of 90 frames in a row, and tells what grew meanwhile. */
function steady(page) {
  return until("results come at more than half the frame rate", 20_000, async () => {
    const grown = await grow(page, 90);
    return grown.results > grown.framesSent / 2 && grown;
  });
}

/** Asserts what every live session with returned video must hold. */
async function assertFlows(page, mime) {
  assert.deepEqual(await page.evaluate(() => probe.codecs()), { sent: mime, received: mime });
  const grown = await steady(page);
  between(grown.framesDecoded / grown.results, 0.8, 1.2, "frames decoded a result", grown);
  between(grown.played, 30, Infinity, "frames played", grown);
  between(grown.shown, 25, Infinity, "frames shown", grown);
  const joins = await page.evaluate(() => {
    const known = new Set(probe.results.map((result) => result.rtp_timestamp_out));
    const met = [...probe.shown].filter((timestamp) => known.has(timestamp)).length;
    return { shown: probe.shown.size, met, framesShown: saccadePage.framesShown, joined: saccadePage.joined };
  });
  between(joins.met / joins.shown, 0.9, 1, "the share of shown frames that have a result of their RTP timestamp", joins);
  between(joins.joined / joins.framesShown, 0.9, 1, "the share of them that the page joined", joins);
}

proof("opening the page complains of nothing and has a favicon", needs(lacks), async (t) => {
  const { page, complaints } = await visit(t, "/");
  await page.locator("#foot-server", { hasText: "protocol 1" }).waitFor();
  await screenshot(page, "idle-light");
  const icon = await page.getAttribute('link[rel="icon"]', "href");
  const response = await fetch(new URL(icon, server.url));
  assert.equal(response.status, 200);
  assert.match(response.headers.get("content-type"), /^image\//);
  assert.deepEqual(complaints, []);
  assert.deepEqual(await server.sessions(), []);
});

for (const [codec, mime] of Object.entries(CODECS)) {
  proof(`${codec}: the sample scene comes back with its boxes`, needs(lacks), async (t) => {
    const { page, complaints } = await visit(t, `/?source=scene&model=scene-blobs&codec=${codec}&autostart=1`);
    await live(page);
    await assertFlows(page, mime);
    await screenshot(page, `scene-${codec}`);
    assertPainted(await compare(page), CHANGED_ELSEWHERE);
    const agrees = agreement(await page.evaluate(() => probe.judged));
    between(agrees.frames, 50, Infinity, "frames with truth", agrees);
    between(agrees.recall, 0.9, 1, "recall", agrees);
    between(agrees.precision, 0.9, 1, "precision", agrees);
    between(agrees.iou, 0.8, 1, "median IoU", agrees);
    assert.deepEqual(await page.evaluate(() => saccadePage.errors), []);
    assert.deepEqual(complaints, []);
  });

  proof(`${codec}: a camera's picture comes back with boxes, and settings act meanwhile`, needs(lacksClip), async (t) => {
    const { page, complaints } = await visit(t, `/?source=camera&codec=${codec}&autostart=1`, { colorScheme: "dark" });
    await live(page);
    await assertFlows(page, mime);
    await screenshot(page, `camera-${codec}-dark`);
    const [result] = await nextResults(page, 1);
    assert.equal(result.model, "ppe-nano@2");
    assertPainted(await compare(page), CHANGED_ELSEWHERE);

    const threshold = await page.inputValue("#threshold");
    await page.getByLabel("Score threshold").fill("0.99");
    await inForce(page, { score_threshold: 0.99 });
    await inARow(page, 20, ({ detections }) => detections.length === 0);
    await page.getByLabel("Score threshold").fill(threshold);
    await inForce(page, { score_threshold: Number(threshold) });
    await inARow(page, 5, ({ detections }) => detections.length > 0);

    await page.getByRole("radio", { name: "Results" }).check();
    await inForce(page, { return: "results" });
    await inARow(page, 15, ({ rtp_timestamp_out }) => rtp_timestamp_out === null);
    const off = await steady(page);
    assert.equal(off.framesDecoded, 0, "no video returns with return=results");
    between(off.previewed, 30, Infinity, "frames previewed", off);
    between(off.previewedExact / off.results, 0.4, 1.1, "frames previewed with their own boxes, a result", off);
    await page.waitForFunction(() => probe.previewPainted() > 0.6);
    assert.equal(await page.locator("#preview").isVisible(), true);
    await screenshot(page, `camera-${codec}-results`);

    await page.getByRole("radio", { name: "Exact" }).check();
    await inForce(page, { return: "exact" });
    await inARow(page, 5, ({ rtp_timestamp_out }) => rtp_timestamp_out !== null);
    between((await grow(page, 60)).framesDecoded, 20, Infinity, "frames decoded once video returns again");
    assertPainted(await compare(page), CHANGED_ELSEWHERE);

    await page.getByLabel("Boxes").uncheck();
    await page.getByLabel("Labels").uncheck();
    await inForce(page, { overlay: { boxes: false, labels: false } });
    // What was drawn before has left the encoder and the jitter buffer by then.
    await grow(page, 30);
    assertPlain(await compare(page));
    assert.deepEqual(await page.evaluate(() => saccadePage.errors), []);
    assert.deepEqual(complaints, []);
  });
}

proof("the site example raises its alert, while video does not wait for results", needs(lacks), async (t) => {
  const site = "/?source=scene&model=scene-blobs&return=predicted&example=site&autostart=1";
  const { page, complaints } = await visit(t, site);
  await live(page);
  await inForce(page, { return: "predicted" });
  await page.locator('.badge[data-kind="alarm"]').waitFor();
  await screenshot(page, "site-example");
  const [result] = await nextResults(page, 1);
  assert.ok(result.detections.every(({ object_id }) => Number.isInteger(object_id)), "every object has an id");
  assert.notEqual(result.rtp_timestamp_out, null, "its frame came back");
  assert.match(await page.locator("#log").innerText(), /Alert: bare head in work/);
  assert.deepEqual(await page.evaluate(() => saccadePage.errors), []);
  assert.deepEqual(complaints, []);
});

proof("a refused setting is told, and the old one stays", needs(lacks), async (t) => {
  const phone = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 };
  const { page, complaints } = await visit(t, "/?source=scene&model=scene-blobs&autostart=1", phone);
  await live(page);
  await screenshot(page, "phone-live");
  const budget = await page.inputValue("#budget");
  await page.evaluate(() => (document.getElementById("budget").min = "0"));
  await page.getByLabel("Latency budget").fill("0");
  const alert = page.locator('.alert[data-code="bad_options"]');
  await alert.waitFor();
  assert.match(await alert.innerText(), /refused this setting/);
  assert.equal(await page.inputValue("#budget"), budget);
  await screenshot(page, "phone-refused");
  await nextResults(page, 30);
  assert.equal(await page.evaluate(() => saccadePage.state), "connected");
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.equal(wide, 0, "nothing is wider than a phone");
  assert.deepEqual(complaints, []);
});

/** Zones, lines and rules as the page has them. */
async function drawn(page) {
  return JSON.parse(await page.locator("#site-json").textContent());
}

/** Where fractions of the source's picture are in the window. */
async function onPicture(page) {
  await page.waitForFunction(() => document.getElementById("source-video").videoWidth > 0);
  const { x, y, width, height } = await page.locator("#source-layer").boundingBox();
  return ([right, down]) => [x + right * width, y + down * height];
}

/** Asserts that points are where they were meant, within a pixel or so. */
function assertNear(points, wanted) {
  assert.equal(points.length, wanted.length, JSON.stringify(points));
  const off = Math.max(...points.flat().map((value, at) => Math.abs(value - wanted.flat()[at])));
  between(off, 0, 0.006, "the distance from where it was drawn", { points, wanted });
}

proof("zones and lines are drawn by mouse, kept out of the bars, named, and given up", needs(lacks), async (t) => {
  const { page, complaints } = await visit(t, "/?source=scene");
  const zone = [[0.2, 0.3], [0.6, 0.3], [0.6, 0.7]];
  await page.getByRole("button", { name: "Draw zone" }).click();
  const first = await onPicture(page);
  for (const point of zone.slice(0, 2)) await page.mouse.click(...first(point));
  await page.mouse.dblclick(...first(zone[2]));
  await page.keyboard.type("yard");
  await page.keyboard.press("Enter");
  const [yard] = (await drawn(page)).zones;
  assert.equal(yard.name, "yard");
  assertNear(yard.polygon, zone);

  await page.getByRole("button", { name: "Draw line" }).click();
  await page.mouse.click(...first([0.5, 0.5]));
  await page.keyboard.press("Escape");
  assert.deepEqual((await drawn(page)).lines, []);
  assert.equal(await page.evaluate(() => document.activeElement.id), "draw-line");
  await page.getByRole("button", { name: "Draw line" }).click();
  const second = await onPicture(page);
  await page.mouse.click(...second([-0.05, 0.5]));
  await page.mouse.click(...second([0.5, 0.9]));
  assertNear((await drawn(page)).lines[0].points, [[0, 0.5], [0.5, 0.9]]);
  await page.getByRole("button", { name: "Flip direction" }).click();
  assertNear((await drawn(page)).lines[0].points, [[0.5, 0.9], [0, 0.5]]);

  await page.getByRole("button", { name: "Add alert" }).click();
  const classes = page.getByLabel("Class");
  await classes.locator("option", { hasText: "head" }).first().waitFor({ state: "attached" });
  await classes.selectOption("head");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  assert.deepEqual((await drawn(page)).rules, [{ name: "alert 1", zone: "yard", classes: ["head"], longer_than_s: 2 }]);
  await screenshot(page, "zones-drawn");
  await page.getByRole("button", { name: "Delete yard" }).click();
  assert.deepEqual(await drawn(page), { zones: [], lines: (await drawn(page)).lines, rules: [] });
  assert.deepEqual(complaints, []);
});

proof("zones are drawn by finger on a phone, and by keys", needs(lacks), async (t) => {
  const phone = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };
  const { page, complaints } = await visit(t, "/?source=scene", { ...phone, colorScheme: "dark" });
  const zone = [[0.2, 0.2], [0.8, 0.2], [0.8, 0.8]];
  await page.getByRole("button", { name: "Draw zone" }).tap();
  const at = await onPicture(page);
  for (const point of [...zone, zone[0]]) await page.touchscreen.tap(...at(point));
  assertNear((await drawn(page)).zones[0].polygon, zone);

  await page.getByRole("button", { name: "Draw line" }).focus();
  for (const key of ["Enter", "Space", "Space", "Shift+ArrowRight", "Shift+ArrowUp", "ArrowUp", "Enter"]) await page.keyboard.press(key);
  assert.deepEqual((await drawn(page)).lines, [{ name: "line 1", points: [[0.5, 0.5], [0.55, 0.44]], anchor: "center" }]);
  await screenshot(page, "phone-zones-drawn");
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0, "nothing is wider than a phone");
  assert.deepEqual(complaints, []);
});

proof("a page that is reloaded or closed leaves no session behind", needs(lacks), async (t) => {
  const { page, complaints, close } = await visit(t, "/?source=scene&model=scene-blobs&autostart=1");
  await live(page);
  const first = await page.evaluate(() => saccadePage.session.sessionId);
  await page.reload();
  await live(page);
  const second = await page.evaluate(() => saccadePage.session.sessionId);
  assert.notEqual(second, first);
  const only = (ids) => async () => {
    const now = (await server.sessions()).map(({ session_id }) => session_id);
    return JSON.stringify(now) === JSON.stringify(ids);
  };
  await until("only the new session is there", RESUME_MS + 5_000, only([second]));
  assert.deepEqual(complaints, []);
  await close();
  await until("no session is there", RESUME_MS + 5_000, only([]));
});

/** In the page: no UDP finds its way, as behind a firewall that lets none through. */
function withoutUdp() {
  const { setRemoteDescription } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.setRemoteDescription = function (answer) {
    globalThis.tapped = this;
    const sdp = answer.sdp.replace(/a=candidate:\S+ 1 udp .*\r\n/g, "");
    return setRemoteDescription.call(this, { type: answer.type, sdp });
  };
  // Else the server's own checks would open the way.
  const { send } = WebSocket.prototype;
  WebSocket.prototype.send = function (text) {
    if (JSON.parse(text).type !== "candidate") send.call(this, text);
  };
}

proof("video and results go over TCP where no UDP does", needs(lacks), async (t) => {
  const { page, complaints } = await visit(t, "/?source=scene&model=scene-blobs&autostart=1", { script: withoutUdp });
  await live(page);
  const protocol = await page.evaluate(async () => {
    const stats = [...(await tapped.getStats()).values()];
    const transport = stats.find(({ type }) => type === "transport");
    const pair = stats.find(({ id }) => id === transport.selectedCandidatePairId);
    return stats.find(({ id }) => id === pair.remoteCandidateId).protocol;
  });
  assert.equal(protocol, "tcp");
  const [{ transport }] = await server.sessions();
  assert.equal(transport.protocol, "tcp");
  assert.deepEqual(complaints, []);
});

proof("a cut socket resumes its session while the media goes on", needs(lacks), async (t) => {
  const relay = await Relay.start(server.url);
  t.after(() => relay.stop());
  const { page, complaints } = await visit(t, "/?source=scene&autostart=1", { at: relay.url });
  await live(page);
  await inForce(page, { model: "scene-blobs" });
  const before = await page.evaluate(() => ({ id: saccadePage.session.sessionId, results: probe.results.length }));
  const opened = relay.opened;
  relay.cut();
  await until("a new socket is there", 10_000, () => relay.opened > opened);
  const options = await page.evaluate(() => saccadePage.configure({ score_threshold: 0.5 }));
  assert.equal(options.score_threshold, 0.5);
  // Longer than a lost session would be kept.
  await until("results after the time to resume", 3 * RESUME_MS, async () => {
    const last = await page.evaluate(() => probe.results.at(-1));
    assert.equal(last.session_id, before.id);
    return (await page.evaluate(() => probe.results.length)) > before.results + (RESUME_MS / 1_000) * 30;
  });
  assert.equal(await page.evaluate(() => saccadePage.session.sessionId), before.id);
  const [kept, ...others] = await server.sessions();
  assert.equal(kept.session_id, before.id);
  assert.equal(kept.options.score_threshold, 0.5);
  assert.deepEqual(others, []);
  const { state, errors } = await page.evaluate(() => ({ state: saccadePage.state, errors: saccadePage.errors }));
  assert.deepEqual({ state, errors }, { state: "connected", errors: [] });
  assert.deepEqual(complaints, []);
});

proof("a full server says so, and lets the next one in when there is room", needs(lacks), async (t) => {
  const settings = { "admission.mode": "fixed", "admission.max_sessions": "1", "models.default": "scene-blobs" };
  const full = await Server.start(binary, join(ARTIFACTS, "server-full.log"), settings);
  t.after(() => full.stop());
  const path = "/?source=scene&autostart=1";
  const first = await visit(t, path, { at: full.url });
  await live(first.page);
  const second = await visit(t, path, { at: full.url, colorScheme: "dark" });
  const alert = second.page.locator('.alert[data-code="capacity"]');
  await alert.waitFor();
  assert.match(await alert.innerText(), /The server is full/);
  await screenshot(second.page, "full-dark");
  await first.close();
  await live(second.page);
  assert.equal(await alert.count(), 0, "the error is gone once it has passed");
  assert.deepEqual(first.complaints, []);
  assert.deepEqual(second.complaints, []);
});

proof("a server that ends tells its pages, and ends cleanly", needs(lacks), async (t) => {
  const settings = { "models.default": "scene-blobs" };
  const ending = await Server.start(binary, join(ARTIFACTS, "server-ending.log"), settings);
  t.after(() => ending.stop());
  const { page } = await visit(t, "/?source=scene&autostart=1", { at: ending.url });
  await live(page);
  const how = ending.stop();
  await page.locator('.alert[data-code="draining"]').waitFor();
  await screenshot(page, "draining");
  assert.deepEqual(await how, { code: 0, signal: null });
});

proof("a keyframe that the browser asks for comes from the encoder", needs(lacks), async (t) => {
  // The content security policy forbids a worker made by the test.
  const context = await browser.newContext({ bypassCSP: true });
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  await page.addInitScript({ path: join(ROOT, "tests/e2e/keyframe.js") });
  await page.goto(`${server.url}/?source=scene&model=scene-blobs&autostart=1`);
  await live(page);
  const before = await page.evaluate(() => keyframes());
  assert.equal(await page.evaluate(() => askForKeyframe()), "asked");
  await until("the browser sends a PLI and decodes a keyframe", 20_000, async () => {
    const now = await page.evaluate(() => keyframes());
    return now.asked > before.asked && now.decoded > before.decoded;
  });
  const id = await page.evaluate(() => saccadePage.session.sessionId);
  const { counters } = (await server.sessions()).find(({ session_id }) => session_id === id);
  assert.ok(counters.keyframe_requests_in > 0, "the PLI reached the session");
});

for (const [bundlePolicy, order] of [["balanced", "video audio video"], ["max-bundle", "audio video video"]]) {
  proof(`the first of two cameras is answered: ${order}, ${bundlePolicy}`, needs(lacks), async (t) => {
    const { page } = await visit(t, "/");
    const offered = order.split(" ");
    const answers = await page.evaluate(offerTwoCameras, [bundlePolicy, offered]);
    assert.equal(answers.length, 2, "the session is renegotiated once");
    for (const { kinds, ports, direction, received } of answers) {
      assert.deepEqual(kinds, [...offered, "application"]);
      // Audio is accepted and idle; the second video alone is declined.
      const declined = [offered.lastIndexOf("video")];
      assert.deepEqual(ports.flatMap((port, index) => (port === "0" ? [index] : [])), declined);
      assert.equal(direction, "sendrecv");
      between(received.results, 5, Infinity, "results received", received);
      between(received.frames, 5, Infinity, "frames received", received);
    }
  });
}

/** Runs in the page: offers a microphone, two cameras and data channels, twice, and tells what came of each offer. */
async function offerTwoCameras([bundlePolicy, order]) {
  const camera = () => {
    const context = Object.assign(document.createElement("canvas"), { width: 320, height: 240 }).getContext("2d");
    const draw = () => {
      context.fillStyle = `hsl(${performance.now() / 10} 80% 50%)`;
      context.fillRect(0, 0, 320, 240);
      requestAnimationFrame(draw);
    };
    draw();
    return context.canvas.captureStream(15).getVideoTracks()[0];
  };
  const pc = new RTCPeerConnection({ bundlePolicy });
  const microphone = () => new AudioContext().createMediaStreamDestination().stream.getAudioTracks()[0];
  for (const kind of order) pc.addTransceiver(kind === "video" ? camera() : microphone(), { direction: "sendrecv" });
  const first = pc.getTransceivers()[order.indexOf("video")];
  let results = 0;
  pc.createDataChannel("results", { ordered: false, maxRetransmits: 0 }).onmessage = () => (results += 1);
  const socket = new WebSocket(`${location.origin.replace("http", "ws")}/v1/signal`, "saccade.v1");
  const answered = [];
  const early = [];
  let failed;
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "answer") answered.shift()(message.sdp);
    if (message.type === "error") failed = message;
    if (message.type !== "candidate" || !message.candidate) return;
    if (pc.remoteDescription) pc.addIceCandidate(message.candidate).catch((error) => (failed = String(error)));
    else early.push(message.candidate);
  };
  await new Promise((resolve) => (socket.onopen = resolve));
  const told = [];
  for (let round = 0; round < 2; round += 1) {
    await pc.setLocalDescription();
    const answer = new Promise((resolve) => answered.push(resolve));
    socket.send(JSON.stringify({ type: "offer", sdp: pc.localDescription.sdp }));
    const sdp = await answer;
    await pc.setRemoteDescription({ type: "answer", sdp });
    for (const candidate of early.splice(0)) await pc.addIceCandidate(candidate);
    const lines = [...sdp.matchAll(/^m=(\S+) (\S+)/gm)];
    const frames = async () =>
      [...(await first.receiver.getStats()).values()].find(({ type }) => type === "inbound-rtp")?.framesDecoded ?? 0;
    const from = { results, frames: await frames() };
    let received = { results: 0, frames: 0 };
    while (received.results < 5 || received.frames < 5) {
      if (failed) throw new Error(JSON.stringify(failed));
      await new Promise(requestAnimationFrame);
      received = { results: results - from.results, frames: (await frames()) - from.frames };
    }
    const [kinds, ports] = [1, 2].map((group) => lines.map((line) => line[group]));
    told.push({ kinds, ports, direction: first.currentDirection, received });
  }
  socket.send(JSON.stringify({ type: "bye" }));
  pc.close();
  return told;
}

proof("the browser example of the protocol page works as it is printed, on a page of its own", needs(lacks), async (t) => {
  const printed = readFileSync(join(ROOT, "signaling/README.md"), "utf8");
  const [, example] = /\n```html\n([^]*?)\n```/.exec(printed);
  assert.equal(example.split("ws://127.0.0.1:8080/").length, 2, "it names the server once");
  let body = "";
  const pages = createServer((_, response) => response.setHeader("content-type", "text/html").end(body));
  await new Promise((done) => pages.listen(0, "127.0.0.1", done));
  t.after(() => new Promise((done) => pages.close(done)));
  const origin = `http://127.0.0.1:${pages.address().port}`;
  const settings = { "http.allowed_origins": origin, "session.resume_ms": RESUME_MS };
  const other = await Server.start(binary, join(ARTIFACTS, "example-server.log"), settings);
  t.after(() => other.stop());
  body = example.replace("ws://127.0.0.1:8080/", `${other.url.replace("http", "ws")}/`);
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(`thrown: ${error.stack}`));
  await page.goto(`${origin}/example.html`);
  const frame = async () => Number(/^frame (\d+): /.exec(await page.locator("#found").textContent())?.[1] ?? -1);
  const first = await until("a result joins a frame on screen", 20_000, async () => {
    const number = await frame();
    return number >= 0 && { number };
  });
  await until("later results do, too", 20_000, async () => (await frame()) > first.number + 20);
  const shown = await page.evaluate(() => ({ width: returned.videoWidth, paused: returned.paused }));
  assert.ok(shown.width > 0 && !shown.paused, JSON.stringify(shown));
  const options = (await other.sessions()).map((session) => session.options.return);
  assert.deepEqual(options, ["exact"]);
  const began = performance.now();
  await page.goto("about:blank");
  await until("it says goodbye", RESUME_MS, async () => (await other.sessions()).length === 0);
  assert.ok(performance.now() - began < RESUME_MS, "it does not merely fall silent");
  assert.deepEqual(complaints, []);
});
