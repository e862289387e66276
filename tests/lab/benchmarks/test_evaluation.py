"""The evaluation benchmark: the compared implementations agree, and the result is printed and written."""

import json
from pathlib import Path

import numpy as np
import pytest

from posedy.oks import oks_nms
from tools.lab.benchmarks.__main__ import main
from tools.lab.benchmarks.evaluation import _largest_difference, plain_oks_nms


@pytest.mark.parametrize("seed", range(5))
def test_plain_loop_keeps_the_same_poses(seed: int) -> None:
    rng = np.random.default_rng(seed)
    keypoints = np.repeat(rng.uniform(0, 200, (6, 17, 2)), 4, axis=0) + rng.normal(0, 4, (24, 17, 2))
    poses = keypoints, rng.random(24), rng.uniform(3e3, 2e4, 24), np.full(17, 0.07)
    kept = plain_oks_nms(*poses)
    assert kept == oks_nms(*poses).tolist()
    assert 6 <= len(kept) < 24


def test_command_prints_times_memory_and_nms_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    sizes = ["--images", "20", "--persons", "30", "--results", "300", "--rounds", "1"]
    main(["eval", *sizes, "--json", str(report)])
    printed = capsys.readouterr().out
    for text in ("20 images, 30 persons, 300 poses", "pycocotools", "MB", "OKS-NMS of 20 poses", "plain loop"):
        assert text in printed
    written = json.loads(report.read_text())
    assert written["largest_difference"] < 1e-9
    with pytest.raises(ValueError, match="--rounds"):
        main(["eval", "--rounds", "0"])


@pytest.mark.parametrize(
    ("other", "expected"), [({"AP": 0.25, "APm": np.nan}, 0.25), ({"AP": 0.5, "APm": 0.1}, np.inf)]
)
def test_metric_undefined_in_one_backend_is_an_infinite_difference(other: dict[str, float], expected: float) -> None:
    metrics = {"AP": 0.5, "APm": np.nan}
    assert _largest_difference(metrics, other) == _largest_difference(other, metrics) == expected
    assert _largest_difference(metrics, metrics) == 0
