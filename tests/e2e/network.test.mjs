// What becomes of a session when its network goes away: to another way, for a moment, for longer, for good.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { findBrowser, launch, openPage } from "./browser.mjs";
import { lacksNamespaces, Networks, SERVER } from "./networks.mjs";
import { findBinary, Server } from "./server.mjs";
import { until } from "./waiting.mjs";

const ARTIFACTS = process.env.SACCADE_ARTIFACTS || "/tmp/saccade-artifacts";
/** A session is gone this long after its last packet; `session.idle_timeout_ms` is 30 s. */
const FREED_MS = 35_000;

const SETTINGS = {
  "http.listen": `${SERVER}:0`,
  "ops.listen": `${SERVER}:0`,
  "media.listen": SERVER,
  "shutdown.grace_ms": "500",
};

const binary = findBinary();
const chromium = findBrowser();
const missing = [
  !binary && "the server's binary (SACCADE_BIN)",
  !chromium && "Chromium",
  lacksNamespaces(),
].filter(Boolean);
const skip = missing.length > 0 && process.env.CI !== "true" ? `missing: ${missing.join(", ")}` : false;

/** A scenario with networks, a server and a page that streams; all is gone after it. */
function scenario(name, body) {
  test(name, { skip, timeout: 150_000 }, async (t) => {
    assert.deepEqual(missing, []);
    mkdirSync(ARTIFACTS, { recursive: true });
    const folder = mkdtempSync(join(tmpdir(), "saccade-network-"));
    let networks = null;
    let server = null;
    let browser = null;
    try {
      networks = new Networks();
      const log = join(ARTIFACTS, `network-${name.replaceAll(/\W+/g, "-")}.log`);
      const place = { within: networks.within("server"), flags: ["--insecure"] };
      server = await Server.start(binary, log, SETTINGS, place);
      const trusted = [`--unsafely-treat-insecure-origin-as-secure=${server.url}`];
      browser = await launch(networks.wrapped(chromium, folder), null, trusted);
      const { page } = await openPage(browser, `${server.url}/?source=scene&model=scene-blobs&autostart=1`);
      await page.waitForFunction(() => saccadePage.state === "connected" && probe.results.at(-1)?.detections.length > 1);
      await page.evaluate(stream);
      await page.waitForFunction(() => streamed.session?.state === "connected" && streamed.results.length > 30);
      await body(t, { networks, page, url: server.url });
      await browser.close();
      assert.deepEqual(await server.stop(), { code: 0, signal: null }, "the server ends cleanly when it is asked to");
    } finally {
      await Promise.allSettled([browser?.close(), server?.stop()]);
      networks?.remove();
      rmSync(folder, { recursive: true, force: true });
    }
  });
}

/** In the page: sends one picture of the scene again and again, and notes what comes and when. */
async function stream() {
  const { connect } = await import("/saccade.js");
  const scene = document.getElementById("source-video");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [640, 480];
  const paper = canvas.getContext("2d");
  const frozen = await createImageBitmap(scene);
  window.saccadePage.session.close();
  let number = 0;
  const draw = () => {
    paper.drawImage(frozen, 0, 0, 640, 480);
    // Something has to change, or no frame is sent.
    paper.fillStyle = (number += 1) % 2 ? "#101010" : "#202020";
    paper.fillRect(0, 0, 8, 8);
  };
  draw();
  setInterval(draw, 40);
  window.streamed = { results: [], frames: [], events: [], states: [], session: null };
  const at = () => performance.now();
  await connect({
    source: canvas,
    video: document.getElementById("returned-video"),
    options: { model: "scene-blobs", return: "exact" },
    onFrame: () => streamed.frames.push(at()),
    onResult: ({ session_id, detections }) =>
      streamed.results.push({ at: at(), session_id, ids: detections.map(({ object_id }) => object_id).sort() }),
    onState: ({ state }) => streamed.states.push(state),
    onReconnecting: ({ code }) => streamed.events.push({ at: at(), reconnecting: code }),
    onReconnected: (how) => streamed.events.push({ at: at(), reconnected: how }),
  }).then((session) => (streamed.session = session));
}

