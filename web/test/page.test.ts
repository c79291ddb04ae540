import assert from "node:assert/strict";
import { test } from "node:test";
import { Activity, degradationWords, eventLine } from "../page/activity.js";
import { classesOf, Latest } from "../page/classes.js";
import { describe } from "../page/log.js";
import {
  changedZone,
  closable,
  type Draft,
  EXAMPLE,
  flippedLine,
  fractionAt,
  NOTHING,
  patchOf,
  pictureIn,
  pixelOf,
  placed,
  problemOf,
  renamedLine,
  renamedZone,
  ruleWords,
  type Site,
  siteOf,
  siteOfQuery,
  withDrawn,
  withDwell,
  withoutLine,
  withoutRule,
  withoutZone,
  withRule,
  withSite,
} from "../page/shapes.js";
import { isLine, isRule, isZone, type ModelView, type Point, type RouteView, type SessionEvent, type SessionResult } from "../sdk/wire.js";
import { EVENTS, goldenOne, OPTIONS } from "./fakes.js";

const SQUARE: Point[] = [[0.1, 0.1], [0.5, 0.1], [0.5, 0.5], [0.1, 0.5]];
const near = ([ax, ay]: Point, [bx, by]: Point): boolean => Math.hypot(ax - bx, ay - by) < 0.02;

/** A site with one of each. */
function site(): Site {
  const zones = withDrawn(NOTHING, { kind: "zone", corners: SQUARE });
  const lines = zones && withDrawn(zones, { kind: "line", corners: [[0, 0.5], [1, 0.5]] });
  const rules = lines && withRule(lines, { name: "", zone: "zone 1", classes: ["head"], longer_than_s: 2 });
  assert.ok(rules);
  return rules;
}

test("a picture is in its box as object-fit: contain puts it", () => {
  assert.deepEqual(pictureIn({ width: 800, height: 600 }, { width: 640, height: 480 }), { left: 0, top: 0, width: 800, height: 600 });
  assert.deepEqual(pictureIn({ width: 1000, height: 480 }, { width: 640, height: 480 }), { left: 180, top: 0, width: 640, height: 480 });
  assert.deepEqual(pictureIn({ width: 320, height: 480 }, { width: 640, height: 480 }), { left: 0, top: 120, width: 320, height: 240 });
  assert.deepEqual(pictureIn({ width: 320, height: 180 }, { width: 0, height: 0 }), { left: 0, top: 0, width: 320, height: 180 });
});

test("a pointer becomes a fraction of the picture, bars left out, and back", () => {
  const rect = pictureIn({ width: 1000, height: 480 }, { width: 640, height: 480 });
  assert.deepEqual(fractionAt(rect, 180, 0), [0, 0]);
  assert.deepEqual(fractionAt(rect, 500, 240), [0.5, 0.5]);
  assert.deepEqual(fractionAt(rect, 820, 480), [1, 1]);
  assert.deepEqual(fractionAt(rect, 20, 700), [0, 1], "in a bar, the picture's nearest edge");
  assert.deepEqual(fractionAt(rect, 180 + 640 / 3, 160), [0.3333, 0.3333]);
  assert.deepEqual(pixelOf(rect, [0.25, 0.75]), [160, 360]);
  assert.deepEqual(fractionAt({ left: 0, top: 0, width: 0, height: 0 }, 0, 0), [0, 0], "a box without size divides nothing by zero");
});

test("clicks draw a zone; one on its first or last corner closes it", () => {
  const draw = (...points: Point[]): { draft: Draft; done: boolean } => {
    let so: { draft: Draft; done: boolean } = { draft: { kind: "zone", corners: [] }, done: false };
    for (const point of points) so = placed(so.draft, point, near);
    return so;
  };
  assert.deepEqual(draw([0.1, 0.1], [0.1, 0.105]).draft.corners, [[0.1, 0.1]], "a double-click is no second corner");
  assert.equal(draw([0.1, 0.1], [0.5, 0.1], [0.1, 0.11]).done, false, "two corners are no zone");
  assert.equal(closable(draw([0.1, 0.1], [0.5, 0.1]).draft), false);
  const three = draw([0.1, 0.1], [0.5, 0.1], [0.5, 0.5]);
  assert.equal(closable(three.draft), true);
  assert.equal(three.done, false);
  for (const last of [[0.5, 0.505], [0.105, 0.1]] as Point[]) {
    const closed = placed(three.draft, last, near);
    assert.equal(closed.done, true);
    assert.equal(closed.draft.corners.length, 3);
  }
  const many = draw(...Array.from({ length: 32 }, (_, n): Point => [n / 32, (n % 2) / 2]));
  assert.deepEqual([many.done, many.draft.corners.length], [true, 32]);
});

