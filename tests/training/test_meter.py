"""Waiting for data and computing, told apart."""

import time
from collections.abc import Iterator

import pytest
import torch

from posedy.data.loaders import Batch
from posedy.training.loggers import Meter, clock


def test_time_for_data_is_told_from_time_for_steps() -> None:
    def slow() -> Iterator[Batch]:
        for _ in range(3):
            time.sleep(0.03)
            yield {"crop": torch.zeros(1)}

    meter = Meter()
    for _ in meter.watch(slow()):
        meter.persons += 4
        time.sleep(0.09)
    assert meter.persons == 12
    assert 0.09 <= meter.waited < meter.seconds - 0.26
    assert meter.data_share == pytest.approx(meter.waited / meter.seconds, rel=0.1)
    assert meter.persons_per_second == pytest.approx(12 / meter.seconds, rel=0.1)


def test_a_clock_counts_hours() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 3661)] == ["0:00:00", "0:01:00", "1:01:01"]
