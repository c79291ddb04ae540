// What all shapes of load do: ask what is in a picture, most of the time, and look around a little.
//
// Environment: SACCADE_URL (http://127.0.0.1:8080), SACCADE_TOKEN, SACCADE_MODEL (the server's default), SACCADE_PICTURE (a JPEG;
// ../scene.jpg), SACCADE_KNOWN=1 (always the same picture, which a cache knows), SACCADE_RATE (a factor to all rates, 1),
// SACCADE_TIME (a factor to all times, 1).
import { check, fail } from "k6";
import http from "k6/http";
import { Counter, Rate, Trend } from "k6/metrics";

const SERVER = (__ENV.SACCADE_URL || "http://127.0.0.1:8080").replace(/\/+$/, "");
const PICTURE = new Uint8Array(open(__ENV.SACCADE_PICTURE || "../scene.jpg", "b"));
const RATE = factor("SACCADE_RATE");
const TIME = factor("SACCADE_TIME");

if (PICTURE[0] !== 0xff || PICTURE[1] !== 0xd8) {
  throw new Error("SACCADE_PICTURE has to be a JPEG");
}

// Pictures that were answered, and how long that took, in milliseconds; those that a full server turned away as it should, with
// Retry-After; and faults, which are all else.
const answered = new Counter("saccade_answered");
const turnedAway = new Rate("saccade_turned_away");
const faults = new Rate("saccade_faults");
const latency = new Trend("saccade_latency", true);

/** A number above 0 from the environment, by default 1. @param {string} name */
function factor(name) {
  const value = Number(__ENV[name] || "1");
  if (!(value > 0)) {
    throw new Error(`${name} has to be a number above 0, not "${__ENV[name]}"`);
  }
  return value;
}

/** Seconds of a shape, as k6 writes them. @param {number} seconds */
export function time(seconds) {
  return `${Math.max(1, Math.round(seconds * TIME))}s`;
}

/** Requests in a minute, of so many a second. @param {number} perSecond */
export function rate(perSecond) {
  return Math.max(1, Math.round(perSecond * RATE * 60));
}

/**
 * Requests at a rate that does not wait for answers, as people do not, through stages of [requests a second, seconds].
 * @param {number} first @param {[number, number][]} stages
 * @returns {import("k6/options").Scenario}
 */
export function arrivals(first, stages) {
  const most = Math.max(first, ...stages.map(([perSecond]) => perSecond));
  return {
    executor: "ramping-arrival-rate",
    startRate: rate(first),
    timeUnit: "1m",
    stages: stages.map(([perSecond, seconds]) => ({ target: rate(perSecond), duration: time(seconds) })),
    preAllocatedVUs: Math.max(2, Math.ceil(most * RATE)),
    maxVUs: Math.max(10, Math.ceil(most * RATE * 10)),
    gracefulStop: "10s",
  };
}

/** A picture whose bytes nobody has sent before: a comment goes in front (JFIF's COM segment). */
function picture() {
  if (__ENV.SACCADE_KNOWN === "1") {
    return PICTURE.buffer;
  }
  // Byte by byte: to k6's engine, a text is nothing that an array could be made from.
  const text = `${__VU} ${__ITER} ${Date.now()} ${Math.random()}`;
  const comment = new Uint8Array(text.length).map((_, at) => text.charCodeAt(at));
  const whole = new Uint8Array(PICTURE.length + 4 + comment.length);
  whole.set(PICTURE.subarray(0, 2));
  whole.set([0xff, 0xfe, (comment.length + 2) >> 8, (comment.length + 2) & 0xff], 2);
  whole.set(comment, 6);
  whole.set(PICTURE.subarray(2), 6 + comment.length);
  return whole.buffer;
}

/** Headers of each request. @param {Record<string, string>} more */
function headers(more = {}) {
  return __ENV.SACCADE_TOKEN ? { authorization: `Bearer ${__ENV.SACCADE_TOKEN}`, ...more } : more;
}

/** Whether a server that is full said so as agreed: 429 or 503, and when to come again. @param {import("k6/http").RefinedResponse<"text">} answer */
function isTurnedAway(answer) {
  return (answer.status === 429 || answer.status === 503) && Number(answer.headers["Retry-After"]) >= 0;
}

/** Asks what is in a picture. */
export function detect() {
  const query = __ENV.SACCADE_MODEL ? `?model=${encodeURIComponent(__ENV.SACCADE_MODEL)}` : "";
  const answer = http.post(`${SERVER}/v1/detect${query}`, picture(), {
    headers: headers({ "content-type": "image/jpeg" }),
    responseType: "text",
    tags: { name: "detect" },
  });
  const away = isTurnedAway(answer);
  turnedAway.add(away);
  faults.add(answer.status !== 200 && !away);
  if (answer.status === 200) {
    answered.add(1);
    latency.add(answer.timings.duration);
    check(answer, { "a result with detections": (it) => Array.isArray(it.json("detections")) });
  }
}

/** Looks at what a page of an operator asks for. */
export function look() {
  for (const path of ["/v1/models", "/v1/sessions", "/"]) {
    const answer = http.get(`${SERVER}${path}`, { headers: headers(), responseType: "text", tags: { name: path } });
    faults.add(answer.status !== 200 && !isTurnedAway(answer));
  }
}

/** One visit: in nine of ten a picture. */
export function visit() {
  if (Math.random() < 0.9) {
    detect();
  } else {
    look();
  }
}

/** Before all: says at once what is wrong, in place of a thousand failures. */
export function setup() {
  const answer = http.get(`${SERVER}/v1/models`, { headers: headers(), responseType: "text", tags: { name: "setup" } });
  if (answer.status === 401 || answer.status === 403) {
    fail(`${SERVER} wants a token (status ${answer.status}): set SACCADE_TOKEN to what \`saccade token --can-publish --can-view\` makes`);
  }
  if (answer.status !== 200) {
    fail(`${SERVER}/v1/models gave ${answer.status} ${answer.error}: set SACCADE_URL to a running server`);
  }
}
