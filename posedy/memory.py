"""Memory: how the C library handles freed blocks, and how much was needed."""

import ctypes
import math
import platform
import sys

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Asks glibc to keep freed blocks for the next step instead of giving them back to the system.

    Large tensors are otherwise mapped afresh, and their pages zeroed, at every step. Does nothing elsewhere.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 64 << 20)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory in use so far, in MB: of the GPU if there is one, else of this process; NaN on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return math.nan
    import resource  # Unix has it

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
