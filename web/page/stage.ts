import { choose, element } from "./dom.js";

/** What the stage has to show. */
export type Shows = "nothing" | "source" | "returned" | "preview";

/** The two pictures: the source and what came of it, over each other or side by side. */
export class Stage {
  readonly sourceVideo = element("source-video", HTMLVideoElement);
  readonly returnedVideo = element("returned-video", HTMLVideoElement);
  readonly preview = element("preview", HTMLCanvasElement);
  readonly #stage = element("stage", HTMLDivElement);
  readonly #caption = element("result-caption", HTMLElement);
  readonly #wipe = element("wipe", HTMLInputElement);
  readonly #wipeField = element("wipe-field", HTMLLabelElement);

  constructor() {
    for (const input of document.querySelectorAll<HTMLInputElement>('input[name="view"]')) {
      input.addEventListener("change", () => this.view(input.value));
    }
    this.#wipe.addEventListener("input", () => this.#applyWipe());
    for (const video of [this.sourceVideo, this.returnedVideo]) {
      video.addEventListener("resize", () => this.#fit(video.videoWidth, video.videoHeight));
    }
  }

  /** `over` or `beside`. */
  view(view: string): void {
    if (view !== "over" && view !== "beside") return;
    choose("view", view);
    this.#stage.dataset["view"] = view;
    this.#wipeField.hidden = view !== "over";
  }

  /** Shows the source's picture, or none. */
  source(stream: MediaStream | null): void {
    this.sourceVideo.srcObject = stream;
    if (stream) this.sourceVideo.play().catch(() => undefined);
  }

  /** Chooses what is shown beside or over the source. */
  show(shows: Shows): void {
    this.#stage.dataset["shows"] = shows;
    this.#caption.textContent = shows === "preview" ? "Source with results" : "Annotated";
  }

  #applyWipe(): void {
    const share = this.#wipe.valueAsNumber;
    this.#stage.style.setProperty("--wipe", `${share}%`);
    this.#stage.toggleAttribute("data-wiped", share > 0);
  }

  #fit(width: number, height: number): void {
    if (width > 0 && height > 0) this.#stage.style.setProperty("--aspect", `${width} / ${height}`);
  }
}
