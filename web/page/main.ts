import {
  connect,
  type Dropped,
  isModelView,
  isRouteView,
  listCameras,
  openCamera,
  openScreen,
  type OpenSource,
  openVideo,
  type OptionsPatch,
  type PlayingSource,
  SaccadeError,
  type SaccadeSession,
  type SessionResult,
  type SessionStats,
  signalingUrl,
  STAGES,
  type StateChange,
  SUBPROTOCOL,
  parseServerMessage,
} from "../sdk/index.js";
import { clearErrors, showError } from "./alerts.js";
import { classesOf } from "./classes.js";
import { element, figure } from "./dom.js";
import { ResultsLog } from "./log.js";
import { Plot } from "./plots.js";
import { fetchTruth, SCENE_MODEL, SCENE_VIDEO, sceneFrameAt, type SceneTruth, trueBoxes, type TruthOfFrame } from "./scene.js";
import { Settings } from "./settings.js";
import { EXAMPLE, siteOfQuery } from "./shapes.js";
import { SiteEditor } from "./site.js";
import { Stage } from "./stage.js";

type SourceKind = "camera" | "screen" | "file" | "scene";

/** What automated tests read and drive, at `window.saccadePage`. */
interface PageState {
  /** `idle`, `opening`, or the session's state. */
  state: string;
  session: SaccadeSession | null;
  /** Results since the last start. */
  results: number;
  /** Frames of returned video put on screen since the last start. */
  framesShown: number;
  /** Shown frames whose `rtpTimestamp` had a result. */
  joined: number;
  /** Frames that the preview drew, and those among them with their own result. */
  previewShown: number;
  previewExact: number;
  lastResult: SessionResult | null;
  /** The truth of the frame of `lastResult`, while the sample scene plays. */
  lastTruth: TruthOfFrame | null;
  stats: SessionStats | null;
  /** Every error since the page was opened. */
  errors: { code: string; title: string; detail: string | null; fatal: boolean }[];
  start(): Promise<void>;
  stop(): void;
  configure(patch: OptionsPatch): Promise<unknown>;
}

declare global {
  interface Window {
    saccadePage: PageState;
  }
}

const TICK_MS = 500;
const STATE_WORDS: Record<string, string> = {
  idle: "Ready",
  opening: "Opening the source",
  connecting: "Connecting",
  connected: "Live",
  reconnecting: "Reconnecting",
  failed: "Stopped",
};

const query = new URLSearchParams(location.search);
const fragment = new URLSearchParams(location.hash.slice(1));
const stage = new Stage();
const log = new ResultsLog();
const plots = {
  latency: new Plot(
    "latency",
    "Server time by stage in milliseconds",
    "stacked",
    STAGES.map((name) => ({ name, color: `--s-${name}` })),
    10,
  ),
  rates: new Plot(
    "rates",
    "Rates a second",
    "lines",
    [
      { name: "sent", color: "--s-decode" },
      { name: "results", color: "--s-inference" },
      { name: "shown", color: "--s-preprocess" },
    ],
    10,
  ),
  drops: new Plot(
    "drops",
    "Frames dropped a second",
    "bars",
    [
      { name: "superseded", color: "--s-queue" },
      { name: "late", color: "--s-encode" },
      { name: "skipped", color: "--s-inference" },
    ],
    4,
  ),
};
const settings = new Settings(
  (patch) => void applyPatch(patch),
  () => void restart(),
);
const site = new SiteEditor(stage, {
  configure: applyPatch,
  classes: modelClasses,
  onLine: (line) => log.note(line),
  onShown: showStill,
});

const controls = {
  source: element("source", HTMLSelectElement),
  device: element("device", HTMLSelectElement),
  deviceField: element("device-field", HTMLLabelElement),
  file: element("file", HTMLInputElement),
  fileField: element("file-field", HTMLLabelElement),
  start: element("start", HTMLButtonElement),
  status: element("status", HTMLParagraphElement),
  statusText: element("status-text", HTMLSpanElement),
  statusWait: element("status-wait", HTMLSpanElement),
  footServer: element("foot-server", HTMLSpanElement),
  footSession: element("foot-session", HTMLSpanElement),
};

