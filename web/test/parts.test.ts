import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff, DEFAULT_RECONNECT } from "../sdk/backoff.js";
import { BoundedMap } from "../sdk/bounded.js";
import { errorOfCapture, errorOfCloseCode, SaccadeError, type ErrorCode } from "../sdk/errors.js";
import { signalingUrl } from "../sdk/index.js";
import { Joiner, type ShownFrame } from "../sdk/joiner.js";
import { Rate, Samples } from "../sdk/meters.js";
import { arrowOf, classColor, drawResult, labelOf } from "../sdk/overlay.js";
import { SourceClock } from "../sdk/source-clock.js";
import { frameRequest } from "../sdk/sources.js";
import { SERVER_ERROR_CODES, type SessionResult } from "../sdk/wire.js";
import { goldenOne, RESULT } from "./fakes.js";

test("back-off doubles up to its bound, and ends", () => {
  const backoff = new Backoff({ baseMs: 100, maxMs: 1_000, maxAttempts: 6, stableMs: 0 }, () => 1);
  const waits = Array.from({ length: 7 }, () => backoff.next());
  assert.deepEqual(waits, [100, 200, 400, 800, 1_000, 1_000, null]);
  backoff.reset();
  assert.equal(backoff.next(), 100);
});

test("jitter shortens the wait to half at most, and never what the server asked for", () => {
  const eager = new Backoff({ ...DEFAULT_RECONNECT, baseMs: 100 }, () => 0);
  assert.equal(eager.next(), 50);
  assert.equal(eager.next(4_000), 4_000);
  assert.equal(new Backoff(DEFAULT_RECONNECT, () => 1).next(4_000), 5_000);
});

test("a bounded map forgets its oldest entry", () => {
  const map = new BoundedMap<number, string>(2);
  assert.equal(map.set(1, "a"), null);
  map.set(2, "b");
  map.set(1, "a again");
  assert.deepEqual(map.set(3, "c"), [2, "b"]);
  assert.deepEqual([...map.values()], ["a again", "c"]);
  assert.equal(map.size, 2);
  assert.throws(() => new BoundedMap(0), RangeError);
});

test("a canvas is asked for its frames wherever the browser has that", () => {
  const asked: string[] = [];
  const owner = (name: string): unknown => ({ name, requestFrame(this: { name: string }) { asked.push(this.name); } });
  const nobody = {} as unknown;
  frameRequest(nobody as MediaStream, owner("track") as MediaStreamTrack)?.();
  frameRequest(owner("stream") as MediaStream, nobody as MediaStreamTrack)?.();
  assert.deepEqual(asked, ["track", "stream"]);
  assert.equal(frameRequest(nobody as MediaStream, nobody as MediaStreamTrack), undefined);
});

test("rates count their window only", () => {
  const rate = new Rate(2_000);
  for (let at = 0; at < 3_000; at += 100) rate.add(at);
  assert.equal(rate.perSecond(2_950), 10);
  assert.equal(rate.perSecond(10_000), 0);
});

test("percentiles are of the last samples", () => {
  const samples = new Samples(4);
  assert.equal(samples.percentile(50), null);
  for (const value of [100, 1, 2, 3, 4]) samples.add(value);
  assert.equal(samples.percentile(50), 2);
  assert.equal(samples.percentile(95), 4);
  assert.equal(samples.mean(), 2.5);
});

test("every error has words, and says whether to try again", () => {
  for (const code of SERVER_ERROR_CODES) {
    const error = new SaccadeError(code);
    assert.notEqual(error.title, "Something went wrong", code);
    assert.match(error.hint, /\.$/, code);
  }
  assert.equal(new SaccadeError("capacity").retryable, true);
  assert.equal(new SaccadeError("bad_options").retryable, false);
  const unheard = new SaccadeError("solar_flare" as ErrorCode, { detail: "sorry" });
  assert.equal(unheard.title, "Something went wrong");
  assert.equal(unheard.retryable, false);
  const passing = new SaccadeError("capacity", { detail: "full", retryAfterMs: 5 }).withFatal(false);
  assert.deepEqual([passing.fatal, passing.detail, passing.retryAfterMs], [false, "full", 5]);
});

