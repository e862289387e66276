"""Storage of the weights of ONNX graphs in float16 or int8.

Computations stay in float32: each stored tensor is followed by the nodes that convert it back, which every runtime
supports and computes once, when it loads the graph.

    float16: w = Cast(stored)
    int8:    w = Cast(stored) / divisor, with one divisor for each row of the first axis, such as an output channel
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Weights = Literal["float32", "float16", "int8"]
"""The type in which a graph stores large weights."""
WEIGHTS: tuple[Weights, ...] = get_args(Weights)

_MIN_SIZE = 256
"""Tensors with fewer values, such as biases and constants, stay in float32."""
_MIN_INT8_SIZE, _MIN_INT8_ROW = 4096, 64
"""Tensors with fewer values or shorter rows, such as depthwise kernels, are stored in float16.

They are few values, and the most sensitive ones: of the squared error of the heatmaps of `balanced` with all kernels
in int8, 84 % was that of the first depthwise kernel, and 97 % that of kernels stored in float16 now.
"""
INT8_MAX = 127
"""Rows are symmetric: -128 is not used, so that no weight is rounded to more than the largest."""
_CLIP_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)


def store_weights(model: Any, weights: Weights, kept: Collection[str] = ()) -> dict[str, NDArray[np.float32]]:
    """Converts the large float32 tensors of an onnx.ModelProto, in place.

    Args:
        model: the graph.
        weights: "float16", also for tensors with one axis; "int8"; "float32" changes nothing.
        kept: names of tensors that stay in float32.

    Returns:
        The float32 values that the graph now has for the converted tensors, by name.

    Raises:
        ValueError: if a weight exceeds the range of float16.
    """
    from onnx import TensorProto

    added: list[Any] = []
    rounded: dict[str, NDArray[np.float32]] = {}
    for tensor in list(model.graph.initializer):
        size, axes = int(np.prod(tensor.dims)), len(tensor.dims)
        if tensor.data_type != TensorProto.FLOAT or size < _MIN_SIZE or tensor.name in kept:
            continue
        if weights == "float32" or (weights == "int8" and axes < 2):
            continue
        name = tensor.name
        if weights == "int8" and size >= max(_MIN_INT8_SIZE, _MIN_INT8_ROW * tensor.dims[0]):
            nodes, rounded[name] = _store_in_int8(model, tensor)
        else:
            nodes, rounded[name] = _store_in_float16(tensor)
        added += nodes
    prepend_nodes(model, added)
    return rounded


def replace_weights(model: Any, values: Mapping[str, NDArray[np.float32]]) -> None:
    """Replaces initializers of an onnx.ModelProto by name, in place."""
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))


def remove_traces(model: Any) -> None:
    """Removes the exporter's notes from an onnx.ModelProto, in place: up to megabytes of lines of source code."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    del model.graph.metadata_props[:]


def _store_in_float16(tensor: Any) -> tuple[list[Any], NDArray[np.float32]]:
    """Converts a tensor; returns the node that converts it back, and the rounded values."""
    from onnx import TensorProto, helper, numpy_helper

    values, name = numpy_helper.to_array(tensor), tensor.name
    if np.abs(values).max() > np.finfo(np.float16).max:
        raise ValueError(f"{name} exceeds the range of float16: export without half and int8")
    halves = values.astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(halves, f"{name}.half"))
    return [helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT)], halves.astype(np.float32)


def _store_in_int8(model: Any, tensor: Any) -> tuple[list[Any], NDArray[np.float32]]:
    """Converts a tensor, adds its divisors; returns the nodes that convert it back, and the rounded values."""
    from onnx import TensorProto, helper, numpy_helper

    values, name = numpy_helper.to_array(tensor), tensor.name
    rounded, scale = quantize_rows(values)
    divisor = (1 / scale).reshape(-1, *[1] * (values.ndim - 1)).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(rounded, f"{name}.int8"))
    model.graph.initializer.append(numpy_helper.from_array(divisor, f"{name}.divisor"))
    # Not a product with the scale, by which OpenVINO 2026.4 recognizes compressed weights: it then keeps int8 values
    # until inference, computes with wrong kernels of convolutions in a second stream, and rounds the inputs of matrix
    # products to int8, too. A quotient is computed when the graph is loaded, as in other runtimes.
    nodes = [
        helper.make_node("Cast", [f"{name}.int8"], [f"{name}.cast"], to=TensorProto.FLOAT),
        helper.make_node("Div", [f"{name}.cast", f"{name}.divisor"], [name]),
    ]
    values = rounded.astype(np.float32) / divisor
    return nodes, values


def prepend_nodes(model: Any, added: list[Any]) -> None:
    """Inserts nodes before all others, in place, and removes the type entries of tensors that they now compute."""
    graph = model.graph
    computed = {name for node in added for name in node.output}
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*added, *nodes])
    # the exporter's entries of initializers now belong to the outputs of nodes
    kept = [value for value in graph.value_info if value.name not in computed]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def quantize_rows(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Rounds the rows of a tensor to int8; for each row, the scale with the smallest squared error is chosen.

    A scale below that of the largest value clips a few values and rounds all others more finely.

    Args:
        values: (R, ...).

    Returns:
        Integers (R, ...) and scales (R,); integer times scale is close to the value.
    """
    rows = values.reshape(len(values), -1)
    largest = np.abs(rows).max(axis=1, initial=0.0).astype(np.float32)
    best, scale = np.full(len(rows), np.inf, np.float32), np.ones(len(rows), np.float32)
    for ratio in _CLIP_RATIOS:
        # a row of zeros has any scale
        candidate = np.where(largest > 0, ratio * largest / INT8_MAX, 1).astype(np.float32)
        error = np.square(round_rows(rows, candidate) * candidate[:, None] - rows).sum(axis=1)
        better = error < best
        best[better], scale[better] = error[better], candidate[better]
    return round_rows(values, scale), scale


def round_rows(values: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.int8]:
    """Rounds the rows (R, ...) of a tensor to int8 with given scales (R,)."""
    steps = values / scale.reshape(-1, *[1] * (values.ndim - 1))
    return np.clip(np.round(steps), -INT8_MAX, INT8_MAX).astype(np.int8)