let opened: OpenSource | null = null;
let scene: { playing: PlayingSource; truth: SceneTruth | null } | null = null;
let calling: AbortController | null = null;
let recent: SessionResult[] = [];
let lastDropped: Dropped = { superseded: 0, late: 0 };
const seenClasses = new Set<string>();
let ticks = 0;
let sessionId: string | null = null;
let lastReported: SaccadeError | null = null;
let retryAt: number | null = null;

const page: PageState = {
  state: "idle",
  session: null,
  results: 0,
  framesShown: 0,
  joined: 0,
  previewShown: 0,
  previewExact: 0,
  lastResult: null,
  lastTruth: null,
  stats: null,
  errors: [],
  start,
  stop: () => stop(),
  configure: (patch) => page.session?.configure(patch) ?? Promise.reject(new SaccadeError("not_connected")),
};
window.saccadePage = page;

void open();

/** Sets the page up: presets, devices, and what the server offers. */
async function open(): Promise<void> {
  settings.preset(query, fragment);
  site.preset(siteOfQuery(query));
  stage.view(query.get("view") ?? "over");
  writeSnippet();
  element("transport", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    if (running()) stop();
    else void start();
  });
  controls.source.addEventListener("change", () => {
    showSourceFields();
    if (running()) void restart();
  });
  controls.device.addEventListener("change", () => {
    if (running()) void restart();
  });
  controls.file.addEventListener("change", () => {
    if (controls.file.files?.length) void restart();
  });
  element("site-example", HTMLButtonElement).addEventListener("click", () => showExample());
  element("clear-log", HTMLButtonElement).addEventListener("click", () => log.clear());
  window.addEventListener("pagehide", () => stop());
  setInterval(tick, TICK_MS);

  const cameras = await fillCameras();
  const wanted = query.get("source") ?? (query.get("example") === "site" ? "scene" : null);
  const known = [...controls.source.options].some(({ value }) => value === wanted);
  controls.source.value = known && wanted ? wanted : cameras > 0 ? "camera" : "scene";
  showSourceFields();
  (navigator as Partial<Navigator>).mediaDevices?.addEventListener?.("devicechange", () => void fillCameras());
  for (const plot of Object.values(plots)) plot.draw();
  if (query.get("autostart") === "1") await start();
  else askServer();
}

/** Opens the chosen source and connects. */
async function start(): Promise<void> {
  if (running()) return;
  const controller = new AbortController();
  calling = controller;
  const { signal } = controller;
  clearErrors();
  reset();
  site.starting();
  setState("opening");
  try {
    const source = await openSource(controls.source.value as SourceKind);
    if (!source) return finish("idle");
    if (signal.aborted) {
      source.stop();
      return;
    }
    opened = source;
    stage.source(source.stream);
    stage.show("source");
    void fillCameras();
    const asked = settings.wanted;
    const session = await connect({
      stream: source.stream,
      url: location.href,
      token: settings.token,
      options: asked,
      codec: settings.codec,
      video: stage.returnedVideo,
      preview: stage.preview,
      signal,
      onState: (change) => {
        if (!signal.aborted) onState(change);
      },
      onError: report,
      onWelcome: (welcome) => {
        settings.models(welcome.models);
        controls.footServer.textContent = `${welcome.server}, protocol ${welcome.protocol}`;
      },
      onOptions: (options) => {
        // Another session counts anew.
        if (page.session && page.session.sessionId !== sessionId) site.clear();
        sessionId = page.session?.sessionId ?? null;
        settings.show(options);
        site.show(options);
        plots.latency.mark = options.budget_ms;
        stage.show(options.return === "results" ? "preview" : "returned");
      },
      onResult,
      onEvent: (event) => site.event(event, performance.now()),
      onFrame: () => {
        page.framesShown += 1;
      },
      onJoin: () => {
        page.joined += 1;
      },
      onPreview: ({ exact }) => {
        page.previewShown += 1;
        if (exact) page.previewExact += 1;
      },
      onStats: showStats,
    });
    if (signal.aborted) return session.close();
    page.session = session;
    sessionId = session.sessionId;
    applyDrawing();
    if (settings.wanted !== asked) void applyPatch(settings.wanted);
    // Models trained on photographs take drawn heads for anything.
    if (scene && !settings.wanted.model && session.welcome?.models.includes(SCENE_MODEL)) {
      void applyPatch({ model: SCENE_MODEL });
    }
    void site.started();
    controls.footSession.textContent = `session ${session.sessionId ?? ""}`;
  } catch (error) {
    if (signal.aborted) return;
    const failure = error instanceof SaccadeError ? error : new SaccadeError("browser_fault", { detail: String(error), cause: error });
    // A session reports its own end.
    if (failure !== lastReported) report(failure);
    finish("failed");
  }
}

