// Spike: from a quiet hour to a crowd within ten seconds, and back. Visits may be turned away in the crowd and may not fail; the
// quiet minutes after it have the thresholds of a quiet hour.
//
//     k6 run deploy/load/k6/spike.js
import { arrivals, setup, time, visit } from "./saccade.js";

/** @type {import("k6/options").Options} */
export const options = {
  discardResponseBodies: true,
  scenarios: {
    crowd: arrivals(2, [[2, 60], [100, 10], [100, 60], [2, 10]]),
    afterwards: { ...arrivals(2, [[2, 120]]), startTime: time(170) },
  },
  thresholds: {
    saccade_faults: ["rate<0.001"],
    saccade_answered: ["count>0"],
    "saccade_turned_away{scenario:afterwards}": ["rate==0"],
    "saccade_latency{scenario:afterwards}": ["p(95)<500"],
    checks: ["rate==1"],
  },
};

export { setup };
export default visit;
