"""The figures of `saccade eval` are those that pycocotools computes from the same detections."""

import contextlib
import io
import json
import os
import pathlib

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from server import ROOT, command

HELMET = pathlib.Path(os.environ.get("SACCADE_TEST_ASSETS", ROOT.parent / "shared")) / "datasets/helmet"
PHOTOS = 60


@pytest.fixture
def photos(tmp_path: pathlib.Path) -> pathlib.Path:
    """COCO JSON about some photos with heads and helmets."""
    if not HELMET.is_dir() and os.environ.get("CI") != "true":
        pytest.skip(f"there is no {HELMET}: set SACCADE_TEST_ASSETS")
    whole = json.loads((HELMET / "annotations.json").read_text())
    images = whole["images"][:PHOTOS]
    ids = {image["id"] for image in images}
    annotations = [annotation for annotation in whole["annotations"] if annotation["image_id"] in ids]
    # A crowd, and an outline that covers less than its box.
    annotations[0] |= dict(iscrowd=1)
    annotations[1] |= dict(area=annotations[1]["area"] * 0.7)
    path = tmp_path / "photos.json"
    path.write_text(json.dumps(whole | dict(images=images, annotations=annotations)))
    return path


def test_eval_agrees_with_pycocotools(photos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    figures, results = tmp_path / "figures.json", tmp_path / "results.json"
    words = ["--data", photos, "--images", HELMET / "images", "--json", figures, "--results", results]
    done = command("eval", "--model", "ppe-nano", *map(str, words), limit=120)
    assert done.returncode == 0, done.stderr
    figures = json.loads(figures.read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(photos))
        run = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    whole, sizes = figures["all"], figures["all"]["by_size"]
    ours = [whole["map50_95"], whole["map50"], whole["map75"], *(sizes[size]["map50_95"] for size in ("small", "medium", "large"))]
    assert ours == pytest.approx(list(run.stats[:6]), abs=0.001)
    assert whole["recall100"] == pytest.approx(run.stats[8], abs=0.001)
    # The photos have objects of both classes, which a useful model finds.
    assert whole["map50"] > 0.5
    names = {category["id"]: category["name"] for category in truth.dataset["categories"]}
    for index, category in enumerate(run.params.catIds):
        row = next(row for row in figures["classes"] if row["class"] == names[category])
        precision = run.eval["precision"][0, :, index, 0, -1]
        assert row["map50"] == pytest.approx(precision.mean(), abs=0.001)