/** Ends what runs. */
function stop(): void {
  calling?.abort();
  page.session?.close();
  finish("idle");
}

async function restart(): Promise<void> {
  if (running()) stop();
  else if (controls.source.value !== "file") return;
  await start();
}

function running(): boolean {
  return page.state !== "idle" && page.state !== "failed";
}

function finish(state: "idle" | "failed"): void {
  calling = null;
  page.session = null;
  opened?.stop();
  opened = null;
  scene = null;
  stage.source(null);
  stage.show("nothing");
  site.stopped();
  controls.footSession.textContent = "";
  setState(state);
}

function reset(): void {
  Object.assign(page, {
    results: 0,
    framesShown: 0,
    joined: 0,
    previewShown: 0,
    previewExact: 0,
    lastResult: null,
    lastTruth: null,
    stats: null,
  });
  recent = [];
  lastDropped = { superseded: 0, late: 0 };
  for (const plot of Object.values(plots)) plot.clear();
}

async function openSource(kind: SourceKind): Promise<OpenSource | null> {
  if (kind === "camera") {
    const deviceId = controls.device.value;
    return openCamera(deviceId ? { deviceId } : {});
  }
  if (kind === "screen") return openScreen();
  if (kind === "file") {
    const file = controls.file.files?.[0];
    if (!file) {
      controls.file.click();
      return null;
    }
    return openVideo(file);
  }
  const [playing, truth] = await Promise.all([openVideo(SCENE_VIDEO), fetchTruth()]);
  scene = { playing, truth };
  return playing;
}

function onState(change: StateChange): void {
  if (change.state === "closed") return finish(change.error ? "failed" : "idle");
  if (change.state === "connected") clearErrors(true);
  setState(change.state, change.retryInMs);
}

function setState(state: string, retryInMs: number | null = null): void {
  page.state = state;
  retryAt = retryInMs === null ? null : performance.now() + retryInMs;
  controls.status.dataset["state"] = state;
  controls.statusText.textContent = STATE_WORDS[state] ?? state;
  showWait();
  controls.start.textContent = running() ? "Stop" : "Start";
  controls.start.toggleAttribute("data-running", running());
}

/** The seconds until the next attempt; counted down in silence, for those who listen to the page. */
function showWait(): void {
  const seconds = retryAt === null ? 0 : Math.ceil((retryAt - performance.now()) / 1_000);
  controls.statusWait.textContent = seconds > 0 ? ` in ${seconds} s` : "";
}

function report(error: SaccadeError): void {
  lastReported = error;
  const { code, title, detail, fatal } = error;
  page.errors.push({ code, title, detail, fatal });
  if (page.errors.length > 100) page.errors.shift();
  showError(error);
}

