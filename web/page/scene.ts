/** `scene.json`: where every head is in each frame of the drawn sample scene. */
export interface SceneTruth {
  /** Frames a second. */
  fps: number;
  /** Number of frames; the video loops. */
  frames: number;
  /** Width and height in pixels. */
  width: number;
  height: number;
  /** Class names, by class id. */
  classes: string[];
  /** For each frame, boxes as `[x1, y1, x2, y2, class id, person]`, in pixels. */
  truth: number[][][];
}

/** One true box. */
export interface TrueBox {
  box: [number, number, number, number];
  class_id: number;
  class: string;
  /** Number of the person, the same in every frame. */
  person: number;
}

/** The truth that belongs to one result. */
export interface TruthOfFrame {
  /** `frame_id` and `rtp_timestamp_in` of the result. */
  frame_id: number;
  rtp_timestamp_in: number;
  /** Index of the frame in the scene. */
  scene_frame: number;
  boxes: TrueBox[];
}

/** Address of the scene's video. */
export const SCENE_VIDEO = "/scene/scene.mp4";

/** The model that finds the scene's heads, where the server has it. */
export const SCENE_MODEL = "scene-blobs";

/** Fetches the scene's truth; `null` when it cannot be had. */
export async function fetchTruth(): Promise<SceneTruth | null> {
  try {
    const response = await fetch("/scene/scene.json");
    return response.ok ? ((await response.json()) as SceneTruth) : null;
  } catch {
    return null;
  }
}

/** Index of the frame that is shown at `seconds` of the looping video; a frame is stamped with its beginning. */
export function sceneFrameAt({ fps, frames }: Pick<SceneTruth, "fps" | "frames">, seconds: number): number {
  return Math.round(seconds * fps) % Math.max(1, frames);
}

/** The true boxes of one frame. */
export function trueBoxes({ truth, classes }: SceneTruth, frame: number): TrueBox[] {
  return (truth[frame] ?? []).map(([x1 = 0, y1 = 0, x2 = 0, y2 = 0, class_id = 0, person = 0]) => ({
    box: [x1, y1, x2, y2],
    class_id,
    class: classes[class_id] ?? String(class_id),
    person,
  }));
}
