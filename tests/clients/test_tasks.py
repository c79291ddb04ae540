"""Results of models that find no boxes, or more than boxes, as the tools read them that they are made for."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from pycocotools import mask as coco_mask
from server import BINARY

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path(os.environ.get("SACCADE_TEST_ASSETS", ROOT.parent / "shared"))
PHOTO = ASSETS / "datasets/coco_permissive/images/000000000459.jpg"
GRAPHS = {
    "deeplab": "deeplab_v3_mnv2_257.onnx",
    "mnist": "mnist.onnx",
    "yunet-points": "yunet_n_320_320.onnx",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared models with the manifests of the Rust tests."""
    root = tmp_path_factory.mktemp("models")
    for name, graph in GRAPHS.items():
        if not (ASSETS / "models" / graph).exists():
            assert os.environ.get("CI") != "true", f"{graph} is not there"
            pytest.skip(f"{graph} is not there")
        folder = root / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes((ASSETS / "models" / graph).read_bytes())
        manifest = ROOT / "tests/data/models" / name / "1/manifest.toml"
        (folder / "manifest.toml").write_text(manifest.read_text())
    return root


def detect(models: Path, model: str, *more: str) -> dict:
    """The one result of `saccade detect` for the photo."""
    command = [str(BINARY), "detect", "--quiet", "--model", model, "--models-dir", str(models), *more, str(PHOTO)]
    env = {**os.environ, "SACCADE_HW__INFER": "off", "SACCADE_MODELS__CALIBRATION": "off"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, cwd=models, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def of_class(found: list[dict], name: str) -> dict:
    return next(it for it in found if it["class"] == name)


def test_run_lengths_are_read_by_pycocotools_and_lie_within_the_outlines(models: Path) -> None:
    rle = detect(models, "deeplab", "--masks", "rle")
    outlines = detect(models, "deeplab")
    assert rle["mask_box"] == [0, 0, rle["width"], rle["height"]]
    for segment in rle["segments"]:
        decoded = coco_mask.decode(segment["rle"])
        assert decoded.shape == (257, 257)
        assert decoded.mean() == pytest.approx(segment["area_ratio"], abs=1e-4)
        # The box of the mask is that of the segment, in the frame's pixels.
        x, y, width, height = coco_mask.toBbox(segment["rle"])
        scale = np.array([rle["width"], rle["height"]] * 2) / 257
        np.testing.assert_allclose(np.array([x, y, x + width, y + height]) * scale, segment["box"], atol=0.02)
        # The outlines, filled by the even-odd rule, are the mask but for its edge.
        filled = np.zeros((257, 257), dtype=np.uint8)
        for ring in of_class(outlines["segments"], segment["class"])["polygons"]:
            points = np.array(ring) / scale[:2]
            one = coco_mask.decode(coco_mask.frPyObjects([points.ravel().tolist()], 257, 257))[:, :, 0]
            filled ^= one
        common = np.logical_and(filled, decoded).sum() / np.logical_or(filled, decoded).sum()
        assert common > 0.9 or decoded.sum() < 200, (segment["class"], common)


def test_segments_are_results_of_the_stuff_task_in_coco_and_masks_in_supervision(models: Path) -> None:
    rle = detect(models, "deeplab", "--masks", "rle")
    coco = detect(models, "deeplab", "--format", "coco")["detections"]
    columns = detect(models, "deeplab", "--format", "supervision")["detections"]
    size = (rle["width"], rle["height"])
    masks = np.stack([sv.rle_to_mask(counts, size) for counts in columns["mask"]])
    detections = sv.Detections(
        xyxy=np.array(columns["xyxy"]), class_id=np.array(columns["class_id"]), mask=masks,
        data={key: np.array(column) for key, column in columns["data"].items()},
    )
    assert len(detections) == len(coco) == len(rle["segments"]) > 0
    picture = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    assert sv.MaskAnnotator().annotate(picture, detections).any()
    for one, mask, segment in zip(coco, masks, rle["segments"], strict=True):
        assert one["category_id"] == segment["class_id"]
        decoded = coco_mask.decode(one["segmentation"])
        assert decoded.shape == (size[1], size[0])
        np.testing.assert_array_equal(decoded.astype(bool), mask)
        assert decoded.mean() == pytest.approx(segment["area_ratio"], abs=0.01)


def test_keypoints_are_read_by_supervision(models: Path) -> None:
    ours = detect(models, "yunet-points")["detections"]
    assert ours
    assert all(len(it["keypoints"]) == 5 for it in ours)
    roboflow = detect(models, "yunet-points", "--format", "roboflow")["detections"]
    points = sv.KeyPoints.from_inference(roboflow)
    assert points.xy.shape == (len(ours), 5, 2)
    np.testing.assert_allclose(points.xy, [[point[:2] for point in it["keypoints"]] for it in ours], atol=0.01)
    columns = detect(models, "yunet-points", "--format", "supervision")["detections"]
    np.testing.assert_allclose(np.array(columns["data"]["keypoints"]), [it["keypoints"] for it in ours])
    coco = detect(models, "yunet-points", "--format", "coco")["detections"]
    assert all(len(it["keypoints"]) == 15 and set(it["keypoints"][2::3]) == {2} for it in coco)


def test_classes_are_read_by_supervision(models: Path) -> None:
    ours = detect(models, "mnist")["classes"]
    columns = detect(models, "mnist", "--format", "supervision")["detections"]
    classes = sv.Classifications(
        class_id=np.array(columns["class_id"]), confidence=np.array(columns["confidence"]))
    top, _ = classes.get_top_k(1)
    assert top[0] == ours[0]["class_id"]
    answer = detect(models, "mnist", "--format", "roboflow")["detections"]
    assert (answer["top"], answer["confidence"]) == (ours[0]["class"], ours[0]["score"])
