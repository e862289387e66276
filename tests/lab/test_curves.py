"""Plots of training runs."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tools.lab.curves import main, read_column

ROWS = "epoch,loss,top1,attention_entropy\n1,2.0,0.1,{0}\n2,1.0,,\n3,0.5,0.4,{0}\n"


@pytest.mark.slow
def test_runs_with_and_without_attention_are_plotted(tmp_path: Path) -> None:
    for name, entropy in (("static", ""), ("dynamic", "0.9")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(ROWS.format(entropy))
    runs = [f"{name}={tmp_path / name}" for name in ("static", "dynamic")]
    main([*runs, "--metric", "top1", "--out", str(tmp_path / "curves.png")])
    plot = cv2.imread(str(tmp_path / "curves.png"))
    assert plot is not None
    blue, orange = (
        (np.abs(plot.astype(int) - color).sum(axis=-1) < 60).any(axis=0) for color in ((180, 119, 31), (14, 127, 255))
    )
    third = plot.shape[1] * 2 // 3
    assert blue[:third].any()
    assert not blue[third:].any()  # a static network has no attention
    assert orange[third:].any()


def test_a_metric_that_was_not_measured_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(ROWS.format(""))
    with pytest.raises(ValueError, match="has no AP"):
        main([f"a={tmp_path}", "--out", str(tmp_path / "curves.png")])
    with pytest.raises(ValueError, match="distinct names, got 'a' twice"):
        main([f"a={tmp_path}", f"a={tmp_path}", "--out", str(tmp_path / "curves.png")])
    with pytest.raises(ValueError, match="no epoch"):
        main([f"a={tmp_path / 'none'}", "--out", str(tmp_path / "curves.png")])


def test_epochs_of_a_run_that_continues_another_one_follow_those(tmp_path: Path) -> None:
    for name in ("start", "rest"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(ROWS.format(""))
    folders = [tmp_path / "start", tmp_path / "rest"]
    assert read_column(folders, "top1") == ([1, 3, 4, 6], [0.1, 0.4, 0.1, 0.4])
