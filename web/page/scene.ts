/** The truth of the drawn sample scene: what is where in each of its frames. */
export interface SceneTruth {
  /** Frames a second. */
  fps: number;
  /** Width and height in pixels. */
  width: number;
  height: number;
  /** One entry a frame; the video loops. */
  frames: unknown[];
}

/** The truth that belongs to one result. */
export interface TruthOfFrame {
  /** `frame_id` of the result. */
  frame_id: number;
  /** Index of the frame in the scene. */
  scene_frame: number;
  /** The scene's own entry for that frame. */
  truth: unknown;
}

/** Addresses of the scene's video, best first. */
export const SCENE_VIDEOS = ["/scene/scene.mp4", "/scene/scene.webm"];

/** Fetches the scene's truth; `null` when this server has none. */
export async function fetchTruth(): Promise<SceneTruth | null> {
  try {
    const response = await fetch("/scene/scene.json");
    if (!response.ok) return null;
    const truth = (await response.json()) as Partial<SceneTruth>;
    return Array.isArray(truth.frames) && typeof truth.fps === "number" ? (truth as SceneTruth) : null;
  } catch {
    return null;
  }
}

/** Index of the frame that is shown at `seconds` of the looping video; a frame is stamped with its beginning. */
export function sceneFrameAt({ fps, frames }: SceneTruth, seconds: number): number {
  if (frames.length === 0) return 0;
  const index = Math.floor(seconds * fps + 0.25);
  return ((index % frames.length) + frames.length) % frames.length;
}
