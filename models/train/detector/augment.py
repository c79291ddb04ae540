"""Training samples: placed, pasted into, re-lit and damaged pictures.

Every draw comes from the generator that the caller passes, seeded by seed, epoch and sample, so that neither the
number of worker processes nor a resumed run changes what is trained on.
"""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np

from .config import Mix
from .dataset import IGNORE, Sample

#: Colour of what lies outside the picture, as in the server's letterbox.
PAD = 114
#: Of an object that is cut at an edge at least this share must show, or it is ignored.
MIN_VISIBLE = 0.45
#: Objects with a shorter side than this are ignored, in pixels.
MIN_SIDE = 5


@dataclasses.dataclass(frozen=True)
class Pools:
    """What samples are made of."""

    photos: list[Sample]
    scenes: list[Sample]
    negatives: list[Sample]


@dataclasses.dataclass(frozen=True)
class Style:
    """Width and height of the sample; the size at which a picture is shown at scale 1 (the network's input, so that
    objects keep their size in pixels while smaller samples train faster); with mosaic or without."""

    size: int
    reference: int
    strong: bool


def letterbox(picture: np.ndarray, size: int) -> tuple[np.ndarray, float, int, int]:
    """The picture centred in a square, and its scale and offset: what the server feeds the network."""
    height, width = picture.shape[:2]
    scale = size / max(height, width)
    inner_width, inner_height = int(width * scale + 0.5), int(height * scale + 0.5)
    left, top = (size - inner_width) // 2, (size - inner_height) // 2
    canvas = np.full((size, size, 3), PAD, np.uint8)
    canvas[top : top + inner_height, left : left + inner_width] = cv2.resize(
        picture, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR
    )
    return canvas, scale, left, top


def make(
    pools: Pools, sample: Sample, style: Style, mix: Mix, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One training sample: uint8 RGB [size, size, 3] and its boxes float32 [n, 5]."""
    if style.strong and rng.random() < 0.5:
        picture, boxes = mosaic(pools, sample, style, rng)
    else:
        picture, boxes = place(sample, (style.size, style.size), *pose(sample, style, rng), style, rng)
    if rng.random() < mix.distractors:
        for _ in range(int(rng.integers(1, 4))):
            picture = paste_distractor(picture, boxes, pools.negatives, rng)
    if rng.random() < mix.objects:
        for _ in range(int(rng.integers(1, 4))):
            picture, boxes = paste_object(picture, boxes, pools.photos, rng)
    picture = relight(picture, rng)
    if rng.random() < (0.3 if style.strong else 0.1):
        picture, boxes = cut_out(picture, boxes, rng)
    return np.ascontiguousarray(picture[:, :, ::-1]), boxes


def log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def pose(sample: Sample, style: Style, rng: np.random.Generator) -> tuple[float, float, bool]:
    """Scale (1 = as the server would show it), rotation in degrees, and whether an object must be in view."""
    draw = rng.random()
    if draw < 0.60:
        scale = log_uniform(0.65, 1.4, rng)
    elif draw < 0.78:
        scale = log_uniform(1.4, 3.5, rng)
    elif draw < 0.92 and len(sample.boxes):
        # A close-up: someone before the camera of a desk or a gate.
        box = sample.boxes[rng.integers(len(sample.boxes))]
        side = max(box[2] - box[0], box[3] - box[1]) * style.reference / max(sample.picture.shape[:2])
        scale = float(np.clip(log_uniform(0.2, 0.85, rng) * style.size / max(side, 1), 0.65, 6.0))
    else:
        scale = 1.0
    rotation = rng.uniform(-10, 10) if rng.random() < 0.4 else 0.0
    return scale, rotation, bool(rng.random() < 0.85)


def mosaic(pools: Pools, sample: Sample, style: Style, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Four pictures side by side (YOLOv4, Bochkovskiy et al. 2020), each drawn straight into its tile."""
    size = style.size
    picture = np.empty((size, size, 3), np.uint8)
    x, y = (int(size * rng.uniform(0.3, 0.7)) for _ in range(2))
    scale = log_uniform(0.55, 1.5, rng)
    parts = []
    for n, (x1, y1, x2, y2) in enumerate(((0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size))):
        draw = rng.random()
        pool = pools.negatives if draw < 0.12 else pools.scenes if draw < 0.20 else pools.photos
        pool = pool or pools.photos
        other = sample if n == 0 else pool[rng.integers(len(pool))]
        rotation = rng.uniform(-8, 8) if rng.random() < 0.3 else 0.0
        tile, boxes = place(
            other,
            (x2 - x1, y2 - y1),
            scale * log_uniform(0.7, 1.4, rng),
            rotation,
            bool(rng.random() < 0.7),
            style,
            rng,
        )
        picture[y1:y2, x1:x2] = tile
        parts.append(boxes + np.array([x1, y1, x1, y1, 0], np.float32))
    return picture, np.concatenate(parts)


def place(
    sample: Sample,
    tile: tuple[int, int],
    scale: float,
    rotation: float,
    show: bool,
    style: Style,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Warps a sample into a tile (width, height): scaled, turned, perhaps mirrored, anywhere that fits."""
    (width, height), boxes = tile, sample.boxes
    rows, columns = sample.picture.shape[:2]
    scale *= style.reference / max(rows, columns)
    stretch = math.exp(rng.uniform(-0.12, 0.12))
    across, down = scale * stretch * (-1 if rng.random() < 0.5 else 1), scale / stretch
    sine, cosine = math.sin(math.radians(rotation)), math.cos(math.radians(rotation))
    matrix = np.array([[across * cosine, -down * sine, 0], [across * sine, down * cosine, 0]], np.float32)
    middle = matrix[:, :2] @ np.array([columns / 2, rows / 2], np.float32)

    def anywhere(inner: float, outer: int) -> float:
        """Where the picture's middle goes on one axis: all inside if it fits, else without an empty border."""
        return rng.uniform(*sorted((inner / 2, outer - inner / 2)))

    at = np.array([anywhere(abs(across) * columns, width), anywhere(down * rows, height)], np.float32)
    if show and len(boxes):
        box = boxes[rng.integers(len(boxes))]
        shown = matrix[:, :2] @ np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], np.float32) - middle
        for axis, outer in ((0, width), (1, height)):
            if not 0 < shown[axis] + at[axis] < outer:
                at[axis] = rng.uniform(0.15, 0.85) * outer - shown[axis]
    matrix[:, 2] = at - middle
    # Boxes are given by edges, pixels by their middles: pixel 0 is the stretch from 0 to 1.
    pixels = matrix.copy()
    pixels[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5], np.float32) - 0.5
    picture = cv2.warpAffine(
        sample.picture, pixels, (width, height), flags=cv2.INTER_LINEAR, borderValue=(PAD, PAD, PAD)
    )
    if not len(boxes):
        return picture, np.zeros((0, 5), np.float32)
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    half = np.stack([boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]], 1) / 2
    # A head is round: the turned box bounds the turned ellipse, not the turned corners.
    reach = np.sqrt((matrix[None, :, :2] ** 2 * half[:, None] ** 2).sum(2))
    at = np.stack([x, y], 1) @ matrix[:, :2].T + matrix[:, 2]
    return picture, crop(np.concatenate([at - reach, at + reach, boxes[:, 4:]], 1), width, height)


