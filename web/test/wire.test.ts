import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  build,
  isCameraView,
  isImageError,
  isImageResult,
  isModelView,
  isRouteView,
  isOfferResponse,
  isLine,
  isProblem,
  isRule,
  isSessionEvent,
  isSessionResult,
  isSessionView,
  isZone,
  mergeOptions,
  parseServerMessage,
  SERVER_ERROR_CODES,
  type ModelView,
  type Options,
  type OptionsPatch,
  type RouteView,
  type SessionEvent,
  type SessionResult,
  type SessionView,
} from "../sdk/wire.js";
import { EVENTS, golden, goldenOne, OPTIONS, RESULT } from "./fakes.js";

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

test("what is told of pictures is known by its shape", () => {
  const results = golden("image_result");
  assert.ok(results.length >= 2);
  for (const [name, value] of results) assert.ok(isImageResult(value) && !isSessionResult(value), name);
  for (const [name, value] of golden("bad_image_result")) assert.ok(!isImageResult(value), name);
  const errors = golden("image_error");
  assert.ok(errors.length >= 2);
  for (const [name, value] of errors) assert.ok(isImageError(value) && !isImageResult(value), name);
});

test("every event is known by its shape", () => {
  const files = golden("event_");
  assert.ok(files.length >= 2);
  for (const [name, value] of files) assert.ok(isSessionEvent(value), name);
  for (const [name, value] of golden("bad_event")) assert.ok(!isSessionEvent(value), name);
  for (const event of Object.values(EVENTS)) {
    assert.ok(isSessionEvent(event), event.type);
    assert.ok(isSessionEvent({ ...event, mood: "fine" }), `${event.type} with a new field`);
    for (const key of Object.keys(event)) {
      const { [key as keyof SessionEvent]: _, ...rest } = event;
      assert.ok(!isSessionEvent(rest), `${event.type} without ${key}`);
    }
  }
});

test("an event about many objects names none; one about an object does", () => {
  const { alert_started, alert_ended, zone_entered } = EVENTS;
  assert.ok(isSessionEvent({ ...alert_started, object_id: null, class_id: null, class: null }));
  assert.ok(isSessionEvent({ ...alert_ended, object_id: null }));
  assert.ok(!isSessionEvent({ ...zone_entered, object_id: null }));
});

test("an event of a newer server, or of another shape, is none", () => {
  const { line_crossed } = EVENTS;
  const others = [null, [], "zone_entered", {}, { type: 1 }, { type: "toString" }, { type: "weather", rtp_timestamp: 1 }];
  for (const value of [...others, { ...line_crossed, direction: "up" }]) assert.ok(!isSessionEvent(value), JSON.stringify(value));
});

test("events are told apart by their type", () => {
  const events: SessionEvent[] = Object.values(EVENTS);
  const dwells = events.map((event) => (event.type === "zone_left" || event.type === "zone_dwelled" ? event.dwell_ms : null));
  assert.deepEqual(dwells.filter((ms) => ms !== null), [2_400, 2_000]);
});

test("options may have rules, and all that belongs to zones and lines", () => {
  const options: Options = {
    ...OPTIONS,
    zones: [{ name: "work", polygon: [[0, 0], [1, 0], [1, 1]], anchor: "bottom", dwell_s: 2 }],
    lines: [{ name: "gate", points: [[0, 0.5], [1, 0.5]] }],
    rules: [{ name: "bare head", zone: "work", classes: ["head"], longer_than_s: 2 }, { name: "crowd", zone: "work", longer_than_s: 0, more_than: 3 }],
  };
  const read = (changed: object): unknown => parseServerMessage(JSON.stringify({ type: "configured", options: { ...options, ...changed } }));
  assert.deepEqual(read({}), { type: "configured", options });
  const wrong = [
    { zones: [{ ...options.zones[0], anchor: "top" }] },
    { zones: [{ ...options.zones[0], dwell_s: "2" }] },
    { lines: [{ name: "gate", points: [[0, 0]] }] },
    { rules: [{ name: "bare head" }] },
    { rules: [{ name: "bare head", zone: "work", classes: "head" }] },
    { rules: null },
  ];
  for (const changed of wrong) assert.throws(() => read(changed), /malformed/, JSON.stringify(changed));
});

