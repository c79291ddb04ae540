// Opens the built page in a real Chromium against the dev server, tries its main ways, and takes pictures.
//
//   node dev/look.mjs FOLDER [clip.mjpeg|clip.y4m]       ONLY=zones takes those whose name has that word
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { serve } from "./server.mjs";

const [folder = "shots", clip] = process.argv.slice(2);
await mkdir(folder, { recursive: true });
const server = await serve();
const origin = `http://127.0.0.1:${server.port}`;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream=fps=30", ...(clip ? [`--use-file-for-fake-video-capture=${clip}`] : [])],
});
const complaints = [];
try {
  const peer = await browser.newPage();
  if (process.env.VERBOSE) peer.on('console', (m) => console.log('PEER', m.text()));
  peer.on('pageerror', (error) => console.log('PEER', error.stack));
  await peer.goto(`${origin}/dev/peer.html`);

  await look("desktop-idle-light", "/?source=scene", { width: 1440, height: 900 });
  await look("phone-idle-dark", "/", { width: 360, height: 740 }, "dark");
  await look("desktop-live-light", "/?source=camera&autostart=1", { width: 1440, height: 900 }, "light", live);
  await look("desktop-live-dark", "/?source=camera&autostart=1&view=beside", { width: 1440, height: 900 }, "dark", live);
  await look("phone-live-light", "/?source=camera&autostart=1", { width: 390, height: 844 }, "light", live);
  await look("results-dark", "/?source=camera&return=results&autostart=1", { width: 1440, height: 900 }, "dark", live);
  await look("4k-live-light", "/?source=camera&autostart=1", { width: 3840, height: 2160 }, "light", live);
  await look("socket-cut", "/?source=camera&autostart=1", { width: 1024, height: 800 }, "light", async (page) => {
    await live(page);
    const before = await page.evaluate(() => ({ id: saccadePage.session.sessionId, results: saccadePage.results }));
    server.cut();
    await page.waitForTimeout(3000);
    const after = await page.evaluate(async () => ({ id: saccadePage.session.sessionId, results: saccadePage.results, state: saccadePage.state, patched: (await saccadePage.configure({ score_threshold: 0.5 })).score_threshold, errors: saccadePage.errors }));
    console.log("socket cut", JSON.stringify({ before, after }));
  });
  await look("refused-setting", "/?source=camera&autostart=1", { width: 1024, height: 800 }, "dark", async (page) => {
    await live(page);
    await page.getByLabel("Latency budget").fill("10");
    await page.waitForSelector(".alert");
    console.log("budget after refusal:", await page.inputValue("#budget"));
    await page.getByRole('radio', { name: 'Results' }).click();
    await page.waitForFunction(() => saccadePage.previewShown > 10);
  });
  await look("zones-drawing-idle", "/?example=site", { width: 1440, height: 900 }, "light", async (page) => {
    await page.waitForFunction(() => document.getElementById("source-video").videoWidth > 0);
    await page.getByRole("button", { name: "Draw zone" }).click();
    const pad = await page.locator("#pad").boundingBox();
    for (const [x, y] of [[0.3, 0.7], [0.6, 0.65], [0.7, 0.9]]) await page.mouse.click(pad.x + x * pad.width, pad.y + y * pad.height);
    await page.mouse.move(pad.x + 0.4 * pad.width, pad.y + 0.92 * pad.height);
  });
  await look("zones-alert-light", "/?example=site&autostart=1", { width: 1440, height: 900 }, "light", drawAll);
  await look("zones-alert-dark", "/?example=site&autostart=1&view=beside&budget_ms=40&overlay=boxes,labels,zones", { width: 1440, height: 900 }, "dark", drawAll);
  await look("zones-phone", "/?example=site&autostart=1&budget_ms=40", { width: 360, height: 740 }, "light", drawAll);
  await look("zones-preview", "/?example=site&autostart=1&return=results&overlay=boxes,labels,zones", { width: 1024, height: 800 }, "dark", drawAll);
  await look("zones-phone-drawing", "/?source=scene&autostart=1&return=predicted", { width: 360, height: 740 }, "dark", async (page) => {
    await live(page);
    await page.getByRole("button", { name: "Draw zone" }).click();
    await page.keyboard.press("Space");
    for (const [key, times] of [["ArrowRight", 4], ["ArrowDown", 5], ["ArrowLeft", 6]]) {
      for (let n = 0; n < times; n += 1) await page.keyboard.press(`Shift+${key}`);
      await page.keyboard.press("Space");
    }
  });
  await peer.close();
  await look("server-full", "/?source=camera&autostart=1", { width: 390, height: 844 }, "light", (page) => page.waitForSelector(".alert"));
} finally {
  await browser.close();
  server.close();
}
for (const complaint of complaints) console.log("CONSOLE", complaint);
process.exitCode = complaints.length > 0 ? 1 : 0;

async function look(name, path, viewport, colorScheme = "light", act = async () => undefined) {
  if (!name.includes(process.env.ONLY ?? "")) return;
  const page = await browser.newPage({ viewport, colorScheme });
  page.on("console", (message) => complaints.push(`${name}: ${message.type()} ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(`${name}: ${error.stack}`));
  await page.goto(origin + path);
  await page.waitForTimeout(500);
  await act(page);
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
  const figures = await page.evaluate(() => {
    const { state, results, framesShown, joined, previewShown, previewExact, errors, stats } = saccadePage;
    return JSON.stringify({ state, results, framesShown, joined, previewShown, previewExact, errors: errors.map(({ code }) => code), resultAge: stats?.resultAge, shownAge: stats?.shownAge, wide: document.documentElement.scrollWidth - innerWidth });
  });
  console.log(name, figures);
  if (process.env.VERBOSE) console.log(complaints);
  await page.close();
}

/** Beside the example: a line, and an alert that the card's form makes. Waits for an alert and a crossing. */
async function drawAll(page) {
  await live(page);
  await page.getByRole("button", { name: "Draw line" }).click();
  const rect = await page.locator("#source-layer").boundingBox();
  for (const [x, y] of [[0.5, 0.95], [0.5, 0.2]]) await page.mouse.click(rect.x + x * rect.width, rect.y + y * rect.height);
  await page.getByRole("textbox", { name: "Name of the line" }).fill("gate");
  await page.keyboard.press("Tab");
  await page.getByRole("button", { name: "Add alert" }).click();
  await page.getByLabel("Class").selectOption("helmet");
  await page.getByLabel("Condition").selectOption("more");
  await page.getByLabel("Value").fill("0");
  await page.getByLabel("Name", { exact: true }).fill("anyone");
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.locator('.badge[data-kind="alarm"]', { hasText: "bare head" }).waitFor({ timeout: 30_000 });
  await page.waitForFunction(() => /[1-9]/.test(document.querySelector("#line-list .count").textContent), null, { timeout: 30_000 });
  console.log("options:", await page.evaluate(() => JSON.stringify({ ...saccadePage.session.options, overlay: undefined })));
}

async function live(page) {
  await page.waitForFunction(() => saccadePage.results > 60, null, { timeout: 30_000 });
  await page.waitForTimeout(4000);
}
