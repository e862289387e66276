"""The video benchmark, on poses that are the ground truth with known noise."""

from pathlib import Path

import numpy as np
import pytest
import torch

from posedy.inference.estimator import PoseEstimator
from posedy.models.factory import create_model
from posedy.models.network_file import save_weights
from posedy.poses import Poses
from posedy.skeleton import COCO17
from tools.lab.benchmarks import video as benchmark
from tools.lab.benchmarks.__main__ import main
from tools.lab.benchmarks.video import benchmark_tracking, benchmark_video, format_tracking, format_video
from tools.lab.synthetic.video import generate_video


class GroundTruthEstimator:
    """Returns the ground-truth poses of the people in the boxes, with noise."""

    skeleton = COCO17

    def __init__(self, frames: int, people: int, noise: float) -> None:
        self.frames = list(generate_video(0, frames, people))
        self.noise, self.rng = noise, np.random.default_rng(0)

    def __call__(self, image, boxes, scores) -> Poses:
        frame = next(frame for frame in self.frames if frame.image is image or np.array_equal(frame.image, image))
        centers = (np.asarray(boxes)[:, :2] + np.asarray(boxes)[:, 2:]) / 2
        gt_centers = (frame.boxes[:, :2] + frame.boxes[:, 2:]) / 2
        nearest = (
            np.linalg.norm(centers[:, None] - gt_centers, axis=-1).argmin(axis=1) if len(boxes) else np.zeros(0, int)
        )
        keypoints = frame.keypoints[nearest] + self.rng.normal(0, self.noise, (len(boxes), 17, 2))
        keypoint_scores = np.full(keypoints.shape[:2], 0.9)
        return Poses(keypoints.astype(np.float32), keypoint_scores, np.asarray(boxes), np.asarray(scores), COCO17)


@pytest.mark.slow
def test_ground_truth_has_no_jitter_and_stable_ids() -> None:
    report = benchmark_tracking(GroundTruthEstimator(90, 2, noise=0.0), 90, 2)  # type: ignore[arg-type]
    assert report["jitter_px"]["raw"] < 0.01
    assert report["id_switches"] <= 1
    assert report["error_px"] < 0.01
    assert "id switches" in format_tracking(report)


@pytest.mark.slow
def test_smoothing_halves_jitter_with_a_small_lag() -> None:
    report = benchmark_tracking(GroundTruthEstimator(120, 2, noise=3.0), 120, 2)  # type: ignore[arg-type]
    assert report["jitter_px"]["raw"] == pytest.approx(3 * 2, rel=0.2)  # noise of two coordinates and two frames
    assert report["jitter_px"]["smoothed"] < 0.5 * report["jitter_px"]["raw"]
    assert 0 < report["lag_frames"] < 2


def test_id_switches_ignore_frames_without_an_id() -> None:
    assert benchmark._count_id_switches(np.array([1, 1, 0, 0, 1, 2, 0, 2, 1])) == 2


@pytest.fixture
def small_net(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    save_weights(create_model("mobilenetv2_035-bneck", input_size=(32, 64), skeleton=COCO17), path)
    return path


def test_video_is_timed_against_poses_only(small_net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = benchmark_video(PoseEstimator(small_net, device="cpu", flip=False), 6, 2, rounds=2)
    assert report["of_poses_alone"]["median"] > 0
    assert set(report["stages_ms"]) == {"read", "poses", "draw and write"}
    assert "of the time of pose estimation only" in format_video(report)
    command = ["video", "--checkpoint", str(small_net), "--frames", "4", "--timed-frames", "3"]
    main([*command, "--rounds", "1", "--device", "cpu", "--seed", "0", "2"])
    printed = capsys.readouterr().out
    assert "3 people crossing in 4 frames (seed 0)" in printed
    assert "3 people crossing in 4 frames (seed 2)" in printed
    with pytest.raises(ValueError, match="--rounds"):
        main([*command, "--rounds", "0"])
