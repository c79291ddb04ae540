"""Runs a network over samples, and what the answers are worth (pycocotools)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import numpy as np

from .augment import letterbox
from .dataset import Sample

#: float32 [1, 3, size, size] → [1, 4 + classes, cells].
Runner = Callable[[np.ndarray], np.ndarray]


def onnx_runner(path, threads: int = 2) -> tuple[Runner, int]:
    """The runner and the input size of an exported model, on ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0], session.get_inputs()[0].shape[2]


def suppress(boxes: np.ndarray, scores: np.ndarray, iou: float, most: int = 300) -> list[int]:
    """Greedy non-maximum suppression: indices of what stays, best first."""
    order, kept = scores.argsort()[::-1][:most], []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        across = (np.minimum(boxes[best, 2], boxes[rest, 2]) - np.maximum(boxes[best, 0], boxes[rest, 0])).clip(0)
        down = (np.minimum(boxes[best, 3], boxes[rest, 3]) - np.maximum(boxes[best, 1], boxes[rest, 1])).clip(0)
        common = across * down
        order = rest[common / (area[best] + area[rest] - common + 1e-9) <= iou]
    return kept


def detect(run: Runner, picture: np.ndarray, size: int, score: float = 0.005, iou: float = 0.6) -> np.ndarray:
    """float [n, 6], best first: x1, y1, x2, y2 in pixels of the BGR picture, score, class. At most 100."""
    canvas, scale, left, top = letterbox(picture, size)
    tensor = np.ascontiguousarray(canvas[:, :, ::-1].transpose(2, 0, 1)[None]).astype(np.float32) / 255
    rows = run(tensor)[0].T
    boxes = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], 1)
    height, width = picture.shape[:2]
    boxes = ((boxes - [left, top, left, top]) / scale).clip(0, [width, height, width, height])
    best, label = rows[:, 4:].max(1), rows[:, 4:].argmax(1)
    found = []
    for index in range(rows.shape[1] - 4):
        sure = (best > score) & (label == index)
        kept = suppress(boxes[sure], best[sure], iou)
        found.append(np.column_stack([boxes[sure][kept], best[sure][kept], np.full(len(kept), index)]))
    found = np.concatenate(found)
    return found[found[:, 4].argsort()[::-1]][:100]


def detect_all(run: Runner, samples: list[Sample], size: int) -> list[np.ndarray]:
    return [detect(run, sample.picture, size) for sample in samples]


def average_precision(
    samples: list[Sample],
    found: list[np.ndarray],
    classes: tuple[str, ...],
    size: int | None = None,
    edge: float = 24.0,
) -> dict[str, float]:
    """`ap50`, `ap` (0.50:0.95) and `ap50_CLASS` over all sizes. With `size`, areas are counted in pixels of a
    letterboxed input of that size, and `ap50_CLASS_large`/`_small` are those of boxes of at least / under edge²."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    annotations, answers = [], []
    for number, (sample, rows) in enumerate(zip(samples, found), 1):
        scale = size / max(sample.picture.shape[:2]) if size else 1.0
        entry = lambda row, label: dict(
            image_id=number,
            category_id=int(label) + 1,
            bbox=[float(row[0]), float(row[1]), float(row[2] - row[0]), float(row[3] - row[1])],
            area=float((row[2] - row[0]) * (row[3] - row[1]) * scale**2),
        )
        for row in sample.boxes:
            # What is ignored is so for every class: what lies in it is neither right nor wrong.
            labels = [row[4]] if row[4] >= 0 else range(len(classes))
            annotations += [entry(row, label) | dict(iscrowd=int(row[4] < 0)) for label in labels]
        answers += [entry(row, row[5]) | dict(score=float(row[4])) for row in rows]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    for number, answer in enumerate(answers, 1):
        answer |= dict(id=number, iscrowd=0)
    truth.dataset = dict(
        info={},
        images=[dict(id=n) for n in range(1, len(samples) + 1)],
        annotations=annotations,
        categories=[dict(id=n, name=name) for n, name in enumerate(classes, 1)],
    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = COCO()
        results.dataset = truth.dataset | dict(annotations=answers)
        results.createIndex()
        run = COCOeval(truth, results, "bbox")
        if size:
            run.params.areaRng = [[0, 1e10], [edge**2, 1e10], [0, edge**2]]
            run.params.areaRngLbl = ["all", "large", "small"]
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"]
    mean = lambda part: float(part[part > -1].mean()) if (part > -1).any() else float("nan")
    figures = dict(ap50=mean(precision[0, :, :, 0, -1]), ap=mean(precision[:, :, :, 0, -1]))
    for index, name in enumerate(classes):
        figures[f"ap50_{name}"] = mean(precision[0, :, index, 0, -1])
        for area, label in enumerate(("large", "small"), 1) if size else ():
            figures[f"ap50_{name}_{label}"] = mean(precision[0, :, index, area, -1])
    return figures
