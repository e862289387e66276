"""The benchmark of evaluation: what it compares does the same work, and it says what it measured."""

import json
from pathlib import Path

import numpy as np
import pytest

from posedy.oks import oks_nms
from tools.lab.benchmarks.__main__ import main
from tools.lab.benchmarks.evaluation import _difference, plain_oks_nms


@pytest.mark.parametrize("seed", range(5))
def test_the_loop_suppresses_what_posedy_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    keypoints = np.repeat(rng.uniform(0, 200, (6, 17, 2)), 4, axis=0) + rng.normal(0, 4, (24, 17, 2))
    given = keypoints, rng.random(24), rng.uniform(3e3, 2e4, 24), np.full(17, 0.07)
    kept = plain_oks_nms(*given)
    assert kept == oks_nms(*given).tolist()
    assert 6 <= len(kept) < 24


def test_it_prints_times_memory_and_the_share_of_the_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = tmp_path / "numbers.json"
    sizes = ["--images", "20", "--persons", "30", "--results", "300", "--rounds", "1"]
    main(["eval", *sizes, "--json", str(numbers)])
    printed = capsys.readouterr().out
    for words in ("20 images, 30 persons, 300 poses", "pycocotools", "MB", "OKS-NMS of 20 poses", "a plain loop"):
        assert words in printed
    written = json.loads(numbers.read_text())
    assert written["largest_difference"] < 1e-9
    with pytest.raises(ValueError, match="count"):
        main(["eval", "--rounds", "0"])


@pytest.mark.parametrize(
    ("other", "expected"), [({"AP": 0.25, "APm": np.nan}, 0.25), ({"AP": 0.5, "APm": 0.1}, np.inf)]
)
def test_a_number_that_one_backend_lacks_is_a_difference(other: dict[str, float], expected: float) -> None:
    numbers = {"AP": 0.5, "APm": np.nan}
    assert _difference(numbers, other) == _difference(other, numbers) == expected
    assert _difference(numbers, numbers) == 0
