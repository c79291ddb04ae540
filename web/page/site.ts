import { type Options, type OptionsPatch, type SessionEvent } from "../sdk/index.js";
import { Activity, degradationWords, type EventLine, eventLine } from "./activity.js";
import { element, make } from "./dom.js";
import { Drawing } from "./drawing.js";
import { Layer } from "./layer.js";
import { NOTHING, patchOf, type Site, siteOf, withDrawn, withSite } from "./shapes.js";
import type { Stage } from "./stage.js";
import { ZonesCard } from "./zones.js";

/** Alerts that have a badge of their own over the stage. */
const ALERTS_SHOWN = 3;

/** What the editor asks of its owner. */
export interface SiteHandlers {
  /** Options to change; resolves when the server has answered, either way, or at once while no session runs. */
  configure(patch: OptionsPatch): Promise<void>;
  /** Names of the classes of the model in use. */
  classes(): Promise<readonly string[]>;
  /** Something to write down. */
  onLine(line: EventLine): void;
  /** There is more or less to show over the stage. */
  onShown(): void;
}

/** Zones, lines and alerts: drawn on the stage, listed in their card, and kept as the server has them. */
export class SiteEditor {
  readonly #activity = new Activity();
  readonly #card: ZonesCard;
  readonly #drawing: Drawing;
  readonly #layers = {
    source: new Layer(layerElement("source-layer")),
    result: new Layer(layerElement("result-layer")),
  };
  readonly #badges = element("badges", HTMLUListElement);
  #site: Site = NOTHING;
  /** What the server says is in force; `null` while no session runs. */
  #inForce: Options | null = null;
  /** Changes that the server has yet to answer to; that there is a session at all is one. */
  #unanswered = 0;
  /** Number of the session, so that late answers of one before are told apart. */
  #session = 0;
  #degraded: readonly string[] = [];
  #badgesShown = "";

  constructor(
    private readonly stage: Stage,
    private readonly handlers: SiteHandlers,
  ) {
    this.#drawing = new Drawing(
      stage,
      (draft, touched) => {
        const site = withDrawn(this.#site, draft);
        if (!site) return handlers.onLine({ text: "There is no place for another one.", mark: null });
        this.#change(site);
        if (!touched) this.#card.focusLast(draft.kind);
      },
      () => {
        this.#draw();
        handlers.onShown();
      },
    );
    this.#card = new ZonesCard({ change: (site) => this.#change(site), classes: () => handlers.classes() });
    for (const kind of ["zone", "line"] as const) {
      element(`draw-${kind}`, HTMLButtonElement).addEventListener("click", () => this.#drawing.start(kind));
    }
    stage.onLayout = () => this.#draw();
  }

  /** Whether there is something to see over the picture. */
  get visible(): boolean {
    return this.#drawing.draft !== null || this.#site.zones.length + this.#site.lines.length > 0;
  }

  /** Puts `site` in place before anything runs. */
  preset(site: Site): void {
    this.#site = site;
    this.#show();
  }

  /** Adds all of `added`, which takes the place of what has the same name. */
  add(added: Site): void {
    this.#change(withSite(this.#site, added));
  }

  /** Takes what the server says is in force, unless it has not yet answered to what was drawn last. */
  show(options: Options): void {
    this.#inForce = options;
    if (this.#unanswered === 0) this.#site = siteOf(options);
    this.#show();
  }

  /** A session is being made. What is drawn stays as it is until the session has heard of it. */
  starting(): void {
    this.#session += 1;
    this.#unanswered = 1;
  }

  /** A session is there, and hears of what is drawn: as a change, so that a refusal does not end it. */
  async started(): Promise<void> {
    const session = this.#session;
    const patch = this.#inForce ? patchOf(siteOf(this.#inForce), this.#site) : {};
    if (Object.keys(patch).length > 0) await this.#configure(patch);
    this.#answered(session);
  }

  /** Takes an event that came at `now`. */
  event(event: SessionEvent, now: number): void {
    this.#activity.take(event, now);
    this.handlers.onLine(eventLine(event));
    this.#show();
  }

  /** Takes the steps of degradation in force. */
  degraded(steps: readonly string[]): void {
    if (steps.join() === this.#degraded.join()) return;
    this.#degraded = steps;
    this.handlers.onLine({ text: degradationWords(steps) || "No longer saving work", mark: null });
    this.#showBadges();
  }

  /** Forgets what a session told. */
  clear(): void {
    this.#activity.clear();
    this.#degraded = [];
    this.#show();
  }

  /** No session runs any more. */
  stopped(): void {
    this.#session += 1;
    this.#inForce = null;
    this.#unanswered = 0;
    this.clear();
  }

  /** Brings what depends on the time of day up to date. */
  tick(): void {
    this.#showBadges();
  }

  #change(site: Site | null): void {
    const patch = site ? patchOf(this.#site, site) : {};
    if (!site || Object.keys(patch).length === 0) return this.#show();
    this.#site = site;
    this.#show();
    void this.#configure(patch);
  }

  async #configure(patch: OptionsPatch): Promise<void> {
    const session = this.#session;
    this.#unanswered += 1;
    await this.handlers.configure(patch);
    this.#answered(session);
  }

  #answered(session: number): void {
    if (session !== this.#session) return;
    this.#unanswered -= 1;
    // The server may have refused, or may have had something to add.
    if (this.#unanswered === 0 && this.#inForce) this.show(this.#inForce);
  }

  #show(): void {
    this.#activity.keep(this.#site);
    this.#card.show(this.#site, this.#activity);
    this.#showBadges();
    this.#draw();
    this.handlers.onShown();
  }

  #draw(): void {
    const { draft, pointer, crosshair } = this.#drawing;
    const view = { site: this.#site, activity: this.#activity, draft, pointer, crosshair };
    const inPicture = this.#inForce?.overlay.zones ?? false;
    this.#layers.source.draw(this.stage.picture("source"), { ...view, inPicture: false });
    this.#layers.result.draw(this.stage.picture("result"), { ...view, inPicture });
  }

  #showBadges(): void {
    const now = performance.now();
    const alerts = this.#activity.alerts.map(({ rule, zone, about, since }) => {
      const seconds = Math.floor((now - since) / 1_000);
      return { kind: "alarm", strong: rule, text: `in ${zone}, ${about}, ${seconds} s` };
    });
    const badges = alerts.slice(0, ALERTS_SHOWN);
    const more = alerts.length - badges.length;
    if (more > 0) badges.push({ kind: "alarm", strong: "", text: `and ${more} more` });
    const words = degradationWords(this.#degraded);
    if (words) badges.push({ kind: "saving", strong: "", text: words });
    const shown = JSON.stringify(badges);
    if (shown === this.#badgesShown) return;
    this.#badgesShown = shown;
    this.#badges.replaceChildren(
      ...badges.map(({ kind, strong, text }) => {
        const badge = make("li", strong ? [make("strong", strong), document.createTextNode(` ${text}`)] : text, "badge");
        badge.dataset["kind"] = kind;
        return badge;
      }),
    );
  }
}

function layerElement(id: string): SVGSVGElement {
  const found = document.getElementById(id);
  if (!(found instanceof SVGSVGElement)) throw new Error(`#${id} is missing`);
  return found;
}
