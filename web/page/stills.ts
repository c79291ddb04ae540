import { label, segment, tensor } from "../sdk/findings.js";
import { type Guard, isRecord, list } from "../sdk/guards.js";
import { drawResult } from "../sdk/overlay.js";
import type { Detection, SessionResult } from "../sdk/wire.js";
import { ask, watchToken } from "./access.js";
import { element, figure, make } from "./dom.js";
import { describe, type Findings } from "./log.js";
import { eachOf, fitted, queryOf } from "./records.js";

/** Pictures on their way at a time: more would only wait for the model. */
const AT_ONCE = 2;
/** Pictures on the page; the oldest go. */
const MOST = 100;
/** Longest side of a picture as it is shown, in pixels. */
const SHOWN = 1600;
/** Quality of what is sent: its traces are weaker than those of making it smaller. */
const QUALITY = 0.92;
/** Where no model says what it needs. */
const INPUT: [number, number] = [640, 640];

/** What `GET /v1/models` says, as far as it is used. */
interface Model {
  name: string;
  version: string;
  input: [number, number];
  score_threshold: number;
  default: boolean;
}

interface Card {
  root: HTMLLIElement;
  canvas: HTMLCanvasElement;
  text: HTMLElement;
}

const select = element("model", HTMLSelectElement);
const threshold = element("threshold", HTMLInputElement);
const thresholdValue = element("threshold-value", HTMLOutputElement);
const files = element("files", HTMLInputElement);
const drop = element("drop", HTMLDivElement);
const cards = element("cards", HTMLUListElement);
const clear = element("clear", HTMLButtonElement);
const summary = element("summary", HTMLSpanElement);
let models: Model[] = [];
/** Whether the threshold was moved; until then the model's own counts. */
let moved = false;
let counts = { done: 0, failed: 0, of: 0 };
/** Batches of pictures follow each other. */
let last: Promise<void> = Promise.resolve();

async function loadModels(): Promise<void> {
  try {
    const json: unknown = await (await ask("/v1/models")).json();
    models = Array.isArray(json) ? json.filter((one): one is Model => isRecord(one) && Array.isArray(one["input"])) : [];
    const before = select.value;
    select.replaceChildren(
      new Option("Server's default", ""),
      ...models.map(({ name, version }) => new Option(`${name}@${version}`, `${name}@${version}`)),
    );
    select.value = before;
    if (select.selectedIndex < 0) select.value = "";
    showThreshold();
  } catch (error) {
    say("failed", "No server");
    summary.textContent = error instanceof Error ? error.message : String(error);
  }
}

function model(): Model | undefined {
  return models.find(({ name, version }) => `${name}@${version}` === select.value) ?? models.find((one) => one.default);
}

function showThreshold(): void {
  if (!moved) threshold.value = String(model()?.score_threshold ?? 0.35);
  thresholdValue.textContent = moved ? Number(threshold.value).toFixed(2) : "model's own";
}

function take(list: Iterable<File>): void {
  const pictures = [...list].filter((file) => file.type.startsWith("image/")).map((file) => ({ file, card: cardOf(file.name) }));
  if (pictures.length === 0) {
    summary.textContent = "There was no picture among them.";
    return;
  }
  if (pictures.length > MOST) summary.textContent = `${MOST} pictures at a time; the first ones are shown.`;
  const taken = pictures.slice(0, MOST);
  for (const { card } of [...taken].reverse()) cards.prepend(card.root);
  while (cards.childElementCount > MOST) cards.lastElementChild?.remove();
  counts.of += taken.length;
  clear.disabled = false;
  show();
  last = last.then(() => eachOf(taken, AT_ONCE, ({ file, card }) => detect(file, card)));
}

function cardOf(name: string): Card {
  const canvas = make("canvas");
  canvas.width = 16;
  canvas.height = 9;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  const text = make("p", "Waiting");
  const root = make("li", [canvas, make("div", [make("strong", name), text])], "card still");
  return { root, canvas, text };
}

