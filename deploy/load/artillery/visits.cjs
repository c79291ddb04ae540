// Pictures and tokens for visits.yml, and what counts as answered, as turned away and as a fault.
"use strict";
const { readFileSync } = require("node:fs");
const { join } = require("node:path");

const PICTURE = readFileSync(process.env.SACCADE_PICTURE || join(__dirname, "..", "scene.jpg"));
if (PICTURE[0] !== 0xff || PICTURE[1] !== 0xd8) {
  throw new Error("SACCADE_PICTURE has to be a JPEG");
}
let number = 0;

function token(request, context, events, next) {
  if (process.env.SACCADE_TOKEN) {
    request.headers = { ...request.headers, authorization: `Bearer ${process.env.SACCADE_TOKEN}` };
  }
  next();
}

// A picture whose bytes nobody has sent before: a comment goes in front (JFIF's COM segment).
function picture(request, context, events, next) {
  let body = PICTURE;
  if (process.env.SACCADE_KNOWN !== "1") {
    const comment = Buffer.from(`${process.pid} ${number++} ${Date.now()} ${Math.random()}`);
    const head = Buffer.from([0xff, 0xfe, (comment.length + 2) >> 8, (comment.length + 2) & 0xff]);
    body = Buffer.concat([PICTURE.subarray(0, 2), head, comment, PICTURE.subarray(2)]);
  }
  request.body = body;
  token(request, context, events, next);
}

// A server that is full says so with 429 or 503 and when to come again.
function judge(request, response, context, events, next) {
  const isAway = [429, 503].includes(response.statusCode) && Number(response.headers["retry-after"]) >= 0;
  const outcome = response.statusCode === 200 ? "answered" : isAway ? "turned_away" : "faults";
  events.emit("counter", `saccade.${outcome}`, 1);
  if (outcome === "faults") {
    return next(new Error(`status ${response.statusCode}`));
  }
  next();
}

module.exports = { judge, picture, token };
