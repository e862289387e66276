"""The smoothing benchmark, on poses that are the ground truth with known noise."""

import numpy as np
import pytest

from posedy.inference.offline_smoothing import smooth_tracks
from posedy.inference.track_table import TrackTable
from posedy.poses import Poses
from posedy.skeleton import COCO17
from tools.lab.benchmarks.__main__ import main
from tools.lab.benchmarks.smoothing import GroundTruthRows, smooth_online
from tools.lab.synthetic.video import SyntheticFrame

SIZE = 100.0


def make_video(frames: int, noise: float) -> tuple[TrackTable, list[SyntheticFrame]]:
    """A person whose first eight keypoints rest and whose others move by 2 pixels per frame, with noise."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0, SIZE, (17, 2))
    video_frames, poses = [], []
    for number in range(frames):
        keypoints = (start + np.where(np.arange(17)[:, None] < 8, 0, [2 * number, 0]))[None]
        box = np.array([[0.0, 0, 60, SIZE]])
        video_frames.append(SyntheticFrame(np.zeros((1, 1, 3), np.uint8), keypoints, box))
        measured = (keypoints + rng.normal(0, noise, keypoints.shape)).astype(np.float32)
        scores, ones = np.full((1, 17), 0.9, np.float32), np.ones(1, np.float32)
        poses.append(Poses(measured, scores, box.astype(np.float32), ones, COCO17, track_ids=np.array([5])))
    return TrackTable.from_poses(poses), video_frames


def test_measures_of_known_noise() -> None:
    table, video_frames = make_video(200, noise=1.0)
    gt = GroundTruthRows.match(table, video_frames)
    raw = gt.measure(table, table.keypoints)
    # two coordinates, and the coefficients 1, -2, 1
    assert raw["jitter"]["rest"] == pytest.approx(np.sqrt(2 * 6) / SIZE, rel=0.1)
    assert raw["jitter"]["moving"] == pytest.approx(raw["error_jitter"]["moving"], rel=1e-3)
    assert raw["error"] == pytest.approx(np.sqrt(np.pi / 2) / SIZE, rel=0.1)
    assert raw["lag"] == raw["shift"] == 0
    online, offline = gt.measure(table, smooth_online(table)), gt.measure(table, smooth_tracks(table).keypoints)
    assert 1 < online["lag"] < 2
    assert abs(offline["lag"]) < 0.01
    for part in ("rest", "moving"):
        assert offline["jitter"][part] <= 0.3 * raw["jitter"][part]
    assert offline["error"] < raw["error"]


def test_too_short_videos_are_rejected() -> None:
    table, video_frames = make_video(2, noise=1.0)
    gt = GroundTruthRows.match(table, video_frames)
    with pytest.raises(ValueError, match="more frames"):
        gt.measure(table, table.keypoints)
    with pytest.raises(ValueError, match="--frames"):
        main(["smoothing", "--frames", "2"])
