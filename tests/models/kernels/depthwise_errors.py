"""Errors of the depthwise convolution kernel relative to torch in float64; see measure.py."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# N, C, H, W, K, stride and, for TensorFlow's padding, pad_end;
# few cases without a GPU, since the interpreter takes milliseconds per program
CASES = [
    ((2, 2, 3, 3, 3, 1), "float32"),
    ((1, 2, 3, 5, 5, 1), "float32"),  # like a batch folded into the channels
    ((2, 1, 5, 3, 3, 2), "float32"),
    ((1, 1, 40, 33, 3, 1), "float32"),  # several blocks per plane
    ((1, 1, 21, 19, 5, 2), "float32"),  # several blocks per plane of dL/dY
    ((1, 1, 6, 7, 7, 1), "float32"),  # the maximum number of taps of a block
    ((2, 1, 4, 6, 3, 2, 1), "float32"),
    ((1, 1, 8, 8, 5, 2, 1), "float32"),
]
GPU_CASES = [
    ((*sizes, K, stride), dtype)
    for sizes in ((3, 5, 32, 24), (1, 640, 17, 13), (16, 96, 64, 48))
    for K in (3, 5)
    for stride in (1, 2)
    for dtype in ("float32", "bfloat16")
] + [((16, 96, 64, 48, 3, 2, 1), "float32")]
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Returns the largest difference relative to the largest value."""
    return float((actual.detach().cpu().double() - expected.detach()).abs().max() / expected.abs().max())


def compute_errors(
    N: int, C: int, H: int, W: int, K: int, stride: int, pad_end: int = 0, *, dtype: str, device: str
) -> list[float]:
    from posedy.models.kernels.depthwise import depthwise

    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(shape, generator=generator).to(getattr(torch, dtype)) for shape in ((N, C, H, W), (C, 1, K, K))
    )
    reference_inputs = [x.double().requires_grad_(), weight.double().requires_grad_()]
    inputs = [x.to(device).requires_grad_(), weight.to(device).requires_grad_()]
    padding = K // 2 - pad_end
    padded = F.pad(reference_inputs[0], (0, pad_end, 0, pad_end))
    expected = F.conv2d(padded, reference_inputs[1], None, stride, padding, 1, C)
    y = depthwise(*inputs, stride, padding, pad_end)
    assert (y.shape, y.dtype) == (expected.shape, x.dtype)
    grad = torch.randn(y.shape, generator=generator).to(x.dtype)
    gradients = torch.autograd.grad(expected, reference_inputs, grad.double())
    # separately, so that each call runs one gradient kernel only
    actual = [torch.autograd.grad(y, tensor, grad.to(device), retain_graph=True)[0] for tensor in inputs]
    return [relative_error(*pair) for pair in zip((y, *actual), (expected, *gradients), strict=True)]


def measure() -> list[Any]:
    """Returns all cases with their errors."""
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    return [
        [sizes, dtype, compute_errors(*sizes, dtype=dtype, device=device)]
        for sizes, dtype in CASES + GPU_CASES * on_gpu
    ]
