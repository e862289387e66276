"""Ratios of interleaved time measurements."""

from collections.abc import Sequence

import numpy as np


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, float]:
    """Returns median and quartiles, over rounds, of the ratio of times."""
    low, median, high = np.quantile(np.array(numerator) / np.array(denominator), [0.25, 0.5, 0.75])
    return {"median": float(median), "quartile_low": float(low), "quartile_high": float(high)}
