"""Throughput meter and duration format."""

import time
from collections.abc import Iterator

import pytest
import torch

from posedy.data.loaders import Batch
from posedy.training.loggers import ThroughputMeter, format_duration


def test_meter_separates_data_time_from_step_time() -> None:
    def slow_batches() -> Iterator[Batch]:
        for _ in range(3):
            time.sleep(0.03)
            yield {"crop": torch.zeros(1)}

    meter = ThroughputMeter()
    for _ in meter.iterate(slow_batches()):
        meter.samples += 4
        time.sleep(0.09)
    assert meter.samples == 12
    assert 0.09 <= meter.data_seconds < meter.seconds - 0.26
    assert meter.data_share == pytest.approx(meter.data_seconds / meter.seconds, rel=0.1)
    assert meter.samples_per_second == pytest.approx(12 / meter.seconds, rel=0.1)


def test_format_duration_includes_hours() -> None:
    assert [format_duration(seconds) for seconds in (0, 59.6, 3661)] == ["0:00:00", "0:01:00", "1:01:01"]
