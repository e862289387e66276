"""Whether the kernels can be used."""

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def takes(x: Tensor) -> bool:
    """Whether the kernels can work on a tensor: contiguous, of at most 32 bits, on the current GPU."""
    return (
        x.is_cuda
        and x.dtype in _DTYPES
        and x.numel() > 0
        and x.is_contiguous()
        and x.get_device() == torch.cuda.current_device()
        and _triton_works()
    )


@cache
def _triton_works() -> bool:
    """Whether Triton is installed and can compile: it needs a C compiler and a GPU that is not too old."""
    if find_spec("triton") is None:
        return False
    try:
        from posedy.models.kernels.batch_norm import batch_norm_act

        batch_norm_act(torch.ones(2, 1, 1, 1, device="cuda"), torch.nn.BatchNorm2d(1, device="cuda"), "none")
    # Whatever it is, torch's kernels compute the same.
    except Exception as error:
        warnings.warn(f"Triton is installed but does not work, training is slower without it: {error}", stacklevel=2)
        return False
    return True
