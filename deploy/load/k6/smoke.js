// Smoke: whether it works at all. Two visits a second for half a minute; nothing may fail or be turned away.
//
//     k6 run deploy/load/k6/smoke.js
import { arrivals, setup, visit } from "./saccade.js";

/** @type {import("k6/options").Options} */
export const options = {
  discardResponseBodies: true,
  scenarios: { smoke: arrivals(2, [[2, 30]]) },
  thresholds: {
    saccade_faults: ["rate==0"],
    saccade_turned_away: ["rate==0"],
    saccade_answered: ["count>0"],
    saccade_latency: ["p(95)<1000"],
    checks: ["rate==1"],
  },
};

export { setup };
export default visit;
