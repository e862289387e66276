"""Device selection, memory settings and the default number of data loader workers."""

import ctypes
import functools
import math
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from posedy.cpu_threads import visible_cpus


def choose_device(name: str = "auto") -> torch.device:
    """Returns the device with the given name; "auto" selects the first available of CUDA, MPS and CPU.

    Raises:
        ValueError: if the name is unknown or the device is not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}: expected auto, cpu, cuda, cuda:1 or mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"unsupported device {name!r}: expected auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r} is not available: torch detects {torch.cuda.device_count()} CUDA devices; use auto or cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(
            "device 'mps' is not available: this torch build or machine does not support it; use auto or cpu"
        )
    return device


def local_device(name: str) -> str:
    """Returns the name of a process's own device: with torchrun and "auto", the GPU with the number of the process."""
    local_rank = os.environ.get("LOCAL_RANK", "")
    if name == "auto" and local_rank.isdecimal() and torch.cuda.is_available():
        return f"cuda:{int(local_rank) % torch.cuda.device_count()}"
    return name


def check_process(pid: int, runtime: str) -> None:
    """Checks that this process is the one in which a runtime has started its threads.

    A forked process does not have these threads, and waits for them without end.

    Raises:
        RuntimeError: if this process was forked from the one with the number `pid`.
    """
    if os.getpid() != pid:
        raise RuntimeError(
            f"{runtime} was started in process {pid} and hangs in processes forked from it: start processes with "
            "multiprocessing.get_context('spawn') and create the estimator in each of them, or use one process"
        )


@functools.cache
def use_one_thread_after_fork() -> None:
    """Makes torch compute with one thread in processes that are forked from this one.

    They do not have the other threads of this process and would wait for them without end. torch's data loader does
    the same.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Makes torch's operators compute on one thread during the block, if this thread calls them.

    For a few small tensors between two calls of another runtime, such as heatmaps of one person, more threads gain
    nothing, but compete with the runtime's and wait for each other: on two cores beside two busy processes a pose in
    OpenVINO takes half as long without them. Other threads keep their number, also those that start during the block:
    `torch.set_num_threads` would set it for them, too. The block has no effect where torch has other libraries than
    OpenMP's, or hides their functions.
    """
    count = torch.get_num_threads()  # a new thread gets its number now, so that the block does not set it
    previous = [(set_threads, set_threads(1)) for set_threads in _thread_setters()]
    try:
        yield
    finally:
        for set_threads, number in previous:
            set_threads(count if number is None else number)


@functools.cache
def _thread_setters() -> tuple[Callable[[int], int | None], ...]:
    """Returns the functions of OpenMP and MKL that set the number of threads for operators of the calling thread.

    MKL's returns the previous number; 0 is the number of all threads.
    """
    suffix = "dylib" if sys.platform == "darwin" else "so"
    try:
        # its functions hold the interpreter's lock, which waiting for takes longer than they do
        library = ctypes.PyDLL(str(Path(torch.__file__).parent / "lib" / f"libtorch_cpu.{suffix}"))
        setters = [library.omp_set_num_threads]
    except (OSError, AttributeError):
        return ()
    setters[0].restype = None
    if hasattr(library, "MKL_Set_Num_Threads_Local"):
        setters.append(library.MKL_Set_Num_Threads_Local)
    return tuple(setters)


def supports_bf16(device: torch.device) -> bool:
    """Returns whether a device supports bfloat16 in hardware: GPUs from Ampere on, CPUs with AMX or AVX512-BF16.

    Other devices emulate it: on a CPU with only AVX2, a training step takes ten times as long as in float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch has no public functions for this
        return any(getattr(torch.cpu, name, bool)() for name in checks)
    return False


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Configures glibc to reuse freed memory instead of returning it to the system.

    Otherwise the system maps and zeroes the pages of large tensors at every step. Has no effect with other C libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 64 << 20)


def peak_memory_mb(device: torch.device) -> float:
    """Returns the peak memory in MB so far, of the GPU for a CUDA device, else of this process; NaN on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return math.nan
    import resource  # not available on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


_MAX_WORKERS = 8


def default_num_workers() -> int:
    """Returns the default number of data loader workers: one per CPU core of this process, at most 8."""
    return min(visible_cpus(), _MAX_WORKERS)
