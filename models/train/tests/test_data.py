"""Data, split, augmentation and figures: what needs no PyTorch."""

import dataclasses
import pathlib

import cv2
import numpy as np
import pytest

from detector import augment, config, dataset, evaluate


def photos(recipe_file: pathlib.Path) -> tuple[config.Recipe, list[dataset.Sample]]:
    recipe = config.load(recipe_file)
    return recipe, dataset.load(recipe.data.photos, recipe.classes)


def test_a_recipe_with_an_unknown_key_is_refused_by_name(recipe_file: pathlib.Path) -> None:
    assert config.load(recipe_file, ["schedule.epochs=7"]).schedule.epochs == 7
    with pytest.raises(ValueError, match="epoch.*known are epochs"):
        config.load(recipe_file, ["schedule.epoch=7"])
    with pytest.raises(ValueError, match="schedule.epochs: 'ten' is no number"):
        config.load(recipe_file, ["schedule.epochs=ten"])
    with pytest.raises(ValueError, match="no multiple of 32"):
        config.load(recipe_file, ["network.size=200"])
    with pytest.raises(ValueError, match="set the environment variable"):
        config.load(recipe_file, ['data.scenes="$NOT_SET_ANYWHERE/scenes"'])


def test_a_recipe_is_laid_over_its_base(recipe_file: pathlib.Path) -> None:
    over = recipe_file.with_name("over.toml")
    over.write_text('base = "recipe.toml"\n[schedule]\nepochs = 9\n[loss]\nbox = 1.5\n')
    recipe, base = config.load(over), config.load(recipe_file)
    assert (recipe.schedule.epochs, recipe.schedule.batch, recipe.loss.box) == (9, base.schedule.batch, 1.5)
    assert (recipe.network, recipe.data) == (base.network, base.data)
    with pytest.raises(ValueError, match="score_bias: 3 numbers for 2 classes"):
        config.load(over, ["export.score_bias=[0.0, 1.0, 2.0]"])
    over.write_text('base = "over.toml"\n')
    with pytest.raises(ValueError, match="its own base"):
        config.load(over)


def test_near_duplicates_are_never_divided(recipe_file: pathlib.Path) -> None:
    recipe, samples = photos(recipe_file)
    # Every photo again: once mirrored, once darker and smaller.
    twins = []
    for sample in samples:
        darker = (cv2.resize(sample.picture, None, fx=0.8, fy=0.8) * 0.6).astype(np.uint8)
        for name, picture in (("mirrored", sample.picture[:, ::-1].copy()), ("darker", darker)):
            twins.append(dataclasses.replace(sample, name=f"{name} {sample.name}", picture=picture))
    everything = samples + twins
    data = dataclasses.replace(recipe.data, validation=0.3, test=0.3)
    parts = dataset.split(everything, data)
    assert sorted(n for part in parts.values() for n in part) == list(range(len(everything)))
    scene = lambda n: everything[n].name.split()[-1]
    scenes = {part: {scene(n) for n in members} for part, members in parts.items()}
    assert all(parts.values())
    assert not scenes["train"] & scenes["test"]
    assert not scenes["train"] & scenes["validation"] and not scenes["validation"] & scenes["test"]
    assert dataset.split(everything, data) == parts


def test_boxes_stay_on_their_objects_to_a_fraction_of_a_pixel() -> None:
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[40:60, 70:100] = 255
    sample = dataset.Sample("square", picture, np.array([[70, 40, 100, 60, 1]], np.float32))
    style = augment.Style(320, 320, True)
    off, mirrored = [], 0
    y, x = np.mgrid[:320, :320] + 0.5
    for position in range(80):
        rng = np.random.default_rng(position)
        tile, boxes = augment.place(sample, (320, 320), (0.7, 1.0, 1.4)[position % 3], 0.0, True, style, rng)
        if len(boxes) != 1 or boxes[0, 4] != 1 or boxes[0, :4].min() <= 1 or boxes[0, :4].max() >= 319:
            continue
        light = np.where(tile[..., 0] > 127, tile[..., 0], 0).astype(float)
        x1, y1, x2, y2, _ = boxes[0]
        off.append([(light * x).sum() / light.sum() - (x1 + x2) / 2, (light * y).sum() / light.sum() - (y1 + y2) / 2])
        # The square is right of its picture's middle, and left of it in a mirrored one.
        mirrored += int((tile[:, :, 0] == 0).any(0).nonzero()[0].mean() > (x1 + x2) / 2 + 1)
    assert len(off) > 30 and 5 < mirrored < len(off)
    assert np.abs(off).max() < 0.3 and np.abs(np.mean(off, 0)).max() < 0.05


