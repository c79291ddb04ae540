#!/usr/bin/env python3
"""Makes the golden figures that `src/accuracy` is compared with (tests/it/eval.rs): random truth and detections, crowds
and equal scores among them, and what pycocotools says of them.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python coco.py --out ../golden/coco.json
"""
import argparse
import contextlib
import io
import json
import pathlib

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CLASSES, PICTURES, SIDE = 3, 30, 640
FIGURES = {"map50": (True, 0), "map75": (True, 5), "map50_95": (True, slice(None)), "recall100": (False, slice(None))}


def box(rng):
    width, height = np.exp(rng.uniform(np.log(6), np.log(260), 2))
    return [rng.uniform(0, SIDE - width), rng.uniform(0, SIDE - height), width, height]


def jitter(rng, bbox):
    x, y, width, height = bbox
    dx, dy, grow = rng.normal(0, 0.12, 3)
    return [x + dx * width, y + dy * height, width * np.exp(grow), height * np.exp(grow)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=pathlib.Path, help="the golden file")
    arguments = parser.parse_args()
    rng = np.random.default_rng(7)
    truth, found = [], []
    for picture in range(1, PICTURES + 1):
        for _ in range(rng.integers(0, 9)):
            bbox, category, crowd = box(rng), int(rng.integers(1, CLASSES + 1)), int(rng.random() < 0.08)
            # Outlines cover less than their boxes.
            area = bbox[2] * bbox[3] * rng.uniform(0.6, 1.0)
            truth.append(dict(image_id=picture, category_id=category, bbox=bbox, area=area, iscrowd=crowd))
            for _ in range(rng.integers(0, 3)):
                label = category if rng.random() < 0.9 else int(rng.integers(1, CLASSES + 1))
                found.append(dict(image_id=picture, category_id=label, bbox=jitter(rng, bbox)))
        for _ in range(rng.integers(0, 4)):
            found.append(dict(image_id=picture, category_id=int(rng.integers(1, CLASSES + 1)), bbox=box(rng)))
    # One picture has more detections of a class than count, with equal scores at the cut.
    crowded = box(rng)
    truth.append(dict(image_id=3, category_id=1, bbox=crowded, area=crowded[2] * crowded[3], iscrowd=0))
    found += [dict(image_id=3, category_id=1, bbox=jitter(rng, crowded)) for _ in range(130)]
    for entry in truth + found:
        entry["bbox"] = [round(float(side), 2) for side in entry["bbox"]]
    for number, entry in enumerate(truth, 1):
        entry |= dict(id=number, area=round(float(entry["area"]), 2))
    for entry in found:
        # One digit: many have the same score.
        entry["score"] = round(float(rng.uniform(0.05, 1)), 1)
    data = dict(
        images=[dict(id=n, file_name=f"{n}.jpg", width=SIDE, height=SIDE) for n in range(1, PICTURES + 1)],
        annotations=truth, categories=[dict(id=n, name=f"class {n}") for n in range(1, CLASSES + 1)])
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(data | dict(info={})))
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(json.loads(json.dumps(found))), "bbox")
        run.evaluate()
        run.accumulate()

    def figures(classes, area):
        row = {}
        for name, (is_precision, step) in FIGURES.items():
            part = run.eval["precision"][step][..., classes, area, -1] if is_precision else run.eval["recall"][step, classes, area, -1]
            row[name] = float(part[part > -1].mean()) if (part > -1).any() else None
        return row

    rows = {"all": slice(None)} | {f"class {n}": n - 1 for n in range(1, CLASSES + 1)}
    expected = {name: {size: figures(k, a) for a, size in enumerate(("all", "small", "medium", "large"))} for name, k in rows.items()}
    lines = lambda entries: "[\n" + ",\n".join("  " + json.dumps(entry) for entry in entries) + "\n]"
    arguments.out.write_text(
        f'{{"images": {json.dumps(data["images"])},\n"categories": {json.dumps(data["categories"])},\n'
        f'"annotations": {lines(truth)},\n"found": {lines(found)},\n"expected": {json.dumps(expected)}}}\n')
    print(len(truth), "objects", len(found), "detections", expected["all"])


if __name__ == "__main__":
    main()
