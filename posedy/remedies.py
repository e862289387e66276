"""Remedies of errors that torch, OpenCV and the system raise, and that users can resolve."""

import re
from typing import NamedTuple


class _Remedy(NamedTuple):
    """A message for the errors whose type and text match a pattern; its fields are the pattern's groups."""

    pattern: str
    message: str


_IN_TRAINING = "in training set train.accumulation=2 or more, or a smaller train.batch_size or eval.batch_size"
_OPENCV = "see OpenCV in docs/how_to/installation.md"

# in order: the first pattern that matches
_REMEDIES = [
    _Remedy(
        r"Too many open files|received 0 items of ancdata",
        "too many files are open: set train.workers to a smaller number, or raise the limit (ulimit -n 4096)",
    ),
    _Remedy(
        r"shared memory|</torch_|/dev/shm|DataLoader worker .* signal: Bus error",
        "the data loader's workers have too little shared memory (/dev/shm): set train.workers=0 or to a smaller "
        "number, or enlarge it (docker run --shm-size=2g)",
    ),
    _Remedy(
        r"DataLoader worker \(pid\S* ([\d, ]+)\) (?:is killed by signal: Killed|exited unexpectedly)",
        "a data loader worker (process {}) was killed, as the system does if memory is short: set train.workers to a "
        "smaller number, or to 0",
    ),
    _Remedy(
        r"^(?:torch\.)?OutOfMemoryError|CUDA error: out of memory|(?:CUDA|HIP|XPU|MPS backend) out of memory"
        r"|ALLOC_FAILED",
        f"the memory of the GPU is too small: {_IN_TRAINING}; otherwise use smaller images or --device cpu",
    ),
    _Remedy(
        r"DefaultCPUAllocator|^[\w.]*MemoryError|bad_?alloc|Insufficient memory|Cannot allocate memory",
        f"the memory is too small: {_IN_TRAINING}, or fewer train.workers; otherwise use smaller images",
    ),
    _Remedy(
        r"Expected more than 1 value per channel when training",
        "batch norm got one value per channel, because a batch (perhaps the last one of an epoch) has one sample and "
        "its feature map one pixel: set another train.batch_size, a larger model.input_size, or "
        "train.freeze_batch_norm=true",
    ),
    _Remedy(
        r"no kernel image is available",
        "this version of torch does not support the GPU: install another one, or hide the GPU (CUDA_VISIBLE_DEVICES=)",
    ),
    _Remedy(
        r"EADDRINUSE|Address already in use",
        "the port is in use by another program: choose another one (torchrun --standalone chooses a free one)",
    ),
    _Remedy(
        r"operator torchvision::\w+ does not exist",
        "torch and torchvision are of different builds: install both from one index (docs/how_to/installation.md)",
    ),
    _Remedy(
        r"^ImportError: (?:\S*/)?(lib(?:GL|glib|gthread)[^\s/]*): "
        r"(?:cannot open shared object|file too short|invalid ELF header)",
        "OpenCV cannot be imported without the system library {}: apt-get install libgl1 libglib2.0-0, or without "
        f"root pip install --force-reinstall --no-deps opencv-python-headless ({_OPENCV})",
    ),
    _Remedy(
        r"^ImportError: (lib\S+): cannot open shared object",
        "the system library {} is missing: install the package of your system that contains it",
    ),
    _Remedy(
        r"^ModuleNotFoundError: No module named 'cv2|module 'cv2\S*' has no attribute",
        f"OpenCV is missing or damaged: install both of its packages again in one version ({_OPENCV})",
    ),
]


def find_remedy(error: BaseException) -> str | None:
    """Returns one line with the cause of an error and its remedy, or None for an error without a known one."""
    text = f"{type(error).__name__}: {error}"
    for pattern, message in _REMEDIES:
        if found := re.search(pattern, text, re.MULTILINE):
            return message.format(*found.groups())
    return None
