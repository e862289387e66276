"""Static int8 quantization of ONNX graphs: convolutions with constant kernels and additions compute in int8.

Activations are uint8 with one scale and zero point per tensor, kernels int8 with one scale per output channel:

    a = s (q - z),  q = round(a / s) + z in 0 .. 255;      w[o] = s[o] q,  q in -127 .. 127

The graph stays an ordinary float graph in which QuantizeLinear and DequantizeLinear mark what is rounded. ONNX Runtime
and OpenVINO replace a marked convolution by one in int8; a ReLU or a clip before a marked tensor is part of the
rounding, which cannot represent values outside its range.
"""

import copy
import functools
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.export.onnx_weights import prepend_nodes, quantize_rows, round_rows
from posedy.export.runtimes import Array

_LEVELS = 255
_CLIP_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
_SAMPLES_PER_INPUT = 512
"""Number of values of each tensor and input from which ranges are chosen."""
_MAX_INT32 = 2**31 - 1
_MAX_BIAS = 2**30
"""Largest integer of a bias, well inside of int32."""
_ACTIVATIONS = ("Relu", "Clip")
_NETWORK, _DYNAMIC = "net.", ".kernels."
"""Prefix of the names of the network's weights, as decoding may convolve, too; part of those of dynamic kernels."""
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_PASSED = _CONVOLUTIONS | {
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "HardSwish",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Resize",
}
"""Operators between two convolutions of feature maps, in contrast to those of attention."""


@dataclass(frozen=True)
class Layer:
    """A part of a graph that computes in int8 or in float32.

    Attributes:
        name: the name of the kernel, or of the output of an addition.
        nodes: the names of its nodes: several if the graph applies a kernel twice, as with the flip test.
    """

    name: str
    nodes: tuple[str, ...]


