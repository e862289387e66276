"""Comparison of groups of results files."""

import json
from pathlib import Path

import numpy as np
import pytest

from posedy.data.coco import GroundTruth
from posedy.evaluation import bootstrap
from posedy.evaluation.bootstrap import bootstrap_difference
from tools.lab.compare_results import compare_results, main


def test_groups_of_equal_files_are_compared_as_two_results(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ground_truth = synthetic / "annotations/person_keypoints_val2017.json"
    rng = np.random.default_rng(0)
    results = [
        {
            "image_id": person["image_id"],
            "category_id": 1,
            "keypoints": (np.array(person["keypoints"], dtype=float) + rng.normal(0, 3, 51)).tolist(),
            "score": rng.random(),
        }
        for person in json.loads(ground_truth.read_bytes())["annotations"]
        if not person["iscrowd"]
    ]
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "results.json").write_text(json.dumps(results))
    fewer = tmp_path / "fewer.json"
    fewer.write_text(json.dumps(results[::2]))
    report = compare_results(GroundTruth.from_coco(ground_truth), [tmp_path / "test"], [fewer, fewer], resamples=50)
    gain, interval = bootstrap_difference(ground_truth, (results, results[::2]), resamples=50)["AP"]
    assert gain < 0
    assert report["difference"] == pytest.approx(gain)
    assert (report["low"], report["high"]) == pytest.approx((interval.low, interval.high))
    assert len(report["second"]) == 2
    assert report["second"][0] == report["second"][1] == pytest.approx(report["first"][0] + gain)
    sample_weights = bootstrap._sample_weights  # the command has 1000 resamples, which take a second
    monkeypatch.setattr(bootstrap, "_sample_weights", lambda images, _, seed: sample_weights(images, 50, seed))
    main([str(ground_truth), "--first", str(tmp_path / "test"), "--second", str(fewer)])
    assert f"second - first: {gain:+.3f}" in capsys.readouterr().out
