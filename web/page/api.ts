import { isRecord } from "../sdk/guards.js";
import { element, figure, make } from "./dom.js";
import { type Ask, choicesOf, type Content, curlOf, type Group, groupsOf, isJson, matches, type Node, type Operation, type Parameter, pathOf, rowsOf, typeOf, wordsOf } from "./openapi.js";

/** Where the server describes itself. */
const DESCRIPTION = "/v1/openapi.json";
/** Bytes of an answer that are shown; of streams that do not end, too. */
const MOST_SHOWN = 256 * 1024;
/** How long an answer may take to begin, and a stream is listened to, in milliseconds. */
const PATIENCE = 60_000;
const LISTEN = 5_000;
/** Headers of an answer that are on every answer, and say nothing about this one. */
const USUAL = /^(access-control-|content-security-policy|cross-origin-|permissions-policy|referrer-policy|x-content-type-options|strict-transport|date$|vary$|connection$|keep-alive$|transfer-encoding$)/;
/** Names of files that stand for what a body may be, until one is chosen. */
const FILES: Record<string, string> = { "image/png": "photo.png", "image/webp": "photo.webp" };

const filter = element("filter", HTMLInputElement);
const token = element("token", HTMLInputElement);
const contents = element("contents", HTMLDivElement);
const groupsPlace = element("groups", HTMLDivElement);
/** What the server said of itself. */
let description: Node = {};
let groups: Group[] = [];
/** The places of operations on the page, by their ids. */
const places = new Map<string, { details: HTMLDetailsElement; link: HTMLAnchorElement }>();
/** Called when the token changes: lines for curl tell that there is one. */
const onToken = new Set<() => void>();

async function load(): Promise<void> {
  say("connecting", "Loading");
  try {
    const response = await fetch(DESCRIPTION, { headers: tokenHeader(), cache: "no-cache" });
    const json: unknown = await response.json().catch(() => null);
    if (!response.ok) throw new Error(isRecord(json) && typeof json["detail"] === "string" ? json["detail"] : `The server answered with ${response.status}.`);
    if (!isRecord(json) || !isRecord(json["paths"])) throw new Error("The server's description is not understood. Reload this page.");
    description = json;
    groups = groupsOf(json);
    show();
    element("alerts", HTMLElement).replaceChildren();
    const info = isRecord(json["info"]) ? json["info"] : {};
    element("about", HTMLElement).textContent = [info["title"], info["version"]].filter((one) => typeof one === "string").join(" ");
    say("connected", "Ready");
    openNamed();
  } catch (error) {
    const words = error instanceof TypeError ? "The server does not answer. Is it running?" : error instanceof Error ? error.message : String(error);
    element("alerts", HTMLElement).replaceChildren(make("div", [make("strong", "The API cannot be shown"), make("p", words)], "alert"));
    say("failed", "Nothing to show");
  }
}

/** Builds the contents and the groups; what is inside an operation is built when it is opened. */
function show(): void {
  places.clear();
  onToken.clear();
  const [lists, sections]: [HTMLElement[], HTMLElement[]] = [[], []];
  groups.forEach((group, at) => {
    const title = make("h2", group.name);
    title.id = `group-${at}`;
    const section = make("section", [title, ...paragraphs(group.description)], "group");
    section.setAttribute("aria-labelledby", title.id);
    const list = make("ul");
    for (const operation of group.operations) {
      const details = operationOf(operation);
      const link = make("a", [methodOf(operation.method), make("span", operation.path)]);
      link.href = `#${operation.id}`;
      link.addEventListener("click", () => (details.open = true));
      list.append(make("li", [link]));
      section.append(details);
      places.set(operation.id, { details, link });
    }
    lists.push(make("p", group.name), list);
    sections.push(section);
  });
  contents.replaceChildren(...lists);
  groupsPlace.replaceChildren(...sections);
  sift();
}

function operationOf(operation: Operation): HTMLDetailsElement {
  const summary = make("summary", [methodOf(operation.method), make("code", operation.path), make("span", operation.summary, "about")]);
  const details = make("details", [summary], "card operation");
  details.id = operation.id;
  let built = false;
  details.addEventListener("toggle", () => {
    if (!details.open || built) return;
    built = true;
    details.append(make("div", bodyOf(operation), "inside"));
  });
  return details;
}

