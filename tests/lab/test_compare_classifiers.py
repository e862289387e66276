"""Comparison of groups of classifiers."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from posedy.models.factory import create_classifier
from posedy.models.network_file import network_state, write_checkpoint
from tools.lab.compare_classifiers import compare_classifiers, main


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
