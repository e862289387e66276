"""The ways of convolving each image with a kernel of its own, timed in turns beside a static convolution."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posedy.models.ops import FORMULATIONS, Formulation, Geometry, applies, choose, conv2d, depthwise_conv
from posedy.system import choose_device
from tools.lab.benchmarks.ratios import ratio

_BEST_OF = 3  # short operations, in each round


@dataclass(frozen=True)
class Layer:
    """A convolution of the networks, at 256x192."""

    name: str
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    size: tuple[int, int]
    """(H, W) of its input."""
    groups: int = 1

    @property
    def geometry(self) -> Geometry:
        """What it is beside its kernel."""
        stride, padding = self.stride, self.kernel_size // 2
        return Geometry((stride, stride), (padding, padding), (1, 1), self.groups)


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
    """Times each formulation where it applies, kernels given, in float32.

    Inference is compared with a static convolution in channels_last, its best form; forward and backward together with
    one in torch's contiguous format, in which these networks train.

    Returns:
        The numbers, in plain types: for each layer, batch and mode, the ratio of each formulation and which is chosen.
    """
    chosen_device = choose_device(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = [
            _measure(layer, batch, training, rounds, chosen_device)
            for layer in LAYERS
            for batch in batches
            for training in (False, True)
        ]
    finally:
        torch.set_num_threads(before)
    return {"threads": threads, "device": str(chosen_device), "rounds": rounds, "layers": rows}


def _measure(layer: Layer, batch: int, training: bool, rounds: int, device: torch.device) -> dict[str, Any]:
    geometry = layer.geometry
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
    calls = dict(_calls(x, weight, bias, geometry, training))
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
        "static_ms": 1000 * sorted(seconds["static"])[rounds // 2],
        "ratios": {name: ratio(seconds[name], seconds["static"]) for name in calls if name != "static"},
        "chosen": choose(batch, weight, geometry, fused=not training),
    }


def _calls(
    x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry, training: bool
) -> Iterator[tuple[str, Callable[[], object]]]:
    """The static convolution and the formulations, each on images in the order that suits it."""
    N = len(x)
    biases = None if training else bias  # in training norms have them
    channels_last = x.contiguous(memory_format=torch.channels_last)
    beside = x.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    kernel = weight[0] if training else weight[0].contiguous(memory_format=torch.channels_last)

    def static(x: Tensor, kernel: Tensor) -> Tensor:
        if training and geometry.is_depthwise(weight):  # as static networks train
            return depthwise_conv(x, kernel, geometry.stride, geometry.padding, geometry.dilation)
        flat_bias = biases[0] if biases is not None else None
        return conv2d(x, kernel, flat_bias, geometry)

    yield "static", _step(static, x if training else channels_last, kernel, training)
    for name, formulation in FORMULATIONS.items():
        if not applies(name, N, weight, geometry) or (training and name in ("rows", "beside")):
            continue
        narrows = weight.shape[1] <= x.shape[1]
        suited = {"beside": beside, "rows": beside if narrows else channels_last, "matrix": x, "grouped": x}
        images = x if training else suited.get(name, channels_last)

        def call(images: Tensor, weight: Tensor, formulation: Formulation = formulation) -> Tensor:
            return formulation(images, weight, biases, geometry)

        yield name, _step(call, images, weight, training)


def _step(
    convolve: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, training: bool
) -> Callable[[], object]:
    """The convolution, or with its gradients by input and kernels."""
    if not training:
        return lambda: convolve(x, weight)
    x, weight = x.detach().requires_grad_(), weight.detach().clone().requires_grad_()
    with torch.no_grad():
        gradient = torch.randn_like(convolve(x, weight))
    return lambda: torch.autograd.grad(convolve(x, weight), (x, weight), gradient)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def format_layers(numbers: dict[str, Any]) -> str:
    """A table of the ratios; the formulation that posedy chooses has a star."""
    names = list(FORMULATIONS)
    columns = " ".join(f"{name:>11}" for name in names)
    head = f"{'layer':<26} {'batch':>5} {'mode':<9} {'static':>9} {columns}"
    lines = [
        f"{numbers['device']}, {numbers['threads']} thread(s), float32: median time of {numbers['rounds']} rounds in "
        "times of a static convolution's (in channels_last; in training contiguous); * is chosen",
        head,
    ]
    for row in numbers["layers"]:
        cells = []
        for name in names:
            measured = row["ratios"].get(name)
            star = "*" if name == row["chosen"] else ""
            cells.append(f"{'-' if measured is None else format(measured['median'], '.2f') + star:>11}")
        lines.append(
            f"{row['layer']:<26} {row['batch']:>5} {row['mode']:<9} {row['static_ms']:>6.2f} ms {' '.join(cells)}"
        )
    return "\n".join(lines)