function bodyOf(operation: Operation): HTMLElement[] {
  const parts: HTMLElement[] = [];
  if (operation.deprecated) parts.push(make("p", "To be taken out in a later version.", "note"));
  parts.push(...paragraphs(operation.description));
  if (operation.open) parts.push(make("p", "No token is asked for.", "note"));
  parts.push(...tryOf(operation));
  if (operation.body) {
    parts.push(make("h3", "Request body"), ...paragraphs(operation.body.description));
    for (const content of operation.body.contents) parts.push(contentOf(content));
  }
  parts.push(make("h3", "Answers"));
  for (const { status, description, headers, contents } of operation.replies) {
    const head = make("p", [make("strong", status), document.createTextNode(" "), ...rich(description)], "reply");
    head.dataset["kind"] = status[0] ?? "";
    parts.push(head);
    if (headers.length > 0) {
      const items = headers.map(({ name, description }) => make("li", [make("code", name), document.createTextNode(" "), ...rich(description)]));
      parts.push(make("ul", items, "headers"));
    }
    for (const content of contents) parts.push(contentOf(content));
  }
  return parts;
}

/** A schema and its example, to be opened. */
function contentOf({ type, schema, example }: Content): HTMLElement {
  const summary = make("summary", [make("code", type), document.createTextNode(` ${typeOf(description, schema)}`)]);
  const rows = rowsOf(description, schema);
  const parts: HTMLElement[] = [summary];
  const words = wordsOf(description, schema);
  if (words) parts.push(...paragraphs(words));
  if (rows.length > 0) {
    const lines = rows.map(({ depth, name, required, type, description }) => {
      const cell = make("td", [make("code", name), ...(required ? [make("em", "required")] : [])]);
      cell.style.setProperty("--depth", String(depth));
      cell.className = "name";
      return make("tr", [cell, make("td", [make("code", type)]), make("td", rich(description))]);
    });
    parts.push(scrolled(["Name", "Type", "What it is"], lines, `Schema of ${type}`));
  }
  if (example !== undefined && example !== null) {
    const pre = make("pre", typeof example === "string" ? example : JSON.stringify(example, null, 2));
    pre.tabIndex = 0;
    pre.setAttribute("aria-label", "Example");
    parts.push(pre);
  }
  return make("details", parts, "content");
}

function scrolled(heads: readonly string[], rows: HTMLElement[], label: string): HTMLElement {
  const cells = heads.map((head) => {
    const cell = make("th", head);
    cell.scope = "col";
    return cell;
  });
  const region = make("div", [make("table", [make("thead", [make("tr", cells)]), make("tbody", rows)])], "scroll schema");
  region.tabIndex = 0;
  region.setAttribute("role", "region");
  region.setAttribute("aria-label", label);
  return region;
}

// --- trying it ---

