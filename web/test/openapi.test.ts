import assert from "node:assert/strict";
import { test } from "node:test";
import { type Ask, choicesOf, curlOf, exampleOf, groupsOf, matches, pathOf, quoted, resolved, rowsOf, typeOf, wordsOf } from "../page/openapi.js";
import { SAMPLE } from "./sample.js";

const schema = (name: string) => ({ $ref: `#/components/schemas/${name}` });

test("references are followed, and lead nowhere rather than in a circle", () => {
  assert.equal(resolved(SAMPLE, schema("Model"))["type"], "object");
  assert.deepEqual(resolved(SAMPLE, schema("Loop")), {});
  for (const wrong of ["#/components/schemas/None", "other.json#/a", "#/components/schemas/toString", "#/%"]) assert.deepEqual(resolved(SAMPLE, { $ref: wrong }), {}, wrong);
  assert.deepEqual(resolved(SAMPLE, schema("a~1b")), { type: "integer" });
  assert.deepEqual(resolved(SAMPLE, { ...schema("a~1b"), description: "Mine" }), { type: "integer", description: "Mine" });
});

test("operations are grouped by tag, with all that is said of them", () => {
  const groups = groupsOf(SAMPLE);
  assert.deepEqual(groups.map(({ name, operations }) => [name, operations.map(({ id }) => id)]), [
    ["Pictures", ["post-v1-detect"]],
    ["Models", ["get-v1-models", "post-v1-models-name-load"]],
    ["Other", ["get-health"]],
  ]);
  const [detect, load] = [groups[0]?.operations[0], groups[1]?.operations[1]];
  assert.ok(detect && load);
  assert.deepEqual([detect.open, load.open], [true, false]);
  assert.deepEqual(detect.parameters.map(({ where, name }) => `${where} ${name}`), ["query classes", "query overlay", "header if-none-match"]);
  assert.deepEqual(load.parameters.map(({ name, required, description }) => [name, required, description]), [["name", true, "Of a model."], ["wait", false, ""]]);
  assert.equal(typeOf(SAMPLE, detect.parameters[1]?.schema ?? {}), "Zone", "what is sent as JSON");
  assert.deepEqual(load.replies.map(({ status, description, contents }) => [status, description, contents[0]?.type]), [["404", "There is none.", "application/problem+json"]]);
  assert.deepEqual(detect.replies[0]?.headers, [{ name: "etag", description: "Names it." }]);
  assert.deepEqual(detect.body?.contents.map(({ type }) => type), ["image/jpeg", "application/json"]);
});

test("a schema is a table, in which what holds itself comes once", () => {
  const lines = rowsOf(SAMPLE, schema("Order")).map(({ depth, name, required, type }) => `${"  ".repeat(depth)}${name}${required ? "!" : ""}: ${type}`);
  assert.deepEqual(lines, [
    "zones!: Zone[]",
    "  []: Zone",
    "    name!: string",
    "    inner: Zone[]",
    "      []: Zone",
    "score: number | null",
    "route!: Split | Ensemble",
    "  or: Split",
    "    split!: object",
    "      *: integer",
    "  or: Ensemble",
    "    ensemble!: string[]",
    "within: null | Zone",
    "  name!: string",
    "  inner: Zone[]",
    "    []: Zone",
  ]);
  assert.deepEqual(rowsOf(SAMPLE, schema("Loop")), []);
  const wide = { type: "object", properties: Object.fromEntries(Array.from({ length: 1000 }, (_, at) => [`p${at}`, schema("Order")])) };
  assert.equal(rowsOf(SAMPLE, wide).length, 400);
});

test("types and bounds are told in a few words", () => {
  assert.equal(typeOf(SAMPLE, { type: "array", items: { type: ["string", "null"] } }), "(string | null)[]");
  assert.equal(typeOf(SAMPLE, { type: "array", prefixItems: [{ type: "integer" }, { type: "number" }] }), "[integer, number]");
  assert.equal(typeOf(SAMPLE, { enum: ["a", 1] }), '"a" | 1');
  assert.equal(typeOf(SAMPLE, { type: "string", format: "binary" }), "file");
  assert.equal(typeOf(SAMPLE, {}), "any");
  assert.equal(wordsOf(SAMPLE, { type: "string", description: "Its name", maxLength: 64 }), "Its name. 0 to 64 characters.");
  assert.equal(wordsOf(SAMPLE, { type: "number", minimum: 0, maximum: 1, default: 0.5 }), "0 to 1, default 0.5.");
  assert.equal(wordsOf(SAMPLE, {}), "");
});

