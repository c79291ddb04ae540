import { isRecord } from "../sdk/guards.js";
import { token, watchToken } from "./access.js";
import { Chart } from "./chart.js";
import { element, figure, make } from "./dom.js";

/** Seconds that plots show. */
const POINTS = 180;
/** First and longest wait before another connection is tried, in milliseconds. */
const BACKOFF: [number, number] = [1000, 15_000];
/** Close codes after which trying again with the same token is of no use. */
const REFUSED = [4401, 4403, 1008];

interface SessionStatus {
  session_id: string;
  camera: string | null;
  state: string;
  model: string | null;
  codec: string | null;
  resolution: [number, number] | null;
  viewers: number;
  frames_per_s: number;
  results_per_s: number;
  dropped_per_s: number;
  latency_ms: { p50: number | null; p95: number | null };
  degraded: string[];
}

interface Status {
  time_ms: number;
  cpu: number;
  queues: Record<string, number>;
  models: { model: string; precision: string; backend: string; sessions: number; results_per_s: number }[];
  sessions_total: number;
  sessions: SessionStatus[];
}

const results = new Chart(element("chart-results", HTMLElement), "Results a second", "lines");
const latency = new Chart(element("chart-latency", HTMLElement), "95th percentile of the slowest session, milliseconds", "lines");
const points: { time: number; results: number; latency: number | null }[] = [];
let socket: WebSocket | null = null;
let wait = BACKOFF[0];
let timer: ReturnType<typeof setTimeout> | undefined;

function connect(): void {
  clearTimeout(timer);
  socket?.close();
  const made = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/status`);
  socket = made;
  say("connecting", "Connecting");
  made.addEventListener("open", () => {
    if (token()) made.send(JSON.stringify({ type: "auth", token: token() }));
  });
  made.addEventListener("message", ({ data }) => {
    if (made !== socket) return;
    const message: unknown = JSON.parse(String(data));
    if (!isRecord(message) || message["type"] !== "status") return;
    wait = BACKOFF[0];
    say("connected", "Live");
    show(message as unknown as Status);
  });
  made.addEventListener("close", ({ code }) => {
    if (made !== socket) return;
    socket = null;
    if (REFUSED.includes(code)) {
      say("failed", code === 4403 ? "The token may not view" : "A valid token is needed: see Access below");
      return;
    }
    if (document.hidden) return say("idle", "Paused");
    say("reconnecting", "Connecting again");
    timer = setTimeout(connect, wait);
    wait = Math.min(wait * 2, BACKOFF[1]);
  });
}

function say(state: string, words: string): void {
  element("status", HTMLElement).dataset["state"] = state;
  const text = element("status-text", HTMLElement);
  if (text.textContent !== words) text.textContent = words;
}

function show(status: Status): void {
  const sum = status.sessions.reduce((total, { results_per_s }) => total + results_per_s, 0);
  const slowest = status.sessions.map(({ latency_ms }) => latency_ms.p95).filter((p95): p95 is number => p95 !== null);
  const worst = slowest.length > 0 ? Math.max(...slowest) : null;
  const waiting = Object.values(status.queues).reduce((total, depth) => total + depth, 0);
  tile("sessions", String(status.sessions_total));
  tile("results", figure(sum));
  tile("latency", figure(worst));
  tile("cpu", figure(status.cpu, 2));
  tile("queues", String(waiting));
  tile("degraded", String(status.sessions.filter(({ degraded }) => degraded.length > 0).length));
  points.push({ time: status.time_ms, results: sum, latency: worst });
  if (points.length > POINTS) points.shift();
  const times = points.map(({ time }) => time);
  results.show(times, [{ name: "results", color: "--s-decode", values: points.map((point) => point.results) }]);
  latency.show(times, [{ name: "p95", color: "--s-encode", values: points.map((point) => point.latency) }]);
  element("sessions", HTMLTableSectionElement).replaceChildren(...status.sessions.map(sessionRow));
  element("sessions-empty", HTMLElement).hidden = status.sessions.length > 0;
  element("models", HTMLTableSectionElement).replaceChildren(
    ...status.models.map(({ model, backend, precision, sessions, results_per_s }) =>
      rowOf([model, backend, precision], [String(sessions), figure(results_per_s)]),
    ),
  );
  element("queues", HTMLUListElement).replaceChildren(
    ...Object.entries(status.queues).map(([name, depth]) => make("li", [document.createTextNode(name), make("b", String(depth))])),
  );
}

function sessionRow(session: SessionStatus): HTMLTableRowElement {
  const video = [session.resolution?.join("×"), session.codec].filter(Boolean).join(" ");
  const numbers = [session.frames_per_s, session.results_per_s, session.latency_ms.p50, session.latency_ms.p95, session.dropped_per_s];
  const row = rowOf(
    [session.camera ?? session.session_id, session.state, session.model ?? "–", video || "–"],
    [...numbers.map((value) => figure(value)), String(session.viewers)],
  );
  row.append(make("td", session.degraded.map((step) => step.replaceAll("_", " ")).join(", ") || "–"));
  const id = row.querySelector("td");
  id?.classList.add("id");
  if (id) id.title = session.session_id;
  return row;
}

function rowOf(words: readonly string[], numbers: readonly string[]): HTMLTableRowElement {
  return make("tr", [...words.map((word) => make("td", word)), ...numbers.map((number) => make("td", number, "n"))]);
}

function tile(name: string, value: string): void {
  element(`tile-${name}`, HTMLElement).textContent = value;
}

// Nobody looks: the server need not tell.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) socket?.close();
  else if (!socket) connect();
});
watchToken(connect);
connect();
