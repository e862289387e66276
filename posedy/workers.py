"""How many processes load data."""

from posedy.cpu_threads import visible_cpus

_MOST_WORKERS = 8


def default_workers() -> int:
    """One for each CPU core that this process may use, at most 8."""
    return min(visible_cpus(), _MOST_WORKERS)
