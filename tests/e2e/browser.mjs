// Chromium, with a clip as its camera, and pages whose complaints are recorded.
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--use-fake-ui-for-media-stream",
  "--use-fake-device-for-media-stream=fps=30",
];
const PROBE = fileURLToPath(new URL("probe.js", import.meta.url));
const DESKTOP = { viewport: { width: 1440, height: 900 }, colorScheme: "light" };

/** Where Chromium is, or null. */
export function findBrowser() {
  const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  return [process.env.SACCADE_TEST_BROWSER, ...places].find((place) => place && existsSync(place)) ?? null;
}

/** Turns a clip into what Chromium's fake camera plays. */
export async function asCamera(clip, folder) {
  const camera = join(folder, "camera.mjpeg");
  await promisify(execFile)("ffmpeg", ["-v", "error", "-i", clip, "-an", "-q:v", "4", "-pix_fmt", "yuvj420p", camera]);
  return camera;
}

/** Starts Chromium; `camera` is a file of {@link asCamera}, `more` are further flags. */
export function launch(executablePath, camera, more = []) {
  const file = camera ? [`--use-file-for-fake-video-capture=${camera}`] : [];
  return chromium.launch({ executablePath, args: [...FLAGS, ...file, ...more] });
}

/**
 * Opens a page in a context of its own; the probe is for the live page. What it writes to the console, throws, or fails to load goes to `complaints`.
 */
export async function openPage(browser, url, { script, probed = true, ...looks } = {}) {
  const context = await browser.newContext({ ...DESKTOP, ...looks });
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(`thrown: ${error.stack}`));
  page.on("response", (response) => {
    if (response.status() >= 400) complaints.push(`${response.status()}: ${response.url()}`);
  });
  page.setDefaultTimeout(20_000);
  if (probed) await page.addInitScript({ path: PROBE });
  if (script) await page.addInitScript(script);
  await page.goto(url);
  return { page, complaints, close: () => context.close() };
}
