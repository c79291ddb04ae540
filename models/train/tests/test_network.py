"""Network, losses, training, pruning and export: what needs PyTorch."""

import dataclasses
import pathlib

import numpy as np
import onnx
import pytest
import torch

from detector import config, evaluate, export, loss, model, prune, train


def tiny(recipe: config.Recipe) -> model.Detector:
    torch.manual_seed(0)
    return model.Detector(len(recipe.classes), recipe.network)


def test_an_interrupted_run_gives_the_same_weights(recipe_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    recipe = config.load(recipe_file)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train.train(recipe, whole, threads=1, workers=0, stop_after=0)
    # Stops after each epoch; with another number of workers.
    for _ in range(recipe.schedule.epochs):
        train.train(recipe, parts, threads=1, workers=1, stop_after=1e-9)
    a, b = (torch.load(folder / "last.pt", weights_only=True) for folder in (whole, parts))
    assert a["epoch"] == b["epoch"] == recipe.schedule.epochs
    for name, weights in a["average"].items():
        assert torch.equal(weights, b["average"][name]), name
    assert (parts / "log.txt").read_text().count("resumed") == recipe.schedule.epochs - 1


def test_training_lowers_the_loss_on_what_it_sees(recipe_file: pathlib.Path) -> None:
    recipe = config.load(recipe_file)
    net = tiny(recipe)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    torch.manual_seed(1)
    pictures = torch.full((2, 3, 128, 128), 0.5)
    targets = torch.tensor([[[20.0, 20, 60, 60, 0]], [[70.0, 50, 110, 90, 1]]])
    for picture, (x1, y1, x2, y2, label) in zip(pictures, targets[:, 0].int().tolist()):
        picture[label, y1:y2, x1:x2] = 1.0
    centres, strides = model.cells(128, 128)
    losses = []
    for _ in range(60):
        exponents, logits = model.flatten(net(pictures))
        boxes = model.corners(exponents, centres, strides)
        class_loss, box_loss, positives = loss.detection_loss(logits, boxes, targets, centres, strides, recipe.loss)
        assert positives > 0
        optimiser.zero_grad()
        (class_loss + box_loss).backward()
        optimiser.step()
        losses.append((class_loss + box_loss).item())
    assert losses[-1] < 0.5 * losses[0]


def test_cells_are_assigned_to_objects_they_lie_in_and_ignored_ones_cost_nothing() -> None:
    centres, strides = model.cells(128, 128)
    boxes = torch.cat([centres - 20, centres + 20], 1)[None]
    logits = torch.full((1, len(centres), 2), -3.0)
    targets = torch.tensor([[[30.0, 30, 70, 70, 1], [80, 80, 120, 120, -1], [0, 0, 0, 0, -2]]])
    positive, owner, quality, ignored = loss.assign(logits, boxes, targets, centres, strides, config.Loss())
    inside = ((centres > 30) & (centres < 70)).all(1)
    assert positive.sum() > 0 and not positive[0][~inside].any()
    assert (owner[positive] == 0).all() and (quality[positive] > 0).all() and (quality <= 1).all()
    in_ignored = ((centres > 80) & (centres < 120)).all(1)
    assert torch.equal(ignored[0], in_ignored)
    # Whatever is said there, the loss stays.
    sure = logits.clone()
    sure[0, in_ignored] = 5.0
    plain, shouted = (
        loss.detection_loss(values, boxes, targets, centres, strides, config.Loss())[0] for values in (logits, sure)
    )
    assert torch.isclose(plain, shouted)


def test_a_student_that_agrees_with_its_teacher_learns_nothing() -> None:
    centres, strides = model.cells(64, 64)
    boxes = torch.cat([centres - 9, centres + 9], 1)[None]
    logits = torch.randn(1, len(centres), 2)
    same = loss.distillation_loss(logits, boxes, logits, boxes)
    other = loss.distillation_loss(logits, boxes + 4, logits + 1, boxes)
    assert same[0] == 0 and same[1] < 1e-5 and other[0] > 0.001 and other[1] > 0.01


def test_the_exported_graphs_say_what_the_network_says(recipe_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    recipe = config.load(recipe_file, ["schedule.epochs=1", "schedule.every=1", "export.score_bias=[0.0, -1.5]"])
    work, out = tmp_path / "work", tmp_path / "out"
    train.train(recipe, work, threads=1, workers=0, stop_after=0)
    export.export(recipe, work / "last.pt", out, pictures=6)
    images = np.random.default_rng(0).random((2, 3, 128, 128), np.float32)
    wanted = model.runner(train.load_average(work / "last.pt", recipe.classes), 128)(images)
    # The second class is to be surer by this much.
    wanted[:, 5] = 1 / (1 + (1 / wanted[:, 5] - 1) * np.exp(1.5))
    assert wanted.shape == (2, 6, 16 * 16 + 8 * 8 + 4 * 4)
    fp32, size = evaluate.onnx_runner(out / "model.onnx", 1)
    assert size == 128
    assert fp32(images) == pytest.approx(wanted, abs=1e-3)
    int8, _ = evaluate.onnx_runner(out / "model.int8.onnx", 1)
    # Centres and sizes in pixels.
    assert np.abs(int8(images)[:, :4] - wanted[:, :4]).mean() < 4
    graph = onnx.load(str(out / "model.int8.onnx")).graph
    quantised = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    floats = [node for node in graph.node if node.op_type == "Conv" and node.input[1] not in quantised]
    # The first convolution and the last ones, one for scores and one for boxes at each stride, stay float.
    assert len(floats) == 1 + 2 * len(model.STRIDES) and "images" in {node.input[0] for node in floats}


def test_a_run_is_not_gone_on_with_under_another_recipe(recipe_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    recipe = config.load(recipe_file, ["schedule.epochs=1"])
    train.train(recipe, tmp_path / "work", threads=1, workers=0, stop_after=0)
    for change, part in (("schedule.epochs=2", "schedule"), ("mix.objects=0.9", "mix"), ("loss.box=1.0", "loss")):
        with pytest.raises(ValueError, match=f"was begun with {part} .*take another"):
            train.train(
                config.load(recipe_file, [change, *["schedule.epochs=1"][: part != "schedule"]]),
                tmp_path / "work",
                1,
                0,
                0,
            )
    with pytest.raises(ValueError, match="knows .*red.*not .*blue"):
        train.load_average(tmp_path / "work/last.pt", ("blue", "green"))
    with pytest.raises(ValueError, match="do not fill one batch of 64"):
        train.train(config.load(recipe_file, ["schedule.batch=64"]), tmp_path / "other", 1, 0, 0)


def test_pruning_leaves_out_what_says_nothing(recipe_file: pathlib.Path) -> None:
    recipe = config.load(recipe_file)
    wide = tiny(recipe).eval()
    pictures = torch.rand(2, 3, 128, 128)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        # Every channel counts something, and statistics differ, so that a mix-up shows.
        for convolution, norm, _, _ in prune.links(wide):
            if norm is not None:
                for values in (norm.weight, norm.running_var):
                    values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
                for values in (norm.bias, norm.running_mean):
                    values.copy_(torch.rand(values.shape, generator=generator) * 0.2)
            else:
                convolution.weight.copy_(torch.rand(convolution.weight.shape, generator=generator) - 0.5)
        # Silent channels: two at stride 4, in its block and in a head, four at stride 32.
        silent = {"width1": [1, 4], "width1.0": [2], "class0": [0, 7], "width4": [0, 3, 9, 15], "context": [5, 6]}
        silent["width4.out"] = [2, 8, 11, 12]
        silent["width4.0"] = silent["context"]
        for level in range(3):
            silent[f"class{level}"] = silent[f"box{level}"] = [0, 7]
        for convolution, norm, _, writes in prune.links(wide):
            for channel in silent.get(writes, ()):
                if norm is not None:
                    norm.weight[channel] = norm.bias[channel] = 0
    narrow = dataclasses.replace(recipe.network, widths=(4, 6, 8, 16, 12), heads=6)
    net = prune.slimmed(wide, narrow).eval()
    assert sum(p.numel() for p in net.parameters()) < sum(p.numel() for p in wide.parameters())
    with torch.inference_mode():
        for before, after in zip(wide(pictures), net(pictures)):
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after))
    with pytest.raises(ValueError, match="has 8 channels at width2, not more"):
        prune.slimmed(wide, dataclasses.replace(recipe.network, widths=(4, 8, 12, 16, 16)))


def test_a_run_starts_from_a_wider_network(recipe_file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    train.train(config.load(recipe_file, ["schedule.epochs=1"]), tmp_path / "wide", 1, 0, 0)
    changes = ["schedule.epochs=1", "schedule.start=../wide/last.pt", "network.heads=4"]
    train.train(config.load(recipe_file, changes), tmp_path / "narrow", 1, 0, 0)
    net = train.load_average(tmp_path / "narrow/last.pt", ("red", "green"))
    assert net.class_heads[0][0][0].out_channels == 4