test("a zone that no server takes is told so", () => {
  const problem = (...corners: Point[]): string | null => problemOf({ kind: "zone", corners });
  assert.equal(problem(...SQUARE), null);
  assert.equal(problem([0.1, 0.1], [0.9, 0.1], [0.5, 0.3], [0.9, 0.9]), null, "a dent is fine");
  assert.match(problem(...SQUARE.slice(0, 2)) ?? "", /three corners/);
  assert.match(problem([0.1, 0.1], [0.5, 0.5], [0.5, 0.1], [0.1, 0.5]) ?? "", /cross/);
  assert.match(problem([0.1, 0.1], [0.105, 0.1], [0.105, 0.105]) ?? "", /small/);
  assert.match(problemOf({ kind: "line", corners: [[0, 0]] }) ?? "", /two ends/);
  for (const { polygon } of EXAMPLE.zones) assert.equal(problem(...polygon), null);
});

test("two clicks draw a line", () => {
  const first = placed({ kind: "line", corners: [] }, [0.2, 0.2], near);
  assert.equal(first.done, false);
  assert.equal(placed(first.draft, [0.2, 0.21], near).done, false, "a double-click is no line");
  assert.deepEqual(placed(first.draft, [0.8, 0.2], near), { draft: { kind: "line", corners: [[0.2, 0.2], [0.8, 0.2]] }, done: true });
});

test("what is drawn gets a free name, as long as there is place", () => {
  let drawn: Site = site();
  assert.deepEqual(drawn.zones, [{ name: "zone 1", polygon: SQUARE, anchor: "center" }]);
  assert.deepEqual(drawn.lines, [{ name: "line 1", points: [[0, 0.5], [1, 0.5]], anchor: "center" }]);
  assert.deepEqual(drawn.rules, [{ name: "alert 1", zone: "zone 1", classes: ["head"], longer_than_s: 2 }]);
  assert.equal(withDrawn(drawn, { kind: "zone", corners: SQUARE.slice(0, 2) }), null);
  for (let n = 2; n <= 16; n += 1) drawn = withDrawn(drawn, { kind: "zone", corners: SQUARE }) ?? drawn;
  assert.equal(drawn.zones.at(-1)?.name, "zone 16");
  assert.equal(withDrawn(drawn, { kind: "zone", corners: SQUARE }), null);
  assert.equal(withDrawn(withoutZone(drawn, 4), { kind: "zone", corners: SQUARE })?.zones.at(-1)?.name, "zone 5");
});

test("a zone's rules follow its name, and go with it", () => {
  const renamed = renamedZone(site(), 0, "  yard ");
  assert.deepEqual([renamed?.zones[0]?.name, renamed?.rules[0]?.zone], ["yard", "yard"]);
  const two = withDrawn(site(), { kind: "zone", corners: SQUARE });
  assert.ok(two);
  assert.equal(renamedZone(two, 1, "zone 1"), null, "the name is taken");
  assert.equal(renamedZone(two, 1, " "), null);
  assert.ok(renamedZone(two, 1, "zone 2"), "its own name is not taken");
  assert.deepEqual(withoutZone(two, 0).rules, []);
  assert.deepEqual(withoutZone(two, 1).rules, two.rules);
  assert.deepEqual(withoutRule(two, "alert 1").rules, []);
});

test("a patch has the lists that changed, whole, and no other", () => {
  const before = site();
  assert.deepEqual(patchOf(before, site()), {});
  assert.deepEqual(patchOf(before, changedZone(before, 0, { anchor: "bottom" })), {
    zones: [{ name: "zone 1", polygon: SQUARE, anchor: "bottom" }],
  });
  const dwelling = withDwell(before, 0, 3);
  assert.equal(dwelling.zones[0]?.dwell_s, 3);
  assert.deepEqual(patchOf(before, withDwell(dwelling, 0, null)), {}, "no dwell_s is an absent one");
  assert.deepEqual(patchOf(before, flippedLine(before, 0)), { lines: [{ name: "line 1", points: [[1, 0.5], [0, 0.5]], anchor: "center" }] });
  assert.deepEqual(patchOf(before, renamedLine(before, 0, "gate") ?? before), { lines: [{ name: "gate", points: [[0, 0.5], [1, 0.5]], anchor: "center" }] });
  assert.deepEqual(patchOf(before, withoutZone(before, 0)), { zones: [], rules: [] }, "no rule may name a zone that is gone");
  assert.deepEqual(patchOf(before, withoutLine(before, 0)), { lines: [] });
  assert.deepEqual(Object.keys(patchOf(before, renamedZone(before, 0, "yard") ?? before)), ["zones", "rules"]);
  assert.deepEqual(patchOf(before, NOTHING), { zones: [], lines: [], rules: [] });
});

