"""Interleaved time measurements and their ratios."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

_SECONDS_PER_MEASUREMENT = 0.25  # approximate


def measure_interleaved(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Measures the seconds per call of each function, by round; every other round has the reverse order."""
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, min(100, round(_SECONDS_PER_MEASUREMENT / (time.perf_counter() - start))))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds):
        for name in list(calls)[:: 1 if index % 2 == 0 else -1]:
            times = []
            for _ in range(repeats[name]):
                start = time.perf_counter()
                calls[name]()
                times.append(time.perf_counter() - start)
            seconds[name].append(float(np.median(times)))
    return seconds


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Returns median and quartiles, over rounds, in milliseconds."""
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75]) * 1e3
    return {"low": float(low), "median": float(median), "high": float(high)}


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, float]:
    """Returns median and quartiles, over rounds, of the ratio of times."""
    low, median, high = np.quantile(np.array(numerator) / np.array(denominator), [0.25, 0.5, 0.75])
    return {"median": float(median), "quartile_low": float(low), "quartile_high": float(high)}


def format_milliseconds(measured: Mapping[str, float]) -> str:
    """Formats a result of `milliseconds`."""
    return f"{measured['median']:.1f} ({measured['low']:.1f} to {measured['high']:.1f})"


def format_ratio(measured: Mapping[str, float] | None) -> str:
    """Formats a result of `ratio`; None is a dash."""
    if measured is None:
        return "-"
    return f"{measured['median']:.2f} ({measured['quartile_low']:.2f} to {measured['quartile_high']:.2f})"
