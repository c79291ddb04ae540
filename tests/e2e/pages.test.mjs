// History, status, stills and the API: the pages beside the live one, with a real session's history.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { findBrowser, launch, openPage } from "./browser.mjs";
import { findBinary, Server } from "./server.mjs";

const ARTIFACTS = process.env.SACCADE_ARTIFACTS || "/tmp/saccade-artifacts";
const PHONE = { viewport: { width: 360, height: 740 }, colorScheme: "dark" };
const binary = findBinary();
const chromium = findBrowser();
const missing = [!binary && "the server's binary (SACCADE_BIN)", !chromium && "Chromium"].filter(Boolean);
const skip = missing.length > 0 && process.env.CI !== "true" ? `missing: ${missing.join(", ")}` : false;
const options = { skip, timeout: 90_000 };
let folder;
let server;
let browser;

before(async () => {
  if (skip) return;
  assert.deepEqual(missing, []);
  mkdirSync(ARTIFACTS, { recursive: true });
  folder = mkdtempSync(join(tmpdir(), "saccade-pages-"));
  server = await Server.start(binary, join(ARTIFACTS, "pages-server.log"), { "store.url": `sqlite://${folder}/history.db` });
  browser = await launch(chromium, null);
});

after(async () => {
  await browser?.close();
  const how = await server?.stop();
  if (folder) rmSync(folder, { recursive: true, force: true });
  if (how) assert.deepEqual(how, { code: 0, signal: null });
});

async function shot(page, name) {
  await page.screenshot({ path: join(ARTIFACTS, `${name}.png`), fullPage: true });
}

/** Nothing is wider than the window. */
function fits(page) {
  return page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);
}

test("a live session is on the status page, and its events in the history", options, async (t) => {
  const live = await openPage(browser, `${server.url}/?source=scene&example=site&autostart=1`);
  t.after(live.close);
  await live.page.waitForFunction(() => saccadePage.state === "connected" && saccadePage.joined > 10);

  const status = await openPage(browser, `${server.url}/status.html`, { probed: false });
  t.after(status.close);
  await status.page.waitForFunction(() => Number(document.getElementById("tile-results").textContent) > 1);
  assert.equal(await status.page.locator("#status-text").textContent(), "Live");
  assert.equal(await status.page.locator("#sessions tr").count(), 1);
  assert.match(await status.page.locator("#sessions tr").textContent(), /connected/);
  await status.page.waitForFunction(() => document.querySelectorAll("#chart-results path").length === 1);
  await shot(status.page, "status-light");
  await status.page.setViewportSize(PHONE.viewport);
  assert.ok(await fits(status.page));

  const { page, complaints, close } = await openPage(browser, `${server.url}/history.html?range=3600000`, { probed: false });
  t.after(close);
  // Zones come and go with what is seen: look again until something is there.
  for (let left = 60; left > 0 && (await page.locator("#space .line").count()) < 3; left -= 1) {
    await page.waitForTimeout(500);
    await page.getByRole("button", { name: "Show" }).click();
    await page.waitForFunction(() => document.getElementById("status-text").textContent === "Ready");
  }
  const rows = page.locator("#space .line");
  assert.ok((await rows.count()) >= 3);
  await page.getByLabel("Type").selectOption("zone_entered");
  await page.getByRole("button", { name: "Show" }).press("Enter");
  await page.waitForFunction(() => {
    const kinds = [...document.querySelectorAll("#space .line")].map((row) => row.dataset.kind);
    return kinds.length > 0 && kinds.every((kind) => kind === "zone_entered");
  });
  assert.ok(new URL(page.url()).searchParams.get("type") === "zone_entered", "the address names the view");
  const [saved] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Events as CSV" }).click()]);
  const lines = readFileSync(await saved.path(), "utf8").trim().split("\r\n");
  assert.match(lines[0], /^id,time,session_id,camera,type,zone/);
  assert.ok(lines.length > 1 && lines.slice(1).every((line) => line.includes(",zone_entered,")));

  // The session's minute is written when it ends.
  await live.page.getByRole("button", { name: "Stop" }).click();
  await page.getByLabel("Type").selectOption("");
  for (let left = 60; left > 0 && (await page.locator("#chart-latency path").first().getAttribute("d")) === ""; left -= 1) {
    await page.waitForTimeout(500);
    await page.getByRole("button", { name: "Show" }).click();
    await page.waitForFunction(() => document.getElementById("status-text").textContent === "Ready");
  }
  assert.notEqual(await page.locator("#chart-latency path").first().getAttribute("d"), "");
  await shot(page, "history-light");
  await page.setViewportSize(PHONE.viewport);
  await page.emulateMedia({ colorScheme: "dark" });
  assert.ok(await fits(page));
  await shot(page, "history-phone-dark");
  assert.deepEqual(complaints, []);
});

