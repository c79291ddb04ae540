"""What a recipe file (TOML) says: data, network, schedule. Every key has the default given here."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tomllib


@dataclasses.dataclass(frozen=True)
class Source:
    """A folder of pictures and the COCO JSON about it."""

    annotations: str
    images: str


@dataclasses.dataclass(frozen=True)
class Data:
    photos: Source
    #: Pictures without any object of any class, and which of them are kept from training: the false-positive figure
    #: is theirs. Both may be empty.
    negatives: str = ""
    negatives_list: str = ""
    #: Drawn pictures for training and for the figure, as made by `python -m detector scenes`; may be empty.
    scenes: str = ""
    scenes_test: str = ""
    validation: float = 0.08
    test: float = 0.08
    #: Correlation of thumbnails from which two photos count as near-duplicates.
    similarity: float = 0.90


@dataclasses.dataclass(frozen=True)
class Network:
    #: Channels at strides 2, 4, 8, 16, 32, residual blocks at strides 4 to 32, channels of the pyramid and inside each
    #: head.
    widths: tuple[int, ...] = (16, 32, 48, 80, 96)
    depths: tuple[int, ...] = (1, 2, 3, 1)
    pyramid: int = 48
    heads: int = 48
    #: Width and height of the input in pixels, a multiple of 32.
    size: int = 320


@dataclasses.dataclass(frozen=True)
class Schedule:
    epochs: int = 160
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.03
    warmup_steps: int = 200
    ema: float = 0.999
    #: Share of the epochs trained on smaller crops, and share of the last epochs without mosaic at the full size.
    small: float = 0.5
    plain: float = 0.15
    #: Validate every so many epochs.
    every: int = 10
    seed: int = 0
    #: Checkpoint to start from, relative to the work folder ("" = from scratch). One of a wider network is pruned to
    #: the width of this one.
    start: str = ""


@dataclasses.dataclass(frozen=True)
class Mix:
    """Shares of one epoch's samples that are not photos, and chances of what is pasted into a sample."""

    scenes: float = 0.08
    negatives: float = 0.08
    #: Round and bright things without a head, drawn or cut out of the negatives.
    distractors: float = 0.35
    #: Heads and helmets cut out of other photos.
    objects: float = 0.0


@dataclasses.dataclass(frozen=True)
class Loss:
    box: float = 2.5
    #: Anchors that each object may take, and the exponents of score and IoU in the alignment (TOOD).
    candidates: int = 10
    alpha: float = 0.5
    beta: float = 4.0
    #: Weight of the teacher's opinion, and its checkpoint, relative to the work folder ("" = no teacher).
    distillation: float = 0.0
    teacher: str = ""


@dataclasses.dataclass(frozen=True)
class Export:
    #: What is added to the logit of each class, so that one threshold suits all of them; empty: nothing.
    score_bias: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Recipe:
    name: str
    classes: tuple[str, ...]
    data: Data
    network: Network = Network()
    schedule: Schedule = Schedule()
    mix: Mix = Mix()
    loss: Loss = Loss()
    export: Export = Export()


#: What the tables of a recipe are.
SECTIONS = {
    "data": Data,
    "photos": Source,
    "network": Network,
    "schedule": Schedule,
    "mix": Mix,
    "loss": Loss,
    "export": Export,
}


def _build(kind, table: dict, where: str):
    """A dataclass from a TOML table; an unknown or missing key is an error that names it. `$NAME` in a text is the
    environment's."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := set(table) - set(fields):
        raise ValueError(f"{where}: unknown key {sorted(unknown)[0]!r}; known are {', '.join(fields)}")
    values = {}
    for name, value in table.items():
        if isinstance(value, dict):
            value = _build(SECTIONS[name], value, f"{where}.{name}")
        if isinstance(value, str):
            value = os.path.expandvars(value)
            if "$" in value:
                raise ValueError(f"{where}.{name}: set the environment variable that {value!r} names")
        values[name] = tuple(value) if isinstance(value, list) else value
        default = fields[name].default if name in fields else None
        if isinstance(default, (int, float)) and not isinstance(values[name], (int, float)):
            raise ValueError(f"{where}.{name}: {value!r} is no number")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def _read(path: pathlib.Path, seen: tuple[pathlib.Path, ...] = ()) -> dict:
    """The table of a file, laid over that of the file that its key `base` names, section by section."""
    if path in seen:
        raise ValueError(f"{path.name}: a recipe can't be its own base")
    table = tomllib.loads(path.read_text())
    if "base" not in table:
        return table
    below = _read(path.parent / table.pop("base"), (*seen, path))
    for key, value in table.items():
        below[key] = below.get(key, {}) | value if isinstance(value, dict) else value
    return below


def load(path: pathlib.Path, changes: list[str] = ()) -> Recipe:
    """Reads a recipe and what it is based on; `changes` are `section.key=value` with TOML values, applied last."""
    table = _read(path)
    for change in changes:
        key, _, value = change.partition("=")
        *sections, last = key.split(".")
        inner = table
        for section in sections:
            inner = inner.setdefault(section, {})
        try:
            inner[last] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            inner[last] = value
    recipe = _build(Recipe, table, path.name)
    if listed := recipe.data.negatives_list:
        data = dataclasses.replace(recipe.data, negatives_list=str(path.parent / listed))
        recipe = dataclasses.replace(recipe, data=data)
    if len(bias := recipe.export.score_bias) not in (0, len(recipe.classes)):
        raise ValueError(f"{path.name}.export.score_bias: {len(bias)} numbers for {len(recipe.classes)} classes")
    if recipe.network.size % 32 or recipe.network.size < 128:
        raise ValueError(f"{path.name}.network.size: {recipe.network.size} is no multiple of 32 from 128 on")
    return recipe
