import type { Joiner } from "./joiner.js";
import { Rate, Samples } from "./meters.js";
import { type Dropped, type SessionResult, type Stage, STAGES } from "./wire.js";

/** How the session does, as of the last second or so. Times are milliseconds. */
export interface SessionStats {
  /** Frames a second that leave the browser. */
  fpsSent: number;
  /** Frames a second of returned video put on screen. */
  fpsShown: number;
  /** Results a second. */
  resultsPerSecond: number;
  /** Results since the session began. */
  results: number;
  /** Frames of returned video put on screen. */
  framesShown: number;
  /** Shown frames that met their result. */
  joined: number;
  /** Median server time by stage over the last results. */
  stages: Record<Stage, number>;
  /** Median and 95th percentile of `timing_ms.total`. */
  total: { p50: number; p95: number } | null;
  /** Median and 95th percentile from capture to the arrival of the result, where the source is tracked. */
  resultAge: { p50: number; p95: number } | null;
  /** Median and 95th percentile from capture to the returned frame on screen, where the source is tracked. */
  shownAge: { p50: number; p95: number } | null;
  /** Share of results that kept the budget, 0..1. */
  met: number | null;
  /** Frames that the server dropped. */
  dropped: Dropped;
  /** Steps by which the server saved work as of the last result. */
  degraded: string[];
  /** Round trip to the server. */
  rttMs: number | null;
  /** Codec being sent, such as `H264`. */
  codec: string | null;
  /** Size being sent, in pixels. */
  sentSize: { width: number; height: number } | null;
  /** Bitrate sent and received, in kilobits a second. */
  kbpsSent: number;
  kbpsReceived: number;
}

/** What is read from the browser's statistics. */
interface Transport {
  fpsSent: number;
  rttMs: number | null;
  codec: string | null;
  sentSize: { width: number; height: number } | null;
  bytesSent: number;
  bytesReceived: number;
  at: number;
}

/** Gathers what {@link SessionStats} shows. */
export class Statistics {
  readonly #resultRate = new Rate();
  readonly #shownRate = new Rate();
  readonly #stages = Object.fromEntries(STAGES.map((stage) => [stage, new Samples()])) as Record<Stage, Samples>;
  readonly #total = new Samples();
  readonly #resultAge = new Samples();
  readonly #shownAge = new Samples();
  readonly #met = new Samples();
  #results = 0;
  #framesShown = 0;
  #dropped: Dropped = { superseded: 0, late: 0 };
  #degraded: string[] = [];
  #transport: Transport | null = null;
  #kbps = { sent: 0, received: 0 };

  constructor(private readonly joiner: Joiner) {}

  /** Counts a result that came at `now`, captured at `capturedAt` where that is known. */
  result(result: SessionResult, now: number, capturedAt: number | null): void {
    this.#results += 1;
    this.#resultRate.add(now);
    for (const stage of STAGES) this.#stages[stage].add(result.timing_ms[stage]);
    this.#total.add(result.timing_ms.total);
    this.#met.add(result.met ? 1 : 0);
    if (capturedAt !== null) this.#resultAge.add(now - capturedAt);
    this.#dropped = result.dropped;
    this.#degraded = result.degraded;
  }

  /** Counts a frame put on screen. */
  shown(now: number): void {
    this.#framesShown += 1;
    this.#shownRate.add(now);
  }

  /** Counts how old a frame was when it was put on screen. */
  age(ms: number): void {
    this.#shownAge.add(ms);
  }

  /** Reads the browser's statistics. */
  transport(report: RTCStatsReport, at: number): void {
    const next: Transport = {
      fpsSent: 0,
      rttMs: null,
      codec: null,
      sentSize: null,
      bytesSent: 0,
      bytesReceived: 0,
      at,
    };
    const codecs = new Map<string, string>();
    let codecId: string | undefined;
    report.forEach((entry: Record<string, unknown> & { type: string; id: string }) => {
      if (entry.type === "codec") codecs.set(entry.id, text(entry["mimeType"]).replace(/^video\//i, ""));
      if (entry.type === "outbound-rtp") {
        next.fpsSent = number(entry["framesPerSecond"]) ?? 0;
        next.bytesSent = number(entry["bytesSent"]) ?? 0;
        codecId = text(entry["codecId"]);
        const width = number(entry["frameWidth"]);
        const height = number(entry["frameHeight"]);
        if (width && height) next.sentSize = { width, height };
      }
      if (entry.type === "inbound-rtp") next.bytesReceived = number(entry["bytesReceived"]) ?? 0;
      if (entry.type === "candidate-pair" && (entry["nominated"] === true || entry["selected"] === true)) {
        const seconds = number(entry["currentRoundTripTime"]);
        if (seconds !== null) next.rttMs = seconds * 1_000;
      }
    });
    next.codec = (codecId && codecs.get(codecId)) || null;
    const last = this.#transport;
    if (last && at > last.at) {
      const kbps = (now: number, before: number): number => Math.max(0, ((now - before) * 8) / (at - last.at));
      this.#kbps = {
        sent: kbps(next.bytesSent, last.bytesSent),
        received: kbps(next.bytesReceived, last.bytesReceived),
      };
    }
    this.#transport = next;
  }

  /** Everything as of `now`. */
  snapshot(now: number): SessionStats {
    return {
      fpsSent: this.#transport?.fpsSent ?? 0,
      fpsShown: this.#shownRate.perSecond(now),
      resultsPerSecond: this.#resultRate.perSecond(now),
      results: this.#results,
      framesShown: this.#framesShown,
      joined: this.joiner.joined,
      stages: Object.fromEntries(
        STAGES.map((stage) => [stage, this.#stages[stage].percentile(50) ?? 0]),
      ) as Record<Stage, number>,
      total: spread(this.#total),
      resultAge: spread(this.#resultAge),
      shownAge: spread(this.#shownAge),
      met: mean(this.#met),
      dropped: this.#dropped,
      degraded: this.#degraded,
      rttMs: this.#transport?.rttMs ?? null,
      codec: this.#transport?.codec ?? null,
      sentSize: this.#transport?.sentSize ?? null,
      kbpsSent: this.#kbps.sent,
      kbpsReceived: this.#kbps.received,
    };
  }
}

function spread(samples: Samples): { p50: number; p95: number } | null {
  const p50 = samples.percentile(50);
  const p95 = samples.percentile(95);
  return p50 === null || p95 === null ? null : { p50, p95 };
}

function mean(samples: Samples): number | null {
  return samples.size === 0 ? null : samples.mean();
}

function number(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
