"""Turns drawn scenes (`cargo run --example render_scene`) into COCO JSON and pictures."""

from __future__ import annotations

import json
import pathlib
import subprocess
import tempfile

import cv2

#: Width and height of the drawn pictures, in turn.
SIZES = ((640, 480), (640, 360), (960, 540), (480, 480), (480, 640))


def make(renderer: pathlib.Path, folder: pathlib.Path, seeds: range) -> None:
    """One picture a second of the twelve seconds that each seed gives, as JPEG."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations, categories = [], [], []
    for position, seed in enumerate(seeds):
        width, height = SIZES[position % len(SIZES)]
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run(
                [
                    renderer,
                    "--out",
                    scratch,
                    "--width",
                    str(width),
                    "--height",
                    str(height),
                    "--fps",
                    "1",
                    "--seed",
                    str(seed),
                ],
                check=True,
            )
            truth = json.loads((pathlib.Path(scratch) / "scene.json").read_text())
            video = cv2.VideoCapture(str(pathlib.Path(scratch) / "scene.mp4"))
            categories = [dict(id=n, name=name) for n, name in enumerate(truth["classes"])]
            for number, heads in enumerate(truth["truth"]):
                read, picture = video.read()
                if not read:
                    raise ValueError(f"the scene of seed {seed} has {number} pictures, not {truth['frames']}")
                name, image = f"{seed:05}-{number:02}.jpg", len(images) + 1
                cv2.imwrite(str(folder / "images" / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
                images.append(dict(id=image, file_name=name, width=width, height=height))
                for x1, y1, x2, y2, label, _ in heads:
                    annotations.append(
                        dict(
                            id=len(annotations) + 1,
                            image_id=image,
                            category_id=label,
                            bbox=[x1, y1, x2 - x1, y2 - y1],
                            area=(x2 - x1) * (y2 - y1),
                            iscrowd=0,
                        )
                    )
    document = dict(images=images, annotations=annotations, categories=categories)
    (folder / "annotations.json").write_text(json.dumps(document))
    print(f"{folder}: {len(images)} pictures, {len(annotations)} boxes")
