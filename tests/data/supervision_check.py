"""Feeds Saccade's results to the `supervision` package, as its users would, and checks that all formats agree.

    python supervision_check.py [FOLDER]

FOLDER holds saccade.jsonl, coco.jsonl, roboflow.jsonl and supervision.jsonl: the same frames in each format. By default
it is the folder of golden files beside this script. Needs `supervision` (PyPI).
"""

import json
import sys
from pathlib import Path

import numpy as np
import supervision as sv

PIXELS = 0.02
SCORES = 0.0002


def columns(value: dict) -> sv.Detections:
    """`sv.Detections` of the `supervision` format: each column as an array."""
    ids = value["tracker_id"]
    return sv.Detections(
        xyxy=np.array(value["xyxy"], dtype=np.float32).reshape(-1, 4),
        confidence=np.array(value["confidence"], dtype=np.float32),
        class_id=np.array(value["class_id"], dtype=int),
        tracker_id=None if ids is None else np.array(ids, dtype=int),
        data={key: np.array(column) for key, column in value["data"].items()},
    )


def coco(value: list[dict]) -> sv.Detections:
    """`sv.Detections` of the `coco` format."""
    boxes = np.array([it["bbox"] for it in value], dtype=np.float32).reshape(-1, 4)
    return sv.Detections(
        xyxy=sv.xywh_to_xyxy(boxes),
        confidence=np.array([it["score"] for it in value], dtype=np.float32),
        class_id=np.array([it["category_id"] for it in value], dtype=int),
    )


def check(found: sv.Detections, truth: list[dict], names: bool) -> None:
    """Compares with the `saccade` format of the same frame."""
    assert len(found) == len(truth), (len(found), len(truth))
    if not truth:
        return
    np.testing.assert_allclose(found.xyxy, [it["box"] for it in truth], rtol=0, atol=PIXELS)
    np.testing.assert_allclose(found.confidence, [it["score"] for it in truth], rtol=0, atol=SCORES)
    np.testing.assert_array_equal(found.class_id, [it["class_id"] for it in truth])
    if names:
        assert list(found.data["class_name"]) == [it["class"] for it in truth]


def tracked(found: sv.Detections, truth: list[dict], partly: bool) -> None:
    """Checks the object ids; supervision's own reader takes a frame's ids all or none (`partly` is false)."""
    ids = [it["object_id"] for it in truth]
    if all(it is None for it in ids) or (not partly and None in ids):
        assert found.tracker_id is None
    else:
        assert list(found.tracker_id) == [-1 if it is None else it for it in ids]


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0]) if arguments else Path(__file__).parent / "results"
    formats = ("saccade", "coco", "roboflow", "supervision")
    files = [(folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines() for name in formats]
    frames = 0
    for lines in zip(*files, strict=True):
        ours, in_coco, in_roboflow, in_supervision = (json.loads(line)["detections"] for line in lines)
        check(coco(in_coco), ours, names=False)
        read = sv.Detections.from_inference(in_roboflow)
        check(read, ours, names=True)
        tracked(read, ours, partly=False)
        built = columns(in_supervision)
        check(built, ours, names=True)
        tracked(built, ours, partly=True)
        scene = np.zeros((720, 1280, 3), dtype=np.uint8)
        drawn = sv.BoxAnnotator().annotate(scene.copy(), built)
        assert bool((drawn != scene).any()) == bool(ours), "the boxes do not lie in the frame"
        frames += 1
    assert frames, "no frames"
    print(f"supervision {sv.__version__}: {frames} frames agree in all formats")


if __name__ == "__main__":
    main(sys.argv[1:])