test("of fifty thousand events only those in sight are in the document", options, async (t) => {
  const { page, complaints, close } = await openPage(browser, `${server.url}/status.html`, { probed: false });
  t.after(close);
  const at = Date.UTC(2026, 10, 22, 12);
  await page.route("**/v1/events?*", (route) => {
    const from = Number(new URL(route.request().url()).searchParams.get("cursor") ?? 0);
    const event = (_, index) => ({
      id: String(from + index),
      time_ms: at - (from + index) * 1000,
      session_id: "gate",
      camera: "gate",
      event: { type: "zone_entered", zone: "door", class: "head", object_id: from + index, count: 1 },
    });
    void route.fulfill({ json: { events: Array.from({ length: 500 }, event), next_cursor: String(from + 500) } });
  });
  await page.goto(`${server.url}/history.html`);
  const view = page.locator("#view");
  for (const to of [400, 900, 1300]) {
    await page.waitForFunction((count) => document.getElementById("space").clientHeight >= count * 36, to);
    await view.evaluate((element, rows) => (element.scrollTop = rows * 36), to);
    await page.waitForFunction((row) => document.querySelector(`[aria-rowindex="${row + 2}"]`), to);
    assert.ok((await page.locator("#space .line").count()) < 60);
  }
  await view.focus();
  await page.keyboard.press("Home");
  await page.waitForFunction(() => document.querySelector('[aria-rowindex="2"]'));
  assert.match(await page.locator('[aria-rowindex="2"]').textContent(), /zone entered.*door.*head.*object 0, 1 inside.*gate/);
  assert.deepEqual(complaints, []);
});

test("pictures are made smaller, sent a few at a time, and drawn over; one that fails says why", options, async (t) => {
  const { page, complaints, close } = await openPage(browser, `${server.url}/stills.html`, { probed: false, ...PHONE });
  t.after(close);
  let [running, most] = [0, 0];
  const sizes = [];
  await page.route("**/v1/detect*", async (route) => {
    running += 1;
    most = Math.max(most, running);
    sizes.push(route.request().postDataBuffer()?.length ?? 0);
    const [fails, classifies] = [sizes.length === 2, sizes.length === 3];
    await new Promise((resolve) => setTimeout(resolve, 100));
    running -= 1;
    if (fails) return route.fulfill({ status: 422, contentType: "application/problem+json", json: { detail: "The picture has too many pixels." } });
    if (classifies) {
      const classes = [{ class_id: 7, class: "seven", score: 0.97 }];
      return route.fulfill({ json: { width: 320, height: 240, detections: [], classes } });
    }
    const box = [10, 10, 200, 150];
    return route.fulfill({ json: { width: 320, height: 240, detections: [{ box, class_id: 0, class: "head", score: 0.9, object_id: null }] } });
  });
  // A photo's worth of pixels, made here.
  const buffer = Buffer.from(
    await page.evaluate(async () => {
      const canvas = new OffscreenCanvas(2400, 1800);
      const context = canvas.getContext("2d");
      for (let y = 0; y < 1800; y += 8) for (let x = 0; x < 2400; x += 8) {
        context.fillStyle = `hsl(${(x * 7 + y * 13) % 360} 60% 50%)`;
        context.fillRect(x, y, 8, 8);
      }
      return [...new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer())];
    }),
  );
  const files = Array.from({ length: 5 }, (_, at) => ({ name: `picture ${at}.png`, mimeType: "image/png", buffer }));
  await page.locator("#files").setInputFiles([...files, { name: "broken.png", mimeType: "image/png", buffer: Buffer.from("no picture") }]);
  await page.waitForFunction(() => document.getElementById("summary").textContent === "4 of 6 done, 2 failed");
  assert.equal(sizes.length, 5, "what is no picture is not sent");
  assert.ok(most <= 2, `${most} at a time`);
  assert.ok(sizes.every((size) => size > 0 && size < buffer.length), `${sizes} of ${buffer.length}`);
  const texts = await page.locator(".still p").allTextContents();
  assert.equal(texts.filter((text) => text.startsWith("1 head;")).length, 3);
  assert.ok(texts.some((text) => text.startsWith("seven\u00a097\u00a0%;")), "what is told of a whole picture");
  assert.ok(texts.includes("The picture has too many pixels."));
  assert.ok(texts.some((text) => text.startsWith("This browser cannot read the picture.")));
  assert.ok(await fits(page));
  await shot(page, "stills-phone-dark");
  await page.setViewportSize({ width: 1440, height: 900 });
  await page.emulateMedia({ colorScheme: "light" });
  await shot(page, "stills-light");
  await page.getByRole("button", { name: "Clear" }).click();
  assert.equal(await page.locator(".still").count(), 0);
  assert.deepEqual(complaints.filter((it) => !it.includes("422")), []);
});