def crop(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Cuts boxes at the edges; those of which too little is left become ignored areas."""
    whole = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    boxes = boxes.copy()
    boxes[:, [0, 2]] = boxes[:, [0, 2]].clip(0, width)
    boxes[:, [1, 3]] = boxes[:, [1, 3]].clip(0, height)
    across, down = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    boxes[(across * down / (whole + 1e-6) < MIN_VISIBLE) | (np.minimum(across, down) < MIN_SIDE), 4] = IGNORE
    return boxes[(across > 2) & (down > 2)].astype(np.float32)


def covered(boxes: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    """Share of each box that a rectangle covers."""
    across = (np.minimum(boxes[:, 2], x2) - np.maximum(boxes[:, 0], x1)).clip(0)
    down = (np.minimum(boxes[:, 3], y2) - np.maximum(boxes[:, 1], y1)).clip(0)
    return across * down / ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) + 1e-6)


def blend(picture: np.ndarray, patch: np.ndarray, mask: np.ndarray, x: int, y: int) -> np.ndarray:
    """Lays a patch over the picture where the mask (0..1) says so."""
    height, width = patch.shape[:2]
    below = picture[y : y + height, x : x + width].astype(np.float32)
    mask = mask[..., None]
    picture[y : y + height, x : x + width] = (below * (1 - mask) + patch.astype(np.float32) * mask).astype(np.uint8)
    return picture


def free_spot(
    boxes: np.ndarray,
    width: int,
    height: int,
    size: int,
    most: float,
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    """A random place for a rectangle that covers no box by more than `most`; None after a few tries."""
    for _ in range(6):
        x, y = int(rng.integers(0, size - width)), int(rng.integers(0, size - height))
        if not len(boxes) or covered(boxes, x, y, x + width, y + height).max() <= most:
            return x, y
    return None


def paste_distractor(
    picture: np.ndarray,
    boxes: np.ndarray,
    negatives: list[Sample],
    rng: np.random.Generator,
) -> np.ndarray:
    """Lays something that is no object into the picture, clear of the objects: a shaded ball, mug, bucket or box in a
    loud colour, or a piece of a picture without objects."""
    size = picture.shape[0]
    height = int(min(log_uniform(10, 150, rng), 0.45 * size))
    width = max(6, min(int(height * log_uniform(0.6, 1.5, rng)), int(0.45 * size)))
    spot = free_spot(boxes, width, height, size, 0.05, rng)
    if spot is None:
        return picture
    if negatives and rng.random() < 0.5:
        source = negatives[rng.integers(len(negatives))].picture
        share = rng.uniform(0.15, 0.7)
        rows, columns = (max(8, int(side * share)) for side in source.shape[:2])
        top, left = (int(rng.integers(0, full - part + 1)) for full, part in zip(source.shape[:2], (rows, columns)))
        patch = cv2.resize(
            source[top : top + rows, left : left + columns], (width, height), interpolation=cv2.INTER_AREA
        )
        patch = patch[:, ::-1] if rng.random() < 0.5 else patch
        mask = shape_mask(width, height, "ellipse" if rng.random() < 0.6 else "box", rng)
    else:
        kind = ("ellipse", "ellipse", "box", "bucket", "mug")[rng.integers(5)]
        mask, patch = shape_mask(width, height, kind, rng), shaded(width, height, rng)
    return blend(picture, patch, mask, *spot)


def shape_mask(width: int, height: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A filled outline, 0..1 with soft edges."""
    mask = np.zeros((height, width), np.uint8)
    centre = (width // 2, height // 2)
    if kind == "ellipse":
        cv2.ellipse(mask, centre, (max(1, width // 2 - 1), max(1, height // 2 - 1)), 0, 0, 360, 255, -1, cv2.LINE_AA)
    elif kind == "box":
        cv2.rectangle(mask, (1, 1), (width - 2, height - 2), 255, -1)
    elif kind == "bucket":
        inset = int(width * rng.uniform(0.05, 0.25))
        outline = np.array([[0, 1], [width - 1, 1], [width - 1 - inset, height - 2], [inset, height - 2]])
        cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA)
    else:
        body = int(width * 0.75)
        cv2.rectangle(mask, (1, 1), (body, height - 2), 255, -1)
        handle = (max(1, width - body - 1), max(1, int(height * 0.28)))
        cv2.ellipse(mask, (body, centre[1]), handle, 0, -90, 90, 255, max(1, width // 12), cv2.LINE_AA)
    soft = rng.uniform(0.4, 1.2)
    return cv2.GaussianBlur(mask, (0, 0), soft).astype(np.float32) / 255


def shaded(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A patch of one colour, lit from somewhere, with a highlight, perhaps with bands of a second colour."""
    # Red to yellow, like most helmets, more often than not.
    hue = rng.integers(0, 40) if rng.random() < 0.6 else rng.integers(0, 180)
    loud = rng.random() < 0.7
    saturation = rng.integers(120, 256) if loud else rng.integers(0, 60)
    hsv = np.uint8([[[hue, saturation, rng.integers(120, 256)]]])
    colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    slope = math.cos(angle) * (x / width - 0.5) + math.sin(angle) * (y / height - 0.5)
    light = 0.85 + rng.uniform(0.2, 0.9) * slope
    patch = colour[None, None] * light[..., None]
    if rng.random() < 0.4:
        bands = np.sin((y / height if rng.random() < 0.5 else x / width) * rng.uniform(4, 30)) > rng.uniform(-0.5, 0.8)
        patch = np.where(bands[..., None], patch, patch[:, :, ::-1])
    if rng.random() < 0.6:
        spot = ((x / width - rng.uniform(0.2, 0.8)) ** 2 + (y / height - rng.uniform(0.15, 0.6)) ** 2) / rng.uniform(
            0.005, 0.05
        )
        patch = patch + 160 * np.exp(-spot)[..., None]
    return np.clip(patch + rng.normal(0, rng.uniform(1, 6), patch.shape), 0, 255)


def paste_object(
    picture: np.ndarray,
    boxes: np.ndarray,
    photos: list[Sample],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Copies an object of another photo, with a soft rim, to a free place (Ghiasi et al. 2021)."""
    size = picture.shape[0]
    source = photos[rng.integers(len(photos))]
    if not len(source.boxes):
        return picture, boxes
    box = source.boxes[rng.integers(len(source.boxes))]
    if box[4] == IGNORE or min(box[2] - box[0], box[3] - box[1]) < 24:
        return picture, boxes
    middle, side = (box[:2] + box[2:4]) / 2, (box[2:4] - box[:2]) * 1.3
    rows, columns = source.picture.shape[:2]
    x1, y1 = (int(max(0, value)) for value in middle - side / 2)
    x2, y2 = int(min(columns, middle[0] + side[0] / 2)), int(min(rows, middle[1] + side[1] / 2))
    piece = source.picture[y1:y2, x1:x2]
    scale = min(log_uniform(16, 140, rng) / (box[3] - box[1]), 1.6)
    width, height = int(piece.shape[1] * scale), int(piece.shape[0] * scale)
    if min(width, height) < 12 or max(width, height) >= 0.8 * size:
        return picture, boxes
    spot = free_spot(boxes, width, height, size, 0.05, rng)
    if spot is None:
        return picture, boxes
    piece = cv2.resize(piece, (width, height), interpolation=cv2.INTER_AREA)
    at = (box[:4] - [x1, y1, x1, y1]) * scale
    if rng.random() < 0.5:
        piece, at = piece[:, ::-1], np.array([width - at[2], at[1], width - at[0], at[3]])
    picture = blend(
        picture,
        piece,
        cv2.GaussianBlur(shape_mask(width, height, "ellipse", rng), (0, 0), max(0.6, 0.03 * height)),
        *spot,
    )
    pasted = np.array([[at[0] + spot[0], at[1] + spot[1], at[2] + spot[0], at[3] + spot[1], box[4]]], np.float32)
    return picture, np.concatenate([boxes, pasted])


def relight(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, colour, low light, blur, noise and compression, as cameras do them; mostly one look-up table."""
    codes = np.arange(256)
    value = codes.astype(np.float32) / 255
    gamma, contrast, brightness = math.exp(rng.uniform(-0.45, 0.45)), rng.uniform(0.7, 1.3), rng.uniform(-0.12, 0.12)
    dark = rng.random() < 0.12
    if dark:
        gamma *= rng.uniform(1.2, 2.0)
        contrast *= rng.uniform(0.35, 0.8)
    curve = (value**gamma - 0.5) * contrast + (0.5 * contrast if dark else 0.5) + brightness
    table = np.stack([np.clip(curve * gain, 0, 1) * 255 for gain in rng.uniform(0.88, 1.12, 3)], 1).astype(np.uint8)
    picture = cv2.LUT(picture, table[None])
    draw = rng.random(5)
    if draw[0] < 0.4:
        shift, saturation = int(rng.integers(-8, 9)), rng.uniform(0.4, 1.6)
        table = np.stack([(codes + shift) % 180, np.clip(codes * saturation, 0, 255), codes], 1).astype(np.uint8)
        picture = cv2.cvtColor(cv2.LUT(cv2.cvtColor(picture, cv2.COLOR_BGR2HSV), table[None]), cv2.COLOR_HSV2BGR)
    if draw[1] < 0.06:
        picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if draw[2] < 0.10:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 1.6))
    elif draw[2] < 0.15:
        length = int(rng.integers(3, 8))
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1 / length
        picture = cv2.filter2D(picture, -1, kernel if rng.random() < 0.5 else kernel.T)
    elif draw[2] < 0.22:
        height, width = picture.shape[:2]
        share = rng.uniform(0.4, 0.8)
        small = cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        picture = cv2.resize(small, (width, height))
    if draw[3] < (0.5 if dark else 0.10):
        noise = rng.normal(0, rng.uniform(3, 14), picture.shape[:2]).astype(np.float32)[..., None]
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    if draw[4] < 0.15:
        quality = int(rng.integers(25, 80))
        picture = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return picture


def cut_out(picture: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Covers pieces of the picture (DeVries and Taylor 2017); an object more than half covered is ignored."""
    size, boxes = picture.shape[0], boxes.copy()
    for _ in range(int(rng.integers(1, 4))):
        width, height = (int(size * rng.uniform(0.04, 0.2)) for _ in range(2))
        x, y = int(rng.integers(0, size - width)), int(rng.integers(0, size - height))
        flat = rng.random() < 0.5
        picture[y : y + height, x : x + width] = rng.integers(0, 256, 3 if flat else (height, width, 3))
        if len(boxes):
            boxes[covered(boxes, x, y, x + width, y + height) > 0.5, 4] = IGNORE
    return picture, boxes
