import assert from "node:assert/strict";
import { test } from "node:test";
import { type Frame, type Line, pathOf, roundUp, stacked } from "../page/chart.js";
import { detailOf, eachOf, eventPage, everyStep, fitted, queryOf, type StatPoint, statPoints, windowOf } from "../page/records.js";

test("an axis ends at a round number that is not below its values", () => {
  for (const [value, end] of [[0, 1], [-1, 1], [1, 1], [1.1, 2], [23, 25], [26, 50], [99, 100], [0.03, 0.05]] as const) {
    assert.ok(Math.abs(roundUp(value) - end) < 1e-9, `${value}: ${roundUp(value)}`);
  }
});

test("a line has gaps where there is nothing, and a lone point is seen", () => {
  const frame: Frame = { width: 110, height: 60, left: 10, right: 0, top: 0, bottom: 10 };
  assert.equal(pathOf([0, 5, 10], 10, frame), "M10.0 50.0L60.0 25.0L110.0 0.0");
  assert.equal(pathOf([10, 10, null, 5, null], 10, frame), "M10.0 0.0L35.0 0.0M85.0 25.0h1");
  assert.equal(pathOf([99], 10, frame), "M10.0 0.0h1", "what is beyond the axis stays in the picture");
  assert.equal(pathOf([], 10, frame), "");
});

test("areas lie on each other", () => {
  const line = (name: string, values: (number | null)[]): Line => ({ name, color: "--c", values });
  const sums = stacked([line("a", [1, null, 3]), line("b", [10, 20, null])]).map(({ values }) => values);
  assert.deepEqual(sums, [[1, 0, 3], [11, 20, 3]]);
});

test("only rows in sight and a few more are made, however many there are", () => {
  assert.deepEqual(windowOf(0, 360, 36, 50_000), { first: 0, end: 18 });
  assert.deepEqual(windowOf(36_000, 360, 36, 50_000), { first: 992, end: 1018 });
  assert.deepEqual(windowOf(1_799_640, 360, 36, 50_000), { first: 49_982, end: 50_000 });
  assert.deepEqual(windowOf(99_999, 360, 36, 3), { first: 0, end: 3 });
  assert.deepEqual(windowOf(0, 360, 36, 0), { first: 0, end: 0 });
});

test("a picture is as large as the model's input needs it, and never larger than it was", () => {
  assert.deepEqual(fitted(4000, 3000, [416, 416]), [555, 416]);
  assert.deepEqual(fitted(3000, 4000, [640, 480]), [640, 853]);
  assert.deepEqual(fitted(320, 240, [640, 640]), [320, 240]);
  assert.deepEqual(fitted(10_000, 2, [10, 10]), [10_000, 2]);
});

test("so many at a time and no more, each once, whatever takes how long", async () => {
  let [running, most] = [0, 0];
  const seen: number[] = [];
  const release: (() => void)[] = [];
  const done = eachOf([1, 2, 3, 4, 5], 2, async (item) => {
    running += 1;
    most = Math.max(most, running);
    seen.push(item);
    await new Promise<void>((resolve) => release.push(resolve));
    running -= 1;
  });
  while (seen.length < 5 || release.length > 0) {
    release.pop()?.();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await done;
  assert.deepEqual([seen, most], [[1, 2, 3, 4, 5], 2]);
  await eachOf([], 2, () => Promise.reject(new Error("nothing to do")));
});

test("empty fields say nothing in a query", () => {
  assert.equal(queryOf({ zone: "gate & yard", rule: "", cursor: null, limit: 5 }), "zone=gate+%26+yard&limit=5");
});

test("a page of events is read, and what is none is left out", () => {
  const event = { id: "1", time_ms: 5, session_id: "s", camera: null, event: { type: "t" } };
  assert.deepEqual(eventPage({ events: [event, { id: 1 }, null], next_cursor: "c" }), { events: [event], next_cursor: "c" });
  assert.deepEqual(eventPage({ events: [], next_cursor: null }), { events: [], next_cursor: null });
  for (const nonsense of [null, [], {}, { events: 1 }]) assert.equal(eventPage(nonsense), null);
});

test("steps without a point are gaps", () => {
  const json = { from: "1970-01-01T00:01:30.000Z", to: "1970-01-01T00:05:00.000Z", step_s: 60, points: [{ time_ms: 120_000, results: 3 }] };
  const found = statPoints(json);
  assert.ok(found);
  const steps = everyStep(found.from, found.to, found.step, found.points);
  assert.deepEqual(steps.map((point: StatPoint | null) => point?.results ?? null), [null, 3, null, null]);
  assert.equal(statPoints({ points: [] }), null);
});

test("an event is told in words", () => {
  assert.equal(detailOf({ type: "zone_left", object_id: 7, count: 2, dwell_ms: 1250 }), "object 7, 2 inside, after 1.3 s");
  assert.equal(detailOf({ type: "line_crossed", object_id: 7, direction: "left_to_right" }), "object 7, left to right");
  assert.equal(detailOf({ type: "resolution_changed", width: 640, height: 480 }), "640×480");
  assert.equal(detailOf({ type: "x", object_id: null }), "");
});