/** The fields of an operation, a line for curl, and what is answered. */
function tryOf(operation: Operation): HTMLElement[] {
  const values = new Map<string, string>();
  const parts: HTMLElement[] = [];
  const form = make("form", "", "try");
  if (operation.parameters.length > 0) {
    const rows = operation.parameters.map((parameter) => {
      const input = inputOf(operation, parameter);
      input.addEventListener("input", () => {
        values.set(`${parameter.where} ${parameter.name}`, input.value);
        tell();
      });
      const name = make("td", [make("code", parameter.name), ...(parameter.required ? [make("em", "required")] : [])], "name");
      return make("tr", [name, make("td", [input]), make("td", parameter.where), make("td", [make("code", typeOf(description, parameter.schema))]), make("td", rich(words(parameter)))]);
    });
    form.append(make("h3", "Parameters"), scrolled(["Name", "Value", "In", "Type", "What it is"], rows, "Parameters"));
  }
  const body = operation.body ? bodyFields(operation, tell) : null;
  if (body) form.append(...body.fields);
  const line = make("pre", "", "curl");
  line.tabIndex = 0;
  line.setAttribute("aria-label", "Line for curl");
  const copy = button("Copy", "quiet");
  copy.addEventListener("click", () => void copied(line.textContent ?? "", copy));
  const send = button("Send", "primary");
  send.type = "submit";
  const stop = button("Stop", "quiet");
  stop.hidden = true;
  const answer = make("div", "", "answer");
  answer.setAttribute("role", "status");
  const isSocket = operation.replies.some(({ status }) => status === "101");
  if (isSocket) {
    form.append(make("p", "A WebSocket: pages and programs open it, and this page has nothing to send. The line shows its handshake.", "note"));
  }
  form.append(line, make("div", isSocket ? [copy] : [send, stop, copy], "buttons"), answer);
  parts.push(form);
  onToken.add(tell);
  tell();

  let running: AbortController | null = null;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    running?.abort();
    running = new AbortController();
    const mine = running;
    stop.hidden = false;
    void sent(operation, values, body, mine, answer).finally(() => {
      if (running === mine) stop.hidden = true;
    });
  });
  stop.addEventListener("click", () => running?.abort());
  return parts;

  function tell(): void {
    const ask = askOf(operation, values, body);
    if (operation.replies.some(({ status }) => status === "101")) {
      const handshake = { connection: "upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": "c2FjY2FkZSBleGFtcGxlIQ==" };
      ask.headers.push(...Object.entries(handshake));
    }
    line.textContent = curlOf(ask, location.origin);
  }
}

interface BodyFields {
  fields: HTMLElement[];
  /** The type that is chosen. */
  type(): string;
  text(): string;
  files(): File[];
}

function bodyFields(operation: Operation, onChange: () => void): BodyFields {
  const kinds = operation.body?.contents ?? [];
  const select = make("select", kinds.map(({ type }) => new Option(type, type)));
  const text = make("textarea");
  text.spellcheck = false;
  text.rows = 8;
  const file = make("input");
  file.type = "file";
  const textField = make("label", [document.createTextNode("Body"), text], "field");
  const fileField = make("label", [document.createTextNode("File"), file], "field");
  const choose = (): void => {
    const kind = kinds.find(({ type }) => type === select.value);
    const isText = kind !== undefined && (isJson(kind.type) || kind.type.startsWith("text/") || kind.type.startsWith("application/sdp") || kind.type.includes("sdpfrag"));
    textField.hidden = !isText;
    fileField.hidden = isText;
    file.multiple = select.value.startsWith("multipart/");
    file.accept = select.value.startsWith("image/") || file.multiple ? "image/jpeg,image/png,image/webp" : "";
    const example = kind?.example;
    text.value = example === undefined || example === null ? "" : typeof example === "string" ? example : JSON.stringify(example, null, 2);
    // Where a body may be left out, so it is until somebody writes one.
    if (operation.body?.required !== true) text.value = "";
    onChange();
  };
  select.addEventListener("change", choose);
  text.addEventListener("input", onChange);
  file.addEventListener("change", () => {
    // What a picture is, the file says.
    const [chosen] = file.files ?? [];
    if (chosen && !file.multiple && kinds.some(({ type }) => type === chosen.type)) select.value = chosen.type;
    onChange();
  });
  const typeField = make("label", [document.createTextNode("Type"), select], "field");
  queueMicrotask(choose);
  return {
    fields: [make("h3", "Body"), make("div", [typeField, textField, fileField], "fields")],
    type: () => select.value,
    text: () => text.value,
    files: () => [...(file.files ?? [])],
  };
}

function inputOf(operation: Operation, { name, where, required, schema }: Parameter): HTMLInputElement | HTMLSelectElement {
  const choices = choicesOf(description, schema);
  const label = `${name}, in ${where} of ${operation.method} ${operation.path}`;
  if (choices) {
    const select = make("select", [new Option("", ""), ...choices.map((one) => new Option(one, one))]);
    select.required = required;
    select.setAttribute("aria-label", label);
    return select;
  }
  const input = make("input");
  input.type = "text";
  input.autocomplete = "off";
  input.spellcheck = false;
  input.required = required;
  input.setAttribute("aria-label", label);
  return input;
}

