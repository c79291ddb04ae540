"""model.onnx (fp32) → model.fp16.onnx, and a graph that shows on a processor what half precision loses.

The network computes in half precision, from its input on. What reads numbers out of the last convolutions (boxes in
pixels, scores) stays fp32 and so do the outputs it gives: above 256 a number of half precision is a quarter of a pixel
off, above 1024 a whole one."""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: What neither computes nor rounds: it hands numbers on as they are.
MOVES = {"Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
#: What gives one of the numbers that it gets.
CHOOSES = MOVES | {"MaxPool", "Relu"}


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in half precision but for its decode. Inputs become half, and so do outputs that nothing computes
    behind the last convolutions.

    Raises ValueError for a graph that has no fp32 input."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    if not any(is_float(value.type) for value in model.graph.input):
        raise ValueError("the graph has no fp32 input: give one that computes in fp32")
    model = with_initializers(model)
    graph = model.graph
    behind = decode(graph)
    decoded = {name for node in behind for name in node.output}
    body = [node for node in graph.node if not decoded & set(node.output)]
    made = {name for node in body for name in node.output if name}
    read = [name for node in behind for name in node.input]
    edge = list(dict.fromkeys(name for name in read if name in made))
    kept = [output for output in graph.output if output.name in made]

    network = onnx.ModelProto()
    network.CopyFrom(model)
    replace(network.graph.node, body)
    used = {name for node in body for name in node.input}
    replace(network.graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])
    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = {value.name: value for value in [*inferred.value_info, *inferred.output]}
    shown = {output.name for output in kept}
    replace(network.graph.output, [*kept, *(known[name] for name in edge if name not in shown)])
    network = convert_float_to_float16(network)

    wide = {name: f"{name}_wide" for name in edge if is_float(known[name].type)}
    casts = [helper.make_node("Cast", [name], [wide[name]], name=wide[name], to=TensorProto.FLOAT) for name in wide]
    # Numbers that both the network and the decode read are there twice.
    for tensor in graph.initializer:
        if tensor.name in read and (tensor.name not in used or tensor.data_type == TensorProto.FLOAT):
            wide |= {tensor.name: f"{tensor.name}_wide"} if tensor.name in used else {}
            network.graph.initializer.append(tensor)
            network.graph.initializer[-1].name = wide.get(tensor.name, tensor.name)
    for node in behind:
        replace(node.input, [wide.get(name, name) for name in node.input])
    network.graph.node.extend([*casts, *behind])
    halved = {output.name: output for output in network.graph.output}
    replace(network.graph.output, [halved.get(output.name, output) for output in graph.output])
    # Shapes that were told of the fp32 graph are inferred anew.
    del network.graph.value_info[:]
    onnx.checker.check_model(network, full_check=True)
    return network


def decode(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """What computes behind the last convolutions, in the order of the graph."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    convolving: set[str] = set()
    for node in reversed(graph.node):
        further = [reader for name in node.output for reader in readers.get(name, [])]
        if any(reader.op_type == "Conv" or convolving & set(reader.output) for reader in further):
            convolving |= set(node.output)
    last = {name for node in graph.node if node.op_type == "Conv" for name in node.output} - convolving
    found, computed = [], set()
    for node in graph.node:
        sources = set(node.input)
        if sources & computed or (sources & last and node.op_type not in MOVES):
            found.append(node)
            computed |= set(node.output)
        elif sources & last:
            last |= set(node.output)
    return found


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph in fp32 each of whose results is what a GPU would keep in half precision: with eleven digits, infinite
    from 65,520 on. Processors that run a graph in half precision leave that out between nodes.

    Numbers below 2⁻¹⁴ keep more digits than half precision has."""
    model = with_initializers(model)
    graph = model.graph
    types = onnx.shape_inference.infer_shapes(model).graph
    halves = {value.name for value in [*types.value_info, *types.input, *types.output] if is_half(value.type)}
    constants = dict(round_split=2.0**13 + 1, round_up=2.0**112, round_down=2.0**-112)
    # Beyond half precision, and the splitting has room for it.
    constants |= dict(round_least=-(2.0**17), round_most=2.0**17)
    nodes: list[onnx.NodeProto] = []

    def round_to(source: str, target: str) -> None:
        """Veltkamp's splitting, which gives the upper eleven of the 24 digits; then overflow as half precision has it."""
        one, two, three, four, five = (f"{target}_{step}" for step in range(5))
        for op, inputs, output in (
            ("Clip", [source, "round_least", "round_most"], one),
            ("Mul", [one, "round_split"], two),
            ("Sub", [two, one], three),
            ("Sub", [two, three], four),
            ("Mul", [four, "round_up"], five),
            ("Mul", [five, "round_down"], target),
        ):
            nodes.append(helper.make_node(op, inputs, [output], name=output))

    inputs = {value.name: f"{value.name}_rounded" for value in graph.input if value.name in halves}
    for source, target in inputs.items():
        round_to(source, target)
    for node in graph.node:
        replace(node.input, [inputs.get(name, name) for name in node.input])
        narrows = node.output[0] in halves
        if node.op_type == "Cast" and (narrows or node.input[0] in halves | set(inputs.values())):
            node.op_type = "Identity"
            del node.attribute[:]
        nodes.append(node)
        for number, name in enumerate(node.output if narrows and node.op_type not in CHOOSES - {"Identity"} else []):
            node.output[number] = f"{name}_exact"
            round_to(f"{name}_exact", name)
    replace(graph.node, nodes)
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    graph.initializer.extend(numpy_helper.from_array(np.float32(value), name) for name, value in constants.items())
    for value in [*graph.input, *graph.output]:
        if is_half(value.type):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def write(source: pathlib.Path, path: pathlib.Path, as_rounded: bool = False) -> None:
    """Writes the graph of a file in half precision, or what shows on a processor what that loses."""
    model = halve(onnx.load(str(source)))
    path.write_bytes((rounded(model) if as_rounded else model).SerializeToString(deterministic=True))
    print(f"{path}: {path.stat().st_size} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


def with_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which constants are initializers, which are converted as their readers need them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = []
    for node in copy.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            tensor.name = node.output[0]
            copy.graph.initializer.append(tensor)
        else:
            nodes.append(node)
    replace(copy.graph.node, nodes)
    return copy


def replace(field, values) -> None:
    values = list(values)
    kept = [value if isinstance(value, str) else type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(kept)


def is_float(value: onnx.TypeProto) -> bool:
    return value.tensor_type.elem_type == TensorProto.FLOAT


def is_half(value: onnx.TypeProto) -> bool:
    return value.tensor_type.elem_type == TensorProto.FLOAT16
