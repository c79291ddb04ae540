import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  build,
  isModelView,
  isOfferResponse,
  isProblem,
  isSessionResult,
  isSessionView,
  mergeOptions,
  parseServerMessage,
  SERVER_ERROR_CODES,
  type OptionsPatch,
  type SessionView,
} from "../sdk/wire.js";
import { golden, goldenOne } from "./fakes.js";

declare const __WEB_ROOT__: string;

test("every server message is read, whole", () => {
  const files = golden("server_");
  assert.ok(files.length >= 7);
  for (const [name, value] of files) {
    assert.deepEqual(parseServerMessage(JSON.stringify(value)), value, name);
  }
});

test("malformed server messages are refused", () => {
  const files = golden("bad_server_");
  assert.ok(files.length >= 3);
  for (const [name, value] of files) assert.throws(() => parseServerMessage(JSON.stringify(value)), /malformed/, name);
  assert.throws(() => parseServerMessage("{"), /not JSON/);
  assert.throws(() => parseServerMessage("[]"), /type/);
});

test("a message of a newer server is passed over, and so are new fields", () => {
  assert.equal(parseServerMessage('{"type":"weather"}'), null);
  assert.equal(parseServerMessage('{"type":"toString"}'), null);
  const closed = { type: "closed", reason: "bye", mood: "fine" };
  assert.deepEqual(parseServerMessage(JSON.stringify(closed)), closed);
});

test("results are told from what only looks like one", () => {
  for (const [name, value] of golden("result")) assert.ok(isSessionResult(value), name);
  const bad = golden("bad_result");
  assert.ok(bad.length >= 3);
  for (const [name, value] of bad) assert.ok(!isSessionResult(value), name);
});

test("bodies of the HTTP API are recognised", () => {
  assert.ok(isProblem(goldenOne("problem")));
  for (const [name, value] of golden("session_view")) assert.ok(isSessionView(value), name);
  const { transport, ...older } = goldenOne<SessionView>("session_view");
  assert.ok(isSessionView(older));
  assert.ok(!isSessionView({ ...older, transport: { ...transport, round_trip_ms: "fast" } }));
  assert.ok(isModelView(goldenOne("model_view")));
  assert.ok(isOfferResponse(goldenOne("offer_response")));
  for (const guard of [isProblem, isSessionView, isModelView, isOfferResponse]) assert.ok(!guard({ sdp: "v=0" }));
});

test("what the client builds equals the golden files", () => {
  const { sdp, options, session_id } = goldenOne<{ sdp: string; options: OptionsPatch; session_id: string }>("client_offer");
  const { candidate } = goldenOne<{ candidate: RTCIceCandidateInit }>("client_candidate");
  const patch = goldenOne<{ options: OptionsPatch }>("client_configure").options;
  const request = goldenOne<{ sdp: string; options: OptionsPatch }>("offer_request");
  const built: Record<string, unknown> = {
    client_offer: build.offer(sdp, options, session_id),
    client_offer_min: build.offer(sdp, undefined, null),
    client_candidate: build.candidate({ ...candidate, extra: 1 } as RTCIceCandidateInit),
    client_candidate_end: build.candidate(null),
    client_configure: build.configure(patch),
    client_bye: build.bye(),
    client_auth: build.auth(goldenOne<{ token: string }>("client_auth").token),
    offer_request: build.offerRequest(request.sdp, request.options),
  };
  for (const [name, value] of [...golden("client_"), ...golden("offer_request")]) {
    assert.deepEqual(JSON.parse(JSON.stringify(built[name])), value, name);
  }
});

test("an empty candidate line ends the candidates", () => {
  assert.deepEqual(build.candidate({ candidate: "", sdpMid: "0" }), { type: "candidate", candidate: null });
});

test("patches add up, overlay switch by switch", () => {
  const merged = mergeOptions({ budget_ms: 50, overlay: { boxes: false } }, { overlay: { labels: false }, track: false });
  assert.deepEqual(merged, { budget_ms: 50, track: false, overlay: { boxes: false, labels: false } });
});

test("the error codes are those of the server's schema", () => {
  const path = join(__WEB_ROOT__, "../signaling/schema/saccade.v1.json");
  const schema = JSON.parse(readFileSync(path, "utf8")) as { $defs: { ErrorCode: { oneOf: { const: string }[] } } };
  const codes = schema.$defs.ErrorCode.oneOf.map((one) => one.const);
  assert.deepEqual([...SERVER_ERROR_CODES].sort(), codes.sort());
});
