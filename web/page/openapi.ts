import { isRecord } from "../sdk/guards.js";

/** An object of JSON: a document of OpenAPI 3.1, or a part of it. */
export type Node = Record<string, unknown>;

/** A parameter of a path, a query or a header. */
export interface Parameter {
  name: string;
  where: "path" | "query" | "header";
  required: boolean;
  description: string;
  schema: Node;
}

/** One type that a body may have. */
export interface Content {
  type: string;
  schema: Node;
  example: unknown;
}

/** What is answered with one status. */
export interface Reply {
  status: string;
  description: string;
  headers: { name: string; description: string }[];
  contents: Content[];
}

/** One method of one path. */
export interface Operation {
  /** Names it in the page's address. */
  id: string;
  method: string;
  path: string;
  summary: string;
  description: string;
  parameters: Parameter[];
  /** `null`: it takes no body. */
  body: { required: boolean; description: string; contents: Content[] } | null;
  replies: Reply[];
  /** Whether it may be asked without a token where others need one. */
  open: boolean;
  deprecated: boolean;
}

/** Operations of one tag. */
export interface Group {
  name: string;
  description: string;
  operations: Operation[];
}

/** A line of a schema's table. */
export interface Row {
  /** How deep it is in the schema, from 0. */
  depth: number;
  /** Of a property; `[]`, `*` or `or` for what has none. */
  name: string;
  required: boolean;
  type: string;
  description: string;
}

const METHODS = ["get", "put", "post", "patch", "delete", "head", "options"];
/** How deep schemas are shown, and made examples of. */
const DEEPEST = 8;
/** Lines of one schema's table. */
const MOST_ROWS = 400;

const text = (value: unknown): string => (typeof value === "string" ? value : "");
const nodes = (value: unknown): Node[] => (Array.isArray(value) ? value.filter(isRecord) : []);
const entries = (value: unknown): [string, Node][] =>
  isRecord(value) ? Object.entries(value).filter((entry): entry is [string, Node] => isRecord(entry[1])) : [];

