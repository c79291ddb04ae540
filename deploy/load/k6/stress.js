// Stress: more and more, beyond what one box does. Visits may be turned away, with Retry-After, and may not fail; what is taken is
// answered in time.
//
//     k6 run deploy/load/k6/stress.js
import { arrivals, setup, visit } from "./saccade.js";

/** @type {import("k6/options").Options} */
export const options = {
  discardResponseBodies: true,
  scenarios: { stress: arrivals(10, [[20, 120], [40, 120], [80, 120], [160, 120], [0, 60]]) },
  thresholds: {
    saccade_faults: ["rate<0.001"],
    saccade_answered: ["count>0"],
    saccade_latency: ["p(95)<5000"],
    checks: ["rate==1"],
  },
};

export { setup };
export default visit;
