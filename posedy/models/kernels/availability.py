"""Checks whether the Triton kernels can be used."""

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from posedy.models.kernels.derivatives import is_transformed

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def can_use_triton(x: Tensor) -> bool:
    """Returns whether the kernels support a tensor: contiguous, at most 32 bits per value, on the current GPU.

    They support reverse-mode derivatives only, see `is_transformed`.
    """
    return (
        x.is_cuda
        and x.dtype in _DTYPES
        and x.numel() > 0
        and x.is_contiguous()
        and x.get_device() == torch.cuda.current_device()
        and not is_transformed(x)
        and _triton_works()
    )


@cache
def _triton_works() -> bool:
    """Returns whether Triton is installed and can compile, which needs a C compiler and a supported GPU."""
    if find_spec("triton") is None:
        return False
    try:
        from posedy.models.kernels.batch_norm import batch_norm_act

        batch_norm_act(torch.ones(2, 1, 1, 1, device="cuda"), torch.nn.BatchNorm2d(1, device="cuda"), "none")
    # any error: torch's kernels compute the same
    except Exception as error:
        warnings.warn(f"Triton is installed but cannot be used; training is slower without it: {error}", stacklevel=2)
        return False
    return True
