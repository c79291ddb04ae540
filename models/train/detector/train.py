"""The training loop: resumable, repeatable, the same on a CPU and on CUDA."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import time

import cv2
import numpy as np
import torch
from torch import nn

from . import augment, dataset, evaluate, loss, model, prune
from .config import Network, Recipe

#: Steps without a finite gradient, one after the other, that end a run.
MAX_BROKEN_STEPS = 10
#: Index of the pool that a sample comes from.
PHOTO, SCENE, NEGATIVE = range(3)


class Samples(torch.utils.data.Dataset):
    """Indexed by (epoch, position, pool, index, style): the sampler decides everything."""

    def __init__(self, pools: augment.Pools, recipe: Recipe):
        self.pools, self.recipe = pools, recipe

    def __getitem__(self, key):
        epoch, position, pool, index, style = key
        sample = (self.pools.photos, self.pools.scenes, self.pools.negatives)[pool][index]
        rng = np.random.default_rng((self.recipe.schedule.seed, epoch, position))
        return augment.make(self.pools, sample, style, self.recipe.mix, rng)


def collate(samples):
    """uint8 [n, 3, h, w] (channels last in memory) and boxes [n, most, 5], padded with class -2."""
    pictures = torch.from_numpy(np.stack([picture for picture, _ in samples])).permute(0, 3, 1, 2)
    boxes = np.zeros((len(samples), max(1, max(len(b) for _, b in samples)), 5), np.float32)
    boxes[..., 4] = dataset.IGNORE - 1
    for row, (_, found) in zip(boxes, samples):
        row[: len(found)] = found
    return pictures, torch.from_numpy(boxes)


class Batches:
    """The batches of one epoch: every photo once, with its share of scenes and negatives; one size a batch. What does
    not fill a batch waits for another epoch."""

    def __init__(self, pools: augment.Pools, recipe: Recipe):
        self.pools, self.recipe, self.epoch = pools, recipe, 0
        share = lambda pool, part: round(len(pools.photos) * part) if pool else 0
        self.scenes, self.negatives = (
            share(pools.scenes, recipe.mix.scenes),
            share(pools.negatives, recipe.mix.negatives),
        )

    def __len__(self) -> int:
        return (len(self.pools.photos) + self.scenes + self.negatives) // self.recipe.schedule.batch

    def __iter__(self):
        schedule, size = self.recipe.schedule, self.recipe.network.size
        rng = np.random.default_rng((schedule.seed, self.epoch))
        keys = [(PHOTO, n) for n in range(len(self.pools.photos))]
        keys += [(SCENE, int(n)) for n in rng.integers(0, max(1, len(self.pools.scenes)), self.scenes)]
        keys += [(NEGATIVE, int(n)) for n in rng.integers(0, max(1, len(self.pools.negatives)), self.negatives)]
        keys = [keys[n] for n in rng.permutation(len(keys))]
        if self.epoch < schedule.small * schedule.epochs:
            sizes, strong = (size - 96, size - 64, size - 32), True
        elif self.epoch < (1 - schedule.plain) * schedule.epochs:
            sizes, strong = (size - 32, size, size + 32), True
        else:
            sizes, strong = (size,), False
        for n in range(len(self)):
            style = augment.Style(int(rng.choice(sizes)), size, strong)
            start = n * schedule.batch
            yield [(self.epoch, start + k, *key, style) for k, key in enumerate(keys[start : start + schedule.batch])]


def mixed_precision(device: torch.device) -> bool:
    """Whether bf16 pays: always on CUDA, on a CPU only with instructions for it (else it is ten times slower)."""
    return (
        device.type == "cuda"
        or torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Exponential moving average of weights and statistics."""
    for slow, fast in zip(average.state_dict().values(), net.state_dict().values()):
        if slow.dtype.is_floating_point:
            slow.lerp_(fast, 1 - decay)
        else:
            slow.copy_(fast)


def network(recipe: Recipe, device: torch.device) -> model.Detector:
    return model.Detector(len(recipe.classes), recipe.network).to(device, memory_format=torch.channels_last)


def described(recipe: Recipe) -> dict:
    """A recipe as plain values, to be kept beside weights and compared."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def refuse_other(recipe: Recipe, state: dict, work: pathlib.Path) -> None:
    """Raises if a checkpoint was made by another recipe; where its data lies and how it
    is exported does not matter."""
    for section, values in described(recipe).items():
        before = state["recipe"].get(section)
        if section not in ("data", "export") and before != values:
            raise ValueError(
                f"{work} was begun with {section} = {before}, but the recipe says {values}: take another "
                '--work folder, and schedule.start = "…/last.pt" to begin with these weights'
            )


def load_average(path: pathlib.Path, classes: tuple[str, ...]) -> model.Detector:
    """The averaged weights of a checkpoint, as a network in evaluation mode on the CPU."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    if tuple(state["classes"]) != tuple(classes):
        raise ValueError(f"{path} knows {state['classes']}, not {list(classes)}")
    # Heads were as wide as the pyramid before they had a key of their own.
    net = model.Detector(len(state["classes"]), Network(**{"heads": state["network"]["pyramid"], **state["network"]}))
    net.load_state_dict(state["average"])
    return net.eval().to(memory_format=torch.channels_last)


def load_pools(recipe: Recipe) -> tuple[augment.Pools, dict[str, list[dataset.Sample]]]:
    """What training is made of, and the photos of each part of the split."""
    photos = dataset.load(recipe.data.photos, recipe.classes)
    indices = dataset.split(photos, recipe.data)
    parts = {part: [photos[n] for n in members] for part, members in indices.items()}
    pools = augment.Pools(
        parts["train"],
        dataset.load_scenes(recipe.data.scenes, recipe.classes),
        dataset.load_negatives(recipe.data, held_out=False),
    )
    return pools, parts