async function detect(file: File, card: Card): Promise<void> {
  try {
    card.text.textContent = "Reading";
    // Upright, as the server sees it, too.
    const picture = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => {
      throw new Error("This browser cannot read the picture. Is it a JPEG, PNG or WebP?");
    });
    try {
      const context = draw(picture, card.canvas);
      const body = await smaller(picture, file);
      card.text.textContent = `Sent ${kilobytes(body.size)} of ${kilobytes(file.size)}`;
      const query = queryOf({ model: select.value, score_threshold: moved ? threshold.value : null });
      const begin = performance.now();
      const response = await ask(`/v1/detect${query ? `?${query}` : ""}`, {
        method: "POST",
        headers: { "content-type": body.type, accept: "application/json" },
        body,
      });
      const json: unknown = await response.json();
      const result: unknown = Array.isArray(json) ? json[0] : json;
      const found = findings(result);
      if (!isRecord(result) || !found) throw new Error("The server's answer is not understood. Reload this page.");
      const size = { width: Number(result["width"]) || picture.width, height: Number(result["height"]) || picture.height };
      drawResult(context, { ...found, ...size } as SessionResult);
      const took = `${figure(performance.now() - begin, 0)} ms`;
      const cache = response.headers.get("x-cache")?.startsWith("HIT") ? ", known already" : "";
      card.text.textContent = `${wordsOf(found)}; ${took}${cache}`;
      card.canvas.setAttribute("aria-label", `${file.name}: ${wordsOf(found)}`);
      card.root.dataset["state"] = "done";
      counts.done += 1;
    } finally {
      picture.close();
    }
  } catch (error) {
    card.text.textContent = error instanceof Error ? error.message : String(error);
    card.root.dataset["state"] = "failed";
    counts.failed += 1;
  }
  show();
}

/** Puts the picture on its card. */
function draw(picture: ImageBitmap, canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const scale = Math.min(1, SHOWN / Math.max(picture.width, picture.height));
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser cannot draw pictures.");
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return context;
}

/** The picture as the model needs it, or the file itself where that is no smaller. */
async function smaller(picture: ImageBitmap, file: File): Promise<Blob> {
  const [width, height] = fitted(picture.width, picture.height, model()?.input ?? INPUT);
  if (width === picture.width && height === picture.height) return file;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (!context) return file;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  const made = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
  return made.size < file.size ? made : file;
}

/** What was found in a picture; classes, segments and tensors come from models that tell of the whole of it. */
function findings(result: unknown): Findings | null {
  const boxes = isRecord(result) ? result["detections"] : null;
  if (!isRecord(result) || !Array.isArray(boxes)) return null;
  const found: Findings = { detections: detections(boxes) };
  const keep = <T>(value: unknown, guard: Guard<T>, put: (all: T[]) => void): void => {
    if (list(guard)(value)) put(value);
  };
  keep(result["classes"], label, (classes) => (found.classes = classes));
  keep(result["segments"], segment, (segments) => (found.segments = segments));
  keep(result["tensors"], tensor, (tensors) => (found.tensors = tensors));
  return found;
}

function detections(boxes: readonly unknown[]): Detection[] {
  return boxes
    .filter((one): one is Record<string, unknown> => isRecord(one) && Array.isArray(one["box"]))
    .map((one) => ({ object_id: null, class_id: 0, score: 0, class: "", ...one }) as unknown as Detection);
}

function wordsOf(found: Findings): string {
  if (found.classes ?? found.segments ?? found.tensors) return describe(found);
  const sums = new Map<string, number>();
  for (const { class: name } of found.detections) sums.set(name, (sums.get(name) ?? 0) + 1);
  return [...sums].map(([name, count]) => `${count} ${name}`).join(", ") || "Nothing found";
}

function show(): void {
  const waiting = counts.of - counts.done - counts.failed;
  const failed = counts.failed > 0 ? `, ${counts.failed} failed` : "";
  summary.textContent = counts.of === 0 ? "" : `${counts.done} of ${counts.of} done${failed}`;
  say(waiting > 0 ? "connecting" : counts.failed > 0 ? "failed" : "connected", waiting > 0 ? `${waiting} to go` : "Ready");
}

function say(state: string, words: string): void {
  element("status", HTMLElement).dataset["state"] = state;
  element("status-text", HTMLElement).textContent = words;
}

function kilobytes(bytes: number): string {
  return `${figure(bytes / 1024, 0)} kB`;
}

files.addEventListener("change", () => {
  take(files.files ?? []);
  files.value = "";
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.dataset["over"] = "";
  });
}
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    delete drop.dataset["over"];
  });
}
document.addEventListener("drop", (event) => take(event.dataTransfer?.files ?? []));
document.addEventListener("paste", (event) => {
  const pasted = event.clipboardData?.files;
  if (pasted && pasted.length > 0) take(pasted);
});
clear.addEventListener("click", () => {
  cards.replaceChildren();
  counts = { done: 0, failed: 0, of: 0 };
  clear.disabled = true;
  show();
});
select.addEventListener("change", showThreshold);
threshold.addEventListener("input", () => {
  moved = true;
  showThreshold();
});
watchToken(() => void loadModels());
void loadModels();