async function applyPatch(patch: OptionsPatch): Promise<void> {
  applyDrawing();
  const { session } = page;
  if (!session) return;
  try {
    await session.configure(patch);
  } catch (error) {
    if (!(error instanceof SaccadeError) || session.state === "closed") return;
    settings.forget(patch);
    if (session.options) {
      settings.show(session.options);
      site.show(session.options);
    }
    applyDrawing();
    report(error.withFatal(false));
  }
}

function applyDrawing(): void {
  const { boxes, labels } = settings.overlay;
  page.session?.setPreviewDrawing({ boxes, labels });
}

function onResult(result: SessionResult): void {
  page.results += 1;
  page.lastResult = result;
  recent.push(result);
  const { detections, classes = [], segments = [] } = result;
  for (const { class: name } of [...detections, ...classes, ...segments]) seenClasses.add(name);
  log.add(result, performance.now());
  if (!scene?.truth || !page.session) return;
  const capturedAt = page.session.capturedAt(result);
  const seconds = capturedAt === null ? null : scene.playing.timeDrawnAt(capturedAt);
  if (seconds === null) return;
  const { frame_id, rtp_timestamp_in } = result;
  const scene_frame = sceneFrameAt(scene.truth, seconds);
  page.lastTruth = { frame_id, rtp_timestamp_in, scene_frame, boxes: trueBoxes(scene.truth, scene_frame) };
}

/** One point on every plot. */
function tick(): void {
  if (!running()) return;
  if (retryAt !== null) showWait();
  site.tick();
  const { stats } = page;
  const results = recent;
  recent = [];
  const mean = (of: (result: SessionResult) => number): number =>
    results.reduce((sum, result) => sum + of(result), 0) / results.length;
  plots.latency.add(results.length === 0 ? null : STAGES.map((name) => mean((result) => result.timing_ms[name])));
  plots.rates.add(stats ? [stats.fpsSent, stats.resultsPerSecond, stats.fpsShown] : null);
  const dropped = results.at(-1)?.dropped ?? lastDropped;
  const perSecond = (now: number, before: number): number => (Math.max(0, now - before) * 1_000) / TICK_MS;
  plots.drops.add([
    perSecond(dropped.superseded, lastDropped.superseded),
    perSecond(dropped.late, lastDropped.late),
    perSecond(dropped.skipped ?? 0, lastDropped.skipped ?? 0),
  ]);
  lastDropped = dropped;
  ticks += 1;
  if (ticks % 10 === 0) for (const plot of Object.values(plots)) plot.describe();
}

function showStats(stats: SessionStats): void {
  page.stats = stats;
  const put = (id: string, value: string, note?: string): void => {
    element(`tile-${id}`, HTMLElement).textContent = value;
    if (note !== undefined) element(`tile-${id}-note`, HTMLElement).textContent = note;
  };
  const previewing = page.session?.options?.return === "results";
  const age = previewing ? stats.resultAge : stats.shownAge;
  element("tile-screen-name", HTMLElement).textContent = previewing ? "Capture to result" : "Capture to screen";
  put("total", figure(stats.total?.p50), `ms, 95 % under ${figure(stats.total?.p95)}`);
  put("screen", figure(age?.p50, 0), `ms, 95 % under ${figure(age?.p95, 0)}`);
  const { superseded, late, skipped = 0 } = stats.dropped;
  const skippedNote = skipped > 0 ? `, ${skipped} skipped` : "";
  put("results", figure(stats.resultsPerSecond), `a second, ${superseded + late} dropped${skippedNote}`);
  site.degraded(stats.degraded);
  put("shown", previewing ? "off" : figure(stats.fpsShown), previewing ? "drawn here" : `a second, ${kbps(stats.kbpsReceived)}`);
  const size = stats.sentSize ? `${stats.sentSize.width}×${stats.sentSize.height}` : "";
  put("sent", figure(stats.fpsSent), [stats.codec ?? "", size].filter(Boolean).join(" · "));
  put(
    "met",
    stats.met === null ? "–" : `${Math.round(stats.met * 100)} %`,
    stats.rttMs === null ? "of results" : `of results · rtt ${figure(stats.rttMs, 0)} ms`,
  );
}

