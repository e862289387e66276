"""The benchmark of videos: what it measures is known where the poses are the truth, moved in known ways."""

from pathlib import Path

import numpy as np
import pytest
import torch

from posedy.inference.estimator import PoseEstimator
from posedy.inference.poses import Poses
from posedy.models.pretrained import save_weights
from posedy.models.registry import create_model
from posedy.skeleton import COCO17
from tools.lab.benchmarks import video as benchmark
from tools.lab.benchmarks.__main__ import main
from tools.lab.benchmarks.video import benchmark_tracking, benchmark_video, format_tracking, format_video
from tools.lab.synthetic.film import draw_film


class Truthful:
    """Finds the poses of a film's people in their boxes, with noise."""

    skeleton = COCO17

    def __init__(self, frames: int, people: int, noise: float) -> None:
        self.film = list(draw_film(0, frames, people))
        self.noise, self.rng = noise, np.random.default_rng(0)

    def __call__(self, image, boxes, scores) -> Poses:
        frame = next(frame for frame in self.film if frame.image is image or np.array_equal(frame.image, image))
        centers = (np.asarray(boxes)[:, :2] + np.asarray(boxes)[:, 2:]) / 2
        middles = (frame.boxes[:, :2] + frame.boxes[:, 2:]) / 2
        nearest = np.linalg.norm(centers[:, None] - middles, axis=-1).argmin(axis=1) if len(boxes) else np.zeros(0, int)
        keypoints = frame.keypoints[nearest] + self.rng.normal(0, self.noise, (len(boxes), 17, 2))
        sure = np.full(keypoints.shape[:2], 0.9)
        return Poses(keypoints.astype(np.float32), sure, np.asarray(boxes), np.asarray(scores), COCO17)


@pytest.mark.slow
def test_the_truth_has_no_jitter_and_one_id_each() -> None:
    numbers = benchmark_tracking(Truthful(90, 2, noise=0.0), 90, 2)  # type: ignore[arg-type]
    assert numbers["jitter_px"]["raw"] < 0.01
    assert numbers["id_switches"] <= 1
    assert numbers["error_px"] < 0.01
    assert "switches of ids" in format_tracking(numbers)


@pytest.mark.slow
def test_smoothing_halves_jitter_at_a_small_lag() -> None:
    numbers = benchmark_tracking(Truthful(120, 2, noise=3.0), 120, 2)  # type: ignore[arg-type]
    assert numbers["jitter_px"]["raw"] == pytest.approx(3 * 2, rel=0.2)  # two coordinates, two frames of noise
    assert numbers["jitter_px"]["smoothed"] < 0.5 * numbers["jitter_px"]["raw"]
    assert 0 < numbers["lag_frames"] < 2


def test_switches_are_counted_where_somebody_is_seen() -> None:
    assert benchmark._switches(np.array([1, 1, 0, 0, 1, 2, 0, 2, 1])) == 2


@pytest.fixture
def small_net(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    save_weights(create_model("mobilenetv2_035-bneck", input_size=(32, 64), skeleton=COCO17), path)
    return path


def test_times_beside_the_poses_alone(small_net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = benchmark_video(PoseEstimator(small_net, device="cpu", flip=False), 6, 2, rounds=2)
    assert numbers["of_poses_alone"]["median"] > 0
    assert set(numbers["stages_ms"]) == {"read", "poses", "draw and write"}
    assert "of the time of the poses alone" in format_video(numbers)
    command = ["video", "--checkpoint", str(small_net), "--frames", "4", "--timed-frames", "3"]
    main([*command, "--rounds", "1", "--device", "cpu", "--seed", "0", "2"])
    printed = capsys.readouterr().out
    assert "3 people crossing in 4 frames (film 0)" in printed
    assert "3 people crossing in 4 frames (film 2)" in printed
    with pytest.raises(ValueError, match="count"):
        main([*command, "--rounds", "0"])