test("close codes and refused captures become codes", () => {
  const codes = [1000, 1001, 1006, 1007, 1009, 1013, 4401, 4403, 4429].map((code) => errorOfCloseCode(code, "")?.code);
  assert.deepEqual(codes, [
    undefined, undefined, undefined, "bad_request", "too_large", "capacity", "unauthorized", "forbidden", "rate_limited",
  ]);
  const refused = (name: string, kind: "camera" | "screen" = "camera"): string =>
    errorOfCapture(new DOMException("no", name), kind).code;
  assert.equal(refused("NotAllowedError"), "camera_denied");
  assert.equal(refused("NotAllowedError", "screen"), "screen_denied");
  assert.equal(refused("NotFoundError"), "camera_missing");
  assert.equal(refused("NotReadableError"), "camera_busy");
  assert.equal(refused("OverconstrainedError"), "camera_unsuitable");
});

test("the signaling address comes from any address of the server", () => {
  assert.equal(signalingUrl("https://v.example/saccade.js"), "wss://v.example/v1/signal");
  assert.equal(signalingUrl("http://127.0.0.1:8080/?source=scene#top"), "ws://127.0.0.1:8080/v1/signal?source=scene");
  assert.equal(signalingUrl("wss://v.example/cam/v1/signal?x=1"), "wss://v.example/cam/v1/signal?x=1");
  assert.equal(signalingUrl("/v1/signal", "https://v.example/page/"), "wss://v.example/v1/signal");
  assert.throws(() => signalingUrl("file:///tmp/page.html"), SaccadeError);
  assert.throws(() => signalingUrl("::", undefined), SaccadeError);
});

test("results meet their frames in either order, once", () => {
  const met: [number, number][] = [];
  const joiner = new Joiner((frame, result) => met.push([frame.rtpTimestamp, result.frame_id]));
  const result = (frame_id: number, out: number | null): SessionResult => ({ ...RESULT, frame_id, rtp_timestamp_out: out });
  const frame = (rtpTimestamp: number): ShownFrame => ({ rtpTimestamp, shownAt: 0, width: 4, height: 3 });
  joiner.result(result(1, 900));
  assert.equal(joiner.frame(frame(900))?.frame_id, 1);
  joiner.frame(frame(900));
  assert.equal(joiner.frame(frame(1_800)), null);
  joiner.result(result(2, 1_800));
  joiner.result(result(2, 1_800));
  joiner.result(result(3, null));
  assert.deepEqual(met, [[900, 1], [1_800, 2]]);
  assert.equal(joiner.joined, 2);
  assert.equal(joiner.resultForFrame(1_800)?.frame_id, 2);
  for (let n = 0; n < 1_000; n += 1) joiner.result(result(n, 10_000 + n));
  assert.equal(joiner.resultForFrame(1_800), null);
});

test("the source clock finds the frame behind an RTP timestamp, across the wrap", () => {
  const clock = new SourceClock();
  const first = 2 ** 32 - 20 * 3_000;
  let seed = 7;
  const noise = (): number => (seed = (seed * 16_807) % 2_147_483_647) / 2_147_483_647;
  const rtp: number[] = [];
  for (let n = 0; n < 60; n += 1) {
    const capturedAt = 5_000 + n * 33.3 + noise() * 3;
    clock.frame({ mediaTime: (capturedAt - 4_321) / 1_000, capturedAt });
    rtp.push((first + Math.round(capturedAt) * 90 - 5_000 * 90) % 2 ** 32);
    // Encoding takes from a few milliseconds to several frames.
    clock.sighting(rtp[n] ?? 0, capturedAt + (n % 9 === 4 ? 6 : 30 + 90 * noise()));
  }
  assert.ok(clock.ready);
  for (const n of [0, 19, 20, 21, 59]) {
    const frame = clock.frameOf(rtp[n] ?? 0);
    assert.ok(frame && Math.abs(frame.capturedAt - (5_000 + n * 33.3)) <= 3.01, `frame ${n}: ${frame?.capturedAt}`);
  }
  assert.equal(clock.frameOf(((rtp[30] ?? 0) + 1_500) % 2 ** 32), null);
  const between = clock.capturedAt(((rtp[30] ?? 0) + 1_500) % 2 ** 32) ?? 0;
  assert.ok(Math.abs(between - (5_000 + 30 * 33.3 + 1_500 / 90)) < 5);
});

