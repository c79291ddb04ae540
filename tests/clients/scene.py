"""The drawn scene that the web page plays, with its true boxes, as a track of aiortc."""

import asyncio
import fractions
import json
from pathlib import Path

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

FOLDER = Path(__file__).resolve().parents[2] / "web" / "public" / "scene"
# Frames kept in memory; the track starts again after them.
FRAMES = 120
CLOCK = 90_000


class Scene:
    """Pictures and truth of the first frames."""

    def __init__(self) -> None:
        about = json.loads((FOLDER / "scene.json").read_text(encoding="utf-8"))
        self.width, self.height, self.classes = about["width"], about["height"], about["classes"]
        with av.open(str(FOLDER / "scene.mp4")) as file:
            frames = [frame.to_ndarray(format="yuv420p") for _, frame in zip(range(FRAMES), file.decode(video=0))]
        assert len(frames) == FRAMES
        self.frames = frames
        # Boxes of each frame: corners in pixels and class.
        self.truth = [[(np.array(it[:4]), int(it[4])) for it in frame] for frame in about["truth"][:FRAMES]]

    def luma(self, number: int) -> np.ndarray:
        return self.frames[number % FRAMES][: self.height]

    def heads(self, number: int) -> list[tuple[np.ndarray, int]]:
        return self.truth[number % FRAMES]


class SceneTrack(MediaStreamTrack):
    """Plays the scene at `fps`. Frame N has the media time N / `fps`."""

    kind = "video"

    def __init__(self, scene: Scene, fps: int = 15) -> None:
        super().__init__()
        self.scene, self.step, self.fps = scene, CLOCK // fps, fps
        self.number = -1
        self.due: float | None = None

    async def recv(self) -> av.VideoFrame:
        loop = asyncio.get_running_loop()
        self.due = (self.due or loop.time()) + 1 / self.fps
        await asyncio.sleep(self.due - loop.time())
        if self.readyState != "live":
            raise MediaStreamError
        self.number += 1
        frame = av.VideoFrame.from_ndarray(self.scene.frames[self.number % FRAMES], format="yuv420p")
        frame.pts, frame.time_base = self.number * self.step, fractions.Fraction(1, CLOCK)
        return frame


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes given by their corners."""
    inner = np.maximum(0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).prod()
    return inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner)


class Score:
    """How well boxes agree with the truth."""

    def __init__(self) -> None:
        self.true = self.found = self.false = 0

    def add(self, found: list[tuple[np.ndarray, int]], truth: list[tuple[np.ndarray, int]]) -> None:
        def among(one, many) -> bool:
            return any(one[1] == other[1] and iou(one[0], other[0]) > 0.5 for other in many)

        self.true += len(truth)
        self.found += sum(among(it, found) for it in truth)
        self.false += sum(not among(it, truth) for it in found)

    def check(self) -> None:
        assert self.true > 40, "the scene has people in it"
        assert self.found >= 0.95 * self.true, vars(self)
        assert self.false <= 0.05 * self.true, vars(self)
