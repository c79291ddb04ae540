"""Graphs in half precision: what needs ONNX and no PyTorch."""

import pathlib

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from detector import half

MODELS = pathlib.Path(__file__).parents[2]
OPSET = [helper.make_opsetid("", 17)]


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return {value.name: value.type.tensor_type.elem_type for value in [*model.graph.input, *model.graph.output]}


def detector(rng: np.random.Generator) -> onnx.ModelProto:
    """Two convolutions, of which the second gives boxes; one of its outputs is decoded, one is not. `two` is a number
    that both the network and the decode read."""
    weights = {"first": (4, 3, 3, 3), "last": (6, 4, 1, 1)}
    numbers = {name: rng.normal(size=shape).astype(np.float32) * 0.3 for name, shape in weights.items()}
    numbers |= dict(two=np.float32(2.0), rows=np.array([2, 6, -1]), far=np.float32(300.01))
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["a", "two"], ["b"]),
        helper.make_node("Conv", ["b", "last"], ["c"]),
        helper.make_node("Reshape", ["c", "rows"], ["raw"]),
        helper.make_node("Constant", [], ["more"], value=numpy_helper.from_array(np.float32(0.02))),
        helper.make_node("Mul", ["raw", "two"], ["d"]),
        helper.make_node("Add", ["d", "more"], ["e"]),
        helper.make_node("Add", ["e", "far"], ["boxes"]),
    ]
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(
        nodes,
        "detector",
        [value("images", [2, 3, 8, 8])],
        [value("raw", [2, 6, 64]), value("boxes", [2, 6, 64])],
        [numpy_helper.from_array(array, name) for name, array in numbers.items()],
    )
    return helper.make_model(graph, opset_imports=OPSET, ir_version=8)


def test_the_committed_graphs_are_those_of_the_fp32_ones() -> None:
    for name in ("ppe-nano", "ppe-nano-small"):
        folder = MODELS / name / "2"
        made, committed = half.halve(onnx.load(str(folder / "model.onnx"))), onnx.load(str(folder / "model.fp16.onnx"))
        assert made == committed, f"make it anew: python -m detector half {folder}/model.onnx --out …"
        assert kinds(committed) == {"images": TensorProto.FLOAT16, "output0": TensorProto.FLOAT}
        weights = [tensor for tensor in committed.graph.initializer if tensor.name.endswith(".weight")]
        assert len(weights) > 40 and {tensor.data_type for tensor in weights} == {TensorProto.FLOAT16}


def test_the_network_is_halved_and_its_decode_is_not() -> None:
    rng = np.random.default_rng(3)
    model, images = detector(rng), rng.random((2, 3, 8, 8), np.float32)
    before = model.SerializeToString()
    halved = half.halve(model)
    assert model.SerializeToString() == before
    assert kinds(halved) == {"images": TensorProto.FLOAT16, "raw": TensorProto.FLOAT16, "boxes": TensorProto.FLOAT}
    assert [output.name for output in halved.graph.output] == ["raw", "boxes"]
    raw, boxes = run(model, images=images)
    raw_half, boxes_half = run(halved, images=images.astype(np.float16))
    assert raw_half == pytest.approx(raw, abs=5e-3) and not np.array_equal(raw_half, raw)
    # At 300, half precision has steps of a quarter.
    assert boxes_half == pytest.approx(boxes, abs=1e-2)


def test_what_is_no_network_in_fp32_is_refused() -> None:
    with pytest.raises(ValueError, match="no fp32 input"):
        half.halve(half.halve(detector(np.random.default_rng(3))))


def test_a_rounded_graph_keeps_what_half_precision_keeps() -> None:
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n"])
    factor = numpy_helper.from_array(np.float16(3.0), "three")
    nodes = [
        helper.make_node("Mul", ["x", "three"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("Cast", ["z"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "wide"], ["square"]),
    ]
    square = helper.make_tensor_value_info("square", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(nodes, "g", [value("x")], [value("z"), square], [factor])
    model = half.rounded(helper.make_model(graph, opset_imports=OPSET, ir_version=8))
    assert set(kinds(model).values()) == {TensorProto.FLOAT}
    rng = np.random.default_rng(5)
    values = rng.normal(size=4096) * 10.0 ** rng.uniform(-3, 4, 4096)
    # Below that, half precision has fewer digits, and the rounded graph has not.
    values = values[np.abs(values) > 2.0**-14]
    values = np.concatenate([values, [0.0, -0.0, 21_835, 21_845, -21_845, 65_504, 65_530, 1e9]]).astype(np.float32)
    z, square = run(model, x=values)
    with np.errstate(over="ignore"):
        wanted = np.maximum(values.astype(np.float16) * np.float16(3.0), np.float16(0)).astype(np.float32)
    assert np.isinf(wanted).sum() >= 3
    assert np.array_equal(z, wanted)
    with np.errstate(over="ignore"):
        assert np.array_equal(square, wanted * wanted)


def test_rounding_shows_more_than_a_processor_does() -> None:
    """Why there is `rounded`: ONNX Runtime's CPU provider keeps fp32 between the nodes of a graph in half precision."""
    folder = MODELS / "ppe-nano" / "2"
    halved = half.halve(onnx.load(str(folder / "model.onnx")))
    images = np.random.default_rng(7).random((1, 3, 320, 320), np.float32)
    exact = run(onnx.load(str(folder / "model.onnx")), images=images)[0]
    shown = [run(half.rounded(halved), images=images)[0], run(halved, images=images.astype(np.float16))[0]]
    off = [np.abs(output - exact)[:, :4].mean() for output in shown]
    assert 0.1 > off[0] > off[1] > 0, off
