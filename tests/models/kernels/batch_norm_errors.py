"""Errors of the kernel of batch norm and activation relative to torch in float64; see measure.py."""

from typing import Any

import torch
from torch import Tensor, nn

# few cases without a GPU, since the interpreter takes milliseconds per program
CASES: list[tuple[tuple[int, int, int, int], float, str, str]] = [
    ((5, 3, 7, 9), 1.0, "relu6", "float32"),
    ((2, 1, 40, 32), 1.0, "relu", "float32"),  # several blocks per plane
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
LARGE_MEAN_TOLERANCE = 1e-4  # with a mean of 1000 standard deviations, float32 resolves them to four digits
ACTIVATIONS: dict[str, list[nn.Module]] = {"none": [], "relu": [nn.ReLU()], "relu6": [nn.ReLU6()]}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Returns the largest difference relative to the largest value."""
    return float((actual.double() - expected).abs().max() / expected.abs().max())


def compute_errors(shape: tuple[int, ...], mean: float, activation: Any, dtype: str, device: str) -> dict[str, float]:
    """Returns the errors of output, gradients and running statistics after two steps."""
    from posedy.models.kernels.batch_norm import batch_norm_act

    generator = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm2d(shape[1], eps=1e-3, momentum=0.3)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2, generator=generator)
        norm.bias.normal_(2, generator=generator)
    reference = nn.BatchNorm2d(shape[1], eps=1e-3, momentum=0.3).double()
    reference.load_state_dict(norm.state_dict())
    norm.to(device)
    for _ in range(2):
        x = (3 * torch.randn(shape, generator=generator) + mean).to(getattr(torch, dtype))
        grad = torch.randn(shape, generator=generator).to(getattr(torch, dtype))
        reference_x, device_x = x.double().requires_grad_(), x.to(device).requires_grad_()
        norm.zero_grad()
        reference.zero_grad()
        y = batch_norm_act(device_x, norm, activation)
        expected = nn.Sequential(reference, *ACTIVATIONS[activation])(reference_x)
        assert y.dtype == x.dtype
        y.backward(grad.to(device))
        expected.backward(grad.double())
    assert norm.num_batches_tracked == 2
    pairs = {
        "output": (y, expected),
        "gradient of x": (device_x.grad, reference_x.grad),
        "gradient of the scale": (norm.weight.grad, reference.weight.grad),
        "gradient of the shift": (norm.bias.grad, reference.bias.grad),
        "running mean": (norm.running_mean, reference.running_mean),
        "running variance": (norm.running_var, reference.running_var),
    }
    return {
        name: relative_error(actual.detach().cpu(), expected.detach()) for name, (actual, expected) in pairs.items()
    }


def keeps_nan() -> bool:
    """Returns whether a channel with a NaN is NaN after norm and activation, in its gradient and its statistics."""
    from posedy.models.kernels.batch_norm import batch_norm_act

    norm = nn.BatchNorm2d(2)
    x = torch.ones(2, 2, 3, 3)
    x[0, 1, 2, 2] = torch.nan
    device = "cuda" if torch.cuda.is_available() else "cpu"
    norm.to(device)
    x = x.to(device).requires_grad_()
    y = batch_norm_act(x, norm, "relu6")
    y.sum().backward()
    assert x.grad is not None
    channels = [y, x.grad]
    statistics = [norm.running_mean, norm.running_var]
    return all(bool(each[:, 1].isnan().all() and each[:, 0].isfinite().all()) for each in channels) and all(
        each is not None and each.isnan().tolist() == [False, True] for each in statistics
    )


def measure() -> list[Any]:
    """Returns all cases with their errors."""
    from posedy.models.kernels import batch_norm

    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    rows = []
    for shape, mean, activation, dtype in CASES + GPU_CASES * on_gpu:
        rows.append([shape, mean, activation, dtype, compute_errors(shape, mean, activation, dtype, device)])
    programs, batch_norm._PROGRAMS = batch_norm._PROGRAMS, 2  # so that each program processes several images
    shared = (5, 1, 3, 3), 1.0, "relu6", "float32"
    rows.append([*shared, compute_errors(*shared, device)])
    batch_norm._PROGRAMS = programs
    return rows