function kbps(value: number): string {
  return value >= 1_000 ? `${(value / 1_000).toFixed(1)} Mbit/s` : `${Math.round(value)} kbit/s`;
}

async function fillCameras(): Promise<number> {
  const cameras = await listCameras();
  const kept = controls.device.value || query.get("device") || "";
  controls.device.replaceChildren(...cameras.map(({ deviceId, label }) => new Option(label, deviceId)));
  if (cameras.some(({ deviceId }) => deviceId === kept)) controls.device.value = kept;
  showSourceFields();
  return cameras.length;
}

function showSourceFields(): void {
  const kind = controls.source.value;
  controls.deviceField.hidden = kind !== "camera" || controls.device.options.length < 2;
  controls.fileField.hidden = kind !== "file";
  showStill();
}

/** While nothing runs, zones are drawn on the first frame of the sample scene. */
function showStill(): void {
  if (running()) return;
  stage.still(controls.source.value === "scene" && site.visible ? SCENE_VIDEO : null);
}

/** Puts the example's zone on the sample scene, which takes the place of another source. */
function showExample(): void {
  const elsewhere = running() && !scene;
  if (elsewhere) stop();
  controls.source.value = "scene";
  showSourceFields();
  site.add(EXAMPLE);
  if (elsewhere) void start();
}

/** Names of the classes of the model in use, or those seen so far where the server does not tell. */
async function modelClasses(): Promise<readonly string[]> {
  const sceneModel = controls.source.value === "scene" ? SCENE_MODEL : undefined;
  const model = page.session?.options?.model ?? settings.wanted.model ?? sceneModel;
  const [models, routes] = await Promise.all([views("/v1/models", isModelView), views("/v1/routes", isRouteView)]);
  return classesOf(model, models, routes) ?? [...seenClasses].sort();
}

/** The entries of a list of the HTTP API that this page understands; none where the server does not tell. */
async function views<T>(path: string, is: (value: unknown) => value is T): Promise<T[]> {
  const { token } = settings;
  try {
    const response = await fetch(path, token ? { headers: { authorization: `Bearer ${token}` } } : {});
    const all: unknown = response.ok ? await response.json() : [];
    return Array.isArray(all) ? all.filter(is) : [];
  } catch {
    return [];
  }
}

/** Learns the models before the first start; a server that wants a token, or none, is met at the start. */
function askServer(): void {
  const socket = new WebSocket(signalingUrl(location.href), SUBPROTOCOL);
  const timer = setTimeout(() => socket.close(1000), 3_000);
  socket.onmessage = ({ data }: MessageEvent<unknown>) => {
    clearTimeout(timer);
    socket.close(1000);
    try {
      const message = typeof data === "string" ? parseServerMessage(data) : null;
      if (message?.type !== "welcome" || running()) return;
      settings.models(message.models);
      controls.footServer.textContent = `${message.server}, protocol ${message.protocol}`;
    } catch {
      // The start says so in plain language.
    }
  };
}

function writeSnippet(): void {
  const text = `<video autoplay muted playsinline></video>
<script type="module">
  import { connect } from "${location.origin}/saccade.js";

  const session = await connect({
    video: document.querySelector("video"),
    onResult: ({ detections, timing_ms }) => {
      console.log(detections, timing_ms.total);
    },
  });
</script>`;
  element("snippet", HTMLPreElement).textContent = text;
  const copy = element("copy-snippet", HTMLButtonElement);
  copy.addEventListener("click", () => {
    navigator.clipboard?.writeText(text).then(
      () => {
        copy.textContent = "Copied";
        setTimeout(() => (copy.textContent = "Copy"), 2_000);
      },
      () => undefined,
    );
  });
}
