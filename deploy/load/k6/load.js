// Load: a usual day. Up to ten visits a second in two minutes, ten minutes of it, and down; nearly all within half a second.
//
//     k6 run deploy/load/k6/load.js
import { arrivals, setup, visit } from "./saccade.js";

/** @type {import("k6/options").Options} */
export const options = {
  discardResponseBodies: true,
  scenarios: { load: arrivals(1, [[10, 120], [10, 600], [0, 60]]) },
  thresholds: {
    saccade_faults: ["rate<0.001"],
    saccade_turned_away: ["rate<0.01"],
    saccade_answered: ["count>0"],
    saccade_latency: ["p(95)<500", "p(99)<1000"],
    checks: ["rate==1"],
  },
};

export { setup };
export default visit;
