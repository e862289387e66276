"""What a process uses of the machine: a device, memory, and processes that load data."""

import ctypes
import math
import platform
import sys

import torch

from posedy.cpu_threads import visible_cpus


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name; "auto" is a CUDA GPU if there is one, then Apple's, else the CPU.

    Raises:
        ValueError: if the name is unknown or the device is absent.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device {name!r} is not supported: use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r} is absent: torch sees {torch.cuda.device_count()} CUDA devices; use auto or cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(
            "device 'mps' is absent: torch was built without it or this is no Apple machine; use auto or cpu"
        )
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 by itself: GPUs from Ampere on, CPUs with AMX or AVX512-BF16.

    Others only imitate it: on a CPU with AVX2 alone a training step takes ten times as long as in float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch has no public ones
        return any(getattr(torch.cpu, name, bool)() for name in checks)
    return False


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


_MOST_WORKERS = 8


def default_workers() -> int:
    """One for each CPU core that this process may use, at most 8."""
    return min(visible_cpus(), _MOST_WORKERS)
