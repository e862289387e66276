"""Depthwise convolution against torch's in float64; a program too, see conftest.py."""

import json
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# N, C, H, W, K, stride and, for TensorFlow's padding, pad_end;
# without a GPU these few, since the interpreter takes milliseconds for a program
CASES = [
    ((2, 2, 3, 3, 3, 1), "float32"),
    ((1, 2, 3, 5, 5, 1), "float32"),  # as of a batch that was folded into the channels
    ((1, 1, 4, 6, 3, 2), "float32"),
    ((2, 1, 5, 3, 3, 2), "float32"),
    ((1, 1, 7, 8, 5, 2), "float32"),
    ((1, 1, 40, 33, 3, 1), "float32"),  # several blocks to a plane
    ((1, 1, 21, 19, 5, 2), "float32"),  # several blocks to a plane of dL/dY
    ((1, 1, 6, 7, 7, 1), "float32"),  # as many taps as a block has room for
    ((2, 2, 1, 2, 1, 1), "float32"),
    ((2, 1, 4, 6, 3, 2, 1), "float32"),
    ((1, 1, 7, 5, 3, 2, 1), "float32"),
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


def error(found: Tensor, expected: Tensor) -> float:
    """Relative to the largest value."""
    return float((found.detach().cpu().double() - expected.detach()).abs().max() / expected.abs().max())


def errors_of(
    N: int, C: int, H: int, W: int, K: int, stride: int, pad_end: int = 0, *, dtype: str, device: str
) -> list[float]:
    from posedy.models.kernels.depthwise import depthwise

    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(shape, generator=generator).to(getattr(torch, dtype)) for shape in ((N, C, H, W), (C, 1, K, K))
    )
    theirs = [x.double().requires_grad_(), weight.double().requires_grad_()]
    ours = [x.to(device).requires_grad_(), weight.to(device).requires_grad_()]
    padding = K // 2 - pad_end
    padded = F.pad(theirs[0], (0, pad_end, 0, pad_end))
    expected = F.conv2d(padded, theirs[1], None, stride, padding, 1, C)
    y = depthwise(*ours, stride, padding, pad_end)
    assert (y.shape, y.dtype) == (expected.shape, x.dtype)
    pull = torch.randn(y.shape, generator=generator).to(x.dtype)
    gradients = torch.autograd.grad(expected, theirs, pull.double())
    # each alone, which leaves the other's kernel out
    found = [torch.autograd.grad(y, one, pull.to(device), retain_graph=True)[0] for one in ours]
    return [error(*pair) for pair in zip((y, *found), (expected, *gradients), strict=True)]


def measure() -> list[Any]:
    """All cases with their errors."""
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    return [
        [sizes, dtype, errors_of(*sizes, dtype=dtype, device=device)] for sizes, dtype in CASES + GPU_CASES * on_gpu
    ]


if __name__ == "__main__":
    print(json.dumps(measure()))


def test_output_and_gradients_are_torchs(printed_by: Callable[[str], list[Any]]) -> None:
    measured = printed_by(__file__)
    assert len(measured) >= len(CASES)
    for sizes, dtype, errors in measured:
        assert len(errors) == 3
        for value in errors:
            assert math.isfinite(value), (sizes, dtype)
            assert value < TOLERANCES[dtype], (sizes, dtype, errors)
