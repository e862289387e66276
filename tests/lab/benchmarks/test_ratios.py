import pytest

from tools.lab.benchmarks.ratios import ratio


def test_ratios_are_computed_within_rounds() -> None:
    # a slow round slows both and does not change the ratio
    result = ratio([2.0, 20.0, 4.0, 2.0, 2.2], [1.0, 10.0, 2.0, 1.0, 1.0])
    assert result == pytest.approx({"median": 2.0, "quartile_low": 2.0, "quartile_high": 2.0})
