"""Writes models of YOLOv8n's architecture with weights that mean nothing, to measure speed with.

usage: yolo.py FOLDER [SIDE…]      # FOLDER/yolo-SIDE/1/{manifest.toml, model.onnx, model.fp16.onnx}, 640, 416 and 320

The graph is that of the published network (backbone with C2f and SPPF, path aggregation, three decoupled heads, boxes by
distribution), batch normalisation folded: 8.7 GFLOP for 640×640. Batches are free. The one in half precision takes and
gives 32-bit floats. Weights repeat a short row of numbers, so that the files pack well; scores are low, so that hardly a
box is found: what suppression takes of many boxes is not measured with it.
"""

import pathlib
import sys

import numpy
from onnx import TensorProto, checker, helper, numpy_helper, save

CLASSES = 80
# Of the last layers for scores: a model says of most places that there is nothing.
BIAS = -6.0
MANIFEST = """\
name = "yolo-{side}"
version = "1"
task = "detect"
licence = "MIT OR Apache-2.0"

[file]
path = "model.onnx"

[input]
size = [{side}, {side}]
scale = [0.00392156862745098, 0.00392156862745098, 0.00392156862745098]

[output]
decoder = "yolov8"

[classes]
names = [{names}]
"""


class Network:
    """A graph in the making; `shapes` knows channels, height and width of each tensor."""

    def __init__(self, side: int, half: bool) -> None:
        self.side, self.kind = side, numpy.float16 if half else numpy.float32
        self.nodes, self.weights, self.shapes, self.macs = [], [], {"pixels": (3, side, side)}, 0
        numbers = numpy.random.default_rng(0)
        self.numbers = numbers.standard_normal(4096).astype(numpy.float32)

    def add(self, kind: str, inputs: list[str], shape: tuple[int, ...] | None, outputs: int = 1, **attributes) -> list[str]:
        names = [f"{kind}{len(self.nodes)}_{n}" for n in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=names[0], **attributes))
        self.shapes.update((name, shape) for name in names)
        return names

    def constant(self, values: numpy.ndarray) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, x: str, channels: int, size: int = 3, stride: int = 1, active: bool = True, bias: float = 0.0) -> str:
        inputs, height, width = self.shapes[x]
        count = channels * inputs * size * size
        # Scaled so that values neither vanish nor grow from layer to layer.
        scale = numpy.sqrt(2 / (inputs * size * size))
        weight = (numpy.resize(self.numbers, count) * scale).reshape(channels, inputs, size, size).astype(self.kind)
        offset = numpy.full(channels, bias, self.kind)
        shape = (channels, height // stride, width // stride)
        self.macs += count * shape[1] * shape[2]
        inputs = [x, self.constant(weight), self.constant(offset)]
        (y,) = self.add("Conv", inputs, shape, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4)
        if not active:
            return y
        (gate,) = self.add("Sigmoid", [y], shape)
        return self.add("Mul", [y, gate], shape)[0]

    def concat(self, parts: list[str]) -> str:
        _, height, width = self.shapes[parts[0]]
        return self.add("Concat", parts, (sum(self.shapes[part][0] for part in parts), height, width), axis=1)[0]

    def c2f(self, x: str, channels: int, repeats: int, shortcut: bool) -> str:
        half = channels // 2
        x = self.conv(x, channels, 1)
        _, height, width = self.shapes[x]
        sizes = self.constant(numpy.array([half, half], numpy.int64))
        parts = self.add("Split", [x, sizes], (half, height, width), outputs=2, axis=1)
        last = parts[1]
        for _ in range(repeats):
            made = self.conv(self.conv(last, half), half)
            last = self.add("Add", [last, made], self.shapes[last])[0] if shortcut else made
            parts.append(last)
        return self.conv(self.concat(parts), channels, 1)

    def pool(self, x: str) -> str:
        return self.add("MaxPool", [x], self.shapes[x], kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4)[0]

    def twice(self, x: str) -> str:
        channels, height, width = self.shapes[x]
        scales = self.constant(numpy.array([1, 1, 2, 2], numpy.float32))
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.add("Resize", [x, "", scales], (channels, 2 * height, 2 * width), **how)[0]

    def reshape(self, x: str, *shape: int) -> str:
        # The batch stays as it is.
        return self.add("Reshape", [x, self.constant(numpy.array([0, *shape], numpy.int64))], None)[0]

    def head(self, levels: list[str]) -> tuple[str, int]:
        boxes, scores, anchors = [], [], 0
        for level in levels:
            _, height, width = self.shapes[level]
            anchors += height * width
            box = self.conv(self.conv(self.conv(level, 64), 64), 64, 1, active=False)
            score = self.conv(self.conv(self.conv(level, CLASSES), CLASSES), CLASSES, 1, active=False, bias=BIAS)
            boxes.append(self.reshape(box, 64, height * width))
            scores.append(self.reshape(score, CLASSES, height * width))
        (box,) = self.add("Concat", boxes, None, axis=2)
        (score,) = self.add("Concat", scores, None, axis=2)
        # Each side of a box is the mean of 16 distances, weighed by how likely they are.
        (sides,) = self.add("Transpose", [self.reshape(box, 4, 16, anchors)], None, perm=[0, 2, 1, 3])
        (likely,) = self.add("Softmax", [sides], None, axis=1)
        distances = self.constant(numpy.arange(16, dtype=self.kind).reshape(1, 16, 1, 1))
        (mean,) = self.add("Conv", [likely, distances], None)
        (score,) = self.add("Sigmoid", [score], None)
        return self.add("Concat", [self.reshape(mean, 4, anchors), score], None, axis=1)[0], anchors

    def build(self) -> tuple[str, int]:
        x = self.c2f(self.conv(self.conv("pixels", 16, 3, 2), 32, 3, 2), 32, 1, True)
        third = self.c2f(self.conv(x, 64, 3, 2), 64, 2, True)
        fourth = self.c2f(self.conv(third, 128, 3, 2), 128, 2, True)
        x = self.c2f(self.conv(fourth, 256, 3, 2), 256, 1, True)
        pooled = [self.conv(x, 128, 1)]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        fifth = self.conv(self.concat(pooled), 256, 1)
        up = self.c2f(self.concat([self.twice(fifth), fourth]), 128, 1, False)
        small = self.c2f(self.concat([self.twice(up), third]), 64, 1, False)
        middle = self.c2f(self.concat([self.conv(small, 64, 3, 2), up]), 128, 1, False)
        large = self.c2f(self.concat([self.conv(middle, 128, 3, 2), fifth]), 256, 1, False)
        return self.head([small, middle, large])

    def write(self, path: pathlib.Path) -> None:
        half = self.kind == numpy.float16
        to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        # In fp32 these do nothing, and are taken out when the graph is optimised.
        self.nodes.append(helper.make_node("Cast", ["images"], ["pixels"], to=to))
        output, anchors = self.build()
        self.nodes.append(helper.make_node("Cast", [output], ["output0"], to=TensorProto.FLOAT))
        value = lambda name, *shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
        images, boxes = value("images", 3, self.side, self.side), value("output0", 4 + CLASSES, anchors)
        graph = helper.make_graph(self.nodes, "yolo", [images], [boxes], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        checker.check_model(model)
        save(model, path)


def main() -> None:
    folder, sides = pathlib.Path(sys.argv[1]), [int(side) for side in sys.argv[2:]] or [640, 416, 320]
    for side in sides:
        version = folder / f"yolo-{side}" / "1"
        version.mkdir(parents=True, exist_ok=True)
        names = ", ".join(f'"class {number}"' for number in range(CLASSES))
        (version / "manifest.toml").write_text(MANIFEST.format(side=side, names=names))
        for half, name in [(False, "model.onnx"), (True, "model.fp16.onnx")]:
            network = Network(side, half)
            network.write(version / name)
        print(f"yolo-{side}: {2 * network.macs / 1e9:.1f} GFLOP")


if __name__ == "__main__":
    main()
