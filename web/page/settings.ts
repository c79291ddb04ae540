import {
  type CodecChoice,
  mergeOptions,
  type Options,
  type OptionsPatch,
  type Overlay,
  type ReturnMode,
} from "../sdk/index.js";
import { choose, chosen, element } from "./dom.js";

const RETURN_NOTES: Record<ReturnMode, string> = {
  exact: "Each returned frame waits for its own result.",
  predicted: "Video returns at once. The last result's boxes are carried to each frame by the objects' motion; results come as always.",
  results: "No video returns; this page draws the boxes.",
};

const OVERLAYS = ["boxes", "labels", "timing", "zones"] as const satisfies readonly (keyof Overlay)[];

/** How long a slider must rest before its value is sent, in milliseconds. */
const REST_MS = 150;

/** The settings form: what the person chose, and what the server says is in force. */
export class Settings {
  readonly #model = element("model", HTMLSelectElement);
  readonly #threshold = element("threshold", HTMLInputElement);
  readonly #thresholdValue = element("threshold-value", HTMLOutputElement);
  readonly #budget = element("budget", HTMLInputElement);
  readonly #budgetValue = element("budget-value", HTMLOutputElement);
  readonly #returnNote = element("return-note", HTMLElement);
  readonly #codec = element("codec", HTMLSelectElement);
  readonly #token = element("token", HTMLInputElement);
  readonly #overlays = OVERLAYS.map((name) => [name, element(`overlay-${name}`, HTMLInputElement)] as const);
  #wanted: OptionsPatch = {};
  #timer: ReturnType<typeof setTimeout> | undefined;
  #waiting: OptionsPatch = {};

  /**
   * @param onPatch called with each change that the server must hear of.
   * @param onCodec called when another codec was chosen.
   */
  constructor(
    private readonly onPatch: (patch: OptionsPatch) => void,
    private readonly onCodec: () => void,
  ) {
    element("settings", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
    this.#model.addEventListener("change", () => this.#change({ model: this.#model.value }));
    this.#codec.addEventListener("change", () => this.onCodec());
    for (const input of document.querySelectorAll<HTMLInputElement>('input[name="return"]')) {
      input.addEventListener("change", () => {
        this.#change({ return: chosen("return") as ReturnMode });
        this.#showNotes();
      });
    }
    this.#threshold.addEventListener("input", () => {
      this.#rest({ score_threshold: this.#threshold.valueAsNumber });
      this.#showThreshold(this.#threshold.valueAsNumber);
    });
    this.#budget.addEventListener("input", () => {
      this.#rest({ budget_ms: this.#budget.valueAsNumber });
      this.#showBudget(this.#budget.valueAsNumber);
    });
    for (const [name, input] of this.#overlays) {
      input.addEventListener("change", () => this.#change({ overlay: { [name]: input.checked } }));
    }
    this.#showNotes();
  }

  /** What the person chose; what was left alone is the server's to choose. */
  get wanted(): OptionsPatch {
    return this.#wanted;
  }

  /** The codec to prefer. */
  get codec(): CodecChoice {
    return this.#codec.value as CodecChoice;
  }

  /** The token to sign in with, or nothing. */
  get token(): string | undefined {
    return this.#token.value.trim() || undefined;
  }

  /** Which parts of the overlay are wanted. */
  get overlay(): Overlay {
    return Object.fromEntries(this.#overlays.map(([name, input]) => [name, input.checked])) as unknown as Overlay;
  }

  /** Presets from the address: `model`, `return`, `score_threshold`, `budget_ms`, `overlay`, `codec`, and `#token=`. */
  preset(query: URLSearchParams, fragment: URLSearchParams): void {
    const model = query.get("model");
    if (model) {
      this.#offerModels([model], false);
      this.#model.value = model;
      this.#want({ model });
    }
    const mode = query.get("return");
    if (mode && Object.hasOwn(RETURN_NOTES, mode)) {
      choose("return", mode);
      this.#want({ return: mode as ReturnMode });
    }
    const threshold = numberOf(query.get("score_threshold"));
    if (threshold !== null) {
      this.#threshold.valueAsNumber = threshold;
      this.#showThreshold(threshold);
      this.#want({ score_threshold: threshold });
    }
    const budget = numberOf(query.get("budget_ms"));
    if (budget !== null) {
      this.#budget.valueAsNumber = budget;
      this.#showBudget(budget);
      this.#want({ budget_ms: budget });
    }
    const overlay = query.get("overlay");
    if (overlay !== null) {
      const names = overlay.split(",");
      for (const [name, input] of this.#overlays) input.checked = names.includes(name);
      this.#want({ overlay: this.overlay });
    }
    const codec = query.get("codec");
    if (codec && [...this.#codec.options].some(({ value }) => value === codec)) this.#codec.value = codec;
    this.#token.value = fragment.get("token") ?? "";
    this.#showNotes();
  }

  /** Shows the models that the server has; the first is its default. */
  models(names: readonly string[]): void {
    this.#offerModels(names, true);
  }

  /** Shows what is in force. */
  show(options: Options): void {
    this.#offerModels([options.model], false);
    this.#model.value = options.model;
    choose("return", options.return);
    if (!("score_threshold" in this.#waiting)) {
      this.#threshold.valueAsNumber = options.score_threshold;
      this.#showThreshold(options.score_threshold);
    }
    if (!("budget_ms" in this.#waiting)) {
      this.#budget.max = String(Math.max(1_000, options.budget_ms));
      this.#budget.valueAsNumber = options.budget_ms;
      this.#showBudget(options.budget_ms);
    }
    for (const [name, input] of this.#overlays) input.checked = options.overlay[name];
    this.#showNotes();
  }

  /** Forgets a choice that the server refused. */
  forget(patch: OptionsPatch): void {
    const rest: OptionsPatch = { ...this.#wanted };
    for (const key of Object.keys(patch) as (keyof OptionsPatch)[]) delete rest[key];
    this.#wanted = rest;
  }

  #offerModels(names: readonly string[], all: boolean): void {
    const kept = this.#model.value;
    if (all) {
      const first = new Option(names[0] ? `Server's default (${names[0]})` : "Server's default", "");
      this.#model.replaceChildren(first);
    }
    for (const name of all && kept ? [...names, kept] : names) {
      if (![...this.#model.options].some(({ value }) => value === name)) this.#model.add(new Option(name, name));
    }
    this.#model.value = kept;
  }

  #want(patch: OptionsPatch): void {
    this.#wanted = mergeOptions(this.#wanted, patch);
  }

  #change(patch: OptionsPatch): void {
    if (patch.model === "") {
      const { model: _, ...rest } = this.#wanted;
      this.#wanted = rest;
      return;
    }
    this.#want(patch);
    this.onPatch(patch);
  }

  #rest(patch: OptionsPatch): void {
    this.#waiting = mergeOptions(this.#waiting, patch);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const rested = this.#waiting;
      this.#waiting = {};
      this.#change(rested);
    }, REST_MS);
  }

  #showThreshold(value: number): void {
    this.#thresholdValue.value = value.toFixed(2);
  }

  #showBudget(value: number): void {
    this.#budgetValue.value = `${value} ms`;
  }

  #showNotes(): void {
    this.#returnNote.textContent = RETURN_NOTES[chosen("return") as ReturnMode] ?? "";
  }
}

function numberOf(text: string | null): number | null {
  if (text === null || text.trim() === "") return null;
  const value = Number(text);
  return Number.isFinite(value) ? value : null;
}