test("options in force make a site, of older servers as well", () => {
  const { rules: _, ...older } = OPTIONS;
  assert.deepEqual(siteOf(older), { zones: OPTIONS.zones, lines: OPTIONS.lines, rules: [] });
  assert.deepEqual(siteOf({ ...older, ...EXAMPLE }), EXAMPLE);
});

test("the example is one that a server takes, and takes the place of itself only", () => {
  assert.ok(EXAMPLE.zones.every(isZone) && EXAMPLE.lines.every(isLine) && EXAMPLE.rules.every(isRule));
  assert.deepEqual(EXAMPLE.rules, [{ name: "bare head", zone: "work", classes: ["head"], longer_than_s: 2 }]);
  const once = withSite(site(), EXAMPLE);
  assert.deepEqual(once.zones.map(({ name }) => name), ["zone 1", "work"]);
  assert.deepEqual(withSite(once, EXAMPLE), once);
});

test("the address may bring zones, lines and rules; what is none is left out", () => {
  const { zones, lines, rules } = site();
  const query = new URLSearchParams({
    zones: JSON.stringify([...zones, { name: "flat", polygon: [[0, 0]] }, 7]),
    lines: JSON.stringify(lines),
    rules: JSON.stringify([...rules, { name: "lost", zone: "nowhere" }]),
  });
  assert.deepEqual(siteOfQuery(query), { zones, lines, rules });
  assert.deepEqual(siteOfQuery(new URLSearchParams("zones=[broken&lines={}&rules=")), NOTHING);
  assert.deepEqual(siteOfQuery(new URLSearchParams("example=site")), EXAMPLE);
});

test("rules have words", () => {
  const words = (rule: object): string => ruleWords({ name: "a", zone: "b", ...rule });
  assert.equal(words({ classes: ["head"], longer_than_s: 2 }), "head for longer than 2 s");
  assert.equal(words({ longer_than_s: 0, more_than: 3 }), "more than 3 of anything, at once");
  assert.equal(words({ classes: ["head", "helmet"], more_than: 0, longer_than_s: 1.5 }), "more than 0 of head or helmet for longer than 1.5 s");
});

test("every event has one line, and alerts are marked", () => {
  const lines = Object.values(EVENTS).map(eventLine);
  assert.deepEqual(lines.map(({ text }) => text), [
    "head #7 entered work, 2 inside",
    "head #7 left work after 2.4 s, 1 inside",
    "head #7 has been in work for 2.0 s",
    "head #7 crossed gate left to right: 3 that way, 1 the other",
    "Alert: bare head in work, head #7",
    "Alert over: bare head in work, #7, after 1.5 s",
  ]);
  assert.deepEqual(lines.map(({ mark }) => mark), [null, null, null, null, "alert", "over"]);
  const crowd: SessionEvent = { ...EVENTS.alert_started, rule: "crowd", object_id: null, class_id: null, class: null, count: 4 };
  assert.equal(eventLine(crowd).text, "Alert: crowd in work, 4 inside");
  assert.equal(eventLine({ ...EVENTS.alert_ended, object_id: null, duration_ms: 61_400 }).text, "Alert over: bare head in work, after 61 s");
  assert.equal(eventLine({ ...EVENTS.line_crossed, direction: "right_to_left" }).text, "head #7 crossed gate right to left: 1 that way, 3 the other");
  assert.equal(eventLine({ type: "resolution_changed", width: 640, height: 480 }).text, "Incoming video is 640×480");
});

test("counts are those of the last event, until their shape is gone or another session begins", () => {
  const activity = new Activity();
  assert.deepEqual([activity.inside("work"), activity.crossings("gate")], [null, null]);
  activity.take(EVENTS.zone_entered, 0);
  activity.take(EVENTS.line_crossed, 1);
  assert.deepEqual([activity.inside("work"), activity.crossings("gate")], [2, { left_to_right: 3, right_to_left: 1 }]);
  activity.take(EVENTS.zone_left, 2);
  assert.equal(activity.inside("work"), 1);
  activity.keep({ ...NOTHING, lines: [{ name: "gate", points: [[0, 0], [1, 1]] }] });
  assert.deepEqual([activity.inside("work"), activity.crossings("gate")?.left_to_right], [null, 3]);
  activity.clear();
  assert.equal(activity.crossings("gate"), null);
});

