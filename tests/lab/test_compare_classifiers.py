"""Comparison of groups of classifiers."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

from posedy.models.factory import create_classifier
from posedy.models.network_file import network_state, write_checkpoint
from tools.lab.compare_classifiers import compare_classifiers, main
from tools.lab.groups import print_comparison


def test_the_interval_has_the_width_of_the_normal_approximation() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 500)) < 0.5, rng.random((3, 500)) < 0.6
    result = compare_classifiers(first, second)
    difference = second.mean(axis=0) - first.mean(axis=0)
    assert result["difference"] == pytest.approx(difference.mean())
    reach = 1.96 * difference.std() / np.sqrt(500)
    assert result["high"] - result["difference"] == pytest.approx(reach, rel=0.05)
    assert result["difference"] - result["low"] == pytest.approx(reach, rel=0.05)
    assert result["second"] == second.mean(axis=1).tolist()


def test_equal_networks_do_not_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / "val" / name).mkdir(parents=True)
        for index in range(3):
            noise = np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)
            cv2.imwrite(str(tmp_path / "val" / name / f"{index}.png"), noise)
    torch.manual_seed(0)
    net = create_classifier("mobilenetv2_035", ["a", "b"], input_size=(32, 32), depth=0.34)
    path = str(tmp_path / "net.pt")
    write_checkpoint({"network": network_state(net)}, Path(path))
    main([str(tmp_path), "--first", path, "--second", path, path])
    printed = capsys.readouterr().out
    assert "first: top-1 0.5000 (0.5000)" in printed
    assert "second - first: +0.0000 (+0.0000 to +0.0000) on 6 images" in printed


def test_pairs_of_seeds_have_an_interval_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    gains = [0.02, -0.02, 0.05]
    first = np.array([0.3, 0.4, 0.2])
    result = {"first": first.tolist(), "second": (first + gains).tolist(), "images": 9}
    result |= {"difference": 0.0, "low": 0.0, "high": 0.0}
    print_comparison(result, "top-1", 4, Path("val"))
    expected = ttest_1samp(gains, 0).confidence_interval(0.95)
    line = f"over the 3 pairs (+0.0200, -0.0200, +0.0500): {expected.low:+.4f} to {expected.high:+.4f}"
    assert line in capsys.readouterr().out
    for members in (first[:1], first[:2]):
        print_comparison(result | {"first": members.tolist()}, "top-1", 4, Path("val"))
        assert "pairs" not in capsys.readouterr().out