function askOf(operation: Operation, values: ReadonlyMap<string, string>, body: BodyFields | null): Ask {
  const headers: [string, string][] = [];
  for (const { name, where } of operation.parameters) {
    const value = values.get(`${where} ${name}`);
    if (where === "header" && value) headers.push([name, value]);
  }
  const ask: Ask = { method: operation.method, path: pathOf(operation, values), headers, token: token.value !== "", body: { kind: "none" } };
  const type = body?.type() ?? "";
  if (!body || !type) return ask;
  const names = body.files().map(({ name }) => name);
  const isText = isJson(type) || type.startsWith("text/") || type.includes("sdp");
  if (type.startsWith("multipart/")) return { ...ask, body: { kind: "form", names: names.length > 0 ? names : ["photo.jpg"] } };
  if (isText && body.text() === "") return ask;
  headers.push(["content-type", type]);
  if (isText) return { ...ask, body: { kind: "text", text: body.text() } };
  return { ...ask, body: { kind: "file", name: names[0] ?? FILES[type] ?? (type.startsWith("image/") ? "photo.jpg" : "body.bin") } };
}

async function sent(operation: Operation, values: ReadonlyMap<string, string>, body: BodyFields | null, control: AbortController, answer: HTMLElement): Promise<void> {
  const ask = askOf(operation, values, body);
  answer.replaceChildren(make("p", "Sent", "note"));
  const begin = performance.now();
  const timers = [setTimeout(() => control.abort(), PATIENCE)];
  try {
    const init: RequestInit = { method: ask.method, headers: [...ask.headers, ...Object.entries(tokenHeader())], signal: control.signal, cache: "no-store" };
    if (ask.body.kind === "text") init.body = ask.body.text;
    if (ask.body.kind === "file") init.body = one(body?.files() ?? []);
    if (ask.body.kind === "form") {
      const form = new FormData();
      one(body?.files() ?? []);
      for (const file of body?.files() ?? []) form.append("image", file);
      init.body = form;
    }
    const response = await fetch(ask.path, init);
    const type = response.headers.get("content-type") ?? "";
    if (type.startsWith("text/event-stream")) timers.push(setTimeout(() => control.abort(), LISTEN));
    const { bytes, cut } = await read(response);
    if (control.signal.aborted && bytes.length === 0 && !cut) throw new DOMException("", "AbortError");
    await shown(answer, response, type, bytes, cut, performance.now() - begin);
  } catch (error) {
    const aborted = error instanceof DOMException && error.name === "AbortError";
    const words = aborted ? "Stopped before an answer came." : error instanceof NoFile ? error.message : "The server does not answer. Is it running?";
    answer.replaceChildren(make("p", words, "failed"));
  } finally {
    timers.forEach(clearTimeout);
  }
}

class NoFile extends Error {}

function one(files: readonly File[]): File {
  const [file] = files;
  if (!file) throw new NoFile("Choose a file first.");
  return file;
}

