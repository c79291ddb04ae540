import { choose, element } from "./dom.js";
import { pictureIn, type Rect, type Size } from "./shapes.js";

/** What the stage has to show. */
export type Shows = "nothing" | "still" | "source" | "returned" | "preview";

/** One of the two pictures. */
export type PaneName = "source" | "result";

/** The two pictures: the source and what came of it, over each other or side by side. */
export class Stage {
  readonly sourceVideo = element("source-video", HTMLVideoElement);
  readonly returnedVideo = element("returned-video", HTMLVideoElement);
  readonly preview = element("preview", HTMLCanvasElement);
  /** Called when a picture may be somewhere else or of another size. */
  onLayout: () => void = () => undefined;
  readonly #stage = element("stage", HTMLDivElement);
  readonly #caption = element("result-caption", HTMLElement);
  readonly #wipe = element("wipe", HTMLInputElement);
  readonly #wipeField = element("wipe-field", HTMLLabelElement);
  #still: string | null = null;

  constructor() {
    for (const input of document.querySelectorAll<HTMLInputElement>('input[name="view"]')) {
      input.addEventListener("change", () => this.view(input.value));
    }
    this.#wipe.addEventListener("input", () => this.#applyWipe());
    for (const video of [this.sourceVideo, this.returnedVideo]) {
      video.addEventListener("resize", () => this.#fit(video.videoWidth, video.videoHeight));
    }
    const observer = new ResizeObserver(() => this.onLayout());
    for (const media of [this.sourceVideo, this.returnedVideo, this.preview]) observer.observe(media);
  }

  /** `over` or `beside`. */
  view(view: string): void {
    if (view !== "over" && view !== "beside") return;
    choose("view", view);
    this.#stage.dataset["view"] = view;
    this.#wipeField.hidden = view !== "over";
    this.onLayout();
  }

  /** Shows the source's picture, or none. */
  source(stream: MediaStream | null): void {
    this.still(null);
    this.sourceVideo.srcObject = stream;
    if (stream) this.sourceVideo.play().catch(() => undefined);
  }

  /** Shows the first frame of the video at this address in the source's place while nothing else is shown there. */
  still(address: string | null): void {
    const video = this.sourceVideo;
    if (address === this.#still || (address && video.srcObject)) return;
    this.#still = address;
    video.autoplay = address === null;
    if (address) {
      video.src = address;
      this.show("still");
    } else {
      video.removeAttribute("src");
      video.load();
      this.show("nothing");
    }
  }

  /** Chooses what is shown beside or over the source. */
  show(shows: Shows): void {
    this.#stage.dataset["shows"] = shows;
    this.#caption.textContent = shows === "preview" ? "Source with results" : "Annotated";
    this.onLayout();
  }

  /** Whether a shape is being drawn, for which the stage makes room. */
  set drawing(drawing: boolean) {
    this.#stage.toggleAttribute("data-drawing", drawing);
  }

  /** Where a pane has its picture, in CSS pixels from the pane's corner. */
  picture(pane: PaneName): Rect {
    const media = this.#media(pane);
    return pictureIn({ width: media.clientWidth, height: media.clientHeight }, this.#size(pane));
  }

  /** The picture at or nearest to a point of the window, in CSS pixels from the window's corner. */
  pictureAt(x: number, y: number): Rect {
    const box = (pane: PaneName): DOMRect => this.#media(pane).getBoundingClientRect();
    const result = box("result");
    const within = x >= result.left && x <= result.right && y >= result.top && y <= result.bottom;
    const pane = this.#hasResult && within ? "result" : "source";
    const { left, top } = box(pane);
    const picture = this.picture(pane);
    return { ...picture, left: left + picture.left, top: top + picture.top };
  }

  get #hasResult(): boolean {
    const { shows } = this.#stage.dataset;
    return shows === "returned" || shows === "preview";
  }

  #media(pane: PaneName): HTMLElement {
    if (pane === "source") return this.sourceVideo;
    return this.#stage.dataset["shows"] === "preview" ? this.preview : this.returnedVideo;
  }

  #size(pane: PaneName): Size {
    // The preview shows the source's frames.
    const returned = pane === "result" && this.#stage.dataset["shows"] !== "preview" && this.returnedVideo.videoWidth > 0;
    const { videoWidth: width, videoHeight: height } = returned ? this.returnedVideo : this.sourceVideo;
    return { width, height };
  }

  #applyWipe(): void {
    const share = this.#wipe.valueAsNumber;
    this.#stage.style.setProperty("--wipe", `${share}%`);
    this.#stage.toggleAttribute("data-wiped", share > 0);
  }

  #fit(width: number, height: number): void {
    if (width > 0 && height > 0) this.#stage.style.setProperty("--aspect", `${width} / ${height}`);
    this.onLayout();
  }
}
