"""Small data that every test can make: photos of coloured discs, in two classes."""

import json
import pathlib

import cv2
import numpy as np
import pytest

RECIPE = """
name = "discs"
classes = ["red", "green"]
[data]
photos = {{ annotations = "{folder}/photos.json", images = "{folder}" }}
validation = 0.2
test = 0.2
[network]
widths = [4, 8, 8, 16, 16]
depths = [1, 1, 1, 1]
pyramid = 8
heads = 8
size = 128
[schedule]
epochs = 4
batch = 2
every = 4
warmup_steps = 2
[mix]
objects = 0.3
"""


def draw(folder: pathlib.Path, count: int) -> None:
    rng = np.random.default_rng(1)
    images, annotations = [], []
    for number in range(count):
        # Backgrounds of smooth noise are unlike each other: no two photos are near-duplicates.
        coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        picture = cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)
        for _ in range(2):
            x, y, radius, label = rng.integers(30, 130), rng.integers(30, 90), rng.integers(10, 25), rng.integers(2)
            cv2.circle(picture, (int(x), int(y)), int(radius), ((0, 0, 255), (0, 255, 0))[label], -1)
            box = [int(x - radius), int(y - radius), int(2 * radius), int(2 * radius)]
            annotations.append(
                dict(id=len(annotations) + 1, image_id=number, category_id=int(label), bbox=box, area=box[2] * box[3])
            )
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        images.append(dict(id=number, file_name=f"{number}.png", width=160, height=120))
    categories = [dict(id=0, name="red"), dict(id=1, name="green")]
    (folder / "photos.json").write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


@pytest.fixture
def recipe_file(tmp_path: pathlib.Path) -> pathlib.Path:
    """A recipe for a tiny network and ten small photos."""
    draw(tmp_path, 10)
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(folder=tmp_path))
    return path
