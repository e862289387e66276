"""Benchmark of the implementations of per-image convolution, interleaved with a static convolution."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posedy.models.ops import (
    FORMULATIONS,
    ConvParams,
    Formulation,
    choose_formulation,
    conv2d,
    depthwise_conv,
    is_applicable,
)
from posedy.system import choose_device
from tools.lab.benchmarks.ratios import ratio

_BEST_OF = 3  # measurements per round, because single operations are short


@dataclass(frozen=True)
class Layer:
    """A convolution of the networks at input size 256x192."""

    name: str
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    size: tuple[int, int]
    """(H, W) of the input."""
    groups: int = 1

    @property
    def conv_params(self) -> ConvParams:
        """Stride, padding, dilation and groups."""
        stride, padding = self.stride, self.kernel_size // 2
        return ConvParams((stride, stride), (padding, padding), (1, 1), self.groups)


LAYERS = (
    Layer("1x1 expansion", 16, 96, 1, 1, (64, 48)),
    Layer("1x1 projection", 96, 24, 1, 1, (32, 24)),
    Layer("1x1 of the head", 768, 256, 1, 1, (16, 12)),
    Layer("depthwise 3x3, stride 2", 96, 96, 3, 2, (64, 48), 96),
    Layer("depthwise 3x3", 480, 480, 3, 1, (8, 6), 480),
    Layer("depthwise 5x5 of the head", 768, 768, 5, 1, (32, 24), 768),
    Layer("3x3 of a ResNet", 128, 128, 3, 1, (32, 24)),
)


def benchmark_layers(
    batches: Sequence[int] = (1, 8), threads: int = 1, rounds: int = 5, device: str = "cpu"
) -> dict[str, Any]:
    """Times each applicable implementation with given kernels, in float32.

    Inference is compared with a static convolution in channels_last, its fastest format; training (forward and
    backward) with one in torch's contiguous format, in which these networks are trained.

    Returns:
        The result in plain types: for each layer, batch size and mode, the ratios of the implementations and the chosen
        one.
    """
    chosen_device = choose_device(device)
    previous_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = [
            _measure(layer, batch, training, rounds, chosen_device)
            for layer in LAYERS
            for batch in batches
            for training in (False, True)
        ]
    finally:
        torch.set_num_threads(previous_threads)
    return {"threads": threads, "device": str(chosen_device), "rounds": rounds, "layers": rows}


def _measure(layer: Layer, batch: int, training: bool, rounds: int, device: torch.device) -> dict[str, Any]:
    conv_params = layer.conv_params
    x = torch.randn(batch, layer.in_channels, *layer.size, device=device)
    weight = torch.randn(
        batch,
        layer.out_channels,
        layer.in_channels // layer.groups,
        layer.kernel_size,
        layer.kernel_size,
        device=device,
    )
    bias = torch.randn(batch, layer.out_channels, device=device)
    calls = dict(_calls(x, weight, bias, conv_params, training))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.enable_grad() if training else torch.inference_mode():
        for index in range(rounds + 1):
            for name, call in calls.items():
                taken = min(_seconds(call, device) for _ in range(_BEST_OF))
                if index > 0:  # the first round is a warm-up
                    seconds[name].append(taken)
    return {
        "layer": layer.name,
        "batch": batch,
        "mode": "training" if training else "inference",
        "static_ms": 1000 * statistics.median_high(seconds["static"]),
        "ratios": {name: ratio(seconds[name], seconds["static"]) for name in calls if name != "static"},
        "chosen": choose_formulation(batch, weight, conv_params, fused=not training),
    }


def _calls(
    x: Tensor, weight: Tensor, bias: Tensor, conv_params: ConvParams, training: bool
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields the static convolution and the applicable implementations, each with its preferred memory format."""
    N = len(x)
    biases = None if training else bias  # in training, the norms have the biases
    channels_last = x.contiguous(memory_format=torch.channels_last)
    hwnc = x.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    kernel = weight[0] if training else weight[0].contiguous(memory_format=torch.channels_last)

    def static(x: Tensor, kernel: Tensor) -> Tensor:
        if training and conv_params.is_depthwise(weight):  # as in training of static networks
            return depthwise_conv(x, kernel, conv_params.stride, conv_params.padding, conv_params.dilation)
        flat_bias = biases[0] if biases is not None else None
        return conv2d(x, kernel, flat_bias, conv_params)

    yield "static", _step(static, x if training else channels_last, kernel, training)
    for name, formulation in FORMULATIONS.items():
        if not is_applicable(name, N, weight, conv_params) or (
            training and name in ("pointwise_nhwc", "depthwise_hwnc")
        ):
            continue
        narrows = weight.shape[1] <= x.shape[1]
        preferred = {
            "depthwise_hwnc": hwnc,
            "pointwise_nhwc": hwnc if narrows else channels_last,
            "pointwise_bmm": x,
            "grouped_nchw": x,
        }
        images = x if training else preferred.get(name, channels_last)

        def call(images: Tensor, weight: Tensor, formulation: Formulation = formulation) -> Tensor:
            return formulation(images, weight, biases, conv_params)

        yield name, _step(call, images, weight, training)


def _step(
    convolve: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, training: bool
) -> Callable[[], object]:
    """Returns a call of the convolution, in training followed by the gradients of input and kernels."""
    if not training:
        return lambda: convolve(x, weight)
    x, weight = x.detach().requires_grad_(), weight.detach().clone().requires_grad_()
    with torch.no_grad():
        gradient = torch.randn_like(convolve(x, weight))
    return lambda: torch.autograd.grad(convolve(x, weight), (x, weight), gradient)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def format_layers(report: dict[str, Any]) -> str:
    """Formats the ratios as a table; the implementation that posedy chooses is marked with a star."""
    names = list(FORMULATIONS)
    columns = " ".join(f"{name:>15}" for name in names)
    header = f"{'layer':<26} {'batch':>5} {'mode':<9} {'static':>9} {columns}"
    lines = [
        f"{report['device']}, {report['threads']} thread(s), float32: median over {report['rounds']} rounds of the "
        "time relative to a static convolution (channels_last; in training contiguous); * is the chosen one",
        header,
    ]
    for row in report["layers"]:
        cells = []
        for name in names:
            measured = row["ratios"].get(name)
            star = "*" if name == row["chosen"] else ""
            cells.append(f"{'-' if measured is None else format(measured['median'], '.2f') + star:>15}")
        lines.append(
            f"{row['layer']:<26} {row['batch']:>5} {row['mode']:<9} {row['static_ms']:>6.2f} ms {' '.join(cells)}"
        )
    return "\n".join(lines)
