"""Checkpoint → model.onnx (fp32), model.int8.onnx (static quantisation, QDQ) and model.fp16.onnx."""

from __future__ import annotations

import hashlib
import pathlib
import random
import tempfile

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from . import augment, dataset, evaluate, half, model
from .config import Recipe
from .train import load_average, load_pools

#: What is quantised; the first convolution, the last ones and the decode behind them stay float.
QUANTISED = ["Conv", "Add", "Relu", "Resize", "MaxPool", "Concat"]
OPSET = 17


def fold(net: nn.Module) -> nn.Module:
    """Folds every batch normalisation into the convolution before it."""
    for sequence in [module for module in net.modules() if isinstance(module, nn.Sequential)]:
        for n in range(len(sequence) - 1):
            if isinstance(sequence[n], nn.Conv2d) and isinstance(sequence[n + 1], nn.BatchNorm2d):
                sequence[n] = torch.nn.utils.fuse_conv_bn_eval(sequence[n], sequence[n + 1])
                sequence[n + 1] = nn.Identity()
    return net


@torch.no_grad()
def add_bias(net: model.Detector, bias: tuple[float, ...]) -> None:
    """Adds to the logits of each class."""
    for head in net.class_heads if bias else ():
        head[-1].bias += torch.tensor(bias)


def write_fp32(net: model.Detector, size: int, path: pathlib.Path) -> None:
    """Writes the graph with a free batch size, and compares it with the network."""
    images = torch.rand(3, 3, size, size)
    decoded = model.Decoded(net, size).eval()
    with torch.inference_mode():
        wanted = decoded(images).numpy()
    fold(net)
    torch.onnx.export(
        decoded,
        (images,),
        str(path),
        input_names=["images"],
        output_names=["output0"],
        opset_version=OPSET,
        dynamo=False,
        dynamic_axes=dict(images={0: "batch"}, output0={0: "batch"}),
    )
    onnx.checker.check_model(str(path))
    run, _ = evaluate.onnx_runner(path)
    off = float(np.abs(run(images.numpy()) - wanted).max())
    if off > 1e-2:
        raise ValueError(f"the exported graph differs from the network by {off}")
    print(f"{path}: {path.stat().st_size} bytes, differs by {off:.1e}, sha256 {sha256(path)}")


def float_stem(graph: onnx.GraphProto) -> list[str]:
    """Names of the convolution that reads the picture and of its ReLU. With three channels in, int8 makes it slower on
    a CPU, and it is where most of the loss would come from."""
    first = [node for node in graph.node if node.op_type == "Conv" and node.input[0] == graph.input[0].name]
    outputs = {output for node in first for output in node.output}
    behind = [node for node in graph.node if node.op_type == "Relu" and node.input[0] in outputs]
    return [node.name for node in first + behind]


def float_tail(graph: onnx.GraphProto) -> list[str]:
    """Names of the last convolutions of all heads and of everything behind them."""
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    def reaches_convolution(node: onnx.NodeProto) -> bool:
        behind = [consumer for output in node.output for consumer in consumers.get(output, [])]
        return any(consumer.op_type == "Conv" or reaches_convolution(consumer) for consumer in behind)

    tail = [node.name for node in graph.node if node.op_type == "Conv" and not reaches_convolution(node)]
    outputs = {output for node in graph.node if node.name in tail for output in node.output}
    for node in graph.node:
        if any(name in outputs for name in node.input):
            tail.append(node.name)
            outputs |= set(node.output)
    return tail


class Calibration(CalibrationDataReader):
    """Pictures as the server would feed them."""

    def __init__(self, samples: list[dataset.Sample], size: int):
        self.tensors = (
            np.ascontiguousarray(
                augment.letterbox(sample.picture, size)[0][:, :, ::-1].transpose(2, 0, 1)[None]
            ).astype(np.float32)
            / 255
            for sample in samples
        )

    def get_next(self):
        tensor = next(self.tensors, None)
        return None if tensor is None else {"images": tensor}


def write_int8(fp32: pathlib.Path, samples: list[dataset.Sample], size: int, path: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        prepared = pathlib.Path(scratch) / "prepared.onnx"
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(str(prepared)).graph
        excluded = float_stem(graph) + float_tail(graph)
        excluded += [node.name for node in graph.node if node.op_type not in QUANTISED]
        quantize_static(
            str(prepared),
            str(path),
            Calibration(samples, size),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=QUANTISED,
            nodes_to_exclude=sorted(set(excluded)),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=dict(CalibMovingAverage=True),
        )
    print(f"{path}: {path.stat().st_size} bytes, sha256 {sha256(path)}")


def sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def export(recipe: Recipe, checkpoint: pathlib.Path, out: pathlib.Path, pictures: int) -> None:
    """Writes all graphs; int8 is calibrated on `pictures` photos of the training part, with a few scenes and negatives
    among them."""
    out.mkdir(parents=True, exist_ok=True)
    size = recipe.network.size
    net = load_average(checkpoint, recipe.classes)
    add_bias(net, recipe.export.score_bias)
    write_fp32(net, size, out / "model.onnx")
    pools, _ = load_pools(recipe)
    rng = random.Random(recipe.schedule.seed)
    few = pictures // 10
    samples = rng.sample(pools.photos, min(pictures, len(pools.photos)))
    samples += rng.sample(pools.scenes, min(few, len(pools.scenes))) + rng.sample(
        pools.negatives, min(few, len(pools.negatives))
    )
    write_int8(out / "model.onnx", samples, size, out / "model.int8.onnx")
    half.write(out / "model.onnx", out / "model.fp16.onnx")