test("an alert is on until the object that it began with is over, however many there are", () => {
  const activity = new Activity();
  const start = (object_id: number | null, now: number): void => activity.take({ ...EVENTS.alert_started, object_id, count: 4 }, now);
  const end = (object_id: number | null): void => activity.take({ ...EVENTS.alert_ended, object_id }, 9);
  start(7, 100);
  assert.deepEqual(activity.alerts, [{ rule: "bare head", zone: "work", about: "head #7", since: 100 }]);
  start(8, 200);
  assert.deepEqual(activity.alerts, [{ rule: "bare head", zone: "work", about: "2 objects", since: 100 }]);
  end(7);
  assert.deepEqual(activity.alerts.map(({ about }) => about), ["head #8"]);
  end(3);
  assert.equal(activity.alerts.length, 1, "an end without a beginning ends nothing");
  end(8);
  assert.equal(activity.alerts.length, 0);
  start(null, 300);
  assert.equal(activity.alerts[0]?.about, "4 inside");
  activity.keep(EXAMPLE);
  assert.equal(activity.alerts.length, 1);
  activity.keep({ ...EXAMPLE, rules: [] });
  assert.deepEqual(activity.alerts, []);
});

test("the steps of degradation have plain words; a new one keeps its name", () => {
  assert.equal(degradationWords([]), "");
  assert.equal(degradationWords(["skip_inference"]), "Saving work: boxes carried between model runs");
  assert.equal(degradationWords(["smaller_input", "lower_fps", "lower_resolution", "dim_lights"]), "Saving work: smaller model input, lower frame rate, lower resolution, dim lights");
});

test("the classes offered are those of what a session gets", () => {
  const model = (name: string, version: string, classes: string[], isDefault = false): ModelView => ({
    name, version, classes, default: isDefault,
    task: "detect", licence: "MIT", input: [64, 64], score_threshold: 0.3, backend: "cpu", precision: "fp32",
  });
  const route = (name: string, classes: string[], isDefault = false): RouteView => ({
    name, classes, default: isDefault, route: { ensemble: ["a", "b"], fusion: "wbf" },
  });
  const models = [model("a", "2", ["old"]), model("a", "10", ["new"], true), model("b", "1", ["other"])];
  const routes = [route("both", ["new", "other"])];
  assert.deepEqual(classesOf("a", models, routes), ["new"]);
  assert.deepEqual(classesOf("a@2", models, routes), ["old"]);
  assert.deepEqual(classesOf("both", models, routes), ["new", "other"]);
  assert.deepEqual(classesOf(undefined, models, routes), ["new"]);
  assert.equal(classesOf("gone", models, routes), null);
  // A route as the default: no model is.
  const others = models.map((one) => ({ ...one, default: false }));
  assert.deepEqual(classesOf(undefined, others, [route("both", ["all"], true)]), ["all"]);
  assert.equal(classesOf(undefined, others, routes), null);
});

test("only the answer to the last question counts", async () => {
  const latest = new Latest();
  const answers: ((names: string[]) => void)[] = [];
  const ask = (): Promise<string[] | null> => latest.ask(() => new Promise((resolve) => answers.push(resolve)));
  const first = ask();
  latest.drop();
  const second = ask();
  answers.forEach((answer) => answer(["head"]));
  assert.deepEqual([await first, await second], [null, ["head"]]);
  const third = ask();
  latest.drop();
  answers.at(-1)?.(["head"]);
  assert.equal(await third, null);
});

test("the list says what was found, whatever the model's task", () => {
  const told = (name: string): string => describe(goldenOne<SessionResult>(name)).replaceAll("\u00a0", " ");
  assert.equal(told("result"), "1 × head, 1 × helmet");
  assert.equal(told("result_min"), "nothing found");
  assert.equal(told("result_keypoints"), "2 × face");
  assert.equal(told("result_classes"), "seven 97 %, one 2 %");
  assert.equal(told("result_segments"), "person 13 %, bus 0 %");
  assert.equal(told("result_tensors"), "Plus214_Output_0 [1, 4], features [1, 64, 80, 80]");
});