/** What a reference within the document leads to, or the node itself; one that leads nowhere, or in a circle, is empty. */
export function resolved(document: Node, node: Node): Node {
  const seen = new Set<string>();
  let found = node;
  while (typeof found["$ref"] === "string") {
    const reference = found["$ref"];
    if (seen.has(reference) || !reference.startsWith("#/")) return {};
    seen.add(reference);
    let at: unknown = document;
    for (const part of reference.slice(2).split("/")) {
      const key = decoded(part).replaceAll("~1", "/").replaceAll("~0", "~");
      at = isRecord(at) && Object.hasOwn(at, key) ? at[key] : undefined;
    }
    if (!isRecord(at)) return {};
    // What stands beside a reference counts more than what it leads to.
    const { $ref: _, ...beside } = found;
    found = { ...at, ...beside };
  }
  return found;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The name of what a node refers to, or an empty text. */
function referred(node: Node): string {
  return text(node["$ref"]).split("/").pop() ?? "";
}

/** All operations by tag, in the order of the document's own list of tags, then as they come. */
export function groupsOf(document: Node): Group[] {
  const groups = new Map<string, Group>();
  for (const tag of nodes(document["tags"])) {
    const name = text(tag["name"]);
    groups.set(name, { name, description: text(tag["description"]), operations: [] });
  }
  for (const [path, unresolved] of entries(document["paths"])) {
    const item = resolved(document, unresolved);
    for (const method of METHODS) {
      const operation = item[method];
      if (!isRecord(operation)) continue;
      const [tag] = Array.isArray(operation["tags"]) ? operation["tags"] : [];
      const name = text(tag) || "Other";
      const group = groups.get(name) ?? { name, description: "", operations: [] };
      groups.set(name, group);
      group.operations.push(operationOf(document, method, path, item, operation));
    }
  }
  return [...groups.values()].filter((group) => group.operations.length > 0);
}

function operationOf(document: Node, method: string, path: string, item: Node, operation: Node): Operation {
  const parameters = new Map<string, Parameter>();
  for (const one of [...nodes(item["parameters"]), ...nodes(operation["parameters"])]) {
    const { name, in: where, required, description, schema: plain, content } = resolved(document, one);
    if (where !== "path" && where !== "query" && where !== "header") continue;
    // What has fields is sent as JSON, and said so in another place.
    const schema = plain ?? entries(content)[0]?.[1]["schema"];
    const known = { name: text(name), where, required: required === true || where === "path" } as const;
    parameters.set(`${where} ${text(name)}`, { ...known, description: text(description), schema: isRecord(schema) ? schema : {} });
  }
  const body = isRecord(operation["requestBody"]) ? resolved(document, operation["requestBody"]) : null;
  const security = operation["security"] ?? document["security"];
  return {
    id: `${method}${path}`.replace(/[^A-Za-z0-9]+/g, "-").replace(/-$/, ""),
    method: method.toUpperCase(),
    path,
    summary: text(operation["summary"]),
    description: text(operation["description"]),
    parameters: [...parameters.values()],
    body: body && {
      required: body["required"] === true,
      description: text(body["description"]),
      contents: contentsOf(document, body["content"]),
    },
    replies: entries(operation["responses"]).map(([status, unresolved]) => {
      const reply = resolved(document, unresolved);
      const headers = entries(reply["headers"]).map(([name, header]) => ({ name, description: text(resolved(document, header)["description"]) }));
      return { status, description: text(reply["description"]), headers, contents: contentsOf(document, reply["content"]) };
    }),
    open: Array.isArray(security) && security.every((one) => isRecord(one) && Object.keys(one).length === 0),
    deprecated: operation["deprecated"] === true,
  };
}

function contentsOf(document: Node, content: unknown): Content[] {
  return entries(content).map(([type, media]) => {
    const schema = isRecord(media["schema"]) ? media["schema"] : {};
    const [, named] = entries(media["examples"])[0] ?? [];
    const example = media["example"] ?? (named ? resolved(document, named)["value"] : undefined);
    return { type, schema, example: example ?? (isJson(type) ? exampleOf(document, schema) : undefined) };
  });
}

/** Whether a media type is one of JSON. */
export function isJson(type: string): boolean {
  return /^application\/([\w.-]+\+)?json\b/.test(type);
}

/** What a schema says of a value, in a few words. */
export function typeOf(document: Node, schema: Node, depth = 0): string {
  if (depth > DEEPEST) return "…";
  const named = referred(schema);
  const node = resolved(document, schema);
  const word = (value: unknown): string => JSON.stringify(value);
  if ("const" in node) return word(node["const"]);
  if (Array.isArray(node["enum"])) return node["enum"].map(word).join(" | ");
  const choices = [...nodes(node["oneOf"]), ...nodes(node["anyOf"])];
  if (choices.length > 0) {
    const types = choices.map((choice) => typeOf(document, choice, depth + 1));
    return named && types.length > 4 ? named : [...new Set(types)].join(" | ");
  }
  const types = Array.isArray(node["type"]) ? node["type"].map(text) : [text(node["type"])];
  const words = types.map((type) => {
    if (type === "array") {
      if (Array.isArray(node["prefixItems"])) return `[${nodes(node["prefixItems"]).map((one) => typeOf(document, one, depth + 1)).join(", ")}]`;
      const of = isRecord(node["items"]) ? typeOf(document, node["items"], depth + 1) : "any";
      return of.includes(" ") ? `(${of})[]` : `${of}[]`;
    }
    if (type === "object" || (type === "" && isRecord(node["properties"]))) return named || "object";
    return type === "string" && node["format"] === "binary" ? "file" : type || named || "any";
  });
  return words.join(" | ");
}

/** The words that a value may be, if it may be nothing else. */
export function choicesOf(document: Node, schema: Node, depth = 0): string[] | null {
  const node = resolved(document, schema);
  if (depth > DEEPEST) return null;
  if (typeof node["const"] === "string") return [node["const"]];
  if (Array.isArray(node["enum"])) return node["enum"].filter((one) => one !== null).map(String);
  if (node["type"] === "boolean") return ["true", "false"];
  const parts = [...nodes(node["oneOf"]), ...nodes(node["anyOf"])].filter((part) => resolved(document, part)["type"] !== "null");
  const choices = parts.map((part) => choicesOf(document, part, depth + 1));
  return parts.length > 0 && choices.every((one) => one !== null) ? choices.flat() : null;
}

/** What bounds a value. */
function boundsOf(node: Node): string {
  const said: string[] = [];
  const [low, high] = [node["minimum"] ?? node["exclusiveMinimum"], node["maximum"] ?? node["exclusiveMaximum"]];
  if (low !== undefined || high !== undefined) said.push(`${String(low ?? "…")} to ${String(high ?? "…")}`);
  const [least, most] = [node["minLength"] ?? node["minItems"], node["maxLength"] ?? node["maxItems"]];
  const of = node["maxLength"] === undefined && node["minLength"] === undefined ? "entries" : "characters";
  if (least !== undefined && least === most) said.push(`${String(least)} ${of}`);
  else if (most !== undefined) said.push(`${String(least ?? 0)} to ${String(most)} ${of}`);
  else if (least !== undefined) said.push(`at least ${String(least)} ${of}`);
  if (typeof node["pattern"] === "string") said.push(`matches ${node["pattern"]}`);
  if (node["default"] !== undefined && node["default"] !== null) said.push(`default ${JSON.stringify(node["default"])}`);
  return said.join(", ");
}

/** What there is to say of a schema in words. */
export function wordsOf(document: Node, schema: Node): string {
  const node = resolved(document, schema);
  const [said, bounds] = [text(node["description"]).trim(), boundsOf(node)];
  return [said, bounds && `${bounds[0]?.toUpperCase()}${bounds.slice(1)}.`].filter(Boolean).join(said.endsWith(".") || !said ? " " : ". ");
}

/** A schema as lines of a table: properties, and what they hold, once in each branch. */
export function rowsOf(document: Node, schema: Node): Row[] {
  const rows: Row[] = [];
  walk(schema, 0, []);
  return rows;

  function walk(unresolved: Node, depth: number, path: readonly string[]): void {
    const name = text(unresolved["$ref"]);
    // A schema that holds itself is not gone into again.
    if (depth > DEEPEST || (name && path.includes(name))) return;
    const within = name ? [...path, name] : path;
    const node = resolved(document, unresolved);
    for (const part of nodes(node["allOf"])) walk(part, depth, within);
    const required = Array.isArray(node["required"]) ? node["required"] : [];
    for (const [property, of] of entries(node["properties"])) add(property, of, required.includes(property), depth, within);
    if (isRecord(node["items"]) && holds(node["items"])) add("[]", node["items"], false, depth, within);
    if (isRecord(node["additionalProperties"])) add("*", node["additionalProperties"], false, depth, within);
    const choices = [...nodes(node["oneOf"]), ...nodes(node["anyOf"])].filter((choice) => resolved(document, choice)["type"] !== "null");
    // What may be null or one thing is that one thing.
    if (choices.length === 1 && choices[0]) walk(choices[0], depth, within);
    else if (choices.some(holds)) for (const choice of choices) add("or", choice, false, depth, within);
  }

  function add(name: string, of: Node, required: boolean, depth: number, path: readonly string[]): void {
    if (rows.length >= MOST_ROWS) return;
    rows.push({ depth, name, required, type: typeOf(document, of), description: wordsOf(document, of) });
    walk(of, depth + 1, path);
  }

  /** Whether there is more to a schema than its type. */
  function holds(of: Node): boolean {
    const node = resolved(document, of);
    return ["properties", "allOf", "oneOf", "anyOf", "additionalProperties"].some((key) => typeof node[key] === "object" && node[key] !== null) || isRecord(node["items"]);
  }
}

/** A value that a schema allows, its own example where it has one. */
export function exampleOf(document: Node, schema: Node): unknown {
  return make(schema, 0, []);

  function make(unresolved: Node, depth: number, path: readonly string[]): unknown {
    const name = text(unresolved["$ref"]);
    if (depth > DEEPEST || (name && path.includes(name))) return null;
    const within = name ? [...path, name] : path;
    const node = resolved(document, unresolved);
    if (node["example"] !== undefined) return node["example"];
    if (Array.isArray(node["examples"]) && node["examples"].length > 0) return node["examples"][0];
    if ("const" in node) return node["const"];
    if (node["default"] !== undefined && node["default"] !== null) return node["default"];
    if (Array.isArray(node["enum"])) return node["enum"][0];
    const choices = [...nodes(node["oneOf"]), ...nodes(node["anyOf"])];
    const chosen = choices.find((choice) => resolved(document, choice)["type"] !== "null");
    if (chosen && !isRecord(node["properties"])) return make(chosen, depth + 1, within);
    const types = Array.isArray(node["type"]) ? node["type"] : [node["type"]];
    const type = text(types.find((one) => one !== "null"));
    if (type === "object" || isRecord(node["properties"]) || Array.isArray(node["allOf"])) {
      const parts = [...nodes(node["allOf"]), ...(chosen ? [chosen] : [])].map((part) => make(part, depth + 1, within));
      const object: Node = Object.assign({}, ...parts.filter(isRecord));
      const required = Array.isArray(node["required"]) ? node["required"] : [];
      // Of what may be left out, what is plain to see is enough.
      for (const [key, of] of entries(node["properties"])) {
        if (required.length === 0 || required.includes(key)) object[key] = make(of, depth + 1, within);
      }
      return object;
    }
    if (type === "array") {
      const items = node["items"];
      const places = nodes(node["prefixItems"]);
      if (places.length > 0) return places.map((one) => make(one, depth + 1, within));
      const least = typeof node["minItems"] === "number" ? Math.min(node["minItems"], 8) : 1;
      return isRecord(items) ? Array.from({ length: Math.max(1, least) }, () => make(items, depth + 1, within)).filter((one) => one !== null) : [];
    }
    if (type === "integer" || type === "number") return Number(node["minimum"] ?? 0);
    if (type === "boolean") return true;
    return type === "string" ? "text" : null;
  }
}

/** What is to be sent. */
export interface Ask {
  method: string;
  /** With the parameters of the path in place, and the query. */
  path: string;
  headers: [name: string, value: string][];
  /** Whether a token goes with it; it is never in the line itself. */
  token: boolean;
  body: { kind: "none" } | { kind: "text"; text: string } | { kind: "file"; name: string } | { kind: "form"; names: string[] };
}

/** The path of an operation with these values; those without one are left out, or stay as they are in the path. */
export function pathOf(operation: Pick<Operation, "path" | "parameters">, values: ReadonlyMap<string, string>): string {
  const query: string[] = [];
  let path = operation.path;
  for (const { name, where } of operation.parameters) {
    const value = values.get(`${where} ${name}`) ?? "";
    if (value === "") continue;
    if (where === "path") path = path.replaceAll(`{${name}}`, encodeURIComponent(value));
    if (where === "query") query.push(`${encodeURIComponent(name)}=${encodeURIComponent(value)}`);
  }
  return query.length > 0 ? `${path}?${query.join("&")}` : path;
}

/** A word as POSIX shells take it. */
export function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A line for curl that asks for the same. */
export function curlOf(ask: Ask, origin: string): string {
  const words = ["curl"];
  const hasBody = ask.body.kind !== "none";
  if (ask.method !== (hasBody ? "POST" : "GET")) words.push("-X", ask.method);
  if (ask.token) words.push("-H", '"authorization: Bearer $TOKEN"');
  for (const [name, value] of ask.headers) words.push("-H", quoted(`${name}: ${value}`));
  if (ask.body.kind === "text") words.push("--data-raw", quoted(ask.body.text));
  if (ask.body.kind === "file") words.push("--data-binary", quoted(`@${ask.body.name}`));
  if (ask.body.kind === "form") for (const name of ask.body.names) words.push("-F", quoted(`image=@${name}`));
  words.push(quoted(origin + ask.path));
  return words.join(" ");
}

/** Whether an operation has all of these words somewhere. */
export function matches(operation: Pick<Operation, "method" | "path" | "summary" | "description">, group: string, filter: string): boolean {
  const all = `${operation.method} ${operation.path} ${operation.summary} ${operation.description} ${group}`.toLowerCase();
  return filter.toLowerCase().split(/\s+/).every((word) => all.includes(word));
}