test("what can only be one of some words is chosen from them", () => {
  assert.deepEqual(choicesOf(SAMPLE, { type: "boolean" }), ["true", "false"]);
  assert.deepEqual(choicesOf(SAMPLE, { enum: ["a", null, 1] }), ["a", "1"]);
  assert.deepEqual(choicesOf(SAMPLE, { oneOf: [{ const: "a" }, { type: "null" }, { anyOf: [{ enum: ["b"] }] }] }), ["a", "b"]);
  for (const other of [{ type: "string" }, { oneOf: [{ const: "a" }, { type: "string" }] }, schema("Loop"), {}]) assert.equal(choicesOf(SAMPLE, other), null);
});

test("an example has what is required, and no end only where the schema has none", () => {
  assert.deepEqual(exampleOf(SAMPLE, schema("Order")), { zones: [{ name: "door" }], route: { split: {} } });
  assert.deepEqual(exampleOf(SAMPLE, schema("Model")), { name: "text" });
  assert.deepEqual(exampleOf(SAMPLE, schema("Ensemble")), { ensemble: ["text", "text"] });
  assert.equal(exampleOf(SAMPLE, schema("Loop")), null);
  assert.deepEqual(exampleOf(SAMPLE, { type: "object", properties: { a: { type: "integer", minimum: 3 }, b: { default: [] } } }), { a: 3, b: [] });
});

test("values go into the path and the query", () => {
  const load = groupsOf(SAMPLE)[1]?.operations[1];
  assert.ok(load);
  assert.equal(pathOf(load, new Map([["path name", "a b/c@1"], ["query wait", "no&yes"]])), "/v1/models/a%20b%2Fc%401/load?wait=no%26yes");
  assert.equal(pathOf(load, new Map([["query wait", ""]])), "/v1/models/{name}/load");
});

test("a line for curl is what a shell takes, and tells no token", () => {
  const ask: Ask = { method: "GET", path: "/v1/models", headers: [], token: false, body: { kind: "none" } };
  const origin = "http://127.0.0.1:8080";
  assert.equal(curlOf(ask, origin), "curl http://127.0.0.1:8080/v1/models");
  assert.equal(curlOf({ ...ask, method: "DELETE", path: "/v1/cache?tag=a&b=1", token: true }, origin), `curl -X DELETE -H "authorization: Bearer $TOKEN" 'http://127.0.0.1:8080/v1/cache?tag=a&b=1'`);
  const json: Ask = { ...ask, method: "PUT", headers: [["content-type", "application/json"]], body: { kind: "text", text: `{"a": "it's $HOME"}` } };
  assert.equal(curlOf(json, origin), `curl -X PUT -H 'content-type: application/json' --data-raw '{"a": "it'\\''s $HOME"}' http://127.0.0.1:8080/v1/models`);
  const file: Ask = { ...ask, method: "POST", body: { kind: "file", name: "my photo.jpg" } };
  assert.equal(curlOf(file, origin), "curl --data-binary '@my photo.jpg' http://127.0.0.1:8080/v1/models");
  const form: Ask = { ...ask, method: "POST", body: { kind: "form", names: ["a.jpg", "b.png"] } };
  assert.equal(curlOf(form, origin), "curl -F image=@a.jpg -F image=@b.png http://127.0.0.1:8080/v1/models");
  assert.equal(quoted("$(rm -r x)`"), "'$(rm -r x)`'");
});

test("operations are found by all words of a filter", () => {
  const detect = { method: "POST", path: "/v1/detect", summary: "Find things", description: "" };
  for (const [filter, found] of [["", true], ["POST det", true], ["  things pictures ", true], ["get", false], ["detect models", false]] as const) {
    assert.equal(matches(detect, "Pictures", filter), found, filter);
  }
});
