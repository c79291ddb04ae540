import { ask, Refused, token, watchToken } from "./access.js";
import { Chart } from "./chart.js";
import { element, make } from "./dom.js";
import { detailOf, eventPage, type EventRecord, everyStep, queryOf, statPoints, windowOf } from "./records.js";

/** Height of a row, as the style sheet has it, in CSS pixels. */
const ROW = 36;
/** Events that are asked for at a time. */
const PAGE = 500;
/** Events that one list shows; for more there are exports. */
const MOST = 50_000;
/** Classes that have a colour of their own. */
const COLORS = ["--s-inference", "--s-preprocess", "--s-queue", "--s-decode", "--s-postprocess", "--s-annotate"];

const range = element("range", HTMLSelectElement);
const own = { from: element("from", HTMLInputElement), to: element("to", HTMLInputElement) };
const view = element("view", HTMLDivElement);
const space = element("space", HTMLDivElement);
const note = element("events-note", HTMLElement);
const grid = element("grid", HTMLDivElement);
const charts = {
  results: new Chart(element("chart-results", HTMLElement), "Results a second", "lines"),
  latency: new Chart(element("chart-latency", HTMLElement), "Latency in milliseconds", "lines"),
  classes: new Chart(element("chart-classes", HTMLElement), "Detections a second by class", "stacked"),
  alerts: new Chart(element("chart-alerts", HTMLElement), "Alerts a minute", "lines"),
};

/** What is shown now. */
let filters: Record<string, string> = {};
let events: EventRecord[] = [];
let next: string | null = null;
let loading = false;
/** Number of the search, so that late answers of one before are told apart. */
let search = 0;

function text(id: string): string {
  const field = document.getElementById(id);
  return field instanceof HTMLInputElement || field instanceof HTMLSelectElement ? field.value.trim() : "";
}

function chosenRange(): { from: string; to: string } {
  const moment = (field: HTMLInputElement): string => (field.value ? new Date(field.value).toISOString() : "");
  if (range.value === "own") return { from: moment(own.from), to: moment(own.to) };
  const now = Date.now();
  return { from: new Date(now - Number(range.value)).toISOString(), to: new Date(now + 1000).toISOString() };
}

async function show(): Promise<void> {
  search += 1;
  const mine = search;
  filters = { ...chosenRange() };
  for (const name of ["type", "camera", "session", "zone", "rule", "class"]) filters[name] = text(name);
  history.replaceState(null, "", `?${queryOf({ ...filters, from: range.value === "own" ? filters["from"] : "", to: range.value === "own" ? filters["to"] : "", range: range.value })}`);
  events = [];
  next = null;
  loading = false;
  view.scrollTop = 0;
  clearErrors();
  await Promise.all([showPlots(mine), more(mine)]);
}

async function showPlots(mine: number): Promise<void> {
  const { from, to, camera, session } = filters;
  try {
    const response = await ask(`/v1/stats?${queryOf({ from, to, camera, session })}`);
    const found = statPoints(await response.json());
    if (!found || mine !== search) return;
    const steps = everyStep(found.from, found.to, found.step, found.points);
    const first = found.from - (found.from % found.step);
    const times = steps.map((_, at) => first + at * found.step);
    const seconds = found.step / 1000;
    const values = (of: (point: NonNullable<(typeof steps)[number]>) => number | null): (number | null)[] =>
      steps.map((point) => (point ? of(point) : null));
    charts.results.show(times, [
      { name: "all", color: "--s-decode", values: values(({ results }) => results / seconds) },
      { name: "in budget", color: "--s-annotate", values: values(({ met }) => met / seconds) },
    ]);
    charts.latency.show(times, [
      { name: "p95", color: "--s-encode", values: values(({ latency_ms }) => latency_ms.p95) },
      { name: "median", color: "--s-decode", values: values(({ latency_ms }) => latency_ms.p50) },
    ]);
    const sums = new Map<string, number>();
    for (const point of found.points) {
      for (const [name, count] of Object.entries(point.detections)) sums.set(name, (sums.get(name) ?? 0) + count);
    }
    const names = [...sums].sort((a, b) => b[1] - a[1]).map(([name]) => name);
    charts.classes.show(
      times,
      names.slice(0, COLORS.length).map((name, at) => ({
        name,
        color: COLORS[at] ?? "--s-reorder",
        values: values(({ detections }) => (detections[name] ?? 0) / seconds),
      })),
    );
    charts.alerts.show(times, [{ name: "alerts", color: "--bad", values: steps.map((point) => ((point?.alerts ?? 0) * 60) / seconds) }]);
  } catch (error) {
    if (mine === search) showError(error);
  }
}