test("shapes of an address are checked", () => {
  assert.ok(isZone({ name: "a", polygon: [[0, 0], [1, 0], [1, 1]] }));
  assert.ok(!isZone({ name: "a", polygon: [[0, 0], [1, 0]] }));
  assert.ok(!isZone({ name: "a", polygon: Array.from({ length: 33 }, () => [0, 0]) }));
  assert.ok(!isZone({ polygon: [[0, 0], [1, 0], [1, 1]] }));
  assert.ok(isLine({ name: "a", points: [[0, 0], [1, 0]], anchor: "center" }));
  assert.ok(!isLine({ name: "a", points: [[0, 0], [1, 0], [1, 1]] }));
  assert.ok(isRule({ name: "a", zone: "b" }));
  assert.ok(!isRule({ name: "a", zone: "b", more_than: "3" }));
});

test("a frame that met no model, and frames kept from it, are told", () => {
  const result: SessionResult = { ...RESULT, batch_size: 0, dropped: { superseded: 1, late: 0, skipped: 9 }, degraded: ["skip_inference"] };
  assert.ok(isSessionResult(result));
  assert.ok(!isSessionResult({ ...result, dropped: { superseded: 1, late: 0, skipped: "9" } }));
});

test("bodies of the HTTP API are recognised", () => {
  assert.ok(isProblem(goldenOne("problem")));
  for (const [name, value] of golden("session_view")) assert.ok(isSessionView(value), name);
  const { transport, ...older } = goldenOne<SessionView>("session_view");
  assert.ok(isSessionView(older));
  assert.ok(!isSessionView({ ...older, transport: { ...transport, round_trip_ms: "fast" } }));
  for (const [name, value] of golden("camera_view")) assert.ok(isCameraView(value), name);
  assert.ok(!isCameraView({ ...goldenOne<object>("camera_view"), reason: "broken" }));
  for (const [name, value] of golden("model_view")) assert.ok(isModelView(value), name);
  const { state, reason, ...oldest } = goldenOne<ModelView>("model_view_refused");
  assert.deepEqual([state, typeof reason], ["refused", "string"]);
  assert.ok(isModelView(oldest));
  const route = goldenOne<RouteView>("route_view");
  assert.ok(isRouteView(route));
  assert.ok(isRouteView({ ...route, route: goldenOne("route_ensemble") }));
  for (const bad of [{ ...route, classes: undefined }, { ...route, route: {} }]) assert.ok(!isRouteView(bad));
  assert.ok(isOfferResponse(goldenOne("offer_response")));
  for (const guard of [isProblem, isSessionView, isCameraView, isModelView, isRouteView, isOfferResponse]) assert.ok(!guard({ sdp: "v=0" }));
});

test("what the client builds equals the golden files", () => {
  const { sdp, options, session_id } = goldenOne<{ sdp: string; options: OptionsPatch; session_id: string }>("client_offer");
  const { traceparent, tracestate } = goldenOne<{ traceparent: string; tracestate: string }>("client_offer_traced");
  const { candidate } = goldenOne<{ candidate: RTCIceCandidateInit }>("client_candidate");
  const patch = goldenOne<{ options: OptionsPatch }>("client_configure").options;
  const request = goldenOne<{ sdp: string; options: OptionsPatch }>("offer_request");
  const built: Record<string, unknown> = {
    client_offer: build.offer(sdp, options, session_id),
    client_offer_min: build.offer(sdp, undefined, null),
    client_offer_traced: build.offer(sdp, undefined, null, { traceparent, tracestate }),
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
  const zones = mergeOptions({ zones: [{ name: "a", polygon: [] }], rules: [] }, { zones: [] });
  assert.deepEqual(zones, { zones: [], rules: [] });
});

test("the error codes are those of the server's schema", () => {
  const path = join(__WEB_ROOT__, "../signaling/schema/saccade.v1.json");
  const schema = JSON.parse(readFileSync(path, "utf8")) as { $defs: { ErrorCode: { oneOf: { const: string }[] } } };
  const codes = schema.$defs.ErrorCode.oneOf.map((one) => one.const);
  assert.deepEqual([...SERVER_ERROR_CODES].sort(), codes.sort());
});
