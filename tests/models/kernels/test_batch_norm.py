"""Batch norm with activation against torch's in float64; a program too, see conftest.py."""

import json
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# without a GPU these few, since the interpreter takes milliseconds for a program
CASES: list[tuple[tuple[int, int, int, int], float, str, str]] = [
    ((5, 3, 7, 9), 1.0, "relu6", "float32"),
    ((2, 1, 40, 32), 1.0, "relu", "float32"),  # several blocks to a plane
    ((1, 3, 5, 3), 1.0, "none", "float32"),
    ((6, 1, 1, 1), 1.0, "relu", "float32"),
    ((2, 1, 8, 8), 3000.0, "none", "float32"),
]
GPU_CASES = [
    ((N, C, H, W), 1.0, activation, dtype)
    for N, C, H, W in ((5, 3, 7, 9), (3, 1300, 4, 6), (131, 2, 3, 2), (16, 96, 64, 48))
    for activation in ("none", "relu", "relu6")
    for dtype in ("float32", "bfloat16")
]
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2}
FAR_TOLERANCE = 1e-4  # a mean of 1000 deviations leaves float32 four digits of a deviation
ACTIVATIONS: dict[str, list[nn.Module]] = {"none": [], "relu": [nn.ReLU()], "relu6": [nn.ReLU6()]}


def error(found: Tensor, expected: Tensor) -> float:
    """Relative to the largest value."""
    return float((found.double() - expected).abs().max() / expected.abs().max())


def errors_of(shape: tuple[int, ...], mean: float, activation: Any, dtype: str, device: str) -> dict[str, float]:
    """The errors of all that a step needs, after two steps."""
    from posedy.models.kernels.batch_norm import batch_norm_act

    generator = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm2d(shape[1], eps=1e-3, momentum=0.3)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2, generator=generator)
        norm.bias.normal_(2, generator=generator)
    exact = nn.BatchNorm2d(shape[1], eps=1e-3, momentum=0.3).double()
    exact.load_state_dict(norm.state_dict())
    norm.to(device)
    for _ in range(2):
        x = (3 * torch.randn(shape, generator=generator) + mean).to(getattr(torch, dtype))
        pull = torch.randn(shape, generator=generator).to(getattr(torch, dtype))
        theirs, ours = x.double().requires_grad_(), x.to(device).requires_grad_()
        norm.zero_grad()
        exact.zero_grad()
        y = batch_norm_act(ours, norm, activation)
        expected = nn.Sequential(exact, *ACTIVATIONS[activation])(theirs)
        assert y.dtype == x.dtype
        y.backward(pull.to(device))
        expected.backward(pull.double())
    assert norm.num_batches_tracked == 2
    pairs = {
        "output": (y, expected),
        "gradient of x": (ours.grad, theirs.grad),
        "gradient of the scale": (norm.weight.grad, exact.weight.grad),
        "gradient of the shift": (norm.bias.grad, exact.bias.grad),
        "running mean": (norm.running_mean, exact.running_mean),
        "running variance": (norm.running_var, exact.running_var),
    }
    return {name: error(found.detach().cpu(), expected.detach()) for name, (found, expected) in pairs.items()}


def measure() -> list[Any]:
    """All cases with their errors."""
    from posedy.models.kernels import batch_norm

    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    found = []
    for shape, mean, activation, dtype in CASES + GPU_CASES * on_gpu:
        found.append([shape, mean, activation, dtype, errors_of(shape, mean, activation, dtype, device)])
    batch_norm._PROGRAMS = 2  # so that each has several images
    shared = (5, 1, 3, 3), 1.0, "relu6", "float32"
    found.append([*shared, errors_of(*shared, device)])
    return found


if __name__ == "__main__":
    print(json.dumps(measure()))


def test_output_gradients_and_statistics_are_torchs(printed_by: Callable[[str], list[Any]]) -> None:
    measured = printed_by(__file__)
    assert len(measured) > len(CASES)
    for *case, errors in measured:
        _, mean, _, dtype = case
        tolerance = TOLERANCES[dtype] if mean == 1 else FAR_TOLERANCE
        assert len(errors) == 6
        for name, value in errors.items():
            assert math.isfinite(value), (case, name)
            assert value < tolerance, (case, name, value)