/** Asks for the next page, if there is one and none is on its way. */
async function more(mine = search): Promise<void> {
  if (loading || (events.length > 0 && next === null) || events.length >= MOST) return;
  loading = true;
  element("status", HTMLElement).dataset["state"] = "connecting";
  element("status-text", HTMLElement).textContent = "Loading";
  try {
    const response = await ask(`/v1/events?${queryOf({ ...filters, limit: PAGE, cursor: next })}`);
    const page = eventPage(await response.json());
    if (mine !== search) return;
    if (!page) throw new Refused(0, "The server's answer is not understood. Reload this page.");
    events.push(...page.events);
    next = page.next_cursor;
    element("status", HTMLElement).dataset["state"] = "connected";
    element("status-text", HTMLElement).textContent = "Ready";
    clearErrors();
  } catch (error) {
    if (mine === search) showError(error);
  } finally {
    if (mine === search) {
      loading = false;
      const bounded = events.length >= MOST ? "; export for more" : next === null ? "" : " so far";
      note.textContent = `${events.length.toLocaleString()} ${events.length === 1 ? "event" : "events"}${bounded}`;
      element("events-empty", HTMLElement).hidden = events.length > 0;
      grid.setAttribute("aria-rowcount", next === null ? String(events.length + 1) : "-1");
      draw();
    }
  }
}

/** Puts the rows in sight in place; the others are not in the document. */
function draw(): void {
  space.style.setProperty("height", `${events.length * ROW}px`);
  const { first, end } = windowOf(view.scrollTop, view.clientHeight, ROW, events.length);
  const rows: HTMLElement[] = [];
  for (let at = first; at < end; at += 1) {
    const record = events[at];
    if (record) rows.push(rowOf(record, at));
  }
  space.replaceChildren(...rows);
  if (events.length - end < PAGE / 4) void more();
}

function rowOf({ time_ms, session_id, camera, event }: EventRecord, at: number): HTMLElement {
  const word = (key: string): string => (typeof event[key] === "string" ? (event[key] as string) : "");
  const moment = new Date(time_ms);
  const day = moment.toLocaleDateString(undefined, { day: "2-digit", month: "short" });
  const cells = [
    `${day}, ${moment.toLocaleTimeString(undefined, { hour12: false })}.${String(time_ms % 1000).padStart(3, "0")}`,
    word("type").replaceAll("_", " "),
    [word("zone") || word("line"), word("rule")].filter(Boolean).join(" · "),
    word("class"),
    detailOf(event),
    camera ?? session_id,
  ];
  const row = make(
    "div",
    cells.map((cell) => {
      const made = make("span", cell);
      made.setAttribute("role", "cell");
      made.title = cell;
      return made;
    }),
    "line",
  );
  row.setAttribute("role", "row");
  row.setAttribute("aria-rowindex", String(at + 2));
  row.dataset["kind"] = word("type");
  row.style.setProperty("top", `${at * ROW}px`);
  return row;
}

/** Has the browser keep an answer as a file: as it comes where nobody asks for a token, which links cannot carry. */
async function save(what: "events" | "stats", format: "csv" | "parquet"): Promise<void> {
  const { from, to, camera, session } = filters;
  const path = `/v1/${what}?${queryOf({ ...(what === "events" ? filters : { from, to, camera, session }), format })}`;
  const link = make("a");
  link.download = `saccade-${what}.${format}`;
  if (!token()) {
    link.href = path;
    link.click();
    return;
  }
  try {
    const url = URL.createObjectURL(await (await ask(path)).blob());
    link.href = url;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    showError(error);
  }
}

function clearErrors(): void {
  element("alerts", HTMLDivElement).replaceChildren();
}

function showError(error: unknown): void {
  const words = error instanceof Error ? error.message : String(error);
  const title = error instanceof Refused && error.status === 404 ? "There is no history" : "The history could not be read";
  element("alerts", HTMLDivElement).replaceChildren(make("div", [make("strong", title), make("p", words)], "alert"));
  element("status", HTMLElement).dataset["state"] = "failed";
  element("status-text", HTMLElement).textContent = "Failed";
}

/** Takes filters from the address, so that a view can be kept and sent. */
function restore(): void {
  const query = new URLSearchParams(location.search);
  for (const name of ["range", "type", "camera", "session", "zone", "rule", "class"]) {
    const field = document.getElementById(name);
    const value = query.get(name);
    if (value !== null && (field instanceof HTMLInputElement || field instanceof HTMLSelectElement)) field.value = value;
  }
  for (const [name, field] of Object.entries(own)) {
    const ms = Date.parse(query.get(name) ?? "");
    const local = Number.isFinite(ms) ? new Date(ms - new Date(ms).getTimezoneOffset() * 60_000).toISOString().slice(0, 16) : "";
    field.value = local;
  }
  if (range.selectedIndex < 0) range.value = "86400000";
  showOwn();
}

function showOwn(): void {
  document.querySelectorAll<HTMLElement>(".own").forEach((field) => (field.hidden = range.value !== "own"));
}

range.addEventListener("change", showOwn);
element("filters", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  void show();
});
let drawn = 0;
view.addEventListener("scroll", () => {
  cancelAnimationFrame(drawn);
  drawn = requestAnimationFrame(draw);
});
new ResizeObserver(draw).observe(view);
for (const what of ["events", "stats"] as const) {
  for (const format of ["csv", "parquet"] as const) {
    element(`${what}-${format}`, HTMLButtonElement).addEventListener("click", () => void save(what, format));
  }
}
watchToken(() => void show());
restore();
void show();
