"""The plot of accuracy against latency needs a time and an interval of each network."""

import json
from pathlib import Path

import cv2
import pytest

from tools.lab.benchmarks.__main__ import main
from tools.lab.benchmarks.accuracy import plot_accuracy

ROWS = [
    {"model": name, "runtime": "openvino", "batch": batch, "threads": 2, "milliseconds": {"median": time}}
    for name, time in (("a", 10.0), ("b", 20.0))
    for batch in (1, 8)
]
METRICS = {"AP": 0.5, "intervals": {"AP": {"low": 0.45, "high": 0.54}}}


def test_the_plot_is_written(tmp_path: Path) -> None:
    (tmp_path / "times.json").write_text(json.dumps({"rows": ROWS}))
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    metrics = [f"{name}={tmp_path / 'metrics.json'}" for name in ("a", "b")]
    main(["accuracy", str(tmp_path / "times.json"), *metrics, "--out", str(tmp_path / "plot.png")])
    image = cv2.imread(str(tmp_path / "plot.png"))
    assert image is not None
    assert image.std() > 10


def test_networks_without_time_or_interval_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"no time of c .* a, b"):
        plot_accuracy({"rows": ROWS}, {"c": METRICS})
    with pytest.raises(ValueError, match="torch with 2 threads"):
        plot_accuracy({"rows": ROWS}, {"a": METRICS}, runtime="torch")
    with pytest.raises(ValueError, match=r"metrics of a .*--ci"):
        plot_accuracy({"rows": ROWS}, {"a": {"AP": 0.5}})
