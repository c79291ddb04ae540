"""Makes the test model `scene-blobs`: a detector for the drawn sample scene, built by hand, without training.

    python models/scene-blobs/make.py            # writes 1/model.onnx and its sha256 into 1/manifest.toml
    python models/scene-blobs/make.py --check    # fails if either differs from what it would write

Needs the package `onnx` (1.23). The bytes are the same on every run.

Input  `images`  f32 [N, 3, 320, 320], RGB in 0..1, letterboxed in the middle.
Output `output0` f32 [N, 6, 1600]: cx, cy, w, h in input pixels, then the scores of head and helmet, for each of 40 × 40
anchors (the layout of YOLOv8). At most the anchors around the middle of a blob have a score.

How it works: heads and helmets are the only things in the scene with a high Cr; helmets alone have a low Cb.
1. A 1 × 1 convolution makes Cb and Cr; thresholds make the masks.
2. Every masked pixel holds its own x, y and their counterparts from the other side. The maximum of each over the blob
   is the blob's box. It spreads over cells of 2 × 2 pixels by 3 × 3 maxima, each masked again so that it never leaves
   the blob; so does the share of helmet.
3. A cell near the middle of its blob's box keeps the box, if it is of a head's size and shape; the others drop out.
The score says how large the blob is: 0.5 for a tiny one, 0.98 from 29 pixels of height on. So a threshold of 0.9 keeps
the people in front.
"""

import argparse
import hashlib
import pathlib
import re
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 320
CELLS = SIZE // 2
ANCHORS = SIZE // 8

# Codes from their middle: the scene's skin has Cb -33 and Cr 42, its helmets Cb -111 and Cr 42, all else Cr below 10.
WARM_CR = 21 / 255
HELMET_CB = -66 / 255
# A blob spreads by one cell a round: 44 pixels, more than a head has at any scale.
ROUNDS = 22
MIN_HEIGHT = 8.0
MIN_WIDTH = 3.0
# Heads of which less than this shows from the side, as a ratio of width to height, count as hidden.
MIN_ASPECT, MAX_ASPECT = 0.42, 2.0
# Distance in pixels from a cell to the middle of its blob.
NEAR_MIDDLE = 2.1


class Graph:
    """Nodes and constants in the order they are made."""

    def __init__(self) -> None:
        self.nodes, self.constants = [], {}

    def constant(self, value, dtype=np.float32) -> str:
        array = np.asarray(value, dtype)
        key = f"c_{array.dtype}_{'x'.join(map(str, array.shape))}_{hashlib.sha256(array.tobytes()).hexdigest()[:8]}"
        self.constants.setdefault(key, numpy_helper.from_array(array, key))
        return key

    def __call__(self, operator: str, *inputs, **attributes) -> str:
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        output = attributes.pop("output", f"t{len(self.nodes)}")
        self.nodes.append(helper.make_node(operator, names, [output], name=output, **attributes))
        return output

    def true(self, condition: str) -> str:
        """1.0 where the condition holds, else 0.0."""
        return self("Cast", condition, to=TensorProto.FLOAT)

    def channel(self, value: str, index: int) -> str:
        bounds = [self.constant([at], np.int64) for at in (index, index + 1, 1)]
        return self("Slice", value, *bounds)


def build() -> bytes:
    g = Graph()
    to_chroma = np.array([[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32).reshape(2, 3, 1, 1)
    chroma = g("Conv", "images", to_chroma, kernel_shape=[1, 1])
    cb, cr = g.channel(chroma, 0), g.channel(chroma, 1)
    warm = g.true(g("Greater", cr, WARM_CR))
    helmet = g("Mul", warm, g.true(g("Less", cb, HELMET_CB)))

    step = np.arange(SIZE, dtype=np.float32)
    across, down = (1, 1, 1, SIZE), (1, 1, SIZE, 1)
    sides = [(step + 1).reshape(across), (step + 1).reshape(down), (SIZE - step).reshape(across), (SIZE - step).reshape(down)]
    corners = g("Concat", *[g("Mul", warm, side) for side in sides], axis=1)
    cell = {"kernel_shape": [2, 2], "strides": [2, 2]}
    occupied = g("MaxPool", warm, **cell)
    blob = g("Concat", g("MaxPool", corners, **cell), g("AveragePool", helmet, **cell), axis=1)
    for _ in range(ROUNDS):
        blob = g("Mul", g("MaxPool", blob, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), occupied)

    right, bottom = g.channel(blob, 0), g.channel(blob, 1)
    left, top = g("Sub", float(SIZE), g.channel(blob, 2)), g("Sub", float(SIZE), g.channel(blob, 3))
    is_helmet = g.true(g("Greater", g.channel(blob, 4), 0.9))
    width, height = g("Sub", right, left), g("Sub", bottom, top)
    x, y = (g("Mul", g("Add", low, high), 0.5) for low, high in ((left, right), (top, bottom)))
    middle = np.arange(CELLS, dtype=np.float32) * 2 + 1
    conditions = [
        g("Less", g("Abs", g("Sub", x, middle.reshape(1, 1, 1, CELLS))), NEAR_MIDDLE),
        g("Less", g("Abs", g("Sub", y, middle.reshape(1, 1, CELLS, 1))), NEAR_MIDDLE),
        g("Greater", height, MIN_HEIGHT - 0.5),
        g("Greater", width, MIN_WIDTH - 0.5),
        g("Greater", width, g("Mul", height, MIN_ASPECT)),
        g("Less", width, g("Mul", height, MAX_ASPECT)),
    ]
    keep = occupied
    for condition in conditions:
        keep = g("Mul", keep, g.true(condition))
    score = g("Min", g("Add", g("Mul", height, 0.48 / 29), 0.5), 0.98)
    scores = [g("Mul", score, g("Sub", 1.0, is_helmet)), g("Mul", score, is_helmet)]
    found = g("Mul", g("Concat", x, y, width, height, *scores, axis=1), keep)
    anchors = g("MaxPool", found, kernel_shape=[4, 4], strides=[4, 4])
    g("Reshape", anchors, g.constant([0, 6, ANCHORS * ANCHORS], np.int64), output="output0")

    graph = helper.make_graph(
        g.nodes,
        "scene-blobs",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["N", 6, ANCHORS * ANCHORS])],
        list(g.constants.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="saccade")
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the files differ")
    check = parser.parse_args().check
    folder = pathlib.Path(__file__).parent / "1"
    model_file, manifest_file = folder / "model.onnx", folder / "manifest.toml"
    model, manifest = build(), manifest_file.read_text()
    digest = hashlib.sha256(model).hexdigest()
    new_manifest = re.sub(r'(?m)^sha256 = ".*"$', f'sha256 = "{digest}"', manifest)
    if check:
        if model_file.read_bytes() != model or new_manifest != manifest:
            sys.exit("model.onnx or the sha256 in manifest.toml is not what this script makes")
        print("as made")
        return
    model_file.write_bytes(model)
    manifest_file.write_text(new_manifest)
    print(f"{len(model)} bytes, sha256 {digest}")


main()