/** The operation of a method and a path, opened. */
async function operation(page, id) {
  const details = page.locator(`#${id}`);
  await details.locator("> summary").press("Enter");
  await details.locator("form.try").waitFor();
  return details;
}

test("every request is listed, found, and tried on the page of the API", options, async (t) => {
  const { page, complaints, close } = await openPage(browser, `${server.url}/status.html`, { probed: false });
  t.after(close);
  await page.getByRole("link", { name: "API", exact: true }).click();
  await page.waitForFunction(() => document.getElementById("status-text").textContent === "Ready");
  const told = await (await fetch(`${server.url}/v1/openapi.json`)).json();
  const methods = new Set(["get", "put", "post", "patch", "delete", "head", "options"]);
  const count = Object.values(told.paths).flatMap((item) => Object.keys(item).filter((key) => methods.has(key))).length;
  assert.ok(count > 30, `${count} operations`);
  assert.equal(await page.locator(".operation").count(), count);
  assert.equal(await page.locator("#contents a").count(), count);
  await shot(page, "api-light");

  await page.keyboard.press("/");
  await page.keyboard.type("list models");
  const shown = page.locator(".operation:visible");
  const texts = await shown.allTextContents();
  assert.ok(texts.length >= 1 && texts.length < count && texts.every((text) => /models/i.test(text)), texts.join("; "));
  const models = await operation(page, "get-v1-models");
  assert.equal(await models.locator(".curl").textContent(), `curl ${server.url}/v1/models`);
  await models.getByRole("button", { name: "Send" }).press("Enter");
  await models.locator(".answer .result").waitFor();
  assert.match(await models.locator(".answer .reply").textContent(), /^200 OK in \d+ ms/);
  assert.match(await models.locator(".answer .head").textContent(), /^content-type: application\/json$/m);
  const answered = JSON.parse(await models.locator(".answer .result").textContent());
  assert.deepEqual(answered, await (await fetch(`${server.url}/v1/models`)).json());

  // A token is for this page alone, and never in a line that somebody may hand on.
  await page.getByLabel("Token").fill("a.secret.token");
  await page.getByLabel("Token").blur();
  assert.match(await models.locator(".curl").textContent(), /^curl -H "authorization: Bearer \$TOKEN" /);
  assert.equal(await page.evaluate(() => sessionStorage.length + localStorage.length), 0);
  await page.getByLabel("Token").fill("");
  await page.getByLabel("Token").blur();

  await page.getByLabel("Filter").fill("v1/detect");
  const detect = await operation(page, "post-v1-detect");
  await detect.getByRole("button", { name: "Send" }).click();
  await detect.getByText("Choose a file first.").waitFor();
  const buffer = Buffer.from(
    await page.evaluate(async () => {
      const canvas = new OffscreenCanvas(320, 240);
      canvas.getContext("2d").fillRect(60, 40, 100, 100);
      return [...new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer())];
    }),
  );
  await detect.locator('input[type="file"]').setInputFiles({ name: "a photo.png", mimeType: "image/png", buffer });
  assert.match(await detect.locator(".curl").textContent(), /^curl -H 'content-type: image\/png' --data-binary '@a photo\.png' http:\S+\/v1\/detect$/);
  await detect.getByRole("button", { name: "Send" }).click();
  await detect.locator(".answer .result").waitFor();
  const result = JSON.parse(await detect.locator(".answer .result").textContent());
  assert.deepEqual([result.type, result.width, result.height], ["result", 320, 240]);
  await detect.getByLabel(/^annotate, in query/).selectOption("png");
  await detect.getByRole("button", { name: "Send" }).click();
  await detect.locator(".answer img").waitFor();
  assert.deepEqual(await detect.locator(".answer img").evaluate((image) => [image.naturalWidth, image.naturalHeight]), [320, 240]);
  await shot(page, "api-tried-light");

  await page.setViewportSize(PHONE.viewport);
  await page.emulateMedia({ colorScheme: "dark" });
  for (const summary of await detect.locator(".content > summary").all()) await summary.click();
  assert.ok(await fits(page));
  await shot(page, "api-phone-dark");
  assert.deepEqual(complaints, []);
});
