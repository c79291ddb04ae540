#!/usr/bin/env python3
"""Makes the pictures of ppe-nano's model card: precision against recall, recall by size, and drawn failures.

DATA=… WORK=… python ppe-nano/card.py --model ../ppe-nano/2/model.onnx --part test --out ../ppe-nano/2
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import cv2
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from detector import config, dataset, evaluate  # noqa: E402
from detector.augment import letterbox  # noqa: E402

COLOURS = {"head": "#d9480f", "helmet": "#1971c2"}
SIZES = (0, 8, 12, 16, 24, 32, 48, 400)


def matches(sample: dataset.Sample, found: np.ndarray) -> list[tuple[float, int, int]]:
    """(score, class, index of the object or -1) for each detection, the surest first, at IoU 0.5."""
    taken, outcome = set(), []
    for x1, y1, x2, y2, score, label in found:
        best, most = -1, 0.5
        for n, (a1, b1, a2, b2, truth) in enumerate(sample.boxes):
            if truth != label or n in taken:
                continue
            common = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
            iou = common / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - common)
            if iou >= most:
                best, most = n, iou
        taken.add(best)
        outcome.append((score, int(label), best))
    return outcome


def plot(path: pathlib.Path, title: str, across: str, up: str, ticks: list[tuple[float, str]], lines: dict) -> None:
    """Lines {name: [(x, y), …]} with x and y in 0..1 as SVG."""
    left, top, width, height = 56, 40, 420, 260
    at = lambda x, y: f"{left + x * width:.1f},{top + (1 - y) * height:.1f}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {top + height + 52}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{left}" y="22" font-size="14" font-weight="bold">{title}</text>',
    ]
    for y in (0, 0.25, 0.5, 0.75, 1):
        x1, y1 = at(0, y).split(",")
        parts.append(f'<line x1="{x1}" y1="{y1}" x2="{left + width}" y2="{y1}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{float(y1) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x, label in ticks:
        parts.append(f'<text x="{left + x * width:.1f}" y="{top + height + 18}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{left + width / 2}" y="{top + height + 40}" text-anchor="middle">{across}</text>')
    parts.append(f'<text transform="translate(14 {top + height / 2}) rotate(-90)" text-anchor="middle">{up}</text>')
    for row, (name, points) in enumerate(lines.items()):
        path_points = " ".join(at(x, y) for x, y in points)
        parts.append(f'<polyline points="{path_points}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        parts.append(f'<text x="{left + width - 60}" y="{22 + 14 * row - 4}" fill="{COLOURS[name]}">{name}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def plots(
    samples: list[dataset.Sample], found: list[np.ndarray], classes, size: int, threshold: float, out: pathlib.Path
) -> None:
    curves, sizes = {}, {}
    outcomes = [matches(sample, rows) for sample, rows in zip(samples, found)]
    for index, name in enumerate(classes):
        total = sum(int((sample.boxes[:, 4] == index).sum()) for sample in samples)
        ranked = sorted(
            ((score, n >= 0) for rows in outcomes for score, label, n in rows if label == index), reverse=True
        )
        hits = np.cumsum([hit for _, hit in ranked])
        precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
        curves[name] = [(0.0, 1.0), *zip((hits / total).tolist(), precision.tolist())][:: max(1, len(hits) // 200)]
        seen, met = np.zeros(len(SIZES) - 1), np.zeros(len(SIZES) - 1)
        for sample, rows in zip(samples, outcomes):
            scale = size / max(sample.picture.shape[:2])
            hit = {n for score, label, n in rows if label == index and score >= threshold}
            for n, (x1, y1, x2, y2, label) in enumerate(sample.boxes):
                if label == index:
                    bin_ = int(np.searchsorted(SIZES, np.sqrt((x2 - x1) * (y2 - y1)) * scale, side="right")) - 1
                    seen[bin_] += 1
                    met[bin_] += n in hit
        sizes[name] = [((n + 0.5) / len(seen), met[n] / seen[n]) for n in range(len(seen)) if seen[n] >= 5]
    percent = [(x / 4, f"{x / 4:g}") for x in range(5)]
    plot(out / "precision-recall.svg", "Precision and recall, IoU 0.5", "recall", "precision", percent, curves)
    labels = [f"{a}–{b}" if b < 400 else f"{a}+" for a, b in zip(SIZES, SIZES[1:])]
    ticks = [((n + 0.5) / len(labels), label) for n, label in enumerate(labels)]
    plot(
        out / "recall-by-size.svg",
        f"Recall by size, score from {threshold:g}",
        "side of the object at the model's input, pixels",
        "recall",
        ticks,
        sizes,
    )


def damaged(picture: np.ndarray) -> dict[str, np.ndarray]:
    """What a camera may do to a picture that the network then fails on."""
    height, width = picture.shape[:2]
    small = cv2.resize(picture, None, fx=0.28, fy=0.28, interpolation=cv2.INTER_AREA)
    far = np.full_like(picture, 150)
    far[height // 3 : height // 3 + small.shape[0], width // 3 : width // 3 + small.shape[1]] = small
    noise = np.random.default_rng(0).normal(0, 22, picture.shape)
    return {
        "as drawn": picture,
        "far away": far,
        "night": np.clip(picture * 0.12 + noise * 0.5, 0, 255).astype(np.uint8),
        "camera on its side": np.ascontiguousarray(cv2.rotate(picture, cv2.ROTATE_90_CLOCKWISE)),
        "out of focus": cv2.GaussianBlur(picture, (0, 0), 7),
        "shaken": cv2.filter2D(picture, -1, np.full((1, 41), 1 / 41, np.float32)),
    }


def failures(run, size: int, threshold: float, sample: dataset.Sample, classes, out: pathlib.Path) -> None:
    tiles = []
    for name, picture in damaged(sample.picture).items():
        tile, scale, left, top = letterbox(picture, size)
        for x1, y1, x2, y2, score, label in evaluate.detect(run, picture, size, threshold):
            colour = COLOURS[classes[int(label)]].lstrip("#")
            bgr = tuple(int(colour[n : n + 2], 16) for n in (4, 2, 0))
            a, b = (int(x1 * scale + left), int(y1 * scale + top)), (int(x2 * scale + left), int(y2 * scale + top))
            cv2.rectangle(tile, a, b, bgr, 2)
            cv2.putText(
                tile, f"{score:.2f}", (a[0], max(10, a[1] - 3)), cv2.FONT_HERSHEY_SIMPLEX, 0.35, bgr, 1, cv2.LINE_AA
            )
        cv2.rectangle(tile, (0, size - 18), (size, size), (40, 40, 40), -1)
        cv2.putText(tile, name, (6, size - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(tile)
    rows = [np.hstack(tiles[n : n + 3]) for n in range(0, len(tiles), 3)]
    cv2.imwrite(str(out / "failures.jpg"), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 82])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--part", default="validation", choices=["validation", "test"])
    parser.add_argument("--threshold", type=float, default=0.5)
    arguments = parser.parse_args()
    recipe = config.load(HERE / "recipe.toml")
    photos = dataset.load(recipe.data.photos, recipe.classes)
    samples = [photos[n] for n in dataset.split(photos, recipe.data)[arguments.part]]
    run, size = evaluate.onnx_runner(arguments.model)
    plots(samples, evaluate.detect_all(run, samples, size), recipe.classes, size, arguments.threshold, arguments.out)
    scenes = dataset.load_scenes(recipe.data.scenes_test, recipe.classes)
    scene = max(scenes, key=lambda sample: (sample.picture.shape == (480, 640, 3)) * len(sample.boxes))
    failures(run, size, arguments.threshold, scene, recipe.classes, arguments.out)


if __name__ == "__main__":
    main()