@dataclass(eq=False)
class TensorStatistics:
    """The values of a tensor over the calibration inputs.

    Attributes:
        low: the smallest value.
        high: the largest value.
        samples: some values of each input.
        channel_sums: (C,) sums over inputs of the mean of each channel.
        count: number of inputs.
    """

    low: float = 0.0
    high: float = 0.0
    samples: list[NDArray[np.float32]] = field(default_factory=list)
    channel_sums: NDArray[np.float64] | float = 0.0
    count: int = 0

    @property
    def channel_means(self) -> NDArray[np.float64]:
        """The mean (C,) of each channel."""
        return np.asarray(self.channel_sums) / self.count

    def update(self, values: NDArray[np.float32]) -> None:
        """Adds a tensor (N, C, H, W)."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        flat = values.ravel()
        step = max(1, len(flat) // _SAMPLES_PER_INPUT)
        self.samples.append(flat[self.count % step :: step])
        self.channel_sums = self.channel_sums + values.mean(axis=(0, 2, 3), dtype=np.float64)
        self.count += 1

    @functools.cached_property
    def quantization(self) -> tuple[np.float32, np.uint8]:
        """Returns scale and zero point: those of several ranges with the smallest squared error of the samples."""
        values = np.concatenate(self.samples)
        best = (np.inf, np.float32(1), np.uint8(0))
        for low_ratio in _CLIP_RATIOS if self.low < 0 else (1.0,):
            for high_ratio in _CLIP_RATIOS:
                low, high = low_ratio * self.low, high_ratio * self.high
                scale = np.float32((high - low) / _LEVELS) if high > low else np.float32(1)
                zero = np.round(-low / scale)
                rounded = np.clip(np.round(values / scale) + zero, 0, _LEVELS)
                error = float(np.square((rounded - zero) * scale - values).mean())
                if error < best[0]:
                    best = error, scale, np.uint8(zero)
        return best[1:]


class StaticQuantizer:
    """Quantizes a graph after observing its tensors on calibration inputs.

    Args:
        model: an onnx.ModelProto with float32 weights and constants as initializers, as exported; it is not changed.

    Attributes:
        model: a copy.
        layers: the layers that can compute in int8, in the order of the graph.
    """

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self.model = copy.deepcopy(model)
        nodes = self.model.graph.node
        self._nodes = {node.name: node for node in nodes}
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}
        self._producers = {name: node for node in nodes for name in node.output}
        self._consumers: dict[str, list[Any]] = {}
        for node in nodes:
            for name in set(node.input):
                self._consumers.setdefault(name, []).append(node)
        self._statistics: dict[str, TensorStatistics] = {}
        self.layers = self._find_layers()

    def _find_layers(self) -> list[Layer]:
        """Returns the convolutions with constant kernels and the additions whose output enters a later convolution.

        The convolutions that compute the outputs are not among them: keypoints are between heatmap pixels, and rounding
        the values of these to 256 levels moves them. Neither are attention and kernels of dynamic convolutions.
        """
        convolutions = [node for node in self.model.graph.node if node.op_type == "Conv"]
        on_path: set[str] = set()
        pending = [
            node.input[0]
            for node in convolutions
            if node.input[1] not in self._constants or node.input[1].startswith(_NETWORK)
        ]
        while pending:
            node = self._producers.get(pending.pop())
            if node is not None and node.op_type in _PASSED and node.name not in on_path:
                on_path.add(node.name)
                pending += node.input[:1] if node.op_type in _CONVOLUTIONS else node.input
        layers: dict[str, list[str]] = {}
        for node in self.model.graph.node:
            if node.name not in on_path:
                continue
            if node.op_type == "Conv" and node.input[1] in self._constants and _DYNAMIC not in node.input[1]:
                layers.setdefault(node.input[1], []).append(node.name)
            elif node.op_type == "Add" and not self._constants.keys() & set(node.input):
                layers.setdefault(node.output[0], []).append(node.name)
        return [Layer(name, tuple(names)) for name, names in layers.items()]

    def observe(self, inputs: Iterable[Array]) -> None:
        """Runs the graph on inputs and records the values of the tensors that layers round.

        Args:
            inputs: inputs of the graph, each with its batch axis.
        """
        import onnx
        import onnxruntime

        names = sorted(
            {name for layer in self.layers for node in layer.nodes for name in self._rounded_tensors(self._nodes[node])}
        )
        observed = copy.deepcopy(self.model)
        del observed.graph.output[:]
        observed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            observed.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._statistics = {name: TensorStatistics() for name in names}
        for batch in inputs:
            outputs = session.run(names, {session.get_inputs()[0].name: batch})
            for name, values in zip(names, outputs, strict=True):
                self._statistics[name].update(values)

    def quantize(self, layers: Collection[str]) -> Any:
        """Returns the graph with layers in int8, after `observe`.

        Args:
            layers: the names of the layers.
        """
        nodes = [self._nodes[name] for layer in self.layers if layer.name in layers for name in layer.nodes]
        rounded = list(dict.fromkeys(name for node in nodes for name in self._rounded_tensors(node)))
        model = copy.deepcopy(self.model)
        graph = model.graph
        copies = {node.name: node for node in graph.node}
        added: list[Any] = []
        self._round_weights(model, [node for node in nodes if node.op_type == "Conv"], copies, added)
        # inserted after their producers, to keep the order of the graph
        markers = {name: self._make_markers(model, name) for name in rounded}
        dropped = set()
        outputs = {node.output[0] for node in nodes}
        for name in rounded:
            producer = self._producers.get(name)
            if producer is None or name in outputs:
                continue
            if producer.op_type in _ACTIVATIONS and producer.input[0] in outputs:
                dropped.add(producer.name)
                markers[name][0].input[0] = producer.input[0]
            elif self._is_float_convolution(name):
                markers[name].insert(0, self._keep_float(model, name, markers[name][0]))
        ordered = [marker for name in rounded if name not in self._producers for marker in markers[name]]
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name in markers:
                    node.input[index] = f"{name}.rounded"
            if node.name not in dropped:
                ordered.append(node)
            for name in node.output:
                ordered += markers.get(name, [])
        del graph.node[:]
        graph.node.extend(ordered)
        prepend_nodes(model, added)
        # such as float biases, about each of which ONNX Runtime would warn
        used = {name for node in graph.node for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        return model

    def _rounded_tensors(self, node: Any) -> list[str]:
        """Returns the tensors that a node's layer rounds: its inputs and its output, after a ReLU or a clip."""
        inputs = list(node.input[:1] if node.op_type == "Conv" else node.input)
        consumers = self._consumers.get(node.output[0], [])
        if len(consumers) == 1 and consumers[0].op_type in _ACTIVATIONS:
            return [*inputs, consumers[0].output[0]]
        return [*inputs, node.output[0]]

    def _make_markers(self, model: Any, name: str) -> list[Any]:
        """Returns the nodes that round a tensor, and adds their scale and zero point to a model."""
        from onnx import helper, numpy_helper

        scale, zero = self._statistics[name].quantization
        constants = [f"{name}.scale", f"{name}.zero"]
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(scale), constants[0]))
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(zero), constants[1]))
        return [
            helper.make_node("QuantizeLinear", [name, *constants], [f"{name}.uint8"], f"{name}.quantize"),
            helper.make_node(
                "DequantizeLinear", [f"{name}.uint8", *constants], [f"{name}.rounded"], f"{name}.dequantize"
            ),
        ]

    def _round_weights(self, model: Any, convolutions: list[Any], copies: dict[str, Any], added: list[Any]) -> None:
        """Replaces kernels by int8 and biases by int32, each followed by a DequantizeLinear that is added to a list."""
        from onnx import helper, numpy_helper

        replaced: dict[str, Any] = {}
        by_kernel: dict[str, list[Any]] = {}
        for node in convolutions:
            by_kernel.setdefault(node.input[1], []).append(node)
        for name, users in by_kernel.items():
            kernel = self._constants[name]
            rounded, scale = quantize_rows(kernel)
            input_scales = [self._statistics[node.input[0]].quantization[0] for node in users]
            biases = [
                self._constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(kernel), np.float32)
                for node in users
            ]
            # a channel of tiny weights may have a large bias, which int32 could not represent at its scale
            needed = np.max([np.abs(b) / (s * _MAX_BIAS) for b, s in zip(biases, input_scales, strict=True)], axis=0)
            if (needed > scale).any():
                scale = np.maximum(scale, needed.astype(np.float32))
                rounded = round_rows(kernel, scale)
            replaced[name] = numpy_helper.from_array(rounded, f"{name}.int8")
            scale_name = f"{name}.scale"
            model.graph.initializer.append(numpy_helper.from_array(scale, scale_name))
            added.append(
                helper.make_node("DequantizeLinear", [f"{name}.int8", scale_name], [name], f"{name}.dequantize", axis=0)
            )
            error = kernel - rounded * scale.reshape(-1, *[1] * (kernel.ndim - 1))
            for node, bias, input_scale in zip(users, biases, input_scales, strict=True):
                means = self._statistics[node.input[0]].channel_means
                bias = bias + _mean_output(error, means)
                bias_scale = input_scale * scale
                stem = f"{node.name}.bias"
                integers = np.clip(np.round(bias / bias_scale), -_MAX_INT32, _MAX_INT32).astype(np.int32)
                model.graph.initializer.append(numpy_helper.from_array(integers, f"{stem}.int32"))
                model.graph.initializer.append(numpy_helper.from_array(bias_scale, f"{stem}.scale"))
                added.append(
                    helper.make_node(
                        "DequantizeLinear", [f"{stem}.int32", f"{stem}.scale"], [stem], f"{stem}.dequantize", axis=0
                    )
                )
                target = copies[node.name]
                del target.input[2:]
                target.input.append(stem)
        kept = [replaced.get(tensor.name, tensor) for tensor in model.graph.initializer]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)

    def _keep_float(self, model: Any, name: str, quantize: Any) -> Any:
        """Keeps ONNX Runtime from computing a convolution in int8; returns a node before the rounding of its output.

        Between rounded tensors ONNX Runtime rounds constant float32 kernels itself, with one scale for a whole kernel,
        which is far too coarse for depthwise ones (WeightBiasQuantization). It does not if another operation than an
        activation follows: here the maximum with the smallest value that the rounding represents, a change of nothing.
        """
        from onnx import helper, numpy_helper

        scale, zero = self._statistics[name].quantization
        low = np.asarray(-np.float32(zero) * scale, dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(low, f"{name}.low"))
        quantize.input[0] = f"{name}.limited"
        return helper.make_node("Max", [name, f"{name}.low"], [f"{name}.limited"], f"{name}.limit")

    def _is_float_convolution(self, name: str) -> bool:
        """Returns whether a tensor is the output of a convolution with a constant kernel, or of its activation."""
        node = self._producers[name]
        if node.op_type in _ACTIVATIONS:
            node = self._producers.get(node.input[0], node)
        return node.op_type == "Conv" and node.input[1] in self._constants


def _mean_output(kernel: NDArray[np.float32], means: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns the mean output (O,) of a kernel (O, C / groups, kh, kw) for the mean (C,) of each input channel."""
    per_channel = kernel.sum(axis=(2, 3), dtype=np.float64)
    groups = len(means) // per_channel.shape[1]
    inputs = np.repeat(means.reshape(groups, -1), len(kernel) // groups, axis=0)
    return (per_channel * inputs).sum(axis=1).astype(np.float32)