/** The bytes of an answer, as many as are shown; `cut` if there were, or would have been, more. */
async function read(response: Response): Promise<{ bytes: Uint8Array<ArrayBuffer>; cut: boolean }> {
  const chunks: Uint8Array[] = [];
  let [size, cut] = [0, false];
  const most = (response.headers.get("content-type") ?? "").startsWith("image/") ? 64 * MOST_SHOWN : MOST_SHOWN;
  const reader = response.body?.getReader();
  try {
    for (let next = await reader?.read(); next && !next.done; next = await reader?.read()) {
      chunks.push(next.value);
      size += next.value.length;
      if (size >= most) {
        cut = true;
        await reader?.cancel();
        break;
      }
    }
  } catch {
    // Listened to for long enough, or stopped.
    cut = true;
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return { bytes, cut };
}

async function shown(answer: HTMLElement, response: Response, type: string, bytes: Uint8Array<ArrayBuffer>, cut: boolean, took: number): Promise<void> {
  const status = make("p", [make("strong", `${response.status} ${response.statusText}`.trim()), document.createTextNode(` in ${figure(took, 0)} ms, ${bytes.length.toLocaleString()} bytes${cut ? ", and more that is not shown" : ""}`)], "reply");
  status.dataset["kind"] = String(response.status)[0] ?? "";
  const headers = [...response.headers].filter(([name]) => !USUAL.test(name)).map(([name, value]) => `${name}: ${value}`);
  const parts: HTMLElement[] = [status];
  if (headers.length > 0) {
    const pre = make("pre", headers.join("\n"), "head");
    pre.setAttribute("aria-label", "Headers");
    parts.push(pre);
  }
  if (type.startsWith("image/") && bytes.length > 0) {
    const image = make("img");
    image.alt = "The picture that was answered";
    image.src = URL.createObjectURL(new Blob([bytes], { type }));
    await image.decode().catch(() => {});
    URL.revokeObjectURL(image.src);
    parts.push(image);
  } else if (bytes.length > 0) {
    const isShown = /^(text\/|application\/(sdp|trickle))/.test(type) || isJson(type);
    const text = isShown ? pretty(new TextDecoder().decode(bytes), type) : `${bytes.length.toLocaleString()} bytes of ${type || "no type"}`;
    const pre = make("pre", text, "result");
    pre.tabIndex = 0;
    pre.setAttribute("aria-label", "Body");
    parts.push(pre);
  }
  answer.replaceChildren(...parts);
}

function pretty(text: string, type: string): string {
  if (!isJson(type)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

async function copied(text: string, button: HTMLButtonElement): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy";
  }
  setTimeout(() => (button.textContent = "Copy"), 1_500);
}

// --- small parts ---

function methodOf(method: string): HTMLElement {
  const badge = make("b", method, "method");
  badge.dataset["method"] = method;
  return badge;
}

function button(text: string, className: string): HTMLButtonElement {
  const made = make("button", text, className);
  made.type = "button";
  return made;
}

function words({ description: said, schema }: Parameter): string {
  return said || wordsOf(description, schema);
}

function paragraphs(text: string): HTMLElement[] {
  return text.split(/\n\s*\n/).filter((part) => part.trim() !== "").map((part) => make("p", rich(part.replace(/\s*\n\s*/g, " "))));
}

/** Text in which what is between backticks is code. */
function rich(text: string): globalThis.Node[] {
  return text.split("`").map((part, at) => (at % 2 === 1 ? make("code", part) : document.createTextNode(part)));
}

function tokenHeader(): Record<string, string> {
  return token.value ? { authorization: `Bearer ${token.value.trim()}` } : {};
}

function say(state: string, words: string): void {
  element("status", HTMLElement).dataset["state"] = state;
  element("status-text", HTMLElement).textContent = words;
}

/** Shows what the filter lets through. */
function sift(): void {
  let [found, all] = [0, 0];
  groups.forEach((group, at) => {
    let any = false;
    for (const operation of group.operations) {
      const place = places.get(operation.id);
      const fits = matches(operation, group.name, filter.value.trim());
      all += 1;
      found += fits ? 1 : 0;
      any ||= fits;
      if (place) place.details.hidden = !fits;
      if (place?.link.parentElement) place.link.parentElement.hidden = !fits;
    }
    const section = groupsPlace.children[at];
    if (section instanceof HTMLElement) section.hidden = !any;
    for (const part of [contents.children[2 * at], contents.children[2 * at + 1]]) if (part instanceof HTMLElement) part.hidden = !any;
  });
  element("found", HTMLElement).textContent = found === all ? `${all} requests` : `${found} of ${all} requests`;
}

/** Opens the operation that the address names. */
function openNamed(): void {
  const place = places.get(location.hash.slice(1));
  if (!place) return;
  place.details.hidden = false;
  place.details.open = true;
  place.details.scrollIntoView();
}

filter.addEventListener("input", sift);
token.form?.addEventListener("submit", (event) => event.preventDefault());
token.addEventListener("change", () => {
  for (const tell of onToken) tell();
  if (groups.length === 0) void load();
});
addEventListener("hashchange", openNamed);
addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLSelectElement;
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  filter.focus();
});
// A list of forty lines before everything else is no help where all is in one column.
if (matchMedia("(max-width: 60rem)").matches) element("toc", HTMLDetailsElement).open = false;
void load();