test("the source clock says nothing before it knows", () => {
  const clock = new SourceClock();
  clock.frame({ mediaTime: 0, capturedAt: 10 });
  clock.sighting(90, 20);
  assert.equal(clock.ready, false);
  assert.equal(clock.capturedAt(90), null);
});

test("labels and colours", () => {
  const [helmet, head] = RESULT.detections;
  assert.ok(helmet && head);
  assert.equal(labelOf(helmet), "helmet 0.91 #7");
  assert.equal(labelOf(head), "head 0.48");
  assert.equal(classColor(1), classColor(9));
  assert.notEqual(classColor(0), classColor(1));
});

test("a line's arrow points to the right of who looks from its first end to its second", () => {
  const tip = (from: [number, number], to: [number, number]): number[] => (arrowOf([from, to], 10)[1] ?? []).map(Math.round);
  assert.deepEqual(tip([50, 100], [50, 0]), [60, 50], "looking up, right is right");
  assert.deepEqual(tip([50, 0], [50, 100]), [40, 50], "looking down, right is left");
  assert.deepEqual(tip([0, 50], [100, 50]), [50, 60], "looking right, right is down");
  assert.deepEqual(tip([7, 7], [7, 7]), [7, 7], "a line without length has no sides");
});

test("a result's segments are filled by the even-odd rule, its classes listed, its keypoints dotted", () => {
  class FakePath {
    readonly points: number[][] = [];
    rings = 0;
    lineTo(x: number, y: number): void {
      this.points.push([x, y]);
    }
    closePath(): void {
      this.rings += 1;
    }
    addPath(other: FakePath): void {
      this.points.push(...other.points);
      this.rings += other.rings;
    }
  }
  Object.assign(globalThis, { Path2D: FakePath });
  const draw = (name: string, options = {}): { filled: FakePath[]; rules: string[]; texts: string[]; dots: number[][] } => {
    const done = { filled: [] as FakePath[], rules: [] as string[], texts: [] as string[], dots: [] as number[][] };
    const context = {
      canvas: { width: 640, height: 360 },
      measureText: () => ({ width: 10 }),
      fill: (path?: FakePath, rule = "") => {
        if (path) done.filled.push(path);
        done.rules.push(rule);
      },
      fillText: (text: string) => done.texts.push(text),
      arc: (x: number, y: number) => done.dots.push([x, y]),
      save: () => undefined,
      restore: () => undefined,
      stroke: () => undefined,
      strokeRect: () => undefined,
      fillRect: () => undefined,
      beginPath: () => undefined,
    };
    drawResult(context as unknown as CanvasRenderingContext2D, goldenOne<SessionResult>(name), options);
    return done;
  };
  const segments = draw("result_segments");
  assert.deepEqual(segments.filled.map(({ rings }) => rings), [2, 1]);
  assert.deepEqual(segments.rules, ["evenodd", "evenodd"]);
  assert.deepEqual(segments.filled[1]?.points[0], [0, 5], "scaled to the canvas");
  assert.deepEqual(segments.texts, ["person 13 %", "bus 0 %"]);
  assert.deepEqual(draw("result_classes").texts, ["seven 0.97", "one 0.02"]);
  assert.deepEqual(draw("result_classes", { labels: false }).texts, []);
  assert.equal(draw("result_segments", { boxes: false }).filled.length, 0);
  const face = draw("result_keypoints");
  assert.equal(face.dots.length, 10, "five points with a dark line around each");
  assert.deepEqual(face.dots[0], [215.25, 60.125]);
});