/** What the page has seen, and the longest time without a result, and without a picture, since `from` results. */
function look(page, from = 0) {
  return page.evaluate((from) => {
    const { results, frames, events, states, session } = streamed;
    const times = results.slice(Math.max(0, from - 1)).map(({ at }) => at);
    const longestOf = (times) => Math.max(0, ...times.slice(1).map((at, index) => at - times[index]));
    const silent = performance.now() - times.at(-1);
    const longest = longestOf(times);
    const noVideo = longestOf(frames.filter((at) => at >= times[0]));
    return { count: results.length, last: results.at(-1), events, states, id: session.sessionId, longest, noVideo, silent };
  }, from);
}

/** A line on what was measured. */
function measured({ noVideo, longest, events }) {
  const seconds = (ms) => `${(ms / 1_000).toFixed(1)} s`;
  return `no video for ${seconds(noVideo)}, no results for ${seconds(longest)}: ${JSON.stringify(events)}`;
}

/** Waits until results come again after a silence that began with `from` results. */
function goesOn(page, from, ms) {
  return until("results come again", ms, async () => {
    const now = await look(page, from);
    return now.count > from + 20 && now.silent < 500 && now;
  });
}

/** How long the page has waited for results, by its own clock. */
function silentFor(page, ms) {
  return until(`${ms} ms without results`, ms + 10_000, async () => (await look(page)).silent >= ms);
}

// Two at a time: most of it is waiting.
describe("networks that go away", { concurrency: 2 }, () => {
  scenario("from Wi-Fi to mobile the session goes on, with the objects it knew", async (t, { networks, page }) => {
    networks.up("mobile");
    const before = await look(page);
    assert.ok(before.last.ids.length > 0, "there are objects");
    networks.down("wifi");
    const after = await goesOn(page, before.count, 30_000);
    t.diagnostic(measured(after));
    assert.equal(after.id, before.id);
    assert.equal(after.last.session_id, before.last.session_id);
    assert.deepEqual(after.last.ids, before.last.ids);
    assert.ok(after.noVideo > 1_000, "the network was away");
    assert.ok(after.noVideo < 15_000, `${after.noVideo}`);
    assert.equal(after.events.length, 2);
    assert.equal(after.events[0].reconnecting, "media_lost");
    assert.equal(after.events[1].reconnected.resumed, true);
  });

  scenario("an outage of 3 s is waited for", async (t, { networks, page }) => {
    const before = await look(page);
    networks.silence(true);
    await silentFor(page, 3_000);
    networks.silence(false);
    const after = await goesOn(page, before.count, 10_000);
    t.diagnostic(measured(after));
    assert.ok(after.longest >= 3_000);
    assert.deepEqual([after.id, after.events, after.states], [before.id, [], ["connecting", "connected"]]);
    assert.deepEqual(after.last.ids, before.last.ids);
  });

  scenario("after an outage of 8 s the same session goes on", async (t, { networks, page }) => {
    const before = await look(page);
    networks.silence(true);
    await silentFor(page, 8_000);
    networks.silence(false);
    const after = await goesOn(page, before.count, 15_000);
    t.diagnostic(measured(after));
    assert.deepEqual([after.id, after.last.session_id], [before.id, before.id]);
  });

  scenario("an outage of 40 s ends the session, and the client makes another", async (t, { networks, page, url }) => {
    const before = await look(page);
    networks.silence(true);
    const start = performance.now();
    const isFreed = async () => (await networks.ask(`${url}/v1/sessions`)).length === 0;
    await until("the server has freed the session", FREED_MS + 2_000, isFreed, 500);
    const freed = performance.now() - start;
    t.diagnostic(`freed after ${(freed / 1_000).toFixed(1)} s`);
    assert.ok(freed > 25_000 && freed <= FREED_MS, `${freed}`);
    await silentFor(page, 40_000);
    networks.silence(false);
    const after = await goesOn(page, before.count, 60_000);
    assert.notEqual(after.id, before.id);
    assert.equal(after.events.at(-1).reconnected.resumed, false);
  });
});
