// Soak: half of a usual day's load for eight hours. What grows shows in the last hour, which is a scenario of its own. Watch the board
// saccade-device meanwhile: memory and descriptors have to stay level.
//
//     k6 run deploy/load/k6/soak.js
import { arrivals, setup, time, visit } from "./saccade.js";

/** @type {import("k6/options").Options} */
export const options = {
  discardResponseBodies: true,
  scenarios: {
    hours: arrivals(1, [[5, 300], [5, 24900]]),
    last: { ...arrivals(5, [[5, 3600]]), startTime: time(25200) },
  },
  thresholds: {
    saccade_faults: ["rate<0.0001"],
    saccade_turned_away: ["rate<0.001"],
    saccade_answered: ["count>0"],
    saccade_latency: ["p(95)<500"],
    "saccade_latency{scenario:last}": ["p(95)<500", "p(99)<1000"],
    checks: ["rate==1"],
  },
};

export { setup };
export default visit;
