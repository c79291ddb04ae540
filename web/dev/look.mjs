// Opens the built page in a real Chromium against the dev server, tries its main ways, and takes pictures.
//
//   node dev/look.mjs FOLDER [clip.mjpeg|clip.y4m]
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
    await page.getByRole('radio', { name: 'Predicted' }).click();
    await page.waitForSelector(".alert");
    console.log("return after refusal:", await page.evaluate(() => document.querySelector('input[name="return"]:checked').value));
    await page.getByRole('radio', { name: 'Results' }).click();
    await page.waitForFunction(() => saccadePage.previewShown > 10);
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

async function live(page) {
  await page.waitForFunction(() => saccadePage.results > 60, null, { timeout: 30_000 });
  await page.waitForTimeout(4000);
}
