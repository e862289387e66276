"""How many processes load data."""

import os

_MOST_WORKERS = 8


def default_workers() -> int:
    """One for each CPU core that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)