def train(recipe: Recipe, work: pathlib.Path, threads: int, workers: int, stop_after: float) -> None:
    """Trains to the recipe's last epoch, from `work/last.pt` if it exists; leaves after `stop_after` minutes (0: never)
    at the end of an epoch, to be called again."""
    cv2.setNumThreads(1)
    torch.set_num_threads(threads)
    schedule = recipe.schedule
    torch.manual_seed(schedule.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    pools, parts = load_pools(recipe)
    validation = parts["validation"]
    names = {part: [sample.name for sample in samples] for part, samples in parts.items()}
    (work / "split.json").write_text(json.dumps(names, indent=1))
    say(
        work,
        f"photos {len(pools.photos)} (validation {len(validation)}), scenes {len(pools.scenes)}, "
        f"negatives {len(pools.negatives)}",
    )

    net, average = network(recipe, device), network(recipe, device)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [dict(params=decayed, weight_decay=schedule.weight_decay), dict(params=others, weight_decay=0.0)],
        lr=schedule.learning_rate,
        betas=(0.9, 0.99),
    )
    say(work, f"parameters {sum(p.numel() for p in net.parameters())}, {device}, bf16 {mixed_precision(device)}")
    first = step = 0
    if (work / "last.pt").exists():
        state = torch.load(work / "last.pt", map_location=device, weights_only=True)
        refuse_other(recipe, state, work)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        first, step = state["epoch"], state["step"]
        say(work, f"resumed after epoch {first}")
    else:
        if schedule.start:
            net.load_state_dict(
                prune.slimmed(load_average(work / schedule.start, recipe.classes), recipe.network).state_dict()
            )
        average.load_state_dict(net.state_dict())
    teacher = load_average(work / recipe.loss.teacher, recipe.classes).to(device) if recipe.loss.teacher else None

    batches = Batches(pools, recipe)
    if not len(batches):
        raise ValueError(f"{len(pools.photos)} photos to train on do not fill one batch of {schedule.batch}")
    loader = torch.utils.data.DataLoader(
        Samples(pools, recipe),
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
    )
    grids, broken = {}, 0
    for epoch in range(first, schedule.epochs):
        batches.epoch = epoch
        net.train()
        epoch_started, sums = time.monotonic(), np.zeros(4)
        for pictures, targets in loader:
            progress = step / (schedule.epochs * len(batches))
            cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
            for group in optimiser.param_groups:
                group["lr"] = schedule.learning_rate * min(1.0, (step + 1) / schedule.warmup_steps) * cosine
            size = pictures.shape[-1]
            if size not in grids:
                grids[size] = [tensor.to(device) for tensor in model.cells(size, size)]
            centres, strides = grids[size]
            pictures = (pictures.to(device, non_blocking=True).float() / 255).contiguous(
                memory_format=torch.channels_last
            )
            targets = targets.to(device, non_blocking=True)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed_precision(device)):
                exponents, logits = model.flatten(net(pictures))
            boxes = model.corners(exponents, centres, strides)
            class_loss, box_loss, positives = loss.detection_loss(logits, boxes, targets, centres, strides, recipe.loss)
            total = class_loss + recipe.loss.box * box_loss
            taught = 0.0
            if teacher is not None:
                with (
                    torch.inference_mode(),
                    torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed_precision(device)),
                ):
                    exponents, opinion = model.flatten(teacher(pictures))
                    wanted = model.corners(exponents, centres, strides)
                parts_of = loss.distillation_loss(logits, boxes, opinion.clone(), wanted.clone())
                lesson = parts_of[0] + recipe.loss.box * parts_of[1]
                total, taught = total + recipe.loss.distillation * lesson, lesson.item()
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            norm = nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            step += 1
            if torch.isfinite(norm):
                optimiser.step()
                follow(average, net, min(schedule.ema, (1 + step) / (20 + step)))
                broken = 0
            else:
                broken += 1
            if broken == MAX_BROKEN_STEPS:
                raise ValueError(f"{broken} steps in a row had no finite gradient: lower schedule.learning_rate")
            sums += (class_loss.item(), box_loss.item(), positives / len(targets), taught)
        seconds = time.monotonic() - epoch_started
        done = epoch + 1
        line = dict(epoch=done, rate=round(len(batches) * schedule.batch / seconds, 1))
        line |= dict(zip(("class", "box", "positives", "teacher"), (round(x, 4) for x in sums / len(batches))))
        if done % schedule.every == 0 or done == schedule.epochs:
            average.eval()
            found = evaluate.detect_all(model.runner(average, recipe.network.size), validation, recipe.network.size)
            figures = evaluate.average_precision(validation, found, recipe.classes)
            line |= {key: round(figures[key], 4) for key in ("ap50", "ap")}
        state = dict(
            net=net.state_dict(),
            average=average.state_dict(),
            optimiser=optimiser.state_dict(),
            epoch=done,
            step=step,
            recipe=described(recipe),
            classes=list(recipe.classes),
            network=vars(recipe.network),
        )
        torch.save(state, work / "last.tmp")
        os.replace(work / "last.tmp", work / "last.pt")
        say(work, json.dumps(line))
        if stop_after and (time.monotonic() - started) / 60 > stop_after and done < schedule.epochs:
            say(work, f"stopped after epoch {done}; the same command goes on")
            return


def say(work: pathlib.Path, line: str) -> None:
    """To the terminal and to the log of the run."""
    print(line, flush=True)
    with open(work / "log.txt", "a") as log:
        log.write(line + "\n")