def test_classes_stay_with_their_objects_and_samples_repeat(recipe_file: pathlib.Path) -> None:
    _, samples = photos(recipe_file)
    pools = augment.Pools(samples, [], samples[:2])
    plain = config.Mix(distractors=0.0, objects=0.0)
    right = wrong = 0
    for position in range(80):
        make = lambda style: augment.make(
            pools, samples[position % len(samples)], style, plain, np.random.default_rng((1, position))
        )
        (picture, boxes), again = (make(augment.Style(128, 128, True)) for _ in range(2))
        assert np.array_equal(picture, again[0]) and np.array_equal(boxes, again[1])
        assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8
        assert (boxes[:, :4] >= 0).all() and (boxes[:, :4] <= 128).all()
        for x1, y1, x2, y2, label in boxes[boxes[:, 4] >= 0]:
            red, green, _ = picture[int((y1 + y2) / 2), int((x1 + x2) / 2)].astype(int)
            right += (red > green) == (label == 0)
            wrong += (red > green) != (label == 0)
    # Some discs lie on others, some are covered, some pictures are grey.
    assert right > 10 * wrong and right > 60


def test_an_object_that_is_mostly_cut_off_is_ignored() -> None:
    boxes = np.array([[-30, 10, 10, 50, 1], [60, 60, 90, 90, 0], [200, 0, 230, 30, 0]], np.float32)
    cropped = augment.crop(boxes, 100, 100)
    assert cropped.tolist() == [[0, 10, 10, 50, dataset.IGNORE], [60, 60, 90, 90, 0]]


def test_distractors_keep_clear_of_objects_and_pasted_objects_bring_their_box(recipe_file: pathlib.Path) -> None:
    _, samples = photos(recipe_file)
    boxes = np.array([[20, 20, 60, 60, 0]], np.float32)
    changed = pasted = 0
    for position in range(40):
        rng = np.random.default_rng(position)
        grey = np.full((128, 128, 3), 128, np.uint8)
        out = augment.paste_distractor(grey.copy(), boxes, samples[:1], rng)
        changed += not np.array_equal(out, grey)
        inside = (out[20:60, 20:60] != 128).any(-1).mean()
        assert inside <= 0.06
        out, more = augment.paste_object(grey.copy(), boxes, samples, rng)
        assert np.array_equal(more[0], boxes[0])
        for x1, y1, x2, y2, label in more[1:]:
            middle = out[int((y1 + y2) / 2), int((x1 + x2) / 2)].astype(int)
            assert middle.max() > 150 and sorted(middle)[1] < 110, (middle, label)
            pasted += 1
    assert changed > 20 and pasted > 5


def test_the_letterbox_maps_boxes_back(recipe_file: pathlib.Path) -> None:
    recipe, samples = photos(recipe_file)
    sample = samples[0]
    _, scale, left, top = augment.letterbox(sample.picture, 128)

    def run(images: np.ndarray) -> np.ndarray:
        """Says where the truth is, in pixels of the input."""
        rows = []
        for x1, y1, x2, y2, label in sample.boxes:
            x, y = (x1 + x2) / 2 * scale + left, (y1 + y2) / 2 * scale + top
            rows.append([x, y, (x2 - x1) * scale, (y2 - y1) * scale, 0.9 * (label == 0), 0.9 * (label == 1)])
        return np.array(rows).T[None]

    found = evaluate.detect_all(run, [sample], 128)
    figures = evaluate.average_precision([sample], found, recipe.classes, 128)
    assert figures["ap50"] == pytest.approx(1.0) and figures["ap"] == pytest.approx(1.0)
    nothing = evaluate.average_precision([sample], [found[0][:0]], recipe.classes)
    assert nothing["ap50"] == 0.0
    # What is found in an ignored area is neither right nor wrong.
    ignored = np.array([[0, 0, 40, 40, dataset.IGNORE]], np.float32)
    more = np.array([[5, 5, 35, 35, 0.99, 0], [6, 6, 36, 36, 0.98, 1]])
    with_area = dataclasses.replace(sample, boxes=np.concatenate([sample.boxes, ignored]))
    both = [np.concatenate([more, found[0]])]
    assert evaluate.average_precision([with_area], both, recipe.classes)["ap50"] == pytest.approx(1.0)
    assert evaluate.average_precision([sample], both, recipe.classes)["ap50"] < 0.9


def test_the_parts_of_the_split_are_written_as_coco_json(recipe_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    recipe, samples = photos(recipe_file)
    dataset.write_parts(recipe.data, recipe.classes, tmp_path / "parts")
    names = []
    for part, members in dataset.split(samples, recipe.data).items():
        source = dataclasses.replace(recipe.data.photos, annotations=str(tmp_path / "parts" / f"{part}.json"))
        again = dataset.load(source, recipe.classes)
        for sample, n in zip(again, members):
            assert sample.name == samples[n].name and np.array_equal(sample.boxes, samples[n].boxes)
        names += [sample.name for sample in again]
    assert sorted(names) == sorted(sample.name for sample in samples)
