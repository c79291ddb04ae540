"""Pictures and their boxes, read from COCO JSON, and the split of the photos."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random

import cv2
import numpy as np

from .config import Data, Source

#: Class index of boxes that are neither object nor background.
IGNORE = -1


@dataclasses.dataclass(frozen=True)
class Sample:
    name: str
    #: uint8 [height, width, 3], BGR.
    picture: np.ndarray
    #: float32 [n, 5]: x1, y1, x2, y2 in pixels, class index.
    boxes: np.ndarray


def load(source: Source, classes: tuple[str, ...]) -> list[Sample]:
    """All pictures of a COCO JSON. Categories that are not among the classes, and crowds, become ignored areas."""
    document = json.loads(pathlib.Path(source.annotations).read_text())
    index = {c["id"]: classes.index(c["name"]) if c["name"] in classes else IGNORE for c in document["categories"]}
    boxes = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        x, y, width, height = annotation["bbox"]
        label = IGNORE if annotation.get("iscrowd") else index[annotation["category_id"]]
        boxes[annotation["image_id"]].append([x, y, x + width, y + height, label])
    samples = []
    for image in document["images"]:
        path = pathlib.Path(source.images) / image["file_name"]
        picture = cv2.imread(str(path))
        if picture is None:
            raise ValueError(f"{path} is missing or no picture, but {source.annotations} lists it")
        samples.append(Sample(image["file_name"], picture, np.array(boxes[image["id"]], np.float32).reshape(-1, 5)))
    return samples


def load_scenes(folder: str, classes: tuple[str, ...]) -> list[Sample]:
    """The drawn pictures in a folder with annotations.json and images/; none if the folder is ""."""
    return load(Source(f"{folder}/annotations.json", f"{folder}/images"), classes) if folder else []


def load_negatives(data: Data, held_out: bool) -> list[Sample]:
    """Pictures without objects: every other one of the sorted list trains, the rest (`held_out`) is measured on."""
    if not data.negatives:
        return []
    names = sorted(pathlib.Path(data.negatives_list).read_text().split())
    samples = []
    for name in names[1 if held_out else 0 :: 2]:
        picture = cv2.imread(str(pathlib.Path(data.negatives) / name))
        if picture is None:
            raise ValueError(f"{data.negatives}/{name} is missing or no picture, but {data.negatives_list} lists it")
        samples.append(Sample(name, picture, np.zeros((0, 5), np.float32)))
    return samples


def clusters(samples: list[Sample], similarity: float) -> list[int]:
    """A cluster number for each sample: photos are joined whose 16 × 16 grey thumbnails, mirrored or not, correlate."""
    shrink = lambda picture: cv2.resize(
        cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), (16, 16), interpolation=cv2.INTER_AREA
    )
    thumbnails = np.stack([shrink(sample.picture) for sample in samples]).astype(np.float32)

    def normal(pictures: np.ndarray) -> np.ndarray:
        flat = pictures.reshape(len(pictures), -1)
        flat = flat - flat.mean(1, keepdims=True)
        return flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)

    upright, mirrored = normal(thumbnails), normal(thumbnails[:, :, ::-1])
    parent = list(range(len(samples)))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    # A thousand rows at a time: all correlations of a large data set would not fit into memory.
    for first in range(0, len(samples), 1000):
        rows = upright[first : first + 1000]
        correlation = np.maximum(rows @ upright.T, rows @ mirrored.T)
        for a, b in zip(*np.where(correlation > similarity)):
            if first + a < b:
                parent[root(first + a)] = root(b)
    return [root(n) for n in range(len(samples))]


def split(samples: list[Sample], data: Data) -> dict[str, list[int]]:
    """Indices for `train`, `validation` and `test`, always the same for the same photos.

    A cluster is never divided; one that would fill more than half of a part trains, because the part's figures would
    be about a single scene.
    """
    groups: dict[int, list[int]] = {}
    for n, cluster in enumerate(clusters(samples, data.similarity)):
        groups.setdefault(cluster, []).append(n)
    order = sorted(groups)
    random.Random(0).shuffle(order)
    parts = {"validation": [], "test": []}
    wanted = {"validation": data.validation * len(samples), "test": data.test * len(samples)}
    train = []
    for cluster in order:
        members = groups[cluster]
        part = next((name for name in parts if len(parts[name]) < wanted[name]), None)
        if part is None or len(members) > max(1, wanted[part] / 2):
            train += members
        else:
            parts[part] += members
    return {"train": sorted(train), **{name: sorted(part) for name, part in parts.items()}}


def write_parts(data: Data, classes: tuple[str, ...], out: pathlib.Path) -> None:
    """Writes COCO JSON of the validation part, the test part and the held-out negatives, as other tools take it."""
    out.mkdir(parents=True, exist_ok=True)
    document = json.loads(pathlib.Path(data.photos.annotations).read_text())
    samples = load(data.photos, classes)
    for part, members in split(samples, data).items():
        names = {samples[n].name for n in members}
        images = [image for image in document["images"] if image["file_name"] in names]
        ids = {image["id"] for image in images}
        annotations = [annotation for annotation in document["annotations"] if annotation["image_id"] in ids]
        (out / f"{part}.json").write_text(json.dumps(document | dict(images=images, annotations=annotations)))
    if data.negatives:
        images = [dict(id=n, file_name=sample.name) for n, sample in enumerate(load_negatives(data, held_out=True), 1)]
        negatives = dict(images=images, annotations=[], categories=document["categories"])
        (out / "negatives.json").write_text(json.dumps(negatives))
