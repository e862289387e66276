"""The benchmark of the estimator."""

import pytest

from tools.lab.benchmarks.estimator import benchmark_estimator, format_estimator
from tools.lab.benchmarks.subprocesses import REPOSITORY


@pytest.mark.slow
def test_calls_are_timed_alone_and_beside_busy_processes() -> None:
    report = benchmark_estimator("light", [1, 2], busy=1, rounds=1, before=REPOSITORY, log=lambda _: None)
    assert [row["call"] for row in report["rows"]] == [
        f"{count} {flip}" for flip in ("no flip test", "flip test") for count in (1, 2)
    ]
    for row in report["rows"]:
        assert row["milliseconds"]["median"] > 0
        assert row["shared_to_alone"]["median"] > 0
        assert row["to_before"]["median"] > 0
    assert "| 1 no flip test |" in format_estimator(report)
